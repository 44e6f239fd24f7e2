//! Deletes attachments while Orthanc holds its database locked.

use std::sync::Arc;
use std::time::Duration;

use bucket::{Cause, Operation, StorageError};
use hybrid::{HybridStorage, StateDirectory};
use storage_layout::Attachment;
use tokio::time::timeout;

use crate::runtime::Runtime;

/// How long Orthanc waits for a deletion that cannot be marked.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a marker may take on the disk, in bytes: it is empty, but its folder grows.
const BLOCK: u64 = 4096;

/// The state of a deletion when Orthanc's call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deletion {
    /// The attachment has been deleted.
    Done,
    /// The attachment will be deleted, even if Orthanc is killed now.
    Marked,
}

/// Deletes attachments.
#[derive(Debug, Clone)]
pub(crate) struct Deletions {
    pub(crate) storage: HybridStorage,
    pub(crate) runtime: Arc<Runtime>,
    /// Where deletions are marked; `None` if there is no place to write.
    pub(crate) state: Option<Arc<StateDirectory>>,
    /// Whether deleted attachments must be kept for a while (`DeletionDelay`).
    pub(crate) delayed: bool,
}

impl Deletions {
    /// Marks `attachment` as deleted. If that is not possible, deletes it, which takes up to [`PATIENCE`].
    ///
    /// # Errors
    ///
    /// If the attachment could be neither marked nor deleted, or must not be deleted yet.
    pub(crate) fn delete(&self, attachment: Attachment) -> Result<Deletion, StorageError> {
        // During the delay, uploads and moves of the attachment go on.
        if !self.delayed {
            self.storage.announce_removal(&attachment);
        }
        match self.mark(&attachment) {
            Some(Ok(())) => return Ok(Deletion::Marked),
            // The delay is a safety net: nothing is deleted without it.
            Some(Err(error)) if self.delayed => return Err(error),
            Some(Err(error)) => tracing::warn!("{error}; deleting the attachment immediately"),
            None => {}
        }
        let name = self.storage.objects().object_url(&attachment);
        let storage = self.storage.clone();
        let removal = async move { timeout(PATIENCE, storage.remove(&attachment)).await };
        let failed = |cause| StorageError::new(Operation::Remove, name, cause);
        match self.runtime.run_with_grace(removal) {
            Some(Ok(result)) => result.map(|()| Deletion::Done),
            Some(Err(_elapsed)) => {
                Err(failed(Cause::Other(format!("no answer within {} s; it remains", PATIENCE.as_secs()))))
            }
            None => Err(failed(Cause::Stopping)),
        }
    }

    /// Marks an attachment as deleted, and makes room on a full disk if there is a cache. `None` if there is no place
    /// to write.
    fn mark(&self, attachment: &Attachment) -> Option<Result<(), StorageError>> {
        let markers = self.state.as_ref()?.markers();
        let mut marked = markers.add(attachment);
        if let Err(error) = &marked
            && error.cause == Cause::DiskFull
            && self.storage.local().is_some_and(|local| local.make_room(BLOCK) > 0)
        {
            marked = markers.add(attachment);
        }
        Some(marked)
    }

    /// Makes sure that no object remains of a store that has failed.
    pub(crate) fn discard(&self, attachment: &Attachment) {
        match self.mark(attachment) {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::warn!("{error}; an object without an index entry may remain"),
            None => tracing::warn!(
                "{} may remain without an index entry",
                self.storage.objects().object_url(attachment)
            ),
        }
    }
}
