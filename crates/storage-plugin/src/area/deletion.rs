//! Deletes objects while Orthanc holds its database locked.
//!
//! Orthanc deletes attachments inside a database transaction and does not retry a failed deletion. So the
//! first attempt is short, and an object that could not be deleted then is deleted in the background.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bucket::StorageError;
use hybrid::HybridStorage;
use storage_layout::Attachment;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How long Orthanc waits for a deletion, which then continues in the background.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often [`Deletions::finish`] checks for unfinished deletions.
const POLL: Duration = Duration::from_millis(50);

/// The state of a deletion when Orthanc's call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// The object has been deleted.
    Done,
    /// The object will be deleted once the server responds.
    Deferred,
}

/// Deletes attachments, and counts unfinished deletions.
#[derive(Debug, Clone)]
pub(crate) struct Deletions {
    storage: HybridStorage,
    runtime: Handle,
    unfinished: Arc<AtomicUsize>,
    /// The unfinished deletions that Orthanc no longer waits for.
    deferred: Arc<AtomicUsize>,
}

impl Deletions {
    pub(crate) fn new(storage: HybridStorage, runtime: Handle) -> Self {
        Self { storage, runtime, unfinished: Arc::default(), deferred: Arc::default() }
    }

    /// Deletes `attachment`, waiting at most [`PATIENCE`] for the server. While another deletion is deferred,
    /// this does not wait at all, since a study can have thousands of attachments.
    ///
    /// # Errors
    ///
    /// If the server refuses the deletion permanently.
    pub(crate) async fn delete(&self, attachment: Attachment) -> Result<Deletion, StorageError> {
        let storage = self.storage.clone();
        let unfinished = Counted::new(&self.unfinished);
        let mut task = self.runtime.spawn(async move {
            let result = storage.remove(&attachment).await;
            drop(unfinished);
            result
        });
        let unresponsive = self.deferred.load(Ordering::Relaxed) > 0;
        let patience = if unresponsive { Duration::ZERO } else { PATIENCE };
        match tokio::time::timeout(patience, &mut task).await {
            Ok(Ok(result)) => result.map(|()| Deletion::Done),
            Ok(Err(panic)) => resume_unwind(panic.into_panic()),
            Err(_elapsed) => {
                let object = self.storage.objects().object_url(&attachment);
                if unresponsive {
                    tracing::info!("{object} will be deleted later");
                } else {
                    tracing::warn!(
                        "{object} is not deleted yet: the server is not responding; retrying in the background"
                    );
                }
                self.finish_later(task, object);
                Ok(Deletion::Deferred)
            }
        }
    }

    fn finish_later(&self, task: JoinHandle<Result<(), StorageError>>, object: String) {
        let deferred = Counted::new(&self.deferred);
        self.runtime.spawn(async move {
            let result = task.await;
            drop(deferred);
            match result {
                Ok(Ok(())) => tracing::info!("deleted {object}"),
                Ok(Err(error)) => tracing::error!("{error}; the object stays in the bucket as an orphan"),
                Err(panic) => resume_unwind(panic.into_panic()),
            }
        });
    }

    /// Waits for the unfinished deletions, at most for `limit`. Returns how many are still unfinished.
    pub(crate) async fn finish(&self, limit: Duration) -> usize {
        let deadline = Instant::now() + limit;
        loop {
            let unfinished = self.unfinished.load(Ordering::Relaxed);
            if unfinished == 0 || Instant::now() >= deadline {
                return unfinished;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Counts one deletion while it lives.
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
