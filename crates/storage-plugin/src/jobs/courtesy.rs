//! Jobs give way to the requests of users.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long after the last request a user is taken to be still there: clients need a moment between two requests.
const QUIET: Duration = Duration::from_millis(200);
/// How long a job rests for each unit of time that it works while there are users.
const REST: u32 = 3;
/// Attachments that a job handles at once without users.
const AT_ONCE: usize = 8;

/// The requests of users to the storage area, shared by its clones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Courtesy(Arc<Users>);

#[derive(Debug, Default)]
struct Users {
    running: AtomicUsize,
    /// When the last request ended.
    last: Mutex<Option<Instant>>,
}

/// A request of a user that is being served.
#[derive(Debug)]
pub(crate) struct UserRequest<'a>(&'a Users);

impl Courtesy {
    /// Notes a request, until the returned value is dropped.
    pub(crate) fn user(&self) -> UserRequest<'_> {
        self.0.running.fetch_add(1, Ordering::Relaxed);
        UserRequest(&self.0)
    }

    /// How many attachments a job may handle at once.
    pub(crate) fn at_once(&self) -> usize {
        if self.is_needed() { 1 } else { AT_ONCE }
    }

    /// How long a job that has worked for a while must rest.
    pub(crate) fn rest(&self, worked: Duration) -> Duration {
        if self.is_needed() { worked * REST } else { Duration::ZERO }
    }

    /// Whether there are users.
    fn is_needed(&self) -> bool {
        self.0.running.load(Ordering::Relaxed) > 0
            || self.0.last.lock().is_some_and(|last| last.elapsed() < QUIET)
    }
}

impl Drop for UserRequest<'_> {
    fn drop(&mut self) {
        *self.0.last.lock() = Some(Instant::now());
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_rests_only_while_there_are_users() {
        let courtesy = Courtesy::default();
        let worked = Duration::from_millis(10);
        assert_eq!((courtesy.at_once(), courtesy.rest(worked)), (AT_ONCE, Duration::ZERO));
        let request = courtesy.clone();
        let request = request.user();
        assert_eq!((courtesy.at_once(), courtesy.rest(worked)), (1, worked * REST));
        drop(request);
        *courtesy.0.last.lock() = Instant::now().checked_sub(QUIET);
        assert_eq!((courtesy.at_once(), courtesy.rest(worked)), (AT_ONCE, Duration::ZERO));
    }
}
