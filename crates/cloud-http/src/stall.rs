//! Stall detection: distinguishes a slow exchange from one without any progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Time of the last progress in an exchange, shared by the request body and the code that waits for the
/// response.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    start: Instant,
    /// Milliseconds from `start` to the last progress.
    last: Arc<AtomicU64>,
    /// Whether the connection has taken the last byte of a request that is not a read.
    all_taken: Arc<AtomicBool>,
}

/// How long an exchange may be without progress.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// While data is sent or received, and for the answer to a read, which can be asked for again.
    pub(crate) stall: Duration,
    /// For the first byte of the answer after the last byte of any other request. The server may have to write
    /// to several disks first.
    pub(crate) answer: Duration,
}

impl Progress {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now(), last: Arc::default(), all_taken: Arc::default() }
    }

    /// Records progress.
    pub(crate) fn mark(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(elapsed, Ordering::Relaxed);
    }

    /// Records that the connection has taken the last byte. If the peer does not take it from the system's
    /// buffers, the connection breaks (`TCP_USER_TIMEOUT`).
    pub(crate) fn all_taken(&self) {
        self.all_taken.store(true, Ordering::Relaxed);
    }

    /// Returns when there was no progress for one of the limits, and which.
    pub(crate) async fn stalled(&self, limits: Limits) -> Duration {
        loop {
            let limit = if self.all_taken.load(Ordering::Relaxed) { limits.answer } else { limits.stall };
            let due = self.start + Duration::from_millis(self.last.load(Ordering::Relaxed)) + limit;
            if Instant::now() >= due {
                return limit;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { stall: Duration::from_secs(10), answer: Duration::from_secs(60) };

    #[tokio::test(start_paused = true)]
    async fn answer_to_a_body_may_take_longer() {
        let progress = Progress::start();
        let start = Instant::now();
        assert_eq!(progress.stalled(LIMITS).await, LIMITS.stall);
        assert_eq!(start.elapsed(), LIMITS.stall);
        progress.mark();
        progress.all_taken();
        assert_eq!(progress.stalled(LIMITS).await, LIMITS.answer);
        assert_eq!(start.elapsed(), LIMITS.stall + LIMITS.answer);
    }

    #[tokio::test(start_paused = true)]
    async fn progress_postpones_the_stall() {
        let progress = Progress::start();
        let watched = {
            let progress = progress.clone();
            tokio::spawn(async move {
                progress.stalled(LIMITS).await;
                Instant::now()
            })
        };
        let start = Instant::now();
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(9)).await;
            progress.mark();
        }
        let given_up = watched.await.unwrap();
        assert_eq!((given_up - start).as_secs(), 5 * 9 + 10);
    }
}
