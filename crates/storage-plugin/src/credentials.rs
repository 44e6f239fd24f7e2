//! Credentials that somebody else gives out, with errors that say who did not.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cloud_http::{CredentialError, TransportError, observe_nested};
use object_store::CredentialProvider;

/// A provider of credentials from a token service, whose failures become a [`CredentialError`] that names the service
/// and what its user can do.
///
/// A service that could not be reached before it ever gave anything is not waited for: most likely this machine has
/// none. Once it has given credentials, its failures are taken for transient.
pub struct NamedCredentials<C> {
    provider: Arc<dyn CredentialProvider<Credential = C>>,
    service: &'static str,
    advice: &'static str,
    limit: Duration,
    has_given: AtomicBool,
}

impl<C: fmt::Debug + Send + Sync + 'static> NamedCredentials<C> {
    /// Those of `provider`, which may take as long as `limit`. Errors begin with `service`, as "the metadata server", and
    /// end with `advice`, as "name a file in ServiceAccountFile".
    pub fn new(
        provider: Arc<dyn CredentialProvider<Credential = C>>,
        service: &'static str,
        advice: &'static str,
        limit: Duration,
    ) -> Self {
        Self { provider, service, advice, limit, has_given: AtomicBool::new(false) }
    }

    fn explain(&self, error: Option<&object_store::Error>, status: Option<u16>) -> CredentialError {
        let Self { service, advice, .. } = self;
        let refused = status.filter(|status| !(200..300).contains(status));
        let unreachable = match error {
            None => Some("did not answer in time".to_owned()),
            Some(error) => TransportError::find(error).map(|error| format!("cannot be used: {error}")),
        };
        let known = self.has_given.load(Ordering::Relaxed);
        match (unreachable, refused) {
            (Some(reason), _) => {
                CredentialError { reason: format!("{service} {reason}: {advice}"), transient: known }
            }
            (None, Some(status)) => CredentialError {
                reason: format!("{service} refused: {advice}"),
                transient: matches!(status, 408 | 410 | 429 | 500..),
            },
            // The errors below are not quoted: they can hold answers of token services.
            (None, None) => {
                CredentialError { reason: format!("{service} gave none: {advice}"), transient: known }
            }
        }
    }
}

#[async_trait]
impl<C: fmt::Debug + Send + Sync + 'static> CredentialProvider for NamedCredentials<C> {
    type Credential = C;

    async fn get_credential(&self) -> object_store::Result<Arc<C>> {
        let fetch = tokio::time::timeout(self.limit, self.provider.get_credential());
        // What the service said belongs to the error of the operation that needed the credentials.
        let (result, exchange) = observe_nested(fetch).await;
        let status = exchange.status;
        let error = match result {
            Ok(Ok(credential)) => {
                self.has_given.store(true, Ordering::Relaxed);
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
        f.debug_struct("NamedCredentials").field("service", &self.service).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives what its turn has, and then waits forever.
    #[derive(Debug)]
    struct Scripted(parking_lot::Mutex<Vec<Result<(), TransportError>>>);

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

    fn refused() -> TransportError {
        TransportError::Connect { reason: "connection refused".to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_never_gave_anything_is_not_waited_for_and_one_that_did_is() {
        let script = vec![Err(refused()), Ok(()), Err(refused())];
        let provider = Arc::new(Scripted(parking_lot::Mutex::new(script)));
        let limit = Duration::from_secs(5);
        let named = NamedCredentials::new(provider, "the metadata server", "name a file", limit);
        let fail = async || {
            let error = named.get_credential().await.unwrap_err();
            let error = CredentialError::find(&error).unwrap();
            (error.to_string(), error.transient)
        };
        let unreachable =
            "the metadata server cannot be used: cannot connect: connection refused: name a file".to_owned();
        assert_eq!(fail().await, (unreachable.clone(), false));
        named.get_credential().await.unwrap();
        assert_eq!(fail().await, (unreachable, true));
        assert_eq!(
            fail().await,
            ("the metadata server did not answer in time: name a file".to_owned(), true)
        );
    }

    #[test]
    fn a_refusal_is_final_unless_the_service_is_only_busy() {
        let provider = Arc::new(Scripted(parking_lot::Mutex::default()));
        let named = NamedCredentials::<()>::new(provider, "Entra ID", "check AZURE_CLIENT_ID", Duration::MAX);
        let error =
            object_store::Error::NotImplemented { operation: String::new(), implementer: String::new() };
        let explained = |status| {
            let error = named.explain(Some(&error), Some(status));
            (error.reason, error.transient)
        };
        assert_eq!(explained(401), ("Entra ID refused: check AZURE_CLIENT_ID".to_owned(), false));
        assert!(explained(503).1);
    }
}
