//! The credentials that the AWS command line would use.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use cloud_http::CredentialError;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::sync::Mutex;

use crate::smithy_http::ReqwestClient;

/// How long before their expiry credentials are renewed.
const RENEWAL: Duration = Duration::from_secs(5 * 60);

/// AWS' default credential chain: environment, shared configuration with profiles and SSO, web identity, EKS Pod
/// Identity, ECS, EC2 instance metadata v2.
pub(crate) struct CredentialChain {
    provider: Option<SharedCredentialsProvider>,
    /// The lock also ensures that one task renews the credentials while the others wait.
    current: Mutex<Option<Current>>,
}

struct Current {
    credential: Arc<AwsCredential>,
    expiry: Option<SystemTime>,
}

impl CredentialChain {
    /// Reads the environment and the shared files. Sends requests only when credentials are needed.
    pub(crate) async fn load(region: &str, client: reqwest::Client) -> Self {
        let loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(ReqwestClient::new(client))
            .region(Region::new(region.to_owned()));
        let provider = Box::pin(loader.load()).await.credentials_provider();
        Self { provider, current: Mutex::new(None) }
    }

    async fn renew(&self) -> Result<Current, CredentialError> {
        let Some(provider) = &self.provider else {
            return Err(CredentialError {
                reason: "the AWS SDK has no credential provider".to_owned(),
                transient: false,
            });
        };
        let credentials = provider.provide_credentials().await.map_err(|error| explain(&error))?;
        Ok(Current { expiry: credentials.expiry(), credential: Arc::new(convert(&credentials)) })
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

fn convert(credentials: &Credentials) -> AwsCredential {
    AwsCredential {
        key_id: credentials.access_key_id().to_owned(),
        secret_key: credentials.secret_access_key().to_owned(),
        token: credentials.session_token().map(str::to_owned),
    }
}

/// Describes missing credentials in one line. The source errors are not quoted, because they can contain answers of token
/// services.
pub(crate) fn explain(error: &CredentialsError) -> CredentialError {
    let (reason, transient) = match error {
        CredentialsError::CredentialsNotLoaded(_) => (
            "set AccessKey and SecretKey, or provide credentials in the environment, the shared AWS files or the machine's role",
            false,
        ),
        CredentialsError::ProviderTimedOut(_) => ("the credential service did not answer in time", true),
        CredentialsError::InvalidConfiguration(_) => {
            ("the AWS configuration (files or environment) is not valid", false)
        }
        CredentialsError::ProviderError(_) => {
            ("the credential service refused the request or is unreachable", true)
        }
        _ => ("the AWS credential chain failed", true),
    };
    CredentialError { reason: reason.to_owned(), transient }
}
