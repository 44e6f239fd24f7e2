//! Credentials: the key of a service account, or Google's application default credentials.
//!
//! A service account signs its own tokens (AIP-4111), so that no token service is needed. Application default
//! credentials (AIP-4110) come from the file that `GOOGLE_APPLICATION_CREDENTIALS` names, the file that `gcloud` writes,
//! or the metadata server.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cloud_http::{Clock, CloudHttp, no_retries};
use object_store::Result;
use object_store::gcp::{GcpCredential, GcpCredentialProvider, GoogleCloudStorageBuilder};
use serde_json::Value;
use storage_plugin::{
    CloudMachine, ConfigError, NamedCredentials, Reloading, Section, TokenService, describe_file,
    explain_unreadable,
};
use zeroize::Zeroizing;

use crate::service_account::{self, ServiceAccount};

const OPTION: &str = "ServiceAccountFile";
const VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
/// The environment variables with the name of a service and of a job of Cloud Run, whose firmware is not Google's.
const CLOUD_RUN: [&str; 2] = ["K_SERVICE", "CLOUD_RUN_JOB"];
/// The credentials file in gcloud's folder.
const GCLOUD_FILE: &str = "application_default_credentials.json";
const TOKEN_SERVICE: TokenService = TokenService {
    name: "Google's token service",
    advice: "run gcloud auth application-default login again",
    limit: Duration::from_secs(30),
    may_exist: || true,
};
/// The metadata server answers at once or does not exist.
const METADATA_SERVER: TokenService = TokenService {
    name: "the metadata server",
    advice: "set ServiceAccountFile, or attach a service account to this machine",
    // Shorter than the limit of the check at start.
    limit: Duration::from_secs(6),
    may_exist: || {
        CloudMachine::Google.is_this() != Some(false)
            || CLOUD_RUN.iter().any(|name| std::env::var_os(name).is_some())
    },
};
/// Both services.
#[cfg(test)]
pub(crate) const SERVICES: [TokenService; 2] = [TOKEN_SERVICE, METADATA_SERVER];

/// The source of tokens.
pub(crate) enum Credentials {
    /// The content of a service account's JSON key file.
    ServiceAccount(Zeroizing<String>),
    /// A user, in the file that `gcloud auth application-default login` writes.
    User {
        file: PathBuf,
        /// The project whose quotas the user's requests count for, which some services require.
        quota_project: Option<String>,
    },
    /// The machine's own service account.
    MetadataServer,
}

/// The option `ServiceAccountFile` of a section.
#[derive(Debug, Clone)]
pub(crate) struct ServiceAccountFile {
    /// The option's name in messages.
    option: String,
    path: PathBuf,
}

impl ServiceAccountFile {
    /// Reads the option; `None` if it is missing or empty.
    pub(crate) fn read(section: &mut Section<'_>) -> Result<Option<Self>, ConfigError> {
        let path = section.non_empty(OPTION)?.map(PathBuf::from);
        Ok(path.map(|path| Self { option: format!("`{}.{OPTION}`", section.name()), path }))
    }
}

/// A credentials file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {} {problem}", describe_file(path))]
pub(crate) struct FileError {
    /// The option or variable that names the file.
    setting: String,
    path: PathBuf,
    problem: String,
}

impl Credentials {
    /// Returns the credentials in the `file` of the configuration, or else the application default credentials.
    pub(crate) fn find(file: Option<&ServiceAccountFile>) -> Result<Self, FileError> {
        if let Some(ServiceAccountFile { option, path }) = file {
            let found = Self::read(path, option)?;
            return match found {
                Self::ServiceAccount(_) => Ok(found),
                _ => Err(FileError {
                    setting: option.clone(),
                    path: path.clone(),
                    problem: format!(
                        "must contain a service account key; for user credentials, set {VARIABLE}"
                    ),
                }),
            };
        }
        if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
            return Self::read(Path::new(&path), "the environment variable GOOGLE_APPLICATION_CREDENTIALS");
        }
        match gcloud_file().filter(|path| path.exists()) {
            Some(path) => Self::read(&path, "gcloud's configuration"),
            None => Ok(Self::MetadataServer),
        }
    }

    /// Returns where these credentials, which were found with `file`, come from.
    pub(crate) fn source(&self, file: Option<&ServiceAccountFile>) -> String {
        match (self, file, std::env::var_os(VARIABLE)) {
            (Self::MetadataServer, ..) => "the metadata server".to_owned(),
            (_, Some(file), _) => format!("{OPTION} {}", file.path.display()),
            (Self::User { file, .. }, ..) => format!("the user credentials in {}", file.display()),
            (Self::ServiceAccount(_), None, path) => {
                format!("{VARIABLE} {}", Path::new(&path.unwrap_or_default()).display())
            }
        }
    }

    /// Returns the project whose quotas the requests count for, if it is not that of the account.
    pub(crate) fn quota_project(&self) -> Option<&str> {
        match self {
            Self::User { quota_project, .. } => quota_project.as_deref(),
            Self::ServiceAccount(_) | Self::MetadataServer => None,
        }
    }

    fn read(path: &Path, setting: &str) -> Result<Self, FileError> {
        let refused =
            |problem: String| FileError { setting: setting.to_owned(), path: path.to_owned(), problem };
        let content = std::fs::read_to_string(path)
            .map(Zeroizing::new)
            .map_err(|error| refused(format!("cannot be read: {}", explain_unreadable(path, &error))))?;
        let json: Value = serde_json::from_str(&content)
            .map_err(|_| refused("is not valid JSON; download the key file again".to_owned()))?;
        let string = |name: &str| json.get(name).and_then(Value::as_str).filter(|value| !value.is_empty());
        let required: &[&str] = match string("type") {
            Some("service_account") => &["client_email", "private_key_id", "private_key"],
            Some("authorized_user") => &["client_id", "client_secret", "refresh_token"],
            _ => {
                let problem = "must have the \"type\" \"service_account\" or \"authorized_user\"";
                return Err(refused(problem.to_owned()));
            }
        };
        if let Some(missing) = required.iter().find(|name| string(name).is_none()) {
            return Err(refused(format!("has no {missing:?}; create or download the file again")));
        }
        let Some(key) = string("private_key") else {
            let quota_project = string("quota_project_id").map(str::to_owned);
            return Ok(Self::User { file: path.to_owned(), quota_project });
        };
        service_account::parse(key).ok_or_else(|| {
            refused("has no RSA key in PEM format as \"private_key\"; download the key file again".to_owned())
        })?;
        Ok(Self::ServiceAccount(content))
    }

    /// Returns a provider of tokens, and a client that renews them: the credentials are found again.
    pub(crate) fn provider(
        &self,
        file: Option<ServiceAccountFile>,
        http: CloudHttp,
    ) -> Result<(GcpCredentialProvider, CloudHttp)> {
        let clock = Arc::<Clock>::default();
        let client = match self {
            Self::ServiceAccount(_) => http.clone().with_clock(Arc::clone(&clock)),
            Self::User { .. } | Self::MetadataServer => http.clone(),
        };
        let reloading = Arc::new(Reloading::new(self.tokens(&http, &clock)?, move || {
            let found = Self::find(file.as_ref()).map_err(|error| error.to_string())?;
            // The source is not quoted, because it can contain a part of the file.
            found.tokens(&http, &clock).map_err(|_| "the credentials are not valid".to_owned())
        }));
        let renewable = Arc::<Reloading<GcpCredential>>::clone(&reloading);
        let provider: GcpCredentialProvider = match self {
            Self::ServiceAccount(_) => reloading,
            Self::User { .. } => Arc::new(NamedCredentials::new(reloading, TOKEN_SERVICE)),
            Self::MetadataServer => Arc::new(NamedCredentials::new(reloading, METADATA_SERVER)),
        };
        Ok((provider, client.with_renewal(renewable, &[])))
    }

    fn tokens(&self, http: &CloudHttp, clock: &Arc<Clock>) -> Result<GcpCredentialProvider> {
        let unspecific = GoogleCloudStorageBuilder::new()
            // The builder requires a bucket; tokens do not depend on it.
            .with_bucket_name("bucket")
            .with_retry(no_retries())
            .with_http_connector(http.for_tokens());
        let builder = match self {
            Self::ServiceAccount(file) => {
                let account = ServiceAccount::read(file, Arc::clone(clock));
                return account.map(|account| Arc::new(account) as GcpCredentialProvider).ok_or_else(|| {
                    object_store::Error::Generic { store: "credentials", source: "no key".into() }
                });
            }
            // `build` fails if the file has been removed since.
            Self::User { file, .. } => unspecific.with_application_credentials(file.to_string_lossy()),
            Self::MetadataServer => unspecific,
        };
        Ok(Arc::clone(builder.build()?.credentials()))
    }
}

/// Returns the file that `gcloud auth application-default login` writes.
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
            Self::User { file, .. } => f.debug_tuple("User").field(file).finish(),
            Self::MetadataServer => f.write_str("MetadataServer"),
        }
    }
}
