//! Stall detection: distinguishes a slow exchange from one without any progress.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Maximum number of bytes of an upload in the system's buffers: the limit of Linux for send buffers.
const SYSTEM_BUFFER: u64 = 4 * 1024 * 1024;
/// Minimum rate in bytes per second at which these buffers are expected to drain.
const SLOWEST_LINE: u64 = 128 * 1024;

/// Time of the last progress in an exchange, shared by the request body and the code that waits for the
/// response.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    start: Instant,
    /// Milliseconds from `start` to the last progress.
    last: Arc<AtomicU64>,
    /// Additional milliseconds for the last bytes of an upload to leave the system's buffers.
    drain: Arc<AtomicU64>,
}

impl Progress {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now(), last: Arc::default(), drain: Arc::default() }
    }

    /// Records progress.
    pub(crate) fn mark(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(elapsed, Ordering::Relaxed);
    }

    /// Records that the connection has taken the last of `bytes`. They may still be in the system's buffers,
    /// where their progress is not visible.
    pub(crate) fn all_taken(&self, bytes: u64) {
        self.drain.store(bytes.min(SYSTEM_BUFFER) * 1000 / SLOWEST_LINE, Ordering::Relaxed);
    }

    /// Returns when there was no progress for `limit`.
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
    async fn upload_buffers_get_time_to_drain() {
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
    async fn progress_postpones_the_stall() {
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
