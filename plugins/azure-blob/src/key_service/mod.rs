//! Azure Key Vault: a master key that never leaves it wraps the file keys.
//!
//! Two requests are all that this needs, `wrapkey` and `unwrapkey`, and a third one for the newest version of a key:
//! <https://learn.microsoft.com/rest/api/keyvault/keys/operation-groups>

mod challenge;
mod client_secret;
mod key_id;
mod options;
mod requests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bucket::Operation;
use cloud_http::{CloudHttp, Renewable};
use crypto_envelope::{FileKey, KeyService, KeyServiceError, Service, Wrapped};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use object_store::azure::AzureCredentialProvider;
use orthanc_ffi::InitializeError;
use parking_lot::Mutex;
use storage_plugin::{ProviderContext, Reloading, Section, client_error};
use tokio::time::Instant;

use self::client_secret::ClientTokens;
use self::key_id::KeyId;
pub(crate) use self::options::KeyOptions;
#[cfg(test)]
pub(crate) use self::requests::explain;
use self::requests::{Vault, decode, decode_key};
use crate::credentials::identity;

/// How long the newest version of a key is used before the vault is asked again. A file key that was wrapped just before
/// is used for 50 minutes, so that a new version comes into use within an hour.
const VERSION_LIFE: Duration = Duration::from_mins(10);

/// A key in a vault.
struct KeyVault {
    key: KeyId,
    vault: Vault,
    /// The newest version of the key, and when the vault named it.
    newest: Mutex<Option<(KeyId, Instant)>>,
}

/// Returns a client with the options of a section `AzureKeyVault`.
///
/// # Errors
///
/// Returns an error if an option is not valid.
pub(crate) fn open(
    section: &mut Section<'_>,
    context: &ProviderContext<'_>,
) -> Result<Arc<dyn KeyService>, InitializeError> {
    let options = KeyOptions::read(section)?;
    let secret = options.client.as_ref().map(|client| client.secret.expose().to_owned());
    let http = context.http()?.for_key_service().with_secrets(secret);
    let (credentials, renewable) = credentials(&options, &http).map_err(client_error)?;
    let vault =
        Vault { http: http.with_renewal(renewable, &[]), credentials, retry: context.network().retry };
    Ok(Arc::new(KeyVault { key: options.key, vault, newest: Mutex::default() }))
}

fn credentials(
    options: &KeyOptions,
    http: &CloudHttp,
) -> object_store::Result<(AzureCredentialProvider, Arc<dyn Renewable>)> {
    let Some(client) = options.client.clone() else {
        return identity(http, &challenge::audience(options.key.vault()));
    };
    let (key, http) = (options.key.clone(), http.clone());
    let tokens = move || {
        let tokens = ClientTokens::new(client.clone(), key.clone(), http.clone());
        Arc::new(tokens) as AzureCredentialProvider
    };
    let reloading = Arc::new(Reloading::new(tokens(), move || Ok(tokens())));
    Ok((Arc::<Reloading<_>>::clone(&reloading), reloading))
}

impl KeyVault {
    /// Returns the key with the version that wraps.
    async fn current(&self) -> Result<KeyId, KeyServiceError> {
        if self.key.version().is_some() {
            return Ok(self.key.clone());
        }
        let known = self.newest.lock().clone().filter(|(_, since)| since.elapsed() < VERSION_LIFE);
        if let Some((key, _)) = known {
            return Ok(key);
        }
        let answer = self.vault.newest(&self.key).await?;
        let newest = self.key.parse_version(&answer.key).ok_or_else(|| self.other_key())?;
        *self.newest.lock() = Some((newest.clone(), Instant::now()));
        Ok(newest)
    }

    async fn wrap_with(&self, key: &KeyId, file_key: &FileKey) -> Result<Wrapped, KeyServiceError> {
        let answer = self.vault.send(Operation::WrapKey, key, Some("wrapkey"), file_key.expose()).await?;
        // The key in the answer must be one that this client unwraps with.
        let used = self.key.parse_version(&answer.key).ok_or_else(|| self.other_key())?;
        let wrapped = decode(&answer.value).filter(|wrapped| !wrapped.is_empty());
        let wrapped = wrapped.ok_or(KeyServiceError::Unusable(Service::AzureKeyVault))?;
        Ok(Wrapped { key: used.to_string(), wrapped })
    }

    fn other_key(&self) -> KeyServiceError {
        KeyServiceError::Refused(format!("Azure Key Vault answered about another key than {}", self.key))
    }
}

impl KeyService for KeyVault {
    fn service(&self) -> Service {
        Service::AzureKeyVault
    }

    /// Accepts all versions of the key, and no other key of the vault.
    fn has_key(&self, key: &str) -> bool {
        self.key.parse_version(key).is_some()
    }

    fn wrap<'a>(&'a self, file_key: &'a FileKey) -> BoxFuture<'a, Result<Wrapped, KeyServiceError>> {
        async move {
            let key = self.current().await?;
            let result = self.wrap_with(&key, file_key).await;
            if matches!(result, Err(KeyServiceError::Refused(_))) {
                // The version may have been disabled because there is a newer one.
                *self.newest.lock() = None;
            }
            result
        }
        .boxed()
    }

    fn unwrap<'a>(
        &'a self,
        key: &'a str,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<FileKey, KeyServiceError>> {
        async move {
            let Some(version) = self.key.parse_version(key) else {
                let (service, key) = (Service::AzureKeyVault, key.to_owned());
                return Err(KeyServiceError::NotConfigured { service, key });
            };
            let answer = self.vault.send(Operation::UnwrapKey, &version, Some("unwrapkey"), wrapped).await?;
            decode_key(&answer.value).ok_or_else(|| {
                let problem = format!("Azure Key Vault unwrapped no file key of 32 bytes with {version}");
                KeyServiceError::Refused(problem)
            })
        }
        .boxed()
    }

    /// The name of the key has its version.
    fn is_current<'a>(
        &'a self,
        key: &'a str,
        _wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<bool, KeyServiceError>> {
        async move { Ok(self.key.parse_version(key) == Some(self.current().await?)) }.boxed()
    }
}

impl fmt::Debug for KeyVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyVault").field("key", &self.key).finish_non_exhaustive()
    }
}
