//! Objects over HTTP, as S3 keeps them.

mod common;

use std::time::Duration;

use common::{Path, builder, bytes, client, path, server, text};
use fake_cloud::{BucketServer, Options};
use futures_util::TryStreamExt;
use object_store::aws::{Checksum, S3ConditionalPut};
use object_store::{
    Attribute, Attributes, Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    TagSet,
};

#[tokio::test]
async fn an_object_comes_back_as_it_was_put() {
    let server = server();
    let client = client(&server);
    for length in [0, 1, 65_536, 3_000_001] {
        let content = bytes(length);
        let put = client.put(&path("a/b"), content.clone().into()).await.unwrap();
        let got = client.get(&path("a/b")).await.unwrap();
        assert_eq!(got.meta.e_tag, put.e_tag);
        assert_eq!(got.meta.size, length as u64);
        assert_eq!(got.bytes().await.unwrap(), content);
        assert_eq!(server.object("bucket", "a/b").unwrap().bytes, content);
    }
    let counts = server.requests();
    assert_eq!((counts.put_object(), counts.get_object(), counts.total), (4, 4, 8));
    assert_eq!(counts.body_bytes_received, 3_065_538);
    assert_eq!(counts.body_bytes_sent, 3_065_538);
}

#[tokio::test]
async fn a_missing_object_is_not_found_and_deleting_it_succeeds() {
    let server = server();
    let client = client(&server);
    let error = client.get(&path("nothing")).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    assert!(text(&error).contains("NoSuchKey"), "{error:?}");
    assert!(matches!(client.head(&path("nothing")).await.unwrap_err(), Error::NotFound { .. }));
    client.delete(&path("nothing")).await.unwrap();
    assert_eq!(server.last_requests().last().unwrap().status, Some(204));
}

#[tokio::test]
async fn a_missing_bucket_is_never_created() {
    let server = server();
    let client = builder(&server).with_bucket_name("missing").build().unwrap();
    let put = client.put(&path("k"), bytes(10).into()).await.unwrap_err();
    assert!(text(&put).contains("NoSuchBucket"), "{put:?}");
    let get = client.get(&path("k")).await.unwrap_err();
    assert!(text(&get).contains("NoSuchBucket"), "{get:?}");
    assert!(client.put_multipart(&path("k")).await.is_err());
    assert!(client.list(None).try_collect::<Vec<_>>().await.is_err());
    assert!(client.delete(&path("k")).await.is_err());
    assert!(server.objects("missing").is_empty());
    assert!(server.last_requests().iter().all(|request| request.status == Some(404)));
}

#[tokio::test]
async fn keys_are_kept_exactly_as_sent() {
    let server = server();
    let client = client(&server);
    let keys: Vec<_> = common::ODD_NAMES.into_iter().chain(["x.dcm"]).collect();
    for (i, key) in keys.iter().enumerate() {
        client.put(&path(key), bytes(i + 1).into()).await.unwrap();
    }
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    assert_eq!(server.keys("bucket"), sorted);
    for (i, key) in keys.iter().enumerate() {
        assert_eq!(client.get(&path(key)).await.unwrap().bytes().await.unwrap(), bytes(i + 1), "{key}");
    }
    let listed: Vec<_> = client.list(None).try_collect().await.unwrap();
    assert_eq!(listed.iter().map(|meta| meta.location.as_ref()).collect::<Vec<_>>(), sorted);
    for key in keys {
        client.delete(&path(key)).await.unwrap();
    }
    assert!(server.keys("bucket").is_empty());
}

#[tokio::test]
async fn a_range_is_partial_content_and_beyond_the_end_it_is_416() {
    let server = server();
    let client = client(&server);
    server.insert("bucket", "k", bytes(1000));
    server.insert("bucket", "empty", "");
    let range = |range| GetOptions { range: Some(range), ..GetOptions::default() };
    for (asked, expected) in [
        (GetRange::Bounded(10..20), 10..20),
        (GetRange::Bounded(990..2000), 990..1000),
        (GetRange::Offset(999), 999..1000),
        (GetRange::Suffix(7), 993..1000),
        (GetRange::Suffix(5000), 0..1000),
    ] {
        let got = client.get_opts(&path("k"), range(asked)).await.unwrap();
        assert_eq!(got.range, expected.start as u64..expected.end as u64);
        assert_eq!(got.meta.size, 1000);
        assert_eq!(got.bytes().await.unwrap(), bytes(1000).slice(expected));
    }
    assert!(server.last_requests().iter().all(|request| request.status == Some(206)));
    assert_eq!(server.requests().get_object_range(), 5);
    for (key, asked) in
        [("k", GetRange::Offset(1000)), ("empty", GetRange::Bounded(0..1)), ("empty", GetRange::Suffix(1))]
    {
        let error = client.get_opts(&path(key), range(asked)).await.unwrap_err();
        assert!(text(&error).contains("InvalidRange"), "{error:?}");
        assert_eq!(server.last_requests().last().unwrap().status, Some(416));
    }
}

#[tokio::test]
async fn the_wrong_secret_key_region_or_access_key_is_refused_each_in_its_way() {
    let server = server();
    server.insert("bucket", "k", "x");
    for (client, status, code) in [
        (builder(&server).with_secret_access_key("wrong"), 403, "SignatureDoesNotMatch"),
        (builder(&server).with_access_key_id("unknown"), 403, "InvalidAccessKeyId"),
        (builder(&server).with_region("eu-west-1"), 400, "AuthorizationHeaderMalformed"),
        (builder(&server).with_token("unasked"), 400, "InvalidToken"),
        (builder(&server).with_skip_signature(true), 403, "AccessDenied"),
    ] {
        let client = client.build().unwrap();
        let error = client.get(&path("k")).await.unwrap_err();
        assert!(text(&error).contains(code), "{error:?}");
        assert!(text(&error).contains("<Message>") && text(&error).contains("<RequestId>"), "{error:?}");
        assert_eq!(server.last_requests().last().unwrap().status, Some(status), "{code}");
        assert!(client.put(&path("new"), "x".into()).await.is_err());
    }
    assert_eq!(server.keys("bucket"), ["k"]);
}

#[tokio::test]
async fn a_session_token_must_be_the_one_of_the_server() {
    let options = Options { session_token: Some("token/+=".to_owned()), ..Options::default() };
    let server = BucketServer::start(options).unwrap();
    builder(&server).with_token("token/+=").build().unwrap().put(&path("k"), "x".into()).await.unwrap();
    for client in [builder(&server), builder(&server).with_token("other")] {
        let error = client.build().unwrap().get(&path("k")).await.unwrap_err();
        assert!(text(&error).contains("InvalidToken"), "{error:?}");
    }
}

#[tokio::test]
async fn payloads_may_be_signed_and_may_carry_a_checksum() {
    let server = server();
    let content = bytes(300_000);
    let signed = builder(&server).with_unsigned_payload(false).build().unwrap();
    signed.put(&path("signed"), content.clone().into()).await.unwrap();
    for algorithm in [Checksum::SHA256, Checksum::CRC64NVME] {
        let client = builder(&server).with_checksum_algorithm(algorithm).build().unwrap();
        client.put(&path("summed"), content.clone().into()).await.unwrap();
        assert_eq!(server.object("bucket", "summed").unwrap().bytes, content);
    }
    assert_eq!(server.object("bucket", "signed").unwrap().bytes, content);
}

#[tokio::test]
async fn tags_class_encryption_type_and_metadata_are_kept() {
    let server = server();
    let client = builder(&server)
        .with_config("aws_server_side_encryption".parse().unwrap(), "aws:kms")
        .with_config("aws_sse_kms_key_id".parse().unwrap(), "key-1")
        .build()
        .unwrap();
    let mut tags = TagSet::default();
    tags.push("project", "a b&c");
    tags.push("ü", "");
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::ContentType, "application/dicom".into());
    attributes.insert(Attribute::StorageClass, "STANDARD_IA".into());
    attributes.insert(Attribute::Metadata("name".into()), "value".into());
    let options = PutOptions { tags, attributes, ..PutOptions::default() };
    client.put_opts(&path("k"), "x".into(), options).await.unwrap();
    let object = server.object("bucket", "k").unwrap();
    assert_eq!(object.tags.get("project").unwrap(), "a b&c");
    assert_eq!(object.tags.get("ü").unwrap(), "");
    assert_eq!(object.content_type.as_deref(), Some("application/dicom"));
    assert_eq!(object.storage_class.as_deref(), Some("STANDARD_IA"));
    assert_eq!(object.server_side_encryption.as_deref(), Some("aws:kms"));
    assert_eq!(object.kms_key_id.as_deref(), Some("key-1"));
    assert_eq!(object.metadata.get("name").unwrap(), "value");
    let got = client.get(&path("k")).await.unwrap();
    assert_eq!(got.attributes.get(&Attribute::ContentType).unwrap().as_ref(), "application/dicom");
    assert_eq!(got.attributes.get(&Attribute::Metadata("name".into())).unwrap().as_ref(), "value");
}

#[tokio::test]
async fn every_storage_class_of_s3_is_taken_and_no_other() {
    let server = server();
    let client = client(&server);
    let put = async |class: &'static str| {
        let mut attributes = Attributes::new();
        attributes.insert(Attribute::StorageClass, class.into());
        client.put_opts(&path(class), "x".into(), PutOptions { attributes, ..PutOptions::default() }).await
    };
    for class in [
        "STANDARD",
        "REDUCED_REDUNDANCY",
        "STANDARD_IA",
        "ONEZONE_IA",
        "INTELLIGENT_TIERING",
        "GLACIER",
        "DEEP_ARCHIVE",
        "OUTPOSTS",
        "GLACIER_IR",
        "SNOW",
        "EXPRESS_ONEZONE",
    ] {
        put(class).await.unwrap();
        assert_eq!(server.object("bucket", class).unwrap().storage_class.as_deref(), Some(class));
    }
    let error = put("COLD").await.unwrap_err();
    assert!(text(&error).contains("InvalidStorageClass"), "{error:?}");
    let archived = client.get(&path("GLACIER")).await.unwrap_err();
    assert!(text(&archived).contains("InvalidObjectState"), "{archived:?}");
}

#[tokio::test]
async fn a_conditional_put_does_not_replace() {
    let server = server();
    let client = builder(&server).with_conditional_put(S3ConditionalPut::ETagMatch).build().unwrap();
    let create = || PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let put = client.put_opts(&path("k"), "first".into(), create()).await.unwrap();
    let error = client.put_opts(&path("k"), "second".into(), create()).await.unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error:?}");
    let update = PutOptions { mode: PutMode::Update(put.into()), ..PutOptions::default() };
    client.put_opts(&path("k"), "third".into(), update.clone()).await.unwrap();
    let error = client.put_opts(&path("k"), "fourth".into(), update).await.unwrap_err();
    assert!(matches!(error, Error::Precondition { .. }), "{error:?}");
    assert_eq!(server.object("bucket", "k").unwrap().bytes, "third");
}

#[tokio::test]
async fn conditions_on_reads_hold() {
    let server = server();
    let client = client(&server);
    let etag = client.put(&path("k"), "x".into()).await.unwrap().e_tag;
    let other = Some("\"other\"".to_owned());
    let get = async |options| client.get_opts(&path("k"), options).await;
    get(GetOptions { if_match: etag.clone(), ..GetOptions::default() }).await.unwrap();
    get(GetOptions { if_none_match: other.clone(), ..GetOptions::default() }).await.unwrap();
    let error = get(GetOptions { if_match: other, ..GetOptions::default() }).await.unwrap_err();
    assert!(matches!(error, Error::Precondition { .. }), "{error:?}");
    let error = get(GetOptions { if_none_match: etag, ..GetOptions::default() }).await.unwrap_err();
    assert!(matches!(error, Error::NotModified { .. }), "{error:?}");
}

#[tokio::test]
async fn listings_have_folders_and_come_in_pages() {
    let server = server();
    let client = client(&server);
    for i in 0..2500 {
        server.insert("bucket", &format!("many/{i:04}"), "x");
    }
    for key in ["a", "a/b", "a/c/d", "z"] {
        server.insert("bucket", key, "xyz");
    }
    let all: Vec<_> = client.list(Some(&path("many"))).try_collect().await.unwrap();
    assert_eq!(all.len(), 2500);
    assert_eq!(server.requests().list_objects_v2(), 3);
    let top = client.list_with_delimiter(None).await.unwrap();
    let names = |paths: Vec<Path>| paths.into_iter().map(String::from).collect::<Vec<_>>();
    assert_eq!(names(top.common_prefixes), ["a", "many"]);
    assert_eq!(names(top.objects.iter().map(|meta| meta.location.clone()).collect()), ["a", "z"]);
    assert_eq!(top.objects[0].size, 3);
    let below = client.list_with_delimiter(Some(&path("a"))).await.unwrap();
    assert_eq!(names(below.common_prefixes), ["a/c"]);
}

#[tokio::test]
async fn bulk_deletes_and_copies_work() {
    let server = server();
    let client = builder(&server).with_disable_bulk_delete(false).build().unwrap();
    server.insert("bucket", "k #1", bytes(9));
    client.copy(&path("k #1"), &path("k %2")).await.unwrap();
    assert_eq!(server.object("bucket", "k %2").unwrap().bytes, bytes(9));
    client.delete(&path("k #1")).await.unwrap();
    assert_eq!(server.requests().delete_objects(), 1);
    assert_eq!(server.keys("bucket"), ["k %2"]);
}

#[tokio::test]
async fn buckets_can_be_host_names() {
    let server = server();
    server.insert("bucket", "folder/k", "x");
    // The name of the bucket's host need not resolve where a proxy does it, and the server plays the proxy.
    let client = builder(&server)
        .with_virtual_hosted_style_request(true)
        .with_endpoint(format!("http://bucket.localhost:{}", server.port()))
        .with_proxy_url(server.endpoint())
        .build()
        .unwrap();
    assert_eq!(client.get(&path("folder/k")).await.unwrap().bytes().await.unwrap(), "x");
    client.put(&path("new key"), "y".into()).await.unwrap();
    assert_eq!(server.keys("bucket"), ["folder/k", "new key"]);
    assert_eq!(server.requests().put_object(), 1);
    assert!(!server.last_requests()[0].path.starts_with("/bucket"));
}

#[tokio::test]
async fn signed_addresses_need_no_headers() {
    use object_store::signer::Signer;
    let server = server();
    server.insert("bucket", "k", "content");
    let url =
        client(&server).signed_url(http::Method::GET, &path("k"), Duration::from_secs(60)).await.unwrap();
    let get = async |url: &str| reqwest::get(url.to_owned()).await.unwrap();
    let answer = get(url.as_str()).await;
    assert!(answer.headers().contains_key("x-amz-request-id"));
    assert!(answer.headers().contains_key("last-modified"));
    assert_eq!(answer.text().await.unwrap(), "content");
    let forged = get(&url.as_str().replace("/k?", "/other?")).await;
    assert_eq!(forged.status(), 403);
    assert!(forged.text().await.unwrap().contains("SignatureDoesNotMatch"));
}
