//! Requests of a job that do not keep it from being paused.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::jobs::JobError;

/// How long one look for the result waits.
const TICK: Duration = Duration::from_millis(100);

/// A task whose result is looked for now and then. Aborted when dropped.
#[derive(Debug)]
pub(super) struct Task<T> {
    result: mpsc::Receiver<T>,
    abort: AbortHandle,
}

impl<T: Send + 'static> Task<T> {
    pub(super) fn spawn(runtime: &Handle, work: impl Future<Output = T> + Send + 'static) -> Self {
        let (sender, result) = mpsc::channel();
        let task = runtime.spawn(async move {
            // The job may have been interrupted, and nobody receives the result.
            drop(sender.send(work.await));
        });
        Self { result, abort: task.abort_handle() }
    }

    /// The result, if there is one after a moment.
    ///
    /// # Errors
    ///
    /// If the task panicked, or the runtime stops.
    pub(super) fn wait(&self) -> Result<Option<T>, JobError> {
        match self.result.recv_timeout(TICK) {
            Ok(result) => Ok(Some(result)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(JobError::Panicked),
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.abort.abort();
    }
}
