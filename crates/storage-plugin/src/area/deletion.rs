//! Deleting objects while Orthanc holds its database locked.
//!
//! Orthanc deletes attachments inside a database transaction, and does not repeat a deletion that failed. So the first
//! attempt is short, and what could not be deleted then is deleted in the background.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bucket::StorageError;
use hybrid::HybridStorage;
use storage_layout::Attachment;
use tokio::runtime::Handle;
use tokio::time::Instant;

/// How long Orthanc waits for a deletion. After that it goes on, and the deletion too.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    /// The object is gone.
    Now,
    /// It will be gone once the server answers.
    Later,
}

/// Deletions, the unfinished ones included.
#[derive(Debug, Clone)]
pub(crate) struct Removals {
    storage: HybridStorage,
    runtime: Handle,
    unfinished: Arc<AtomicUsize>,
    /// Those of the unfinished that Orthanc does not wait for any more.
    late: Arc<AtomicUsize>,
}

impl Removals {
    pub(crate) fn new(storage: HybridStorage, runtime: Handle) -> Self {
        Self { storage, runtime, unfinished: Arc::default(), late: Arc::default() }
    }

    /// Deletes `attachment`. Takes no longer than a few seconds: a server that is away gets the request later. While it
    /// is away, further deletions take no time at all, since a study may have thousands of attachments.
    ///
    /// # Errors
    ///
    /// What no repetition would heal.
    pub(crate) async fn remove(&self, attachment: Attachment) -> Result<Removed, StorageError> {
        let removals = self.clone();
        let unfinished = Counted::new(&self.unfinished);
        let mut removal = self.runtime.spawn(async move {
            let result = removals.storage.remove(&attachment).await;
            drop(unfinished);
            result
        });
        let away = self.late.load(Ordering::Relaxed) > 0;
        let patience = if away { Duration::ZERO } else { PATIENCE };
        match tokio::time::timeout(patience, &mut removal).await {
            Ok(Ok(result)) => result.map(|()| Removed::Now),
            // It panicked, which was logged where it happened.
            Ok(Err(_)) => Ok(Removed::Later),
            Err(_elapsed) => {
                let late = Counted::new(&self.late);
                let object = self.storage.objects().object_url(&attachment);
                if away {
                    tracing::info!("{object} is deleted later");
                } else {
                    tracing::warn!(
                        "{object} is not deleted yet: the server does not answer; it is tried further"
                    );
                }
                self.runtime.spawn(async move {
                    let result = removal.await;
                    drop(late);
                    match result {
                        Ok(Ok(())) => tracing::info!("deleted {object} at last"),
                        Ok(Err(error)) => tracing::error!(
                            "{error}; the object stays in the bucket, though Orthanc has no use for it"
                        ),
                        Err(_) => {}
                    }
                });
                Ok(Removed::Later)
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
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
