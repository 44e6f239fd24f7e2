//! A bound on the bytes that are in encryption or decryption at once, over all threads.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// A byte semaphore that serves first come, first served (`MaxConcurrentInputSize`).
///
/// Strictly in order: a large request that waits is not overtaken by small ones that would fit. A request larger than
/// the whole budget waits until nothing else is in flight and is then let through alone. A clone shares the budget.
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
    /// Tickets are numbered in the order of arrival; the next one drawn, and the next one that may enter.
    next_ticket: u64,
    now_serving: u64,
}

impl MemoryBudget {
    /// A budget of `total` bytes. With 0, as with 1, requests go through one at a time.
    pub(crate) fn new(total: u64) -> Self {
        let shared = Shared { total: total.max(1), state: Mutex::default(), changed: Condvar::new() };
        Self(Arc::new(shared))
    }

    /// Waits, blocking the thread, until it is this request's turn and `bytes` fit; they are taken until the guard is
    /// dropped. A thread that already holds a guard must not ask for another one: it may wait for itself.
    pub(crate) fn acquire(&self, bytes: u64) -> BudgetGuard {
        // Clamped: "larger than everything" then means "everything", which is granted when nothing else is in flight.
        // At least 1, so that a budget of one byte admits empty attachments one at a time as well.
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
        // The next in line may fit as well.
        self.0.changed.notify_all();
        BudgetGuard { shared: Arc::clone(&self.0), bytes }
    }

    #[cfg(test)]
    /// Bytes in use, for metrics. A request larger than the budget counts as the budget.
    pub(crate) fn used(&self) -> u64 {
        self.0.state.lock().used
    }

    #[cfg(test)]
    /// Requests that wait, for metrics.
    pub(crate) fn waiting(&self) -> u64 {
        let state = self.0.state.lock();
        state.next_ticket - state.now_serving
    }
}

/// Bytes taken from a [`MemoryBudget`]; given back on drop.
#[derive(Debug)]
#[must_use = "the bytes are given back as soon as the guard is dropped"]
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
