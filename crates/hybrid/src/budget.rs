//! Limits the memory of all moves together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Memory for moves, in KiB. A larger attachment is moved alone.
const TOTAL: u32 = 64 * 1024;

#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(TOTAL as usize)))
    }
}

impl Budget {
    /// Waits until `bytes` may be held, first come, first served.
    pub(crate) async fn acquire(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let wanted = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).clamp(1, TOTAL);
        // Never fails: the semaphore is never closed.
        Arc::clone(&self.0).acquire_many_owned(wanted).await.ok()
    }
}
