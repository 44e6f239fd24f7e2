//! What requests are authorised with: the key of a service account, or Google's application default credentials.
//!
//! A service account signs its own tokens (AIP-4111), so that no token service is asked. Application default credentials
//! (AIP-4110) are the file that `GOOGLE_APPLICATION_CREDENTIALS` names, the one that `gcloud` has written, or those of
//! the metadata server.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cloud_http::{CloudHttp, no_retries};
use object_store::Result;
use object_store::gcp::{GcpCredentialProvider, GoogleCloudStorageBuilder, ServiceAccountKey};
use serde_json::Value;
use storage_plugin::NamedCredentials;
use zeroize::Zeroizing;

const ENVIRONMENT: &str = "GOOGLE_APPLICATION_CREDENTIALS";
/// The file of `gcloud`, in its folder.
const GCLOUD_FILE: &str = "application_default_credentials.json";
/// The longest time for a token of Google's token service.
const TOKEN_SERVICE: Duration = Duration::from_secs(30);
/// The metadata server answers at once, or is not there. Less than the check at start takes.
const METADATA_SERVER: Duration = Duration::from_secs(6);

/// Where tokens come from.
pub(crate) enum Credentials {
    /// A service account's key: the JSON file's content.
    ServiceAccount(Zeroizing<String>),
    /// What `gcloud auth application-default login` wrote.
    User(PathBuf),
    /// The machine's own service account.
    MetadataServer,
}

/// A file of credentials that is of no use.
#[derive(Debug, thiserror::Error)]
#[error("{source_of_path} names {path:?}, {problem}")]
pub(crate) struct FileError {
    source_of_path: &'static str,
    path: PathBuf,
    problem: String,
}

impl Credentials {
    /// Those of `service_account_file`, or else the application default ones.
    pub(crate) fn find(service_account_file: Option<&Path>) -> Result<Self, FileError> {
        if let Some(path) = service_account_file {
            let found = Self::read(path, "option GoogleCloudStorage.ServiceAccountFile")?;
            return match found {
                Self::ServiceAccount(_) => Ok(found),
                _ => Err(FileError {
                    source_of_path: "option GoogleCloudStorage.ServiceAccountFile",
                    path: path.to_owned(),
                    problem: format!(
                        "which is no service account's: to use a user's credentials, name it in {ENVIRONMENT}"
                    ),
                }),
            };
        }
        if let Some(path) = std::env::var_os(ENVIRONMENT).filter(|path| !path.is_empty()) {
            return Self::read(Path::new(&path), "the environment variable GOOGLE_APPLICATION_CREDENTIALS");
        }
        match gcloud_file().filter(|path| path.exists()) {
            Some(path) => Self::read(&path, "gcloud's configuration"),
            None => Ok(Self::MetadataServer),
        }
    }

    fn read(path: &Path, source_of_path: &'static str) -> Result<Self, FileError> {
        let refused = |problem: String| FileError { source_of_path, path: path.to_owned(), problem };
        let content = std::fs::read_to_string(path)
            .map(Zeroizing::new)
            .map_err(|error| refused(format!("which cannot be read: {error}")))?;
        let json: Value = serde_json::from_str(&content).map_err(|_| {
            refused("which is no JSON: download the key of the service account anew".to_owned())
        })?;
        let text = |name: &str| json.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let required: &[&str] = match text("type") {
            Some("service_account") => &["client_email", "private_key_id", "private_key"],
            Some("authorized_user") => &["client_id", "client_secret", "refresh_token"],
            _ => {
                return Err(refused(
                    "whose \"type\" is not known here: service_account or authorized_user is needed"
                        .to_owned(),
                ));
            }
        };
        if let Some(missing) = required.iter().find(|name| text(name).is_none()) {
            return Err(refused(format!("which has no {missing:?}: download or make it anew")));
        }
        let Some(key) = text("private_key") else { return Ok(Self::User(path.to_owned())) };
        ServiceAccountKey::from_pem(key.as_bytes()).map_err(|_| {
            refused("whose \"private_key\" is no RSA key in PEM format: download it anew".to_owned())
        })?;
        Ok(Self::ServiceAccount(content))
    }

    /// A provider of tokens.
    pub(crate) fn provider(&self, http: &CloudHttp) -> Result<GcpCredentialProvider> {
        let builder = GoogleCloudStorageBuilder::new()
            // It is asked for, and of no importance to tokens.
            .with_bucket_name("bucket")
            .with_retry(no_retries())
            .with_http_connector(http.clone());
        let builder = match self {
            Self::ServiceAccount(key) => builder.with_service_account_key(key.as_str()),
            // Its reading fails where it has vanished since.
            Self::User(path) => builder.with_application_credentials(path.to_string_lossy()),
            Self::MetadataServer => builder,
        };
        let provider = Arc::clone(builder.build()?.credentials());
        Ok(match self {
            Self::ServiceAccount(_) => provider,
            Self::User(_) => Arc::new(NamedCredentials::new(
                provider,
                "Google's token service",
                "run gcloud auth application-default login again",
                TOKEN_SERVICE,
            )),
            Self::MetadataServer => Arc::new(NamedCredentials::new(
                provider,
                "the metadata server",
                "name the key of a service account in ServiceAccountFile, or give this machine a service account",
                METADATA_SERVER,
            )),
        })
    }
}

/// The file of `gcloud auth application-default login`.
fn gcloud_file() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let configuration = folder("CLOUDSDK_CONFIG").or_else(|| {
        if cfg!(windows) {
            folder("APPDATA").map(|data| data.join("gcloud"))
        } else {
            folder("HOME").map(|home| home.join(".config/gcloud"))
        }
    });
    configuration.map(|folder| folder.join(GCLOUD_FILE))
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServiceAccount(_) => f.write_str("ServiceAccount(…)"),
            Self::User(path) => f.debug_tuple("User").field(path).finish(),
            Self::MetadataServer => f.write_str("MetadataServer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn problem(content: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.json");
        fs::write(&path, content).unwrap();
        let error = Credentials::find(Some(&path)).unwrap_err().to_string();
        error.replace(&format!("{path:?}"), "FILE")
    }

    #[test]
    fn a_file_that_is_of_no_use_is_told_with_what_is_wrong_and_without_its_content() {
        for (content, expected) in [
            ("hunter2", "which is no JSON: download the key of the service account anew"),
            ("{}", "whose \"type\" is not known here: service_account or authorized_user is needed"),
            (
                r#"{"type": "external_account"}"#,
                "whose \"type\" is not known here: service_account or authorized_user is needed",
            ),
            (
                r#"{"type": "service_account", "client_email": "a@b", "private_key_id": "1"}"#,
                "which has no \"private_key\": download or make it anew",
            ),
            (
                r#"{"type": "service_account", "client_email": "a@b", "private_key_id": "1", "private_key": "hunter2"}"#,
                "whose \"private_key\" is no RSA key in PEM format: download it anew",
            ),
            (
                r#"{"type": "authorized_user", "client_id": "1", "client_secret": "hunter2", "refresh_token": "r"}"#,
                "which is no service account's: to use a user's credentials, name it in GOOGLE_APPLICATION_CREDENTIALS",
            ),
        ] {
            let expected = format!("option GoogleCloudStorage.ServiceAccountFile names FILE, {expected}");
            assert_eq!(problem(content), expected);
        }
    }

    #[test]
    fn a_missing_file_is_told_as_such() {
        let error = Credentials::find(Some(Path::new("/nowhere/key.json"))).unwrap_err().to_string();
        assert_eq!(
            error,
            "option GoogleCloudStorage.ServiceAccountFile names \"/nowhere/key.json\", which cannot be read: No such \
             file or directory (os error 2)"
        );
    }
}
