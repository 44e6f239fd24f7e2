use std::cell::Cell;

use super::*;

fn missing() -> object_store::Error {
    object_store::Error::NotFound { path: String::new(), source: "missing".into() }
}

#[tokio::test(start_paused = true)]
async fn permanent_errors_are_not_retried() {
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
async fn request_to_another_service_ends_with_the_patience() {
    let policy = RetryPolicy::default();
    let cause = async |policy: RetryPolicy| {
        let silence = std::future::pending::<object_store::Result<()>>;
        policy.request(Operation::WrapKey, "service".to_owned(), silence).await.unwrap_err().cause
    };
    let start = Instant::now();
    assert_eq!(cause(policy).await, Cause::Unanswered(policy.patience));
    assert_eq!(start.elapsed(), policy.patience);
    assert_eq!(cause(policy.patient()).await, Cause::TimedOut(policy.deadline));
}

#[tokio::test(start_paused = true)]
async fn transient_errors_are_retried_up_to_the_limit() {
    let policy = RetryPolicy { max_retries: 4, ..RetryPolicy::default() };
    let mut attempts = Attempts::new(policy, Operation::Read, "name".to_owned());
    let busy = attempts.error(Cause::Busy, true);
    for _ in 0..4 {
        attempts.pause_after(busy.clone()).await.unwrap();
    }
    assert_eq!(attempts.pause_after(busy).await.unwrap_err().cause, Cause::Busy);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_respected_up_to_the_deadline() {
    let policy = RetryPolicy { deadline: Duration::from_secs(100), ..RetryPolicy::default().patient() };
    let mut attempts = Attempts::new(policy, Operation::Read, "name".to_owned());
    let busy = attempts.error(Cause::Busy, true);
    let after = |seconds| Failure { error: busy.clone(), retry_after: Some(Duration::from_secs(seconds)) };
    let start = Instant::now();
    attempts.pause_after(after(40)).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(40));
    attempts.pause_after(after(61)).await.unwrap_err();
    attempts.pause_after(after(u64::MAX)).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(41), "a pause past the deadline fails at once");
}

#[tokio::test(start_paused = true)]
async fn patience_is_handed_over() {
    let policy = RetryPolicy::default();
    let mut attempts = Attempts::new(policy, Operation::Create, "name".to_owned());
    let busy = attempts.error(Cause::Busy, true);
    let retry_after = Some(Duration::from_secs(15));
    attempts.pause_after(Failure { error: busy, retry_after }).await.unwrap();
    let start = Instant::now();
    let mut again = attempts.again(policy);
    let error = again.run(std::future::pending::<object_store::Result<()>>).await.unwrap_err();
    assert_eq!((error.cause, start.elapsed().as_secs()), (Cause::Unanswered(policy.patience), 5));
    let mut again = attempts.again(policy);
    again.made_progress();
    again.run(std::future::pending::<object_store::Result<()>>).await.unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 25);
}

#[tokio::test(start_paused = true)]
async fn hanging_attempt_ends_at_the_deadline() {
    let policy = RetryPolicy { deadline: Duration::from_secs(7), ..RetryPolicy::default() };
    let mut attempts = Attempts::new(policy, Operation::Create, "name".to_owned());
    let start = Instant::now();
    let error = attempts.run(std::future::pending::<object_store::Result<()>>).await.unwrap_err();
    assert_eq!(error.cause, Cause::TimedOut(Duration::from_secs(7)));
    assert_eq!(start.elapsed().as_secs(), 7);
}

/// How long attempts that take `time` each fail before the operation does.
async fn time_until_failure(policy: RetryPolicy, time: Duration) -> Duration {
    let mut attempts = Attempts::new(policy, Operation::Create, "name".to_owned());
    let start = Instant::now();
    let busy = attempts.error(Cause::Busy, true);
    loop {
        let time = time.min(attempts.patience);
        tokio::time::sleep(time).await;
        attempts.patience -= time;
        if attempts.pause_after(busy.clone()).await.is_err() {
            return start.elapsed();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn outage_of_ten_seconds_is_survived() {
    for time in [0, 1, 100, 1000, 5000] {
        for _ in 0..20 {
            let until = time_until_failure(RetryPolicy::default(), Duration::from_millis(time)).await;
            assert!(until >= Duration::from_secs(10), "{time}: {until:?}");
            assert!(until < Duration::from_secs(21), "{time}: {until:?}");
        }
    }
    let patient = RetryPolicy { max_retries: 50, ..RetryPolicy::default() }.patient();
    assert!(time_until_failure(patient, Duration::ZERO).await > Duration::from_secs(120));
}

#[tokio::test(start_paused = true)]
async fn attempt_without_an_answer_ends_with_the_patience() {
    let mut attempts = Attempts::new(RetryPolicy::default(), Operation::Read, "name".to_owned());
    attempts.pause_after(attempts.error(Cause::Busy, true)).await.unwrap();
    let start = Instant::now();
    let error = attempts.run(std::future::pending::<object_store::Result<()>>).await.unwrap_err();
    assert_eq!((error.cause, error.attempts), (Cause::Busy, 1));
    assert!((19..20).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn progress_restores_the_patience() {
    let policy = RetryPolicy { max_retries: u32::MAX, ..RetryPolicy::default() };
    let mut attempts = Attempts::new(policy, Operation::Read, "name".to_owned());
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        attempts.pause_after(attempts.error(Cause::Busy, true)).await.unwrap();
        attempts.made_progress();
    }
}
