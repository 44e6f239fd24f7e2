//! Google for the conformance suite.
#![allow(unreachable_pub)]

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::LazyLock;

use OrthancGoogleCloudStorage::Google as Plugin;
use conformance::{Cloud, KeyServer, OptionKind, Refusal};
use fake_cloud::{BucketServer, GoogleOptions, ServiceAccount};
use serde_json::{Value, json};

#[path = "key_server.rs"]
pub mod key_server;

/// The Google Cloud.
#[derive(Debug)]
pub struct Google;

/// The account of all servers of this process, and two refused ones: one that the server does not know, and
/// one without permissions.
struct Accounts {
    good: KeyFile,
    unknown: KeyFile,
    powerless: KeyFile,
}

/// A service account, and its key in a file that the system deletes with this process.
struct KeyFile {
    account: ServiceAccount,
    file: File,
}

static ACCOUNTS: LazyLock<io::Result<Accounts>> = LazyLock::new(|| {
    Ok(Accounts {
        good: KeyFile::new(ServiceAccount::shared().map_err(io::Error::other)?)?,
        unknown: KeyFile::generate()?,
        powerless: KeyFile::generate()?,
    })
});

impl KeyFile {
    fn generate() -> io::Result<Self> {
        Self::new(ServiceAccount::generate().map_err(io::Error::other)?)
    }

    fn new(account: ServiceAccount) -> io::Result<Self> {
        // The file has no name, so that no test can leave it behind.
        let mut file = tempfile::tempfile()?;
        file.write_all(account.json("https://oauth2.googleapis.com").to_string().as_bytes())?;
        Ok(Self { account, file })
    }

    /// Returns the path of the file for this process and its children.
    fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    /// Returns a line of the key.
    fn secret(&self) -> String {
        self.account.private_key_pem().lines().nth(5).unwrap_or_default().to_owned()
    }
}

fn accounts() -> io::Result<&'static Accounts> {
    ACCOUNTS.as_ref().map_err(|error| io::Error::other(error.to_string()))
}

/// Returns the options of a server that knows the accounts.
pub fn options() -> io::Result<GoogleOptions> {
    let mut options = GoogleOptions::new().map_err(io::Error::other)?;
    let powerless = accounts()?.powerless.account.clone();
    options.without_access.push(powerless.client_email.clone());
    options.service_accounts.push(powerless);
    Ok(options)
}

impl Cloud for Google {
    type Provider = Plugin;

    const PLUGIN: &'static str = env!("CARGO_PKG_NAME");
    const NAME: &'static str = "Google Cloud Storage";
    const DESCRIPTION: &'static str = "Stores the Orthanc storage area in Google Cloud";
    const SECTION: &'static str = "GoogleCloudStorage";

    const BUCKET: &'static str = "bucket";
    const URL: &'static str = "gs://bucket";
    const BUCKET_OPTION: &'static str = "BucketName";

    const NO_SUCH_OBJECT: &'static str = "NoSuchKey";
    const NO_SUCH_BUCKET: &'static str = "NoSuchBucket";

    const LARGEST_DELETION: u64 = 100;

    const STORE_FEATURE: &'static str = "gcp-base";
    const FOREIGN_PACKAGES: &'static [&'static str] =
        &["rusoto", "aws-config", "aws-sdk", "aws-smithy", "azure", "tonic", "prost", "protobuf", "grpc"];

    fn error_code(of_s3: &str) -> &str {
        match of_s3 {
            "SignatureDoesNotMatch" => "AuthenticationRequired",
            same => same,
        }
    }

    const HAS_ARCHIVES: bool = false;

    fn server() -> io::Result<BucketServer> {
        BucketServer::start_google(options()?)
    }

    fn key_server() -> anyhow::Result<Box<dyn KeyServer>> {
        Ok(Box::new(key_server::Kms::start()?))
    }

    fn section(endpoint: &str) -> Value {
        let file = accounts().map(|accounts| accounts.good.path()).unwrap_or_default();
        json!({
            "BucketName": Self::BUCKET,
            "ServiceAccountFile": file,
            // HTTPS is the default, so the tests use the short form.
            "Endpoint": endpoint.strip_prefix("https://").unwrap_or(endpoint),
            // No transfers in parts: see `Cloud::section`.
            "TransferPoolSize": 1,
        })
    }

    fn with_every_secret() -> io::Result<(BucketServer, Value)> {
        let server = Self::server()?;
        let section = Self::section(&server.endpoint());
        Ok((server, section))
    }

    fn secrets() -> Vec<String> {
        let key = accounts().map(|accounts| accounts.good.secret()).unwrap_or_default();
        // Prefixes of the header with a token and of the token.
        vec![key, "Bearer ".to_owned(), "eyJ".to_owned()]
    }

    fn refusals(_endpoint: &str) -> Vec<Refusal> {
        let refused = |key: &KeyFile, answer: &str| Refusal {
            changes: json!({"ServiceAccountFile": key.path()}),
            answer: format!("HTTP {answer}"),
            secret: Some(key.secret()),
        };
        let Ok(accounts) = accounts() else { return Vec::new() };
        vec![refused(&accounts.unknown, "401 AuthenticationRequired")]
    }

    fn options() -> Vec<(&'static str, OptionKind)> {
        let classes = &[
            "STANDARD",
            "NEARLINE",
            "COLDLINE",
            "ARCHIVE",
            "MULTI_REGIONAL",
            "REGIONAL",
            "DURABLE_REDUCED_AVAILABILITY",
        ];
        vec![
            ("ServiceAccountFile", OptionKind::Text),
            ("Endpoint", OptionKind::Text),
            ("StorageClass", OptionKind::Choice(classes)),
        ]
    }

    fn every_option() -> Value {
        json!({"StorageClass": "STANDARD"})
    }

    const SAMPLE_VARIANTS: &'static [&'static [&'static str]] =
        &[&["StorageEncryption", "RootPath"], &["ServiceAccountFile"], &[]];

    fn example_values(endpoint: &str) -> Vec<(&'static str, String)> {
        let at_server = format!(r#""{}", "Endpoint": "{endpoint}""#, Google::BUCKET);
        let mut values = vec![(r#""my-hospital-images""#, at_server)];
        values.extend(
            Self::credentials_in_environment()
                .pop()
                .map(|(_, file)| ("/etc/orthanc/service-account.key", file)),
        );
        values
    }

    fn credentials_in_environment() -> Vec<(&'static str, String)> {
        let file = accounts().map(|accounts| accounts.good.path()).unwrap_or_default();
        vec![("GOOGLE_APPLICATION_CREDENTIALS", file.display().to_string())]
    }

    fn is_request_id(text: &str) -> bool {
        text.len() > 16
            && text.bytes().all(|letter| letter.is_ascii_alphanumeric() || b"-_".contains(&letter))
    }
}
