//! The signal that Orthanc stops.
//!
//! Orthanc gives it before it waits for requests, jobs and callbacks in progress, which must then end soon.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long stores and reads may continue after the signal. Orthanc must stop within five seconds.
const GRACE: Duration = Duration::from_secs(3);

/// The signal, shared by its clones.
#[derive(Debug, Clone)]
pub(crate) struct Stop(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// When the signal was given.
    given: watch::Sender<Option<Instant>>,
    /// Held for reading during each call of Orthanc.
    calls: RwLock<()>,
}

impl Stop {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner { given: watch::Sender::new(None), calls: RwLock::new(()) }))
    }

    /// Gives the signal, and waits for the calls of Orthanc in progress: Orthanc must not be called while
    /// it shuts down.
    pub(crate) fn now(&self) {
        self.0.given.send_if_modified(|given| given.replace(given.unwrap_or_else(Instant::now)).is_none());
        drop(self.0.calls.write());
    }

    pub(crate) fn is_given(&self) -> bool {
        self.0.given.borrow().is_some()
    }

    /// Calls Orthanc, unless it is stopping.
    pub(crate) fn call<T>(&self, call: impl FnOnce() -> T) -> Option<T> {
        let _call = self.0.calls.read();
        (!self.is_given()).then(call)
    }

    /// Waits for the signal.
    pub(crate) async fn signal(&self) {
        self.given().await;
    }

    /// Waits until stores and reads must end.
    pub(crate) async fn grace_over(&self) {
        sleep_until(self.given().await + GRACE).await;
    }

    async fn given(&self) -> Instant {
        // The sender lives as long as `self`, so this does not fail.
        let mut receiver = self.0.given.subscribe();
        let given = receiver.wait_for(Option::is_some).await;
        given.ok().and_then(|given| *given).unwrap_or_else(Instant::now)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn grace_begins_with_the_first_signal() {
        let stop = Stop::new();
        assert_eq!(stop.call(|| 7), Some(7));
        stop.now();
        tokio::time::sleep(Duration::from_secs(2)).await;
        stop.now();
        let start = Instant::now();
        stop.grace_over().await;
        assert_eq!(start.elapsed(), GRACE - Duration::from_secs(2));
        assert_eq!(stop.call(|| 7), None);
    }

    #[test]
    fn signal_waits_for_the_call_in_progress() {
        let stop = Stop::new();
        let (begun, has_begun) = mpsc::channel();
        let (end, may_end) = mpsc::channel::<()>();
        let caller = {
            let stop = stop.clone();
            thread::spawn(move || {
                stop.call(|| {
                    begun.send(()).unwrap();
                    may_end.recv().unwrap();
                })
            })
        };
        has_begun.recv().unwrap();
        let (done, is_done) = mpsc::channel();
        let stopper = thread::spawn(move || {
            stop.now();
            done.send(()).unwrap();
        });
        is_done.recv_timeout(Duration::from_millis(100)).unwrap_err();
        end.send(()).unwrap();
        is_done.recv().unwrap();
        assert_eq!(caller.join().unwrap(), Some(()));
        stopper.join().unwrap();
    }
}
