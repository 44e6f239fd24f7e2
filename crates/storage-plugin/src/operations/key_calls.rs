//! Counts the requests to key services since the start, for `GET /object-storage/status` and Orthanc's metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crypto_envelope::{FileKey, KeyService, KeyServiceError, Service, Wrapped};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::metrics::{PASSED, milliseconds};

/// Counts since the start of the plugin. Repeated attempts of a request count once.
#[derive(Debug, Default)]
pub(crate) struct KeyServiceCalls {
    count: AtomicU64,
    failures: AtomicU64,
    microseconds: AtomicU64,
    /// When the last request failed, and why; `None` if it succeeded.
    failing: Mutex<Option<(Instant, String)>>,
}

impl KeyServiceCalls {
    /// Returns the service, whose requests are counted from now on.
    pub(crate) fn counting(self: &Arc<Self>, service: Arc<dyn KeyService>) -> Arc<dyn KeyService> {
        Arc::new(Counted { service, calls: Arc::clone(self) })
    }

    async fn count<T>(
        &self,
        request: impl Future<Output = Result<T, KeyServiceError>>,
    ) -> Result<T, KeyServiceError> {
        let start = Instant::now();
        let answer = request.await;
        let time = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.microseconds.fetch_add(time, Ordering::Relaxed);
        self.failures.fetch_add(u64::from(answer.is_err()), Ordering::Relaxed);
        *self.failing.lock() = answer.as_ref().err().map(|error| (Instant::now(), error.to_string()));
        answer
    }

    /// Why the last request failed; `None` if it succeeded, or was long ago.
    pub(super) fn failing(&self) -> Option<String> {
        let failing = self.failing.lock();
        let (time, error) = failing.as_ref()?;
        (time.elapsed() < PASSED).then(|| error.clone())
    }

    /// All counts, as the route returns them.
    pub(super) fn to_json(&self) -> Value {
        let [count, failures, microseconds] =
            [&self.count, &self.failures, &self.microseconds].map(|value| value.load(Ordering::Relaxed));
        json!({
            "Count": count,
            "Failures": failures,
            "MeanMilliseconds": milliseconds(microseconds / count.max(1)),
        })
    }

    /// All counts, with their names in metrics.
    pub(super) fn metrics(&self) -> [(&'static str, u64); 3] {
        [
            ("key_service_requests", &self.count),
            ("key_service_failures", &self.failures),
            ("key_service_microseconds", &self.microseconds),
        ]
        .map(|(name, value)| (name, value.load(Ordering::Relaxed)))
    }
}

/// A key service whose requests are counted.
#[derive(Debug)]
struct Counted {
    service: Arc<dyn KeyService>,
    calls: Arc<KeyServiceCalls>,
}

impl KeyService for Counted {
    fn service(&self) -> Service {
        self.service.service()
    }

    fn has_key(&self, key: &str) -> bool {
        self.service.has_key(key)
    }

    fn wrap<'a>(&'a self, file_key: &'a FileKey) -> BoxFuture<'a, Result<Wrapped, KeyServiceError>> {
        self.calls.count(self.service.wrap(file_key)).boxed()
    }

    fn unwrap<'a>(
        &'a self,
        key: &'a str,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<FileKey, KeyServiceError>> {
        self.calls.count(self.service.unwrap(key, wrapped)).boxed()
    }

    fn is_current<'a>(
        &'a self,
        key: &'a str,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<bool, KeyServiceError>> {
        self.calls.count(self.service.is_current(key, wrapped)).boxed()
    }
}
