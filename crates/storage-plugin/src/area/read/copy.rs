//! Copies for the cache of what is read from the bucket (`CacheReads`).

use std::sync::Arc;

use hybrid::{Head, Keeper, Keeping};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Reading;
use super::incoming::Batch;
use crate::runtime::Runtime;

/// Number of copies that are being made, or synced after the read has ended. What is read beyond that is not kept:
/// a slow disk must not collect unsynced files, nor occupy all threads for blocking work.
const COPIES: usize = 32;

/// Limits the number of copies.
#[derive(Debug)]
pub(crate) struct Copies(Arc<Semaphore>);

impl Default for Copies {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(COPIES)))
    }
}

/// A copy that is being made. Dropping it discards it.
#[derive(Debug)]
pub(crate) struct Copy {
    keeping: Keeping,
    permit: OwnedSemaphorePermit,
}

impl Copies {
    fn begin(&self, keeper: Keeper, encrypted: bool, size: u64) -> Option<Copy> {
        let permit = Arc::clone(&self.0).try_acquire_owned().ok()?;
        Some(Copy { keeping: keeper.begin(encrypted, size)?, permit })
    }
}

impl Copy {
    /// Adds the copy to the cache in the background, because that waits for the disk.
    pub(super) fn commit(self, runtime: &Runtime) {
        let Self { keeping, permit } = self;
        runtime.handle().spawn(async move {
            keeping.commit().await;
            drop(permit);
        });
    }
}

impl Reading<'_> {
    /// Begins a copy of the download that has just been started, if it is that of a whole object in the bucket.
    pub(super) fn begin_copy(&self, head: &Head, encrypted: bool) {
        let keeper = self.keeper.take().filter(|_| head.range == (0..head.size));
        self.copy.replace(keeper.and_then(|keeper| self.copies.begin(keeper, encrypted, head.size)));
    }

    /// Adds the next bytes to the copy, if there is one.
    pub(super) fn copy(&self, batch: &Batch) {
        if let Some(Copy { keeping, .. }) = &mut *self.copy.borrow_mut() {
            batch.chunks.iter().for_each(|chunk| keeping.write(chunk));
        }
    }
}
