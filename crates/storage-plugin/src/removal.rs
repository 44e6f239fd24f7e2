//! Deleting objects while Orthanc holds its database locked.
//!
//! Orthanc deletes attachments inside a database transaction, and does not repeat a deletion that failed. So the first
//! attempt is short, and what could not be deleted then is deleted in the background.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hybrid::{AttachmentStorage, StorageError};
use storage_layout::Attachment;
use tokio::runtime::Handle;
use tokio::time::Instant;

/// How long Orthanc waits for a deletion, in seconds. After that it goes on, and the deletion too.
const PATIENCE: Duration = Duration::from_secs(5);

/// Deletions, the unfinished ones included.
#[derive(Debug, Clone)]
pub(crate) struct Removals {
    storage: AttachmentStorage,
    runtime: Handle,
    unfinished: Arc<AtomicUsize>,
}

impl Removals {
    pub(crate) fn new(storage: AttachmentStorage, runtime: Handle) -> Self {
        Self { storage, runtime, unfinished: Arc::default() }
    }

    /// Deletes `attachment`. Takes no longer than a few seconds: a server that is away gets the request later.
    ///
    /// # Errors
    ///
    /// What no repetition would heal.
    pub(crate) async fn remove(&self, attachment: Attachment) -> Result<(), StorageError> {
        let removals = self.clone();
        let unfinished = Unfinished::new(&self.unfinished);
        let mut removal = self.runtime.spawn(async move {
            let result = removals.storage.remove(&attachment).await;
            drop(unfinished);
            result
        });
        match tokio::time::timeout(PATIENCE, &mut removal).await {
            Ok(Ok(result)) => result,
            // It panicked, which was logged where it happened.
            Ok(Err(_)) => Ok(()),
            Err(_elapsed) => {
                let object = self.storage.object_url(&attachment);
                tracing::warn!(
                    "{object} is not deleted yet: the server does not answer; it is tried further"
                );
                self.runtime.spawn(async move {
                    if let Ok(Err(error)) = removal.await {
                        tracing::error!(
                            "{error}; the object stays in the bucket, though Orthanc has no use for it"
                        );
                    }
                });
                Ok(())
            }
        }
    }

    /// Waits for the deletions that go on, no longer than `limit`. Returns how many have not come to an end.
    pub(crate) async fn finish(&self, limit: Duration) -> usize {
        let deadline = Instant::now() + limit;
        loop {
            let unfinished = self.unfinished.load(Ordering::Relaxed);
            if unfinished == 0 || Instant::now() >= deadline {
                return unfinished;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Counts one deletion for as long as it lives.
struct Unfinished(Arc<AtomicUsize>);

impl Unfinished {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
