//! Work on threads that may block.

use std::panic::resume_unwind;

/// Runs `work` on one of tokio's threads for blocking work. A panic in `work` resumes in the caller.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime is shutting down and drops the caller next.
            Err(_cancelled) => std::future::pending().await,
        },
    }
}
