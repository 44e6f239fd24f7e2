//! Large objects over several connections, against an S3 server whose connections can be slowed down.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use bucket::{Bucket, BucketOptions, Cause, Payload, ReadRange, RetryPolicy, TransferOptions};
use bytes::Bytes;
use cloud_http::{CloudHttp, HttpOptions};
use fake_cloud::{BucketServer, Fault, FaultRule, Operation, Options};
use object_store::PutOptions;
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};

const MEGABYTE: usize = 1024 * 1024;
/// The rate of a slow connection, in bytes per second.
const SLOW: u64 = 20 * 1024 * 1024;
const BUCKET: &str = "bucket";

fn bucket(server: &BucketServer) -> Bucket {
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
    // With a prime modulus, no two parts are the same.
    (0..megabytes * MEGABYTE).map(|i| u8::try_from(i % 251).unwrap()).collect::<Vec<_>>().into()
}

async fn read(bucket: &Bucket, name: &str) -> Vec<u8> {
    let mut download = bucket.get(name, ReadRange::Whole).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = download.next().await.unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

#[tokio::test]
async fn small_objects_take_one_request_each() {
    let server = BucketServer::start(Options::default()).unwrap();
    let bucket = bucket(&server);
    let content = content(4);
    for name in ["a", "b", "c"] {
        bucket.put(name, Payload::Owned(content.clone())).await.unwrap();
        assert!(read(&bucket, name).await == content);
    }
    let requests = server.requests();
    assert_eq!((requests.put_object(), requests.get_object(), requests.total), (3, 3, 6));
}

#[tokio::test]
async fn upload_after_a_slow_one_is_multipart() {
    let server = BucketServer::start(Options::default()).unwrap();
    server.bandwidth_per_connection(Some(SLOW));
    let bucket = bucket(&server);
    let content = content(23);
    for name in ["first", "second"] {
        bucket.put(name, Payload::Lent(content.clone())).await.unwrap();
        assert!(server.object(BUCKET, name).unwrap().bytes == content, "{name}");
    }
    let requests = server.requests();
    assert_eq!(requests.put_object(), 1);
    assert_eq!(requests.of(Operation::CreateMultipartUpload), 1);
    assert_eq!(requests.of(Operation::UploadPart), 5);
    assert_eq!(requests.of(Operation::CompleteMultipartUpload), 1);
    assert!(server.unfinished_uploads(BUCKET).is_empty());
}

#[tokio::test]
async fn slow_download_continues_in_ranges() {
    let server = BucketServer::start(Options::default()).unwrap();
    let bucket = bucket(&server);
    let content = content(40);
    server.insert(BUCKET, "large", content.clone());
    server.bandwidth_per_connection(Some(SLOW));
    assert!(read(&bucket, "large").await == content);
    let requests = server.requests();
    assert_eq!(requests.get_object(), 1, "the download begins with one plain request");
    assert!(requests.get_object_range() > 1, "{requests:?}");
    assert!(server.connections_accepted() > 1);
}

#[tokio::test]
async fn broken_range_is_read_again() {
    let server = BucketServer::start(Options::default()).unwrap();
    let bucket = bucket(&server);
    let content = content(40);
    server.insert(BUCKET, "large", content.clone());
    server.bandwidth_per_connection(Some(SLOW));
    let rule = FaultRule::new(Fault::ResetAfterResponseBytes(100_000)).on(Operation::GetObjectRange);
    let broken = server.faults().push(rule);
    assert!(read(&bucket, "large").await == content);
    assert_eq!(broken.fired(), 1);
}

#[tokio::test]
async fn failed_multipart_upload_is_aborted() {
    let server = BucketServer::start(Options::default()).unwrap();
    server.bandwidth_per_connection(Some(SLOW));
    let bucket = bucket(&server);
    let content = content(20);
    bucket.put("first", Payload::Owned(content.clone())).await.unwrap();
    let denied = FaultRule::new(Fault::status(403, "AccessDenied")).on(Operation::UploadPart).skip(2);
    server.faults().push(denied);
    let error = bucket.put("second", Payload::Owned(content)).await.unwrap_err();
    assert_eq!(error.cause, Cause::Denied);
    assert!(server.object(BUCKET, "second").is_none());
    assert!(server.unfinished_uploads(BUCKET).is_empty());
    assert_eq!(server.requests().of(Operation::AbortMultipartUpload), 1);
}
