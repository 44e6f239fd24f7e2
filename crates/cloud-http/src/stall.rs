//! Telling a slow exchange from one that stands still.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// What the system may hold of an upload that the connection has taken, in bytes: Linux lets a send buffer grow so far.
const SYSTEM_BUFFER: u64 = 4 * 1024 * 1024;
/// The slowest line for which that is waited, in bytes a second.
const SLOWEST_LINE: u64 = 128 * 1024;

/// When something last moved in an exchange; shared between its request body and the one who waits.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    start: Instant,
    /// Milliseconds from `start` to the last movement.
    last: Arc<AtomicU64>,
    /// Milliseconds that the last bytes of an upload may take unseen.
    drain: Arc<AtomicU64>,
}

impl Progress {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now(), last: Arc::default(), drain: Arc::default() }
    }

    /// Something moved.
    pub(crate) fn mark(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(elapsed, Ordering::Relaxed);
    }

    /// The connection has taken the last of `bytes`, which may still lie in the system's buffers: what becomes of them
    /// shows only in the answer.
    pub(crate) fn all_taken(&self, bytes: u64) {
        self.drain.store(bytes.min(SYSTEM_BUFFER) * 1000 / SLOWEST_LINE, Ordering::Relaxed);
    }

    /// Ends once nothing has moved for `limit`.
    pub(crate) async fn stalled(&self, limit: Duration) {
        loop {
            let last = self.last.load(Ordering::Relaxed) + self.drain.load(Ordering::Relaxed);
            let due = self.start + Duration::from_millis(last) + limit;
            if Instant::now() >= due {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_end_of_an_upload_is_given_the_time_that_a_slow_line_takes() {
        let progress = Progress::start();
        progress.all_taken(3 * SLOWEST_LINE);
        let start = Instant::now();
        progress.stalled(Duration::from_secs(10)).await;
        assert_eq!(start.elapsed().as_secs(), 13);
        progress.all_taken(u64::MAX / 1000);
        progress.stalled(Duration::from_secs(10)).await;
        assert_eq!(start.elapsed().as_secs(), 10 + SYSTEM_BUFFER / SLOWEST_LINE);
    }

    #[tokio::test(start_paused = true)]
    async fn an_exchange_that_moves_now_and_then_is_not_stalled() {
        let progress = Progress::start();
        let limit = Duration::from_secs(10);
        let watched = {
            let progress = progress.clone();
            tokio::spawn(async move {
                progress.stalled(limit).await;
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
