//! A client for the tests.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::time::Duration;

use fake_cloud::{BucketServer, Options};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

pub use object_store::path::Path;

/// Names with letters that mean something in a URL.
pub const ODD_NAMES: [&str; 13] = [
    "a",
    "a/b",
    "with blank",
    "#",
    "100%",
    "100%25",
    "~",
    "+",
    "a+b c",
    "Ünïcödé/病院",
    "a=b&c",
    "[x]*?",
    "'\"",
];

/// A server with default settings.
pub fn server() -> BucketServer {
    BucketServer::start(Options::default()).unwrap()
}

/// Settings for a client with the right keys, without retries.
pub fn builder(server: &BucketServer) -> AmazonS3Builder {
    AmazonS3Builder::new()
        .with_endpoint(server.endpoint())
        .with_region("us-east-1")
        .with_bucket_name("bucket")
        .with_access_key_id("test-access-key")
        .with_secret_access_key("test-secret-key")
        .with_unsigned_payload(true)
        .with_disable_bulk_delete(true)
        .with_client_options(ClientOptions::new().with_allow_http(true).with_timeout(Duration::from_secs(20)))
        .with_retry(retries(0))
}

/// A client that tries once.
pub fn client(server: &BucketServer) -> AmazonS3 {
    builder(server).build().unwrap()
}

/// A client that tries again so often, soon.
pub fn patient_client(server: &BucketServer, times: usize) -> AmazonS3 {
    builder(server).with_retry(retries(times)).build().unwrap()
}

pub fn retries(max_retries: usize) -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(10),
        base: 2.0,
    };
    RetryConfig { backoff, max_retries, retry_timeout: Duration::from_secs(20) }
}

/// Bytes that differ from their neighbours.
pub fn bytes(length: usize) -> bytes::Bytes {
    (0..length).map(|i| ((i * 31) ^ (i >> 8)).to_le_bytes()[0]).collect::<Vec<_>>().into()
}

pub fn path(key: &str) -> Path {
    Path::parse(key).unwrap()
}

/// The whole chain of causes, as one text.
pub fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
