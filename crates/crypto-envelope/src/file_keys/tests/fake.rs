//! A key service in memory.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use futures_util::future::ready;

use super::*;

/// The time until the service answers.
const ANSWER: Duration = Duration::from_micros(100);

/// A service whose "ciphertext" is the file key with all bits flipped, and a number.
#[derive(Debug, Default)]
pub(super) struct Fake {
    pub(super) key: &'static str,
    pub(super) wraps: AtomicU32,
    pub(super) unwraps: AtomicUsize,
    /// Number of requests that fail first.
    pub(super) failures: AtomicUsize,
    pub(super) refuses: bool,
    /// Whether the service answers at once.
    pub(super) is_quick: bool,
    /// Number of requests that wait for an answer, and the most of them at a time.
    pub(super) waiting: AtomicUsize,
    pub(super) most: AtomicUsize,
    /// Number of questions whether a key is the current one.
    pub(super) judged: AtomicUsize,
}

impl Fake {
    pub(super) fn new(key: &'static str) -> Arc<Self> {
        Arc::new(Self { key, ..Self::default() })
    }

    async fn answer(&self) {
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(waiting, Ordering::Relaxed);
        if !self.is_quick {
            tokio::time::sleep(ANSWER).await;
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    fn fails(&self) -> Option<KeyServiceError> {
        let failing = |left: usize| left.checked_sub(1);
        if self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, failing).is_ok() {
            return Some(KeyServiceError::Unavailable("no answer".to_owned()));
        }
        self.refuses.then(|| KeyServiceError::Refused("no permission".to_owned()))
    }
}

impl KeyService for Fake {
    fn service(&self) -> Service {
        Service::AzureKeyVault
    }

    fn has_key(&self, key: &str) -> bool {
        key == self.key
    }

    fn wrap<'a>(&'a self, file_key: &'a FileKey) -> BoxFuture<'a, Result<Wrapped, KeyServiceError>> {
        async move {
            self.answer().await;
            if let Some(error) = self.fails() {
                return Err(error);
            }
            let number = self.wraps.fetch_add(1, Ordering::Relaxed);
            let mut wrapped: Vec<_> = file_key.expose().iter().map(|byte| !byte).collect();
            wrapped.extend(number.to_le_bytes());
            Ok(Wrapped { key: self.key.to_owned(), wrapped })
        }
        .boxed()
    }

    fn unwrap<'a>(
        &'a self,
        _: &'a str,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<FileKey, KeyServiceError>> {
        async move {
            self.answer().await;
            self.unwraps.fetch_add(1, Ordering::Relaxed);
            match self.fails() {
                Some(error) => Err(error),
                None => Ok(FileKey::new(&std::array::from_fn(|index| !wrapped[index]))),
            }
        }
        .boxed()
    }

    fn is_current<'a>(
        &'a self,
        _: &'a str,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<bool, KeyServiceError>> {
        self.judged.fetch_add(1, Ordering::Relaxed);
        Box::pin(ready(self.fails().map_or(Ok(wrapped == b"new"), Err)))
    }
}
