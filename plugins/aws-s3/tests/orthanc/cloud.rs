//! All that is S3's own in these tests. With another file in its place, the others are the tests of another cloud.

use std::io;

use end_to_end::workspace::Plugin;
use serde_json::{Value, json};
use test_bucket::Options;
pub(crate) use test_bucket::{BucketServer, Fault, FaultRule, RequestCounts};

/// The plugin's library.
pub(crate) const PLUGIN: Plugin = Plugin::AwsS3;
/// How the plugin's log lines begin.
pub(crate) const NAME: &str = "AWS S3 Storage";
/// Its section of Orthanc's configuration.
pub(crate) const SECTION: &str = "AwsS3Storage";
/// The bucket that the server has.
pub(crate) const BUCKET: &str = "bucket";
/// How the plugin's log lines name the bucket.
pub(crate) const URL: &str = "s3://bucket";
/// The option with the bucket's name.
pub(crate) const BUCKET_OPTION: &str = "BucketName";
/// The option that lets the HTTP client log.
pub(crate) const HTTP_LOG_OPTION: &str = "EnableAwsSdkLogs";

/// The requests behind Orthanc's storage callbacks.
pub(crate) mod request {
    use test_bucket::Operation;

    pub(crate) const CREATE: Operation = Operation::PutObject;
    pub(crate) const READ: Operation = Operation::GetObject;
    pub(crate) const READ_RANGE: Operation = Operation::GetObjectRange;
    #[allow(dead_code, reason = "for the tests of hybrid storage")]
    pub(crate) const HEAD: Operation = Operation::HeadObject;
    pub(crate) const REMOVE: Operation = Operation::DeleteObject;
}

/// A server with an empty bucket.
pub(crate) fn server() -> io::Result<BucketServer> {
    BucketServer::start(Options::default())
}

/// The section for the bucket of [`server`], behind `endpoint`.
pub(crate) fn section(endpoint: &str) -> Value {
    let options = Options::default();
    json!({
        "BucketName": BUCKET,
        "Region": options.region,
        "AccessKey": options.access_key,
        "SecretKey": options.secret_key,
        "Endpoint": endpoint,
        "VirtualAddressing": false,
        // A busy machine makes connections slow, and requests are counted: transfers in parts have tests of their own.
        "TransferPoolSize": 1,
    })
}

/// Texts of [`section`] that must not be in a log.
pub(crate) fn secrets() -> Vec<String> {
    let options = Options::default();
    vec![options.secret_key, options.access_key]
}

/// Changes of the section that the server answers with a refusal, and what the plugin says then.
pub(crate) fn refused_credentials() -> [(Value, &'static str); 2] {
    [
        (json!({"SecretKey": "wrong-secret-key"}), "HTTP 403 SignatureDoesNotMatch"),
        (json!({"AccessKey": "unknown-access-key"}), "HTTP 403 InvalidAccessKeyId"),
    ]
}
