//! Work that would hold up other tasks.

use std::future::poll_fn;
use std::panic::resume_unwind;
use std::pin::pin;

use tokio::runtime::{Handle, RuntimeFlavor};

/// Payloads of at least this size, in bytes, take long enough to hash that other tasks must go on meanwhile.
const LONG: u64 = 1024 * 1024;

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

/// Runs the upload of a payload of `size` bytes, which is made and which `object_store` and `cloud-http` hash while the
/// future is polled. The thread's other tasks move to another thread for the duration of each poll.
pub(crate) async fn hashing<T>(size: u64, upload: impl Future<Output = T>) -> T {
    if size < LONG {
        return upload.await;
    }
    let mut upload = pin!(upload);
    poll_fn(|context| in_place(|| upload.as_mut().poll(context))).await
}

/// Runs `work` on this thread, whose other tasks move to another one. Unlike [`blocking`], borrows are
/// possible, and dropping the caller's future leaves nothing behind.
pub(crate) fn in_place<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
