//! Whether the server answers: warns of requests that wait for it, and counts retries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::StorageError;

/// How long a request waits before a retry is worth a warning.
const LONG: Duration = Duration::from_secs(5);
/// How long after a warning further requests that wait are only info lines.
const QUIET: Duration = Duration::from_secs(30);

/// What is known about the answers of a bucket's server, shared by all its requests.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// The bucket's name in messages.
    bucket: String,
    retries: AtomicU64,
    /// Whether an outage has been logged whose end has not.
    is_logged: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Requests that have waited for [`LONG`].
    waiting: usize,
    /// The last warning about an outage.
    warned: Option<Instant>,
    /// The last warning about a damaged answer.
    warned_of_damage: Option<Instant>,
    outage: Option<Outage>,
}

/// From the first failure of a request that has waited for [`LONG`] to the next success.
#[derive(Debug)]
struct Outage {
    since: Instant,
    /// The last failure.
    last: Instant,
}

/// A request that has waited for [`LONG`].
#[derive(Debug)]
pub(crate) struct Waiting(Arc<Health>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.state.lock().waiting -= 1;
    }
}

impl Health {
    pub(crate) fn new(bucket: &str) -> Self {
        Self { bucket: bucket.to_owned(), ..Self::default() }
    }

    /// Number of retries since the start.
    pub(crate) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    pub(crate) fn count_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Logs that the bytes of an answer were damaged on the way: one warning in [`QUIET`]. `error` is that of the read,
    /// which was repeated with success. Returns whether it is a warning.
    pub(crate) fn report_damaged_answer(&self, error: &str) -> bool {
        let now = Instant::now();
        let mut state = self.state.lock();
        let is_quiet = state.warned_of_damage.is_some_and(|warned| now < warned + QUIET);
        if !is_quiet {
            state.warned_of_damage = Some(now);
        }
        drop(state);
        if is_quiet {
            tracing::info!("{error}; a second download was right");
        } else {
            tracing::warn!(
                "{error}; a second download was right, so the bytes were probably damaged on the way: check the memory of \
                 the machines and what is between them"
            );
        }
        !is_quiet
    }

    /// Logs the failed attempt of a request that has been without success for `silence`, and is sent again after `pause`:
    /// one warning in [`QUIET`] for all requests that have waited for [`LONG`].
    pub(crate) fn retry(
        self: &Arc<Self>,
        failed: &StorageError,
        silence: Duration,
        pause: Duration,
        waiting: &mut Option<Waiting>,
    ) {
        self.count_retry();
        let pause = pause.as_millis();
        if silence < LONG {
            tracing::info!("{failed}; retrying in {pause} ms");
            return;
        }
        let mut state = self.state.lock();
        if waiting.is_none() {
            state.waiting += 1;
            *waiting = Some(Waiting(Arc::clone(self)));
        }
        let now = Instant::now();
        let outage = state.outage.get_or_insert(Outage { since: now - silence, last: now });
        outage.last = now;
        let is_known = state.warned.is_some_and(|warned| now < warned + QUIET);
        if !is_known {
            state.warned = Some(now);
            self.is_logged.store(true, Ordering::Relaxed);
        }
        drop(state);
        let seconds = silence.as_secs();
        if is_known {
            tracing::info!("{failed}; no success for {seconds} s, retrying in {pause} ms");
        } else {
            tracing::warn!("{failed}; no success for {seconds} s, retrying in {pause} ms");
        }
    }

    /// Notes that the server has answered a request. This ends an outage, unless other requests still wait: a server can
    /// refuse writes and serve reads.
    pub(crate) fn answered(&self) {
        if !self.is_logged.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state.lock();
        if state.waiting > 0 {
            return;
        }
        let ended = state.outage.take();
        let was_logged = self.is_logged.swap(false, Ordering::Relaxed);
        drop(state);
        if let Some(Outage { since, last }) = ended.filter(|_| was_logged) {
            let seconds = (last - since).as_secs();
            tracing::warn!("{} answers again, after failures for {seconds} s", self.bucket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Cause, Operation};

    fn failed() -> StorageError {
        StorageError::new(Operation::Read, "s3://bucket/name", Cause::Busy)
    }

    #[tokio::test(start_paused = true)]
    async fn outage_is_logged_every_half_minute() {
        let health = Arc::new(Health::new("s3://bucket"));
        let mut requests: Vec<Option<Waiting>> = (0..50).map(|_| None).collect();
        let mut warned = Vec::new();
        let last_warning = || health.state.lock().warned;
        let is_out = || health.state.lock().outage.is_some();
        let short = LONG.checked_sub(Duration::from_millis(1)).unwrap();
        health.retry(&failed(), short, Duration::ZERO, &mut requests[0]);
        assert_eq!((last_warning(), health.state.lock().waiting), (None, 0));
        for _second in 0..3600 {
            for waiting in &mut requests {
                health.retry(&failed(), LONG, Duration::ZERO, waiting);
            }
            warned.extend(last_warning());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        warned.dedup();
        assert_eq!((warned.len(), health.state.lock().waiting), (120, 50));
        assert_eq!(health.retries(), 1 + 50 * 3600);
        health.answered();
        assert!(is_out(), "other requests still wait");
        drop(requests);
        health.answered();
        assert!(!is_out());
    }

    #[tokio::test(start_paused = true)]
    async fn damaged_answers_are_one_warning_in_half_a_minute() {
        let health = Health::new("s3://bucket");
        let report = || health.report_damaged_answer("cannot read s3://bucket/name");
        assert_eq!((0..1000).filter(|_| report()).count(), 1);
        tokio::time::advance(QUIET).await;
        assert_eq!((0..1000).filter(|_| report()).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn server_that_serves_only_reads_causes_two_warnings_in_half_a_minute() {
        let health = Arc::new(Health::new("s3://bucket"));
        let mut warned = Vec::new();
        let mut ended = 0;
        for _second in 0..60 {
            let mut write = None;
            health.retry(&failed(), LONG, Duration::ZERO, &mut write);
            warned.extend(health.state.lock().warned);
            drop(write);
            let is_logged = || health.is_logged.load(Ordering::Relaxed);
            let was_logged = is_logged();
            health.answered();
            ended += usize::from(was_logged && !is_logged());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        warned.dedup();
        assert_eq!((warned.len(), ended), (2, 2));
    }
}
