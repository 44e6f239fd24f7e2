//! Azure for the conformance suite.
#![allow(unreachable_pub)]

use std::io;
use std::time::{Duration, SystemTime};

use OrthancAzureBlobStorage::Azure as Plugin;
use conformance::{Cloud, KeyServer, OptionKind, Refusal};
use fake_cloud::{AzureOptions, BucketServer, Sas};
use serde_json::{Value, json};

#[path = "key_server.rs"]
pub mod key_server;

/// Microsoft Azure.
#[derive(Debug)]
pub struct Azure;

impl Cloud for Azure {
    type Provider = Plugin;

    const CHECKSUM_IS_MD5: bool = true;
    const PLUGIN: &'static str = env!("CARGO_PKG_NAME");
    const NAME: &'static str = "Azure Blob Storage";
    const DESCRIPTION: &'static str = "Stores the Orthanc storage area in Azure Blob";
    const SECTION: &'static str = "AzureBlobStorage";

    const BUCKET: &'static str = "bucket";
    const URL: &'static str = "azure://bucket";
    const BUCKET_OPTION: &'static str = "ContainerName";

    const NO_SUCH_OBJECT: &'static str = "BlobNotFound";
    const NO_SUCH_UPLOAD: &'static str = "InvalidBlockList";
    const NO_SUCH_BUCKET: &'static str = "ContainerNotFound";
    const REQUESTS_BEFORE_PARTS: u64 = 0;
    const READS_TO_CONFIRM_PARTS: u64 = 1;
    const PARTS_CAN_BE_DROPPED: bool = false;

    const LARGEST_DELETION: u64 = 256;

    const STORE_FEATURE: &'static str = "azure-base";
    const FOREIGN_PACKAGES: &'static [&'static str] =
        &["rusoto", "aws-config", "aws-sdk", "aws-smithy", "google-cloud", "gcp", "tonic", "prost"];

    const MISSING_PERMISSION: &'static str = "AuthorizationPermissionMismatch";

    fn error_code(of_s3: &str) -> &str {
        match of_s3 {
            "SlowDown" => "ServerBusy",
            "AccessDenied" => "AuthorizationFailure",
            "SignatureDoesNotMatch" => "AuthenticationFailed",
            same => same,
        }
    }

    /// Azure replaces a backslash by a slash.
    fn stored_name(name: &str) -> String {
        name.replace('\\', "/")
    }

    fn server() -> io::Result<BucketServer> {
        BucketServer::start_azure(&AzureOptions::default())
    }

    fn key_server() -> anyhow::Result<Box<dyn KeyServer>> {
        Ok(Box::new(key_server::Vault::start()?))
    }

    fn section(endpoint: &str) -> Value {
        section(&AzureOptions::default().connection_string(endpoint))
    }

    fn with_every_secret() -> io::Result<(BucketServer, Value)> {
        let server = Self::server()?;
        let section = section(&signed_connection_string(&server.endpoint()));
        Ok((server, section))
    }

    fn secrets() -> Vec<String> {
        let mut secrets = vec![AzureOptions::default().key];
        // Prefixes of signatures in URLs and headers.
        let signatures = ["sig=", "SharedKey ", "SharedAccessSignature="];
        secrets.extend(signatures.map(str::to_owned));
        secrets
    }

    fn refusals(endpoint: &str) -> Vec<Refusal> {
        let options = AzureOptions::default();
        let wrong_key = "d3Jvbmctc2VjcmV0LWtleQ==";
        let wrong = AzureOptions { key: wrong_key.to_owned(), ..options.clone() };
        let unsigned = wrong.account_sas(&Sas::until(later()));
        let secret_of = |signature: &str| signature.split("sig=").nth(1).map(str::to_owned);
        let refused = |connection_string: String, secret: Option<String>| Refusal {
            changes: json!({ "ConnectionString": connection_string }),
            answer: "HTTP 403".to_owned(),
            secret,
        };
        let expired = options.account_sas(&Sas::until(SystemTime::now() - Duration::from_secs(3600)));
        vec![
            refused(wrong.connection_string(endpoint), Some(wrong_key.to_owned())),
            refused(options.sas_connection_string(endpoint, &unsigned), secret_of(&unsigned)),
            refused(options.sas_connection_string(endpoint, &expired), secret_of(&expired)),
        ]
    }

    fn options() -> Vec<(&'static str, OptionKind)> {
        vec![
            ("ConnectionString", OptionKind::Secret),
            ("AccountName", OptionKind::Text),
            ("AccountKey", OptionKind::Secret),
            ("BlobEndpoint", OptionKind::Text),
            ("CreateContainerIfNotExists", OptionKind::Flag),
            ("AccessTier", OptionKind::Choice(&["Hot", "Cool", "Cold", "Archive", "Premium"])),
        ]
    }

    fn every_option() -> Value {
        json!({
            "AccountName": "", "AccountKey": "", "BlobEndpoint": "", "CreateContainerIfNotExists": true,
            "AccessTier": "Hot",
        })
    }

    const SAMPLE_VARIANTS: &'static [&'static [&'static str]] =
        &[&["AccountName", "StorageEncryption", "RootPath"], &["ConnectionString"], &["AccountName"]];

    fn example_values(endpoint: &str) -> Vec<(&'static str, String)> {
        let options = AzureOptions::default();
        // The emulator has no identities.
        let account = format!(
            r#""AccountName": "{}", "AccountKey": "{}", "BlobEndpoint": "{}""#,
            options.account,
            options.key,
            options.blob_endpoint(endpoint)
        );
        vec![
            (
                "DefaultEndpointsProtocol=https;AccountName=myhospital;AccountKey=my-key;EndpointSuffix=core.windows.net",
                options.connection_string(endpoint),
            ),
            (r#""AccountName": "myhospital""#, account),
            ("my-hospital-images", Azure::BUCKET.to_owned()),
        ]
    }

    fn is_request_id(text: &str) -> bool {
        // A UUID.
        text.len() == 36 && text.bytes().all(|letter| letter.is_ascii_hexdigit() || letter == b'-')
    }
}

/// Returns the expiry time of valid signatures.
pub fn later() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3600)
}

fn signed_connection_string(endpoint: &str) -> String {
    let options = AzureOptions::default();
    options.sas_connection_string(endpoint, &options.account_sas(&Sas::until(later())))
}

/// Returns the section with a connection string.
pub fn section(connection_string: &str) -> Value {
    json!({
        "ConnectionString": connection_string,
        "ContainerName": Azure::BUCKET,
        // In most tests, a missing container must be an error.
        "CreateContainerIfNotExists": false,
        // No transfers in parts: see `Cloud::section`.
        "TransferPoolSize": 1,
    })
}
