//! Multipart uploads.

mod common;

use common::{bytes, client, path, server, text};
use object_store::multipart::{MultipartStore, PartId};
use object_store::{MultipartUpload, ObjectStoreExt};

const PART: usize = 5 * 1024 * 1024;

#[tokio::test]
async fn parts_become_one_object_in_the_order_listed() {
    let server = server();
    let client = client(&server);
    let content = bytes(2 * PART + 17);
    let id = client.create_multipart(&path("k")).await.unwrap();
    let mut parts: [Option<PartId>; 3] = [const { None }; 3];
    for i in [2, 0, 1] {
        let part = content.slice(i * PART..content.len().min((i + 1) * PART));
        parts[i] = Some(client.put_part(&path("k"), &id, i, part.into()).await.unwrap());
        assert!(server.keys("bucket").is_empty());
    }
    let unfinished = server.unfinished_uploads("bucket");
    assert_eq!(unfinished[0].key, "k");
    assert_eq!(unfinished[0].parts.values().collect::<Vec<_>>(), [&PART, &PART, &17]);
    let parts = parts.map(Option::unwrap).to_vec();
    let put = client.complete_multipart(&path("k"), &id, parts).await.unwrap();
    let object = server.object("bucket", "k").unwrap();
    assert!(put.e_tag.unwrap().trim_matches('"').ends_with("-3"));
    assert_eq!((object.parts, &object.bytes), (Some(3), &content));
    assert!(server.unfinished_uploads("bucket").is_empty());
    let got = client.get_range(&path("k"), PART as u64 - 5..2 * PART as u64 + 5).await.unwrap();
    assert_eq!(got, content.slice(PART - 5..2 * PART + 5));
    assert_eq!(client.get(&path("k")).await.unwrap().bytes().await.unwrap(), content);
    let counts = server.requests();
    assert_eq!(
        (counts.create_multipart_upload(), counts.upload_part(), counts.complete_multipart_upload()),
        (1, 3, 1)
    );
}

#[tokio::test]
async fn a_small_part_that_is_not_the_last_is_refused_at_the_end() {
    let server = server();
    let client = client(&server);
    let mut upload = client.put_multipart(&path("k")).await.unwrap();
    upload.put_part(bytes(PART - 1).into()).await.unwrap();
    upload.put_part(bytes(1).into()).await.unwrap();
    let error = upload.complete().await.unwrap_err();
    assert!(text(&error).contains("EntityTooSmall"), "{error:?}");
    assert!(server.keys("bucket").is_empty());
}

#[tokio::test]
async fn a_part_that_was_never_uploaded_or_has_another_etag_is_refused() {
    let server = server();
    let client = client(&server);
    let id = client.create_multipart(&path("k")).await.unwrap();
    client.put_part(&path("k"), &id, 0, bytes(10).into()).await.unwrap();
    let forged = PartId { content_id: "\"0123\"".to_owned() };
    let error = client.complete_multipart(&path("k"), &id, vec![forged]).await.unwrap_err();
    assert!(text(&error).contains("InvalidPart"), "{error:?}");
}

#[tokio::test]
async fn an_aborted_upload_is_gone() {
    let server = server();
    let client = client(&server);
    let id = client.create_multipart(&path("k")).await.unwrap();
    client.put_part(&path("k"), &id, 0, bytes(10).into()).await.unwrap();
    client.abort_multipart(&path("k"), &id).await.unwrap();
    assert!(server.unfinished_uploads("bucket").is_empty());
    assert_eq!(server.requests().abort_multipart_upload(), 1);
    let error = client.put_part(&path("k"), &id, 1, bytes(10).into()).await.unwrap_err();
    assert!(text(&error).contains("NoSuchUpload"), "{error:?}");
}
