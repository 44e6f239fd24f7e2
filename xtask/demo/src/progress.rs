//! Progress of a long step: a line at each quarter.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Progress of one step. Any thread may advance it.
pub(crate) struct Progress {
    label: &'static str,
    total: usize,
    done: AtomicUsize,
}

impl Progress {
    pub(crate) fn new(label: &'static str, total: usize) -> Self {
        Self { label, total, done: AtomicUsize::new(0) }
    }

    /// Counts one more item.
    pub(crate) fn advance(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if done * 4 / self.total > (done - 1) * 4 / self.total {
            println!("   {}: {done} of {}", self.label, self.total);
        }
    }
}
