//! Warns of attachments that cannot become pending and are stored directly in the bucket.

use std::time::{Duration, Instant};

use hybrid::NotPending;
use parking_lot::Mutex;

/// How often to warn.
const PAUSE: Duration = Duration::from_secs(10 * 60);

/// When the last warning was logged.
#[derive(Debug, Default)]
pub(crate) struct DirectStores(Mutex<Option<Instant>>);

impl DirectStores {
    /// Warns, unless that was done a short while ago.
    pub(crate) fn warn(&self, reason: &NotPending) {
        let mut last = self.0.lock();
        if last.is_some_and(|last| last.elapsed() < PAUSE) {
            return;
        }
        *last = Some(Instant::now());
        drop(last);
        match reason {
            NotPending::Limit => tracing::warn!(
                "more is pending than MaxPendingMB; new attachments are stored directly in the bucket until less is pending"
            ),
            NotPending::Disk(error) => tracing::warn!(
                "{error}; new attachments are stored directly in the bucket while they cannot be stored on the disk"
            ),
        }
    }
}
