//! Google clients on the Google server: objects, tokens, faults, counts.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{ODD_NAMES, bytes, path, retries, text};
use fake_cloud::{BucketServer, Fault, FaultRule, GoogleOptions, Operation};
use futures_util::TryStreamExt;
use object_store::gcp::{GcpCredential, GoogleCloudStorage, GoogleCloudStorageBuilder};
use object_store::{
    Attribute, Attributes, ClientOptions, Error, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode,
    PutOptions, StaticCredentialProvider,
};
use reqwest::Method;

const PART: usize = 5 * 1024 * 1024;

fn server() -> (BucketServer, GoogleOptions) {
    let options = GoogleOptions::new().unwrap();
    (BucketServer::start_google(options.clone()).unwrap(), options)
}

fn builder(server: &BucketServer, options: &GoogleOptions) -> GoogleCloudStorageBuilder {
    GoogleCloudStorageBuilder::new()
        .with_service_account_key(options.key_file(&server.endpoint()))
        .with_bucket_name("bucket")
        .with_client_options(ClientOptions::new().with_allow_http(true).with_timeout(Duration::from_secs(60)))
        .with_retry(retries(0))
}

fn client(server: &BucketServer, options: &GoogleOptions) -> GoogleCloudStorage {
    builder(server, options).build().unwrap()
}

fn bearing(server: &BucketServer, options: &GoogleOptions, token: &str) -> GoogleCloudStorage {
    let credential = GcpCredential { bearer: token.to_owned() };
    let provider = std::sync::Arc::new(StaticCredentialProvider::new(credential));
    builder(server, options).with_credentials(provider).build().unwrap()
}

/// A request that `object_store` does not make, with a good token.
async fn send(
    server: &BucketServer,
    options: &GoogleOptions,
    method: Method,
    key: &str,
    headers: &[(&str, &str)],
    body: &'static str,
) -> reqwest::Response {
    let mut request = reqwest::Client::new()
        .request(method, format!("{}/bucket/{key}", server.endpoint()))
        .bearer_auth(options.tokens.issue("someone@example.com"))
        .body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn objects_come_back_as_they_were_put() {
    let (server, options) = server();
    let client = client(&server, &options);
    for length in [0, 1, 65_536, 3_000_001] {
        let content = bytes(length);
        let put = client.put(&path("a/b"), content.clone().into()).await.unwrap();
        let got = client.get(&path("a/b")).await.unwrap();
        assert_eq!((&got.meta.e_tag, got.meta.size), (&put.e_tag, length as u64));
        assert!(put.version.is_some() && got.meta.version == put.version);
        assert_eq!(got.bytes().await.unwrap(), content);
        assert_eq!(server.object("bucket", "a/b").unwrap().bytes, content);
    }
    let part = client.get_range(&path("a/b"), 1_000_000..2_000_000).await.unwrap();
    assert_eq!(part, bytes(3_000_001).slice(1_000_000..2_000_000));
    let counts = server.requests();
    assert_eq!(
        (counts.put_object(), counts.get_object(), counts.get_object_range(), counts.total),
        (4, 4, 1, 9)
    );
    assert_eq!((counts.body_bytes_received, counts.body_bytes_sent), (3_065_538, 4_065_538));
    assert_eq!(server.last_requests()[0].path, "/bucket/a%2Fb");
    client.delete(&path("a/b")).await.unwrap();
    assert_eq!((server.keys("bucket").len(), server.requests().delete_object()), (0, 1));
}

#[tokio::test]
async fn what_is_missing_is_not_found_and_a_bucket_is_never_created() {
    let (server, options) = server();
    let here = client(&server, &options);
    for outcome in [here.get(&path("nothing")).await.map(|_| ()), here.delete(&path("nothing")).await] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }) && text(&error).contains("NoSuchKey"), "{error:?}");
    }
    let elsewhere = builder(&server, &options).with_bucket_name("missing").build().unwrap();
    for outcome in [
        elsewhere.get(&path("k")).await.map(|_| ()),
        elsewhere.put(&path("k"), bytes(10).into()).await.map(|_| ()),
        elsewhere.delete(&path("k")).await,
        elsewhere.put_multipart(&path("k")).await.map(|_| ()),
        elsewhere.list(None).try_collect::<Vec<_>>().await.map(|_| ()),
    ] {
        let error = outcome.unwrap_err();
        assert!(text(&error).contains("NoSuchBucket"), "{error:?}");
    }
    assert!(server.objects("missing").is_empty());
}

#[tokio::test]
async fn names_are_kept_exactly_as_sent() {
    let (server, options) = server();
    let client = client(&server, &options);
    let mut keys = ODD_NAMES;
    keys.sort_unstable();
    for (i, key) in keys.iter().enumerate() {
        client.put(&path(key), bytes(i + 1).into()).await.unwrap();
        assert_eq!(client.get(&path(key)).await.unwrap().bytes().await.unwrap(), bytes(i + 1), "{key}");
    }
    assert_eq!(server.keys("bucket"), keys);
    let listed: Vec<_> = client.list(None).try_collect().await.unwrap();
    assert_eq!(listed.iter().map(|meta| meta.location.as_ref()).collect::<Vec<_>>(), keys);
}

#[tokio::test]
async fn parts_become_one_object() {
    let (server, options) = server();
    let client = client(&server, &options);
    let content = bytes(PART + 17);
    let attributes = Attributes::from_iter([(Attribute::StorageClass, "COLDLINE")]);
    let mut upload = client.put_multipart_opts(&path("a/k"), attributes.into()).await.unwrap();
    upload.put_part(content.slice(..PART).into()).await.unwrap();
    upload.put_part(content.slice(PART..).into()).await.unwrap();
    assert_eq!(server.unfinished_uploads("bucket")[0].key, "a/k");
    let put = upload.complete().await.unwrap();
    assert!(put.version.is_some());
    let stored = server.object("bucket", "a/k").unwrap();
    assert_eq!((stored.parts, stored.storage_class.as_deref()), (Some(2), Some("COLDLINE")));
    assert!(stored.bytes == content && stored.checksum_crc32c.is_some() && stored.checksum_md5.is_none());
    let mut upload = client.put_multipart(&path("other")).await.unwrap();
    upload.put_part(content.slice(..10).into()).await.unwrap();
    upload.abort().await.unwrap();
    assert!(server.unfinished_uploads("bucket").is_empty());
    let counts = server.requests();
    let parts = (counts.create_multipart_upload(), counts.upload_part(), counts.abort_multipart_upload());
    assert_eq!((parts, counts.complete_multipart_upload()), ((2, 3, 1), 1));
}

#[tokio::test]
async fn what_the_client_says_about_an_object_is_kept() {
    let (server, options) = server();
    let client = client(&server, &options);
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::ContentType, "application/dicom".into());
    attributes.insert(Attribute::StorageClass, "NEARLINE".into());
    attributes.insert(Attribute::Metadata("origin".into()), "scanner".into());
    let put = PutOptions { attributes: attributes.clone(), ..PutOptions::default() };
    client.put_opts(&path("k"), bytes(10).into(), put).await.unwrap();
    let stored = server.object("bucket", "k").unwrap();
    assert_eq!(
        (stored.storage_class.as_deref(), stored.metadata["origin"].as_str()),
        (Some("NEARLINE"), "scanner")
    );
    let got = client.get(&path("k")).await.unwrap();
    assert_eq!(got.attributes.get(&Attribute::Metadata("origin".into())).unwrap().as_ref(), "scanner");
    let again = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let error = client.put_opts(&path("k"), bytes(1).into(), again).await.unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { .. }), "{error:?}");
    let class = Attributes::from_iter([(Attribute::StorageClass, "GLACIER")]);
    let wrong = PutOptions { attributes: class, ..PutOptions::default() };
    let error = client.put_opts(&path("k"), bytes(1).into(), wrong).await.unwrap_err();
    assert!(text(&error).contains("400") && text(&error).contains("InvalidArgument"), "{error:?}");
}

#[tokio::test]
async fn hashes_are_checked_and_told() {
    let (server, options) = server();
    let put =
        async |hash| send(&server, &options, Method::PUT, "k", &[("x-goog-hash", hash)], "123456789").await;
    for bad in
        ["crc32c=4waShA==", "md5=6Afx/PgtEy+bsBjKZzihnw==", "crc32c=4waSgw==,md5=6Afx/PgtEy+bsBjKZzihnw=="]
    {
        let answer = put(bad).await;
        assert_eq!(answer.status(), 400);
        assert!(answer.text().await.unwrap().contains("<Code>BadDigest</Code>"), "{bad}");
    }
    assert!(server.keys("bucket").is_empty());
    let put = put("crc32c=4waSgw==,md5=JfnnlDI7RTiF9RgfG2JNCw==").await;
    assert_eq!(put.status(), 200);
    let whole = send(&server, &options, Method::GET, "k", &[], "").await;
    let part = send(&server, &options, Method::GET, "k", &[("range", "bytes=2-3")], "").await;
    assert_eq!(part.status(), 206);
    let head = send(&server, &options, Method::HEAD, "k", &[], "").await;
    for answer in [put, whole, part, head] {
        let hashes = answer.headers().get_all("x-goog-hash").iter().map(|hash| hash.to_str().unwrap());
        assert_eq!(hashes.collect::<Vec<_>>(), ["crc32c=4waSgw==", "md5=JfnnlDI7RTiF9RgfG2JNCw=="]);
        assert_eq!(answer.headers()["x-goog-stored-content-length"], "9");
        assert_eq!(answer.headers()["x-goog-storage-class"], "STANDARD");
        assert_eq!(answer.headers()["x-goog-metageneration"], "1");
        for name in ["x-goog-generation", "x-guploader-uploadid", "etag"] {
            assert!(answer.headers().contains_key(name), "{name}");
        }
        assert!(!answer.headers().keys().any(|name| name.as_str().starts_with("x-amz-")));
    }
    let beyond = send(&server, &options, Method::GET, "k", &[("range", "bytes=9-10")], "").await;
    assert_eq!(beyond.status(), 416);
}

#[tokio::test]
async fn refusals_are_in_googles_words() {
    let (server, options) = server();
    let fault = Fault::Status { code: 503, s3_code: "SlowDown".to_owned(), retry_after_seconds: Some(7) };
    server.faults().push(FaultRule::new(fault));
    let answer = send(&server, &options, Method::GET, "k", &[], "").await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (503, &"7".parse().unwrap()));
    assert!(answer.headers().contains_key("x-guploader-uploadid"));
    let document = answer.text().await.unwrap();
    assert!(document.starts_with("<?xml") && document.contains("<Code>SlowDown</Code>"), "{document}");
    let missing = send(&server, &options, Method::GET, "a%2Fb", &[], "").await.text().await.unwrap();
    assert!(missing.contains("<Details>/bucket/a%2Fb</Details>"), "{missing}");
    let client = builder(&server, &options).with_retry(retries(5)).build().unwrap();
    let rule = server.faults().push(FaultRule::new(Fault::slow_down()).times(3));
    client.put(&path("k"), bytes(1_000_000).into()).await.unwrap();
    assert_eq!(rule.fired(), 3);
    server.faults().push(FaultRule::new(Fault::CloseAfterResponseBytes(300_000)));
    assert_eq!(client.get(&path("k")).await.unwrap().bytes().await.unwrap(), bytes(1_000_000));
    server.faults().push(FaultRule::new(Fault::ReplaceObject("other".into())).on(Operation::GetObject));
    assert_eq!(client.get(&path("k")).await.unwrap().bytes().await.unwrap(), "other");
}

#[tokio::test]
async fn tokens_are_checked() {
    let (server, mut options) = server();
    let error = bearing(&server, &options, "ya29.unknown").get(&path("k")).await.unwrap_err();
    assert!(matches!(error, Error::Unauthenticated { .. }), "{error:?}");
    assert!(text(&error).contains("AuthenticationRequired"), "{error:?}");
    let anonymous = reqwest::get(format!("{}/bucket/k", server.endpoint())).await.unwrap();
    assert_eq!(anonymous.status(), 403);
    assert!(anonymous.text().await.unwrap().contains("<Code>AccessDenied</Code>"));
    options.tokens.life(Duration::from_millis(300));
    let bearer = bearing(&server, &options, &options.tokens.issue("someone@example.com"));
    bearer.put(&path("k"), "x".into()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert!(matches!(bearer.get(&path("k")).await.unwrap_err(), Error::Unauthenticated { .. }));
    // A key that the server does not know.
    let account = fake_cloud::ServiceAccount::generate().unwrap();
    options.service_accounts = vec![account];
    let stranger = client(&server, &options);
    assert!(matches!(stranger.get(&path("k")).await.unwrap_err(), Error::Unauthenticated { .. }));
    options.without_access = vec![options.service_accounts[0].client_email.clone()];
    let strict = BucketServer::start_google(options.clone()).unwrap();
    let error = client(&strict, &options).get(&path("k")).await.unwrap_err();
    assert!(
        matches!(error, Error::PermissionDenied { .. }) && text(&error).contains("AccessDenied"),
        "{error:?}"
    );
}

#[tokio::test]
async fn large_objects_pass_without_being_collected() {
    let (server, options) = server();
    let client = client(&server, &options);
    let content = bytes(100_000_000);
    let start = Instant::now();
    client.put(&path("k"), content.clone().into()).await.unwrap();
    let put = start.elapsed();
    let start = Instant::now();
    assert!(client.get(&path("k")).await.unwrap().bytes().await.unwrap() == content);
    println!("100 MB: put {put:?}, get {:?}", start.elapsed());
}
