//! S3 for the conformance suite.
#![allow(unreachable_pub)]

use std::io;

use OrthancAwsS3Storage::S3 as Plugin;
use conformance::{Cloud, KeyServer, OptionKind, Refusal};
use fake_cloud::{BucketServer, Options};
use serde_json::{Value, json};

#[path = "key_server.rs"]
pub mod key_server;

/// Amazon S3.
#[derive(Debug)]
pub struct S3;

impl Cloud for S3 {
    type Provider = Plugin;

    const WHOLE_SUITE: bool = true;

    const PLUGIN: &'static str = env!("CARGO_PKG_NAME");
    const NAME: &'static str = "AWS S3 Storage";
    const DESCRIPTION: &'static str = "Stores the Orthanc storage area in AWS S3";
    const SECTION: &'static str = "AwsS3Storage";

    const BUCKET: &'static str = "bucket";
    const URL: &'static str = "s3://bucket";
    const BUCKET_OPTION: &'static str = "BucketName";
    const HTTP_LOG_OPTION: &'static str = "EnableAwsSdkLogs";

    const NO_SUCH_OBJECT: &'static str = "NoSuchKey";
    const NO_SUCH_BUCKET: &'static str = "NoSuchBucket";

    const CHECKSUM_REQUESTS: u64 = 1;
    const LARGEST_DELETION: u64 = 1000;

    const STORE_FEATURE: &'static str = "aws-base";
    const FOREIGN_PACKAGES: &'static [&'static str] = &["rusoto", "azure", "google-cloud", "gcp"];

    fn server() -> io::Result<BucketServer> {
        BucketServer::start(Options::default())
    }

    fn key_server() -> anyhow::Result<Box<dyn KeyServer>> {
        Ok(Box::new(key_server::Kms::start()?))
    }

    const KEYS_HAVE_VERSIONS: bool = false;

    fn section(endpoint: &str) -> Value {
        section(&Options::default(), endpoint)
    }

    fn with_every_secret() -> io::Result<(BucketServer, Value)> {
        let options = secretive();
        let server = BucketServer::start(options.clone())?;
        let mut section = section(&options, &server.endpoint());
        section["SessionToken"] = json!(options.session_token);
        Ok((server, section))
    }

    fn secrets() -> Vec<String> {
        let plain = Options::default();
        let secretive = secretive();
        let keys = [plain.access_key, plain.secret_key, secretive.secret_key];
        let signatures = ["Signature=", "AWS4-HMAC"].map(str::to_owned);
        keys.into_iter().chain(secretive.session_token).chain(signatures).collect()
    }

    fn refusals(_endpoint: &str) -> Vec<Refusal> {
        let refused = |option: &str, wrong: &str, answer: &str| Refusal {
            changes: json!({ option: wrong }),
            answer: format!("HTTP {answer}"),
            secret: (option != "Region").then(|| wrong.to_owned()),
        };
        vec![
            refused("SecretKey", "another/secret+key", "403 SignatureDoesNotMatch"),
            refused("AccessKey", "unknown-access-key", "403 InvalidAccessKeyId"),
            refused("SessionToken", "another-session-token//=", "400 InvalidToken"),
            refused("Region", "eu-west-1", "400 AuthorizationHeaderMalformed"),
        ]
    }

    fn options() -> Vec<(&'static str, OptionKind)> {
        let classes = &[
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
        ];
        vec![
            ("Region", OptionKind::Text),
            ("Endpoint", OptionKind::Text),
            ("KmsKeyId", OptionKind::Text),
            ("AccessKey", OptionKind::Secret),
            ("SecretKey", OptionKind::Secret),
            ("SessionToken", OptionKind::Secret),
            ("VirtualAddressing", OptionKind::Flag),
            ("UseTransferManager", OptionKind::Flag),
            ("EnableLegacyBackslashNames", OptionKind::Flag),
            ("StorageClass", OptionKind::Choice(classes)),
            ("Checksum", OptionKind::Choice(&["auto", "crc64nvme", "sha256", "md5", "none"])),
            ("ServerSideEncryption", OptionKind::Choice(&["AES256", "aws:kms", "aws:kms:dsse"])),
            ("EnableHttpLogs", OptionKind::Flag),
        ]
    }

    fn every_option() -> Value {
        json!({
            "EnableHttpLogs": false, "UseTransferManager": true, "StorageClass": "STANDARD", "Checksum": "sha256",
            "Tags": {"a": "b"}, "EnableLegacyBackslashNames": true, "ServerSideEncryption": "aws:kms", "KmsKeyId": "key",
        })
    }

    const SAMPLE_VARIANTS: &'static [&'static [&'static str]] =
        &[&["Endpoint", "StorageEncryption", "RootPath"], &["AccessKey", "Endpoint", "RootPath"], &[]];

    fn example_values(endpoint: &str) -> Vec<(&'static str, String)> {
        let options = Options::default();
        let at_server = format!(r#""us-east-1", "Endpoint": "{endpoint}", "VirtualAddressing": false"#);
        vec![
            ("my-hospital-images", S3::BUCKET.to_owned()),
            // Samples for another server have an endpoint.
            ("https://minio.example.org:9000", endpoint.to_owned()),
            ("http://bucket:9000", endpoint.to_owned()),
            (r#""eu-central-1""#, at_server),
            ("my-access-key", options.access_key),
            ("my-secret-key", options.secret_key),
        ]
    }

    fn credentials_in_environment() -> Vec<(&'static str, String)> {
        let options = Options::default();
        vec![("AWS_ACCESS_KEY_ID", options.access_key), ("AWS_SECRET_ACCESS_KEY", options.secret_key)]
    }
}

/// Options of a server that requires temporary credentials, with letters that a URL encodes.
fn secretive() -> Options {
    Options {
        secret_key: "secret/key+0123456789".to_owned(),
        session_token: Some("session-token//=".to_owned()),
        ..Options::default()
    }
}

fn section(options: &Options, endpoint: &str) -> Value {
    json!({
        "BucketName": S3::BUCKET,
        "Region": options.region,
        "AccessKey": options.access_key,
        "SecretKey": options.secret_key,
        // HTTPS is the default, so the tests use the short form.
        "Endpoint": endpoint.strip_prefix("https://").unwrap_or(endpoint),
        "VirtualAddressing": false,
        // No transfers in parts: see `Cloud::section`.
        "TransferPoolSize": 1,
    })
}
