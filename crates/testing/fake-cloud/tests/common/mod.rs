//! A client of the S3 server.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::time::Duration;

use fake_cloud::{BucketServer, Options};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ClientOptions, RetryConfig};

pub const KEY: &str = "key";

pub fn server() -> BucketServer {
    BucketServer::start(Options::default()).unwrap()
}

/// Options of clients that give up after `timeout`.
pub fn client_options(timeout: Duration) -> ClientOptions {
    ClientOptions::new().with_allow_http(true).with_timeout(timeout)
}

/// Never tries again.
pub fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// Settings of a client with the right keys.
pub fn builder(server: &BucketServer) -> AmazonS3Builder {
    AmazonS3Builder::new()
        .with_endpoint(server.endpoint())
        .with_region("us-east-1")
        .with_bucket_name("bucket")
        .with_access_key_id("test-access-key")
        .with_secret_access_key("test-secret-key")
        .with_unsigned_payload(true)
        .with_disable_bulk_delete(true)
        .with_client_options(client_options(Duration::from_secs(20)))
        .with_retry(no_retries())
}

pub fn client(server: &BucketServer) -> AmazonS3 {
    builder(server).build().unwrap()
}

/// Bytes that differ from their neighbours.
pub fn bytes(length: usize) -> bytes::Bytes {
    (0..length).map(|i| ((i * 31) ^ (i >> 8)).to_le_bytes()[0]).collect::<Vec<_>>().into()
}

pub fn path(key: &str) -> Path {
    Path::parse(key).unwrap()
}

/// Returns the error and its causes as one text.
pub fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
