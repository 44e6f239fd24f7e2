//! Holds, which keep requests back until a test releases them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use crate::operation::{Operation, Target};

/// Keeps requests back from [`crate::BucketServer::hold`] until this is released or dropped.
#[derive(Debug)]
pub struct Hold {
    gate: Arc<Gate>,
    holds: Weak<Holds>,
}

impl Hold {
    /// Returns the number of requests held now. The server has read their headers and nothing of their
    /// bodies.
    #[must_use]
    pub fn waiting(&self) -> usize {
        *self.gate.waiting.lock()
    }

    /// Waits until at least this many requests are held at once. Returns `false` after `timeout`.
    #[must_use]
    pub fn wait_until(&self, requests: usize, timeout: Duration) -> bool {
        let mut waiting = self.gate.waiting.lock();
        !self.gate.changed.wait_while_for(&mut waiting, |waiting| *waiting < requests, timeout).timed_out()
    }

    /// Releases all held requests; later ones pass. Dropping does the same.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.gate.open.send_replace(true);
        if let Some(holds) = self.holds.upgrade() {
            holds.gates.lock().retain(|gate| !Arc::ptr_eq(gate, &self.gate));
        }
    }
}

/// The gates of a server.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    gates: Mutex<Vec<Arc<Gate>>>,
}

#[derive(Debug)]
struct Gate {
    operation: Operation,
    key_contains: Option<String>,
    waiting: Mutex<usize>,
    changed: Condvar,
    open: watch::Sender<bool>,
}

impl Gate {
    fn stops(&self, target: &Target) -> bool {
        self.operation == target.operation
            && self.key_contains.as_ref().is_none_or(|text| target.key.contains(text))
    }
}

impl Holds {
    pub(crate) fn hold(self: &Arc<Self>, operation: Operation, key_contains: Option<String>) -> Hold {
        let gate = Arc::new(Gate {
            operation,
            key_contains,
            waiting: Mutex::new(0),
            changed: Condvar::new(),
            open: watch::Sender::new(false),
        });
        self.gates.lock().push(Arc::clone(&gate));
        Hold { gate, holds: Arc::downgrade(self) }
    }

    /// Waits at every closed gate that stops this request.
    pub(crate) async fn pass(&self, target: &Target) {
        let gates: Vec<_> = self.gates.lock().iter().filter(|gate| gate.stops(target)).cloned().collect();
        for gate in gates {
            let _waiting = Waiting::at(&gate);
            // Never fails: the gate owns the sender.
            let _ = gate.open.subscribe().wait_for(|open| *open).await;
        }
    }
}

/// Counts a request as waiting until it is released or its connection breaks.
struct Waiting<'a>(&'a Gate);

impl<'a> Waiting<'a> {
    fn at(gate: &'a Gate) -> Self {
        *gate.waiting.lock() += 1;
        gate.changed.notify_all();
        Self(gate)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        *self.0.waiting.lock() -= 1;
        self.0.changed.notify_all();
    }
}
