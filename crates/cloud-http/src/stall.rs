//! Progress and silence: distinguishes a slow exchange from one without any progress.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::futures::TaskLocalFuture;
use tokio::time::Instant;

/// How often a wait for a connection looks whether the server answers others.
const LOOK: Duration = Duration::from_secs(1);

tokio::task_local! {
    static PROGRESS: Progress;
}

/// Time of the last progress in an attempt, shared by its exchanges, their request bodies and the code that waits for
/// the responses.
#[derive(Debug, Clone)]
pub struct Progress(Arc<State>);

#[derive(Debug)]
struct State {
    start: Instant,
    /// Milliseconds from `start` to the beginning of the present request.
    began: AtomicU64,
    /// Milliseconds from `start` to the last progress.
    last: AtomicU64,
    /// Whether the connection has taken a part of a request's body.
    begun: AtomicBool,
    /// Whether the connection has taken the last byte of a request that is not a read.
    all_taken: AtomicBool,
    /// The progress of all exchanges of the client.
    client: OnceLock<Progress>,
}

/// How long an exchange may be without progress.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// While data is sent, and for the answer to a read, which can be asked for again.
    pub(crate) stall: Duration,
    /// For the first byte of the answer after the last byte of any other request. The server may have to write
    /// to several disks first.
    pub(crate) answer: Duration,
    /// While an object is read, which can continue where it stopped.
    pub(crate) download: Duration,
}

impl Progress {
    /// Starts now, which counts as progress.
    pub fn start() -> Self {
        Self(Arc::new(State {
            start: Instant::now(),
            began: AtomicU64::default(),
            last: AtomicU64::default(),
            begun: AtomicBool::default(),
            all_taken: AtomicBool::default(),
            client: OnceLock::new(),
        }))
    }

    /// Runs `attempt`, whose exchanges record their progress here.
    pub fn record<F: Future>(&self, attempt: F) -> TaskLocalFuture<Self, F> {
        PROGRESS.scope(self.clone(), attempt)
    }

    /// The progress to record an exchange in, that of a client with the progress `client`.
    pub(crate) fn of_exchange(client: &Self) -> Self {
        let progress = PROGRESS.try_with(Self::clone).unwrap_or_else(|_| Self::start());
        let _ = progress.0.client.set(client.clone());
        progress
    }

    /// Records that another request begins. The time before, in which this process may have hashed the payload, was not the
    /// server's.
    pub(crate) fn begin(&self) {
        self.note(self.0.start.elapsed());
        self.0.began.store(self.0.last.load(Ordering::Relaxed), Ordering::Relaxed);
        self.0.begun.store(false, Ordering::Relaxed);
        self.0.all_taken.store(false, Ordering::Relaxed);
    }

    /// Records progress, or another sign of the server.
    pub fn mark(&self) {
        self.note(self.0.start.elapsed());
        if let Some(client) = self.0.client.get() {
            client.note(client.0.start.elapsed());
        }
    }

    fn note(&self, elapsed: Duration) {
        self.0.last.store(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Records that the connection has taken a part of the body.
    pub(crate) fn taken(&self) {
        self.0.begun.store(true, Ordering::Relaxed);
        self.mark();
    }

    /// Records that the connection has taken the last byte. If the peer does not take it from the system's
    /// buffers, the connection breaks (`TCP_USER_TIMEOUT`).
    pub(crate) fn all_taken(&self) {
        self.0.all_taken.store(true, Ordering::Relaxed);
    }

    /// Whether a server may have received a request that is not a read, or a part of it.
    pub fn has_sent(&self) -> bool {
        self.0.begun.load(Ordering::Relaxed) || self.has_sent_all()
    }

    /// Whether the server has all of a request that is not a read, so that it may be at work on it.
    pub fn has_sent_all(&self) -> bool {
        self.0.all_taken.load(Ordering::Relaxed)
    }

    /// The time from the beginning of the present request to the last progress.
    pub fn moved_for(&self) -> Duration {
        let last = self.0.last.load(Ordering::Relaxed);
        Duration::from_millis(last.saturating_sub(self.0.began.load(Ordering::Relaxed)))
    }

    /// When the last progress was.
    pub fn last(&self) -> Instant {
        self.0.start + Duration::from_millis(self.0.last.load(Ordering::Relaxed))
    }

    /// Returns when a request that begins now has been without progress for one of the limits, and which.
    pub(crate) async fn stalled(&self, limits: Limits) -> Duration {
        let begin = Instant::now();
        loop {
            let is_taken = self.has_sent_all();
            let limit = if is_taken { limits.answer } else { limits.stall };
            let due = self.last().max(begin) + limit;
            if Instant::now() >= due {
                return limit;
            }
            tokio::time::sleep_until(due).await;
        }
    }

    /// Returns when there was no progress for `limit`, or `earlier` if the server has all of the request. While a body is
    /// sent, only the client's own limit counts: a line can be slow.
    pub async fn silent(&self, limit: Duration, earlier: Duration) {
        let early = limit.saturating_sub(earlier);
        loop {
            let is_early = self.last().elapsed() < early;
            let is_taken = self.has_sent_all();
            // The connection may have taken the rest of the request by then.
            let due = self.last().checked_add(if is_early || is_taken { early } else { limit });
            match due {
                Some(due) if Instant::now() < due => tokio::time::sleep_until(due).await,
                Some(_) if is_taken || !self.0.begun.load(Ordering::Relaxed) => return,
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Waits for `connection`. That other exchanges of the client progress counts as progress meanwhile.
    pub(crate) async fn queue<T>(&self, connection: impl Future<Output = T>) -> T {
        let follow = async {
            loop {
                tokio::time::sleep(LOOK).await;
                if self.0.client.get().is_some_and(|client| client.last() > self.last()) {
                    self.note(self.0.start.elapsed());
                }
            }
        };
        tokio::select! {
            // No timer is registered if a connection is free.
            biased;
            connection = connection => connection,
            () = follow => unreachable!("the loop does not end"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        stall: Duration::from_secs(10),
        answer: Duration::from_secs(60),
        download: Duration::from_secs(5),
    };

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

    #[tokio::test(start_paused = true)]
    async fn silence_ends_earlier_if_the_server_has_the_request() {
        let second = Duration::from_secs(1);
        let progress = Progress::start();
        let start = Instant::now();
        progress.silent(20 * second, 5 * second).await;
        assert_eq!(start.elapsed(), 20 * second);
        progress.begin();
        progress.taken();
        progress.all_taken();
        progress.silent(20 * second, 5 * second).await;
        assert_eq!(start.elapsed(), 35 * second);
        // The connection takes the request after the wait has begun.
        progress.begin();
        let waiting = tokio::spawn({
            let progress = progress.clone();
            async move { progress.silent(20 * second, 5 * second).await }
        });
        tokio::task::yield_now().await;
        progress.taken();
        progress.all_taken();
        waiting.await.unwrap();
        assert_eq!(start.elapsed(), 50 * second);
        progress.begin();
        progress.taken();
        let endless = tokio::time::timeout(100 * second, progress.silent(20 * second, second)).await;
        assert!(endless.is_err(), "a line may be slow");
    }

    #[tokio::test(start_paused = true)]
    async fn time_before_the_request_is_not_silence() {
        let second = Duration::from_secs(1);
        let progress = Progress::start();
        // The payload is hashed.
        tokio::time::advance(30 * second).await;
        progress.begin();
        let start = Instant::now();
        progress.silent(20 * second, Duration::ZERO).await;
        assert_eq!(start.elapsed(), 20 * second);
        assert_eq!(progress.moved_for(), Duration::ZERO, "nothing was moved");
    }

    #[tokio::test(start_paused = true)]
    async fn queue_is_silent_only_without_other_progress() {
        let second = Duration::from_secs(1);
        let client = Progress::start();
        let queued = Progress::start().record(async { Progress::of_exchange(&client) }).await;
        let waiting = queued.clone();
        let wait = tokio::spawn(async move { waiting.queue(std::future::pending::<()>()).await });
        let start = Instant::now();
        let busy = tokio::spawn(async move {
            for _ in 0..10 {
                tokio::time::sleep(10 * second).await;
                client.mark();
            }
        });
        queued.silent(20 * second, Duration::ZERO).await;
        busy.await.unwrap();
        wait.abort();
        assert!(start.elapsed() >= 120 * second && start.elapsed() <= 122 * second, "{:?}", start.elapsed());
    }
}
