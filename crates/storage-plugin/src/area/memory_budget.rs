//! Limits the bytes being encrypted or decrypted at once over all threads.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// A byte semaphore that serves first come, first served (`MaxConcurrentInputSize`).
///
/// Small requests that would fit do not overtake a large one that waits. A request larger than the whole
/// budget waits until nothing else is in flight and then proceeds alone. Clones share the budget.
#[derive(Debug, Clone)]
pub(crate) struct MemoryBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    /// Number of the next ticket to draw. Tickets are numbered in order of arrival.
    next_ticket: u64,
    /// Number of the next ticket that may proceed.
    now_serving: u64,
}

impl MemoryBudget {
    /// A budget of `total` bytes. With 0 or 1, requests proceed one at a time.
    pub(crate) fn new(total: u64) -> Self {
        let shared = Shared { total: total.max(1), state: Mutex::default(), changed: Condvar::new() };
        Self(Arc::new(shared))
    }

    /// Blocks until it is this request's turn and `bytes` fit; they are taken until the guard is dropped. A
    /// thread that holds a guard must not ask for another, or it may wait for itself.
    pub(crate) fn acquire(&self, bytes: u64) -> BudgetGuard {
        // A larger request takes the whole budget, which is free when nothing else is in flight. Empty
        // attachments take one byte, so that a budget of one byte admits them one at a time as well.
        let bytes = bytes.clamp(1, self.0.total);
        let mut state = self.0.state.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        while state.now_serving != ticket || self.0.total - state.used < bytes {
            self.0.changed.wait(&mut state);
        }
        state.now_serving += 1;
        state.used += bytes;
        drop(state);
        // The next request may fit as well.
        self.0.changed.notify_all();
        BudgetGuard { shared: Arc::clone(&self.0), bytes }
    }

    /// Bytes in use. A request larger than the budget counts as the budget.
    #[cfg(test)]
    pub(crate) fn used(&self) -> u64 {
        self.0.state.lock().used
    }

    /// Number of waiting requests.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> u64 {
        let state = self.0.state.lock();
        state.next_ticket - state.now_serving
    }
}

/// Bytes taken from a [`MemoryBudget`], returned on drop.
#[derive(Debug)]
#[must_use = "dropping the guard returns the bytes"]
pub(crate) struct BudgetGuard {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Drop for BudgetGuard {
    fn drop(&mut self) {
        self.shared.state.lock().used -= self.bytes;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
