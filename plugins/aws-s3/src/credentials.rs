//! The credentials that the AWS command line would use.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use cloud_http::CredentialError;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use storage_plugin::{CloudMachine, Reloading};
use tokio::sync::Mutex;

use crate::smithy_http::{Metadata, ReqwestClient};

/// How long before their expiry credentials are renewed.
const RENEWAL: Duration = Duration::from_secs(5 * 60);

/// The codes with which S3 refuses credentials that are not valid any more. It has no status of its own for them.
pub(crate) const REFUSALS: &[&str] =
    &["ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId"];

/// AWS' default credential chain: environment, shared configuration with profiles and SSO, web identity, EKS Pod
/// Identity, ECS, EC2 instance metadata v2.
pub(crate) struct CredentialChain {
    region: String,
    client: reqwest::Client,
    /// The lock also ensures that one task renews the credentials while the others wait.
    current: Mutex<Option<Current>>,
    /// Whether this chain or one before it has returned credentials.
    has_answered: Arc<AtomicBool>,
}

struct Current {
    credential: Arc<AwsCredential>,
    expiry: Option<SystemTime>,
}

impl CredentialChain {
    /// Returns the chain, which is loaded again when the server refuses its credentials. Reads files and sends requests
    /// only when credentials are needed.
    pub(crate) fn reloading(region: &str, client: reqwest::Client) -> Arc<Reloading<AwsCredential>> {
        let region = region.to_owned();
        let has_answered = Arc::<AtomicBool>::default();
        let new = move || {
            Arc::new(Self {
                region: region.clone(),
                client: client.clone(),
                current: Mutex::default(),
                has_answered: Arc::clone(&has_answered),
            })
        };
        Arc::new(Reloading::new(new(), move || Ok(new())))
    }

    /// Returns where the chain begins to look: files and services are asked only when credentials are needed.
    pub(crate) fn source() -> String {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = || {
            let home = std::env::home_dir().unwrap_or_default();
            [".aws/credentials", ".aws/config"].iter().any(|file| home.join(file).exists())
        };
        let files = ["AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"];
        if variable("AWS_ACCESS_KEY_ID").is_some() && variable("AWS_SECRET_ACCESS_KEY").is_some() {
            return "AWS_ACCESS_KEY_ID in the environment".to_owned();
        }
        let first = if files.iter().any(|name| variable(name).is_some()) || home() {
            let profile = variable("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
            format!("the shared AWS files, profile {profile:?}")
        } else if variable("AWS_WEB_IDENTITY_TOKEN_FILE").is_some() {
            "the web identity in AWS_WEB_IDENTITY_TOKEN_FILE".to_owned()
        } else if ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"]
            .iter()
            .any(|name| variable(name).is_some())
        {
            "the container's credential service".to_owned()
        } else if variable("AWS_EC2_METADATA_DISABLED")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
        {
            return "AWS credential chain, without EC2 instance metadata (AWS_EC2_METADATA_DISABLED)"
                .to_owned();
        } else {
            "EC2 instance metadata".to_owned()
        };
        format!("AWS credential chain, beginning with {first}")
    }

    async fn renew(&self) -> Result<Current, CredentialError> {
        // The SDK keeps the content of the shared files, so a new chain is needed to see that they have changed.
        let client = ReqwestClient::new(self.client.clone());
        let loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(client.clone())
            .region(Region::new(self.region.clone()));
        let Some(provider) = Box::pin(loader.load()).await.credentials_provider() else {
            return Err(permanent("the AWS SDK has no credential provider"));
        };
        let credentials = match provider.provide_credentials().await {
            Ok(credentials) => credentials,
            Err(error) => {
                let known = self.has_answered.load(Ordering::Relaxed);
                return Err(explain(&error, client.metadata(), CloudMachine::Aws.is_this(), known));
            }
        };
        self.has_answered.store(true, Ordering::Relaxed);
        Ok(Current { expiry: credentials.expiry(), credential: Arc::new(convert(&credentials)?) })
    }
}

#[async_trait]
impl CredentialProvider for CredentialChain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut current = self.current.lock().await;
        let now = SystemTime::now();
        let still_valid = match &*current {
            Some(known) if !known.expires_before(now + RENEWAL) => return Ok(Arc::clone(&known.credential)),
            Some(known) if !known.expires_before(now) => Some(Arc::clone(&known.credential)),
            _ => None,
        };
        match (self.renew().await, still_valid) {
            (Ok(renewed), _) => Ok(Arc::clone(&current.insert(renewed).credential)),
            (Err(error), Some(credential)) => {
                tracing::warn!("cannot renew the AWS credentials, which are still valid: {error}");
                Ok(credential)
            }
            (Err(error), None) => Err(object_store::Error::Generic { store: "S3", source: Box::new(error) }),
        }
    }
}

impl Current {
    fn expires_before(&self, moment: SystemTime) -> bool {
        self.expiry.is_some_and(|expiry| expiry < moment)
    }
}

impl fmt::Debug for CredentialChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialChain")
    }
}

fn convert(credentials: &Credentials) -> Result<AwsCredential, CredentialError> {
    let clean = |text: &str| match text.trim() {
        text if text.contains(char::is_control) => {
            Err(permanent("the AWS credentials contain control characters such as line breaks"))
        }
        text => Ok(text.to_owned()),
    };
    Ok(AwsCredential {
        key_id: clean(credentials.access_key_id())?,
        secret_key: clean(credentials.secret_access_key())?,
        token: credentials.session_token().map(clean).transpose()?,
    })
}

fn permanent(reason: &str) -> CredentialError {
    CredentialError { reason: reason.to_owned(), transient: false }
}

/// Describes missing credentials in one line. The source errors are not quoted, because they can contain answers of token
/// services.
///
/// EC2's metadata service is asked if nothing else is configured. Outside EC2, no failure to get credentials from there is
/// transient, neither silence nor the answer of another cloud's metadata service at the same address. Every failure is
/// transient if there were credentials before (`known`).
pub(crate) fn explain(
    error: &CredentialsError,
    metadata: Metadata,
    is_ec2: Option<bool>,
    known: bool,
) -> CredentialError {
    const MISSING: &str = "set AccessKey and SecretKey, or provide credentials in the environment, the shared AWS files or the machine's role";
    let (reason, transient) = match error {
        _ if metadata != Metadata::NotAsked && is_ec2 == Some(false) => (MISSING, false),
        _ if metadata == Metadata::Silent => {
            ("the metadata service of EC2 did not answer; outside EC2, set AccessKey and SecretKey", true)
        }
        CredentialsError::CredentialsNotLoaded(_) => (MISSING, false),
        CredentialsError::ProviderTimedOut(_) => ("the credential service did not answer in time", true),
        CredentialsError::InvalidConfiguration(_) => {
            ("the AWS configuration (files or environment) is not valid", false)
        }
        CredentialsError::ProviderError(_) => {
            ("the credential service refused the request or is unreachable", true)
        }
        _ => ("the AWS credential chain failed", true),
    };
    CredentialError { reason: reason.to_owned(), transient: transient || known }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_machines_of_ec2_have_its_metadata_service() {
        let advice = "set AccessKey and SecretKey";
        for error in [
            CredentialsError::not_loaded("test"),
            CredentialsError::provider_timed_out(Duration::ZERO),
            CredentialsError::provider_error("test"),
            CredentialsError::unhandled("test"),
        ] {
            for metadata in [Metadata::Silent, Metadata::Answered] {
                let outside = explain(&error, metadata, Some(false), false);
                assert!(!outside.transient && outside.reason.starts_with(advice), "{error:?}: {outside}");
                assert!(explain(&error, metadata, Some(false), true).transient, "{error:?}");
            }
            for machine in [Some(true), None] {
                assert!(explain(&error, Metadata::Silent, machine, false).transient, "{error:?}");
            }
        }
        for machine in [Some(true), None] {
            // The machine has no role.
            let error = CredentialsError::not_loaded("test");
            let without_role = explain(&error, Metadata::Answered, machine, false);
            assert!(!without_role.transient && without_role.reason.starts_with(advice), "{without_role}");
            // The service is overloaded.
            let error = CredentialsError::provider_error("test");
            assert!(explain(&error, Metadata::Answered, machine, false).transient);
        }
        // A service that is configured, such as that of ECS.
        let error = CredentialsError::provider_error("test");
        assert!(explain(&error, Metadata::NotAsked, Some(false), false).transient);
    }
}
