//! Retries transient failures with backoff and an overall deadline.

use std::sync::Arc;
use std::time::Duration;

use cloud_http::{Exchange, Progress, hiding_names, observe, urgently, without_name};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::time::Instant;

use crate::classify::{may_be_done, storage_error, web_page};
use crate::error::{Cause, Operation, StorageError};
use crate::health::{Health, Waiting};

/// How long a server that has not confirmed an upload may take to answer whether it is there. A quarter of the patience
/// that is left if that is shorter.
const ASK: Duration = Duration::from_secs(5);

/// When failed requests are retried, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Maximum number of retries after the first attempt.
    pub max_retries: u32,
    /// Time limit for an operation, including all attempts and pauses.
    pub deadline: Duration,
    /// Maximum time without any sign of the server, in all attempts and pauses together.
    pub patience: Duration,
    /// The pause before the first retry; it doubles with each further one.
    pub first_pause: Duration,
    /// The longest pause, unless the server asks for a longer one (`Retry-After`).
    pub longest_pause: Duration,
}

impl Default for RetryPolicy {
    /// Ten retries within 20 minutes, of which 20 seconds without a sign of the server, with pauses of 0.1 s to 4 s: an interruption of
    /// ten seconds is always survived.
    fn default() -> Self {
        Self {
            max_retries: 10,
            deadline: Duration::from_secs(1200),
            patience: Duration::from_secs(20),
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(4),
        }
    }
}

impl RetryPolicy {
    /// As this policy, for work that nobody waits for: only the number of retries and the deadline end it.
    #[must_use]
    pub fn patient(self) -> Self {
        Self {
            patience: Duration::MAX,
            longest_pause: self.longest_pause.max(Duration::from_secs(15)),
            ..self
        }
    }

    /// Makes attempts of a small request to another service than the bucket's, such as a key service, until one
    /// succeeds, one fails permanently, or the limits are reached. In total, they last no longer than the patience.
    ///
    /// # Errors
    ///
    /// The error of the last attempt. Its object is `target`, which the messages name after the operation.
    pub async fn request<T, F>(
        self,
        operation: Operation,
        target: String,
        attempt: impl Fn() -> F,
    ) -> Result<T, StorageError>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let policy = Self { deadline: self.deadline.min(self.patience), ..self };
        let answer = Attempts::new(policy, operation, target).run(attempt).await;
        answer.map(|(value, _)| value).map_err(|error| match error.cause {
            Cause::TimedOut(limit) if limit < self.deadline => {
                StorageError { cause: Cause::Unanswered(limit), ..error }
            }
            _ => error,
        })
    }
}

/// The attempts of one operation on one object.
#[derive(Debug)]
pub(crate) struct Attempts {
    policy: RetryPolicy,
    operation: Operation,
    /// The object in messages.
    pub(crate) object: String,
    deadline: Instant,
    made: u32,
    retries_left: u32,
    pause: Duration,
    /// What is left of the policy's patience.
    patience: Duration,
    /// The object to ask for while the server does not confirm that it has stored it.
    asked: Option<(Arc<dyn ObjectStore>, Path)>,
    /// The failure before the present attempt.
    last: Option<Box<StorageError>>,
    /// Of requests that a client of Orthanc waits for.
    health: Option<Arc<Health>>,
    waiting: Option<Waiting>,
    may_be_done: bool,
    renewed: bool,
    /// The name of the object, if it must not be in log lines and errors.
    hidden_name: Option<Arc<str>>,
}

/// A failed attempt.
pub(crate) struct Failure {
    pub(crate) error: StorageError,
    /// How long the server asks to wait.
    pub(crate) retry_after: Option<Duration>,
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self { error, retry_after: None }
    }
}

impl Attempts {
    pub(crate) fn new(policy: RetryPolicy, operation: Operation, object: String) -> Self {
        Self {
            policy,
            operation,
            object,
            deadline: after(policy.deadline),
            made: 0,
            retries_left: policy.max_retries,
            pause: policy.first_pause,
            patience: policy.patience,
            asked: None,
            last: None,
            health: None,
            waiting: None,
            may_be_done: false,
            renewed: false,
            hidden_name: None,
        }
    }

    /// Keeps the names of objects, such as `name`, out of log lines and errors.
    pub(crate) fn hiding(self, name: &str) -> Self {
        Self { hidden_name: Some(name.into()), ..self }
    }

    /// Reports waits and retries to `health`.
    pub(crate) fn reported_to(self, health: &Arc<Health>) -> Self {
        Self { health: Some(Arc::clone(health)), ..self }
    }

    /// Waits for the confirmation of an upload as long as the server answers whether it has the object `path`. It may
    /// have to write to several disks, or to a tape.
    pub(crate) fn asking_for(self, store: &Arc<dyn ObjectStore>, path: &Path) -> Self {
        Self { asked: Some((Arc::clone(store), path.clone())), ..self }
    }

    /// Makes attempts until one succeeds, one fails permanently, or the policy's limits are reached.
    ///
    /// # Errors
    ///
    /// The error of the last attempt.
    pub(crate) async fn run<T, F>(&mut self, attempt: impl Fn() -> F) -> Result<(T, Exchange), StorageError>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        loop {
            self.made += 1;
            let progress = Progress::start();
            let answer = tokio::select! {
                biased;
                answer = tokio::time::timeout_at(self.deadline, progress.record(self.observed(attempt()))) => answer,
                () = self.silence(&progress) => {
                    self.may_be_done |= progress.has_sent();
                    return Err(self.unanswered(&progress));
                }
            };
            self.count_silence(&progress);
            let answer = answer.map(|(result, exchange)| match result {
                Ok(_) if exchange.foreign => (Err(web_page()), exchange),
                result => (result, exchange),
            });
            let failure = match answer {
                Ok((Ok(value), exchange)) => {
                    self.answered();
                    return Ok((value, exchange));
                }
                // Once, at once, and however many retries are allowed.
                Ok((Err(_), exchange)) if exchange.renewed && !self.renewed => {
                    self.renewed = true;
                    continue;
                }
                Ok((Err(error), exchange)) => {
                    self.may_be_done |= may_be_done(&error, &exchange);
                    let retry_after = exchange.retry_after;
                    Failure { error: self.storage_error(&error, exchange), retry_after }
                }
                Err(_elapsed) => {
                    self.may_be_done = true;
                    return Err(self.timed_out());
                }
            };
            self.pause_after(failure).await?;
        }
    }

    fn observed<T>(&self, attempt: impl Future<Output = T>) -> impl Future<Output = (T, Exchange)> {
        hiding_names(self.hidden_name.clone(), observe(attempt))
    }

    fn storage_error(&self, error: &object_store::Error, exchange: Exchange) -> StorageError {
        let mut error = storage_error(self.operation, &self.object, error, exchange);
        if let (Cause::Other(text), Some(name)) = (&mut error.cause, &self.hidden_name) {
            *text = without_name(text, name);
        }
        error
    }

    /// Waits before the next attempt, or returns the error if there is to be none.
    pub(crate) async fn pause_after(&mut self, failure: impl Into<Failure>) -> Result<(), StorageError> {
        let Failure { error, retry_after } = failure.into();
        let backoff = self.pause.mul_f64(rand::random_range(0.5..=1.0));
        let pause = retry_after.unwrap_or_default().max(backoff);
        let failed = StorageError { attempts: self.made, ..error };
        if !failed.transient {
            // The server is there, if it refuses.
            if failed.answer.is_some() {
                self.answered();
            }
            return Err(failed);
        }
        if self.retries_left == 0 || pause >= self.patience || after(pause) >= self.deadline {
            return Err(failed);
        }
        let silence = self.policy.patience.saturating_sub(self.patience);
        match &self.health {
            Some(health) => health.retry(&failed, silence, pause, &mut self.waiting),
            None => tracing::info!("{failed}; retrying in {} ms", pause.as_millis()),
        }
        self.last = Some(Box::new(failed));
        self.retries_left -= 1;
        self.patience -= pause;
        self.pause = (self.pause * 2).min(self.policy.longest_pause);
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Returns when there was no sign of the server for as long as the patience lasts.
    async fn silence(&self, progress: &Progress) {
        let ask = if self.asked.is_some() { ASK.min(self.patience / 4) } else { Duration::ZERO };
        loop {
            progress.silent(self.patience, ask).await;
            if !progress.has_sent_all() || !self.is_there(ask).await {
                return;
            }
            tracing::info!("{}: the server has not confirmed it yet, but answers; waiting", self.object);
            progress.mark();
        }
    }

    /// Whether the server answers within `limit`, other than that it has a problem.
    async fn is_there(&self, limit: Duration) -> bool {
        let Some((store, path)) = &self.asked else { return false };
        // All connections may wait for such confirmations.
        let look = Box::pin(urgently(self.observed(store.head(path))));
        let answer = tokio::time::timeout(limit, look).await;
        answer.is_ok_and(|(result, exchange)| {
            result.is_ok() || exchange.status.is_some_and(|status| status < 500)
        })
    }

    /// Counts the time since the last progress of an attempt that has ended. An attempt that moved data for longer than the
    /// patience for an outage was not part of one.
    fn count_silence(&mut self, progress: &Progress) {
        if progress.moved_for() > self.policy.patience {
            self.patience = self.policy.patience;
        }
        self.patience = self.patience.saturating_sub(progress.last().elapsed());
    }

    /// The error of an attempt that was given up, since the patience is exhausted. The failure before says more than that
    /// a connection was not opened in time.
    fn unanswered(&mut self, progress: &Progress) -> StorageError {
        let earlier = self.last.take().filter(|_| !progress.has_sent());
        let attempts = self.made;
        match earlier {
            Some(error) => StorageError { attempts, ..*error },
            None => self.error(Cause::Unanswered(self.policy.patience), true),
        }
    }

    fn answered(&mut self) {
        self.waiting = None;
        if let Some(health) = &self.health {
            health.answered();
        }
    }

    /// Restores the full number of retries: a failure after progress is a new failure.
    pub(crate) fn made_progress(&mut self) {
        self.retries_left = self.policy.max_retries;
        self.pause = self.policy.first_pause;
        self.patience = self.policy.patience;
        self.waiting = None;
    }

    /// A fresh number of retries with the same deadline, and with what is left of the patience.
    pub(crate) fn again(&self, policy: RetryPolicy) -> Self {
        let deadline = self.deadline;
        let patience = self.patience.min(policy.patience);
        let health = self.health.clone();
        let asked = self.asked.clone();
        let fresh = Self::new(policy, self.operation, self.object.clone());
        Self { deadline, patience, health, asked, hidden_name: self.hidden_name.clone(), ..fresh }
    }

    /// Whether there was no more than one attempt.
    pub(crate) fn is_first(&self) -> bool {
        self.made <= 1
    }

    /// Counts a request that is repeated for another reason than a failed attempt.
    pub(crate) fn count_retry(&self) {
        if let Some(health) = &self.health {
            health.count_retry();
        }
    }

    pub(crate) fn policy(&self) -> RetryPolicy {
        self.policy
    }

    /// Whether the server may have carried out one of the failed attempts.
    pub(crate) fn may_be_done(&self) -> bool {
        self.may_be_done
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// An error of this operation that does not come from a server's answer.
    pub(crate) fn error(&self, cause: Cause, transient: bool) -> StorageError {
        let error = StorageError::new(self.operation, self.object.clone(), cause);
        StorageError { transient, attempts: self.made, ..error }
    }

    /// The error of an attempt whose answer began well and broke later.
    pub(crate) fn broken(&self, error: &object_store::Error) -> StorageError {
        self.storage_error(error, Exchange::default())
    }

    pub(crate) fn timed_out(&self) -> StorageError {
        self.error(Cause::TimedOut(self.policy.deadline), true)
    }
}

/// The moment after `pause`, or after a year if that is too far away for the clock.
fn after(pause: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let now = Instant::now();
    now.checked_add(pause).unwrap_or_else(|| now + YEAR)
}

#[cfg(test)]
mod tests;
