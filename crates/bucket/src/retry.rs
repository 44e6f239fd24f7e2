//! Repeating what failed for reasons that pass.

use std::time::Duration;

use cloud_http::{Exchange, observe};
use tokio::time::Instant;

use crate::classify::storage_error;
use crate::error::{Cause, Operation, StorageError};

/// When and how often a failed request is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Repetitions after the first attempt.
    pub max_retries: u32,
    /// The longest time for an operation, all attempts and pauses together.
    pub deadline: Duration,
    /// The pause before the first repetition; each further one is twice as long.
    pub first_pause: Duration,
    /// The longest pause. A server may ask for a longer one (`Retry-After`).
    pub longest_pause: Duration,
}

impl Default for RetryPolicy {
    /// Ten repetitions within 20 minutes, with pauses of 0.1 s to 15 s.
    fn default() -> Self {
        Self {
            max_retries: 10,
            deadline: Duration::from_secs(1200),
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(15),
        }
    }
}

/// The attempts of one operation on one object.
#[derive(Debug)]
pub(crate) struct Attempts {
    policy: RetryPolicy,
    operation: Operation,
    object: String,
    deadline: Instant,
    made: u32,
    retries_left: u32,
    pause: Duration,
}

impl Attempts {
    pub(crate) fn new(policy: RetryPolicy, operation: Operation, object: String) -> Self {
        Self {
            policy,
            operation,
            object,
            deadline: Instant::now() + policy.deadline,
            made: 0,
            retries_left: policy.max_retries,
            pause: policy.first_pause,
        }
    }

    /// Makes attempts until one succeeds, fails for good, or the time or number of attempts is used up.
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
            let failure = match tokio::time::timeout_at(self.deadline, observe(attempt())).await {
                Ok((Ok(value), exchange)) => return Ok((value, exchange)),
                Ok((Err(error), exchange)) => {
                    let retry_after = exchange.retry_after;
                    (storage_error(self.operation, &self.object, &error, exchange), retry_after)
                }
                Err(_elapsed) => return Err(self.error(Cause::TimedOut(self.policy.deadline), true)),
            };
            self.pause_after(failure).await?;
        }
    }

    /// Waits before the next attempt, or gives `error` back where there is to be none.
    pub(crate) async fn pause_after(
        &mut self,
        (error, retry_after): (StorageError, Option<Duration>),
    ) -> Result<(), StorageError> {
        let pause = retry_after.unwrap_or_default().max(self.pause.mul_f64(rand::random_range(0.5..=1.0)));
        let error = StorageError { attempts: self.made, ..error };
        if !error.transient || self.retries_left == 0 || Instant::now() + pause >= self.deadline {
            return Err(error);
        }
        tracing::info!("{error}; trying again in {} ms", pause.as_millis());
        self.retries_left -= 1;
        self.pause = (self.pause * 2).min(self.policy.longest_pause);
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Something was achieved: what fails from now on is a new failure, with its own repetitions.
    pub(crate) fn made_progress(&mut self) {
        self.retries_left = self.policy.max_retries;
        self.pause = self.policy.first_pause;
    }

    /// The attempts of a further request for the same operation, up to the same moment.
    pub(crate) fn again(&self, policy: RetryPolicy) -> Self {
        let deadline = self.deadline;
        Self { deadline, ..Self::new(policy, self.operation, self.object.clone()) }
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// An error of this operation that no answer of a server tells.
    pub(crate) fn error(&self, cause: Cause, transient: bool) -> StorageError {
        StorageError {
            operation: self.operation,
            object: self.object.clone(),
            cause,
            transient,
            answer: None,
            attempts: self.made,
        }
    }

    /// The error of an attempt whose answer began well and broke later.
    pub(crate) fn broken(&self, error: &object_store::Error) -> StorageError {
        storage_error(self.operation, &self.object, error, Exchange::default())
    }

    pub(crate) fn timed_out(&self) -> StorageError {
        self.error(Cause::TimedOut(self.policy.deadline), true)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn missing() -> object_store::Error {
        object_store::Error::NotFound { path: String::new(), source: "missing".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_heal_is_not_repeated() {
        let made = Cell::new(0);
        let mut attempts = Attempts::new(RetryPolicy::default(), Operation::Read, "name".to_owned());
        let result = attempts
            .run(|| {
                made.set(made.get() + 1);
                async { Err::<(), _>(missing()) }
            })
            .await;
        assert_eq!(result.unwrap_err().cause, Cause::NotFound);
        assert_eq!(made.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn transient_failures_are_repeated_so_often_and_no_more() {
        let policy = RetryPolicy { max_retries: 4, ..RetryPolicy::default() };
        let mut attempts = Attempts::new(policy, Operation::Read, "name".to_owned());
        let busy = StorageError { transient: true, ..attempts.error(Cause::Busy, true) };
        for _ in 0..4 {
            attempts.pause_after((busy.clone(), None)).await.unwrap();
        }
        assert_eq!(attempts.pause_after((busy, None)).await.unwrap_err().cause, Cause::Busy);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wish_of_the_server_to_wait_is_granted_unless_it_leads_past_the_deadline() {
        let policy = RetryPolicy { deadline: Duration::from_secs(100), ..RetryPolicy::default() };
        let mut attempts = Attempts::new(policy, Operation::Read, "name".to_owned());
        let busy = attempts.error(Cause::Busy, true);
        let start = Instant::now();
        attempts.pause_after((busy.clone(), Some(Duration::from_secs(40)))).await.unwrap();
        assert!(start.elapsed() >= Duration::from_secs(40));
        attempts.pause_after((busy, Some(Duration::from_secs(61)))).await.unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(41), "it fails at once when waiting cannot help");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_never_ends_is_ended_at_the_deadline() {
        let policy = RetryPolicy { deadline: Duration::from_secs(7), ..RetryPolicy::default() };
        let mut attempts = Attempts::new(policy, Operation::Create, "name".to_owned());
        let start = Instant::now();
        let error = attempts.run(std::future::pending::<object_store::Result<()>>).await.unwrap_err();
        assert_eq!(error.cause, Cause::TimedOut(Duration::from_secs(7)));
        assert_eq!(start.elapsed().as_secs(), 7);
    }
}
