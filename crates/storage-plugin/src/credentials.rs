//! Wraps credential providers: errors name the service and the remedy, and credentials that the server refuses are
//! loaded again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cloud_http::{CredentialError, Renewable, TransportError, observe_nested};
use object_store::CredentialProvider;
use parking_lot::Mutex;

/// How long refused credentials are not loaded again after they were, so that a lasting refusal does not cost a request
/// to a token service each time.
const PAUSE: Duration = Duration::from_secs(10);

/// A service that issues credentials, as errors name it.
#[derive(Debug, Clone, Copy)]
pub struct TokenService {
    /// The service's name, such as "the metadata server".
    pub name: &'static str,
    /// The remedy, such as "set ServiceAccountFile".
    pub advice: &'static str,
    /// Maximum time to get credentials.
    pub limit: Duration,
    /// Whether the service may exist, according to the configuration and this machine.
    pub may_exist: fn() -> bool,
}

impl TokenService {
    /// Returns the message about a failure such as "did not answer in time".
    pub fn message(&self, failure: impl fmt::Display) -> String {
        format!("{} {failure}; {}", self.name, self.advice)
    }
}

/// Credentials from a token service. Failures become a [`CredentialError`] that names the service and the
/// remedy.
///
/// Not reaching a service that has never returned credentials, and that does not exist on this machine as far as that is
/// known, is a permanent error. Not reaching another one is a transient error. A refusal is transient only if its HTTP status says so.
pub struct NamedCredentials<C> {
    provider: Provider<C>,
    service: TokenService,
    has_answered: AtomicBool,
}

impl<C: fmt::Debug + Send + Sync + 'static> NamedCredentials<C> {
    /// Wraps `provider`, which gets its credentials from `service`.
    pub fn new(provider: Provider<C>, service: TokenService) -> Self {
        Self { provider, service, has_answered: AtomicBool::new(false) }
    }

    fn explain(&self, error: Option<&object_store::Error>, status: Option<u16>) -> CredentialError {
        let refused = status.filter(|status| !(200..300).contains(status));
        let unreachable = match error {
            None => Some("did not answer in time".to_owned()),
            Some(error) => TransportError::find(error).map(|error| format!("cannot be used: {error}")),
        };
        let known = self.has_answered.load(Ordering::Relaxed);
        match (unreachable, refused) {
            (Some(failure), _) => CredentialError {
                reason: self.service.message(failure),
                transient: known || (self.service.may_exist)(),
            },
            (None, Some(status)) => CredentialError {
                reason: self.service.message("refused the request"),
                transient: matches!(status, 408 | 410 | 429 | 500..),
            },
            // The source errors are not quoted, because they can contain answers of token services.
            (None, None) => {
                CredentialError { reason: self.service.message("returned no credentials"), transient: known }
            }
        }
    }
}

#[async_trait]
impl<C: fmt::Debug + Send + Sync + 'static> CredentialProvider for NamedCredentials<C> {
    type Credential = C;

    async fn get_credential(&self) -> object_store::Result<Arc<C>> {
        let fetch = tokio::time::timeout(self.service.limit, self.provider.get_credential());
        // The service's answer becomes part of the error of the operation that needs the credentials.
        let (result, exchange) = observe_nested(fetch).await;
        let status = exchange.status;
        let error = match result {
            Ok(Ok(credential)) => {
                self.has_answered.store(true, Ordering::Relaxed);
                return Ok(credential);
            }
            Ok(Err(error)) => self.explain(Some(&error), status),
            Err(_elapsed) => self.explain(None, None),
        };
        Err(object_store::Error::Generic { store: "credentials", source: Box::new(error) })
    }
}

impl<C> fmt::Debug for NamedCredentials<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedCredentials").field("service", &self.service.name).finish_non_exhaustive()
    }
}

/// A provider of credentials.
type Provider<C> = Arc<dyn CredentialProvider<Credential = C>>;
/// Returns a provider that knows nothing of former credentials.
type Load<C> = dyn Fn() -> Result<Provider<C>, String> + Send + Sync;

/// Credentials that are loaded again when the server refuses them.
///
/// All requests that were sent with the same credentials and refused cause one reload.
pub struct Reloading<C> {
    load: Box<Load<C>>,
    loaded: Mutex<Loaded<C>>,
}

struct Loaded<C> {
    provider: Provider<C>,
    at: Instant,
    after_refusal: bool,
}

impl<C: fmt::Debug + Send + Sync + 'static> Reloading<C> {
    /// Uses `provider` until the server refuses its credentials, and then what `load` returns. An error of `load`, of
    /// which a user can see the message, keeps the provider.
    pub fn new(
        provider: Provider<C>,
        load: impl Fn() -> Result<Provider<C>, String> + Send + Sync + 'static,
    ) -> Self {
        let loaded = Loaded { provider, at: Instant::now(), after_refusal: false };
        Self { load: Box::new(load), loaded: Mutex::new(loaded) }
    }
}

impl<C: fmt::Debug + Send + Sync + 'static> Renewable for Reloading<C> {
    fn refused(&self, used: Instant) -> bool {
        let mut loaded = self.loaded.lock();
        if loaded.at > used {
            return true;
        }
        if loaded.after_refusal && loaded.at.elapsed() < PAUSE {
            return false;
        }
        match (self.load)() {
            Ok(provider) => {
                tracing::info!("the server refused the credentials; loading them again");
                *loaded = Loaded { provider, at: Instant::now(), after_refusal: true };
                true
            }
            Err(error) => {
                tracing::warn!("the server refused the credentials, which cannot be loaded again: {error}");
                false
            }
        }
    }
}

#[async_trait]
impl<C: fmt::Debug + Send + Sync + 'static> CredentialProvider for Reloading<C> {
    type Credential = C;

    async fn get_credential(&self) -> object_store::Result<Arc<C>> {
        let provider = Arc::clone(&self.loaded.lock().provider);
        provider.get_credential().await
    }
}

impl<C> fmt::Debug for Reloading<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reloading")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use object_store::StaticCredentialProvider;

    use super::*;

    /// Returns the last result of the list until the list is empty, then never answers.
    #[derive(Debug)]
    struct Scripted(Mutex<Vec<Result<(), TransportError>>>);

    #[async_trait]
    impl CredentialProvider for Scripted {
        type Credential = ();

        async fn get_credential(&self) -> object_store::Result<Arc<()>> {
            let next = self.0.lock().pop();
            match next {
                Some(Ok(())) => Ok(Arc::new(())),
                Some(Err(error)) => {
                    Err(object_store::Error::Generic { store: "test", source: Box::new(error) })
                }
                None => std::future::pending().await,
            }
        }
    }

    #[tokio::test]
    async fn refused_credentials_are_loaded_once() {
        let loads = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&loads);
        let provider = |number| Arc::new(StaticCredentialProvider::new(number)) as Provider<usize>;
        let reloading = Reloading::new(provider(0), move || match count.fetch_add(1, Ordering::SeqCst) {
            2.. => Err("no file".to_owned()),
            number => Ok(provider(number + 1)),
        });
        let age = |seconds| reloading.loaded.lock().at -= Duration::from_secs(seconds);
        let current = async || *reloading.get_credential().await.unwrap();
        let used = Instant::now();
        for _ in 0..100 {
            assert!(reloading.refused(used), "others have been loaded since");
        }
        assert_eq!((current().await, loads.load(Ordering::SeqCst)), (1, 1));
        // Those are refused, too.
        for _ in 0..100 {
            assert!(!reloading.refused(Instant::now()));
        }
        assert_eq!(loads.load(Ordering::SeqCst), 1);
        age(60);
        assert!(reloading.refused(Instant::now()));
        assert_eq!((current().await, loads.load(Ordering::SeqCst)), (2, 2));
        age(60);
        assert!(!reloading.refused(Instant::now()));
        assert_eq!(current().await, 2);
    }

    fn refused() -> TransportError {
        TransportError::Connect { server: "host:80".to_owned(), reason: "connection refused".to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_transient_after_a_first_answer() {
        let script = vec![Err(refused()), Ok(()), Err(refused())];
        let provider = Arc::new(Scripted(Mutex::new(script)));
        let limit = Duration::from_secs(5);
        let service =
            TokenService { name: "the metadata server", advice: "name a file", limit, may_exist: || false };
        let named = NamedCredentials::new(provider, service);
        let fail = async || {
            let error = named.get_credential().await.unwrap_err();
            let found = CredentialError::find(&error).unwrap();
            (found.to_string(), found.transient)
        };
        let unreachable =
            "the metadata server cannot be used: cannot connect to host:80: connection refused; name a file"
                .to_owned();
        assert_eq!(fail().await, (unreachable.clone(), false));
        named.get_credential().await.unwrap();
        assert_eq!(fail().await, (unreachable, true));
        assert_eq!(
            fail().await,
            ("the metadata server did not answer in time; name a file".to_owned(), true)
        );
    }

    #[tokio::test]
    async fn failure_of_a_service_that_may_exist_is_transient() {
        let provider = Arc::new(Scripted(Mutex::new(vec![Err(refused())])));
        let service = TokenService { name: "a", advice: "b", limit: Duration::MAX, may_exist: || true };
        let error = NamedCredentials::new(provider, service).get_credential().await.unwrap_err();
        assert!(CredentialError::find(&error).unwrap().transient);
    }

    #[test]
    fn refusal_is_permanent_unless_service_is_busy() {
        let provider = Arc::new(Scripted(Mutex::default()));
        let service = TokenService {
            name: "Entra ID",
            advice: "check AZURE_CLIENT_ID",
            limit: Duration::MAX,
            may_exist: || true,
        };
        let named = NamedCredentials::<()>::new(provider, service);
        let error =
            object_store::Error::NotImplemented { operation: String::new(), implementer: String::new() };
        let explained = |status| {
            let explained = named.explain(Some(&error), status);
            (explained.reason, explained.transient)
        };
        let refusal = "Entra ID refused the request; check AZURE_CLIENT_ID".to_owned();
        assert_eq!(explained(Some(401)), (refusal.clone(), false));
        assert_eq!(explained(Some(503)), (refusal, true));
        let empty = "Entra ID returned no credentials; check AZURE_CLIENT_ID".to_owned();
        assert_eq!(explained(Some(200)), (empty, false));
    }
}
