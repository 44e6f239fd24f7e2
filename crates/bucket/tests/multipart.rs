//! Large objects over several connections, against an S3 server whose connections can be slowed down.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use bucket::{Bucket, BucketOptions, Payload, ReadRange, RetryPolicy, TransferOptions};
use bytes::Bytes;
use cloud_http::{CloudHttp, HttpOptions};
use fake_cloud::{BucketServer, Fault, FaultRule, Operation, Options};
use object_store::PutOptions;
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};

const MEGABYTE: usize = 1024 * 1024;
/// Bytes a second: a connection that is in the way.
const SLOW: u64 = 20 * 1024 * 1024;
const BUCKET: &str = "bucket";

fn storage(server: &BucketServer) -> Bucket {
    let options = Options::default();
    let store = AmazonS3Builder::new()
        .with_bucket_name(BUCKET)
        .with_region(options.region)
        .with_access_key_id(options.access_key)
        .with_secret_access_key(options.secret_key)
        .with_endpoint(server.endpoint())
        .with_unsigned_payload(true)
        .with_checksum_algorithm(Checksum::CRC64NVME)
        .with_http_connector(CloudHttp::new(&HttpOptions::default()).unwrap())
        .build()
        .unwrap();
    let store = Arc::new(store);
    Bucket::new(BucketOptions {
        store: Arc::<AmazonS3>::clone(&store),
        multipart: store,
        url: format!("s3://{BUCKET}"),
        put_options: PutOptions::default(),
        retry: RetryPolicy { max_retries: 1, ..RetryPolicy::default() },
        transfer: TransferOptions::default(),
        largest_put: u64::MAX,
        create: None,
    })
}

fn content(megabytes: usize) -> Bytes {
    // A prime modulus: no two parts are alike.
    (0..megabytes * MEGABYTE).map(|i| u8::try_from(i % 251).unwrap()).collect::<Vec<_>>().into()
}

async fn read(storage: &Bucket, name: &str) -> Vec<u8> {
    let mut download = storage.get(name, ReadRange::Whole).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = download.next().await.unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

#[tokio::test]
async fn objects_that_are_not_large_are_one_request_each() {
    let server = BucketServer::start(Options::default()).unwrap();
    let (storage, content) = (storage(&server), content(4));
    for name in ["a", "b", "c"] {
        storage.put(name, Payload::Owned(content.clone())).await.unwrap();
        assert!(read(&storage, name).await == content);
    }
    let requests = server.requests();
    assert_eq!((requests.of(Operation::PutObject), requests.of(Operation::GetObject), requests.total), (3, 3, 6));
}

#[tokio::test]
async fn after_a_slow_upload_the_next_one_goes_in_parts() {
    let server = BucketServer::start(Options::default()).unwrap();
    server.bandwidth_per_connection(Some(SLOW));
    let (storage, content) = (storage(&server), content(23));
    for name in ["first", "second"] {
        storage.put(name, Payload::Lent(content.clone())).await.unwrap();
        assert!(server.object(BUCKET, name).unwrap().bytes == content, "{name}");
    }
    let requests = server.requests();
    assert_eq!(requests.of(Operation::PutObject), 1);
    assert_eq!(requests.of(Operation::CreateMultipartUpload), 1);
    assert_eq!(requests.of(Operation::UploadPart), 5);
    assert_eq!(requests.of(Operation::CompleteMultipartUpload), 1);
    assert!(server.unfinished_uploads(BUCKET).is_empty());
}

#[tokio::test]
async fn a_slow_download_goes_on_in_parts_and_is_whole() {
    let server = BucketServer::start(Options::default()).unwrap();
    let (storage, content) = (storage(&server), content(40));
    server.insert(BUCKET, "large", content.clone());
    server.bandwidth_per_connection(Some(SLOW));
    assert!(read(&storage, "large").await == content);
    let requests = server.requests();
    assert_eq!(requests.of(Operation::GetObject), 1, "it begins with one plain request");
    assert!(requests.of(Operation::GetObjectRange) > 1, "{requests:?}");
    assert!(server.connections_accepted() > 1);
}

#[tokio::test]
async fn a_part_that_breaks_is_read_again() {
    let server = BucketServer::start(Options::default()).unwrap();
    let (storage, content) = (storage(&server), content(40));
    server.insert(BUCKET, "large", content.clone());
    server.bandwidth_per_connection(Some(SLOW));
    let rule = FaultRule::new(Fault::ResetAfterResponseBytes(100_000)).on(Operation::GetObjectRange);
    let broken = server.faults().push(rule);
    assert!(read(&storage, "large").await == content);
    assert_eq!(broken.fired(), 1);
}

#[tokio::test]
async fn what_is_left_of_a_failed_upload_in_parts_is_cleared_away() {
    let server = BucketServer::start(Options::default()).unwrap();
    server.bandwidth_per_connection(Some(SLOW));
    let (storage, content) = (storage(&server), content(20));
    storage.put("first", Payload::Owned(content.clone())).await.unwrap();
    let denied = FaultRule::new(Fault::status(403, "AccessDenied")).on(Operation::UploadPart).skip(2);
    server.faults().push(denied);
    let error = storage.put("second", Payload::Owned(content)).await.unwrap_err();
    assert_eq!(error.cause, bucket::Cause::Denied);
    assert!(server.object(BUCKET, "second").is_none());
    assert!(server.unfinished_uploads(BUCKET).is_empty());
    assert_eq!(server.requests().of(Operation::AbortMultipartUpload), 1);
}
