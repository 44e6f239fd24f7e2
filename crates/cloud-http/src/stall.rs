//! Telling a slow exchange from one that stands still.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// When something last moved in an exchange; shared between its request body and the one who waits.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    start: Instant,
    /// Milliseconds from `start` to the last movement.
    last: Arc<AtomicU64>,
}

impl Progress {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now(), last: Arc::new(AtomicU64::new(0)) }
    }

    /// Something moved.
    pub(crate) fn mark(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(elapsed, Ordering::Relaxed);
    }

    /// Ends once nothing has moved for `limit`.
    pub(crate) async fn stalled(&self, limit: Duration) {
        loop {
            let due = self.start + Duration::from_millis(self.last.load(Ordering::Relaxed)) + limit;
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
