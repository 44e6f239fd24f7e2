//! Bridges Orthanc's blocking threads and the async runtime.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::stop::Stop;

/// Threads for the network. Orthanc's own threads decrypt, copy and encrypt what is small; for the rest, a second thread
/// cost more in wake-ups than it gained on two cores (docs/performance.md).
const THREADS: usize = 1;
/// Threads for files that are being moved, and for the network while other threads hash large uploads. They
/// exist only while there is such work. If all are busy, the network waits.
const BLOCKING_THREADS: usize = 64;
/// Time limit for the threads to end.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// The threads that talk to the network while the plugin is loaded.
#[derive(Debug)]
pub(crate) struct Runtime {
    tokio: Option<tokio::runtime::Runtime>,
    stop: Stop,
}

impl Runtime {
    /// Each thread calls `begin` when it starts and `end` when it ends.
    pub(crate) fn new(
        name: &str,
        stop: Stop,
        begin: impl Fn() + Send + Sync + 'static,
        end: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(THREADS).max_blocking_threads(BLOCKING_THREADS);
        builder.thread_name(name).on_thread_start(begin).on_thread_stop(end);
        let runtime = builder.enable_all().build()?;
        Ok(Self { tokio: Some(runtime), stop })
    }

    pub(crate) fn handle(&self) -> &Handle {
        match &self.tokio {
            Some(runtime) => runtime.handle(),
            None => unreachable!("only drop takes the runtime"),
        }
    }

    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Runs `work`, which may take a few seconds more when Orthanc stops, and is then dropped: `None`.
    pub(crate) fn run_with_grace<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let stop = self.stop.clone();
        self.run_until(async move { stop.grace_over().await }, work)
    }

    /// Runs `work`, which is dropped when Orthanc stops: `None`.
    pub(crate) fn run_until_stopped<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let stop = self.stop.clone();
        self.run_until(async move { stop.signal().await }, work)
    }

    /// Runs `work`, which is dropped when `end` ends first: `None`.
    fn run_until<T: Send + 'static>(
        &self,
        end: impl Future<Output = ()> + Send + 'static,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let work = Box::pin(work);
        self.run(async move {
            tokio::select! {
                done = work => Some(done),
                () = end => None,
            }
        })
    }

    /// Runs `work` on the runtime and blocks until it ends. A panic in `work` resumes here.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let (sender, receiver) = oneshot::channel();
        // On the heap, since futures are large and the stacks of Orthanc's HTTP threads have only 100 kB.
        let work = Box::pin(work);
        // Spawning takes fewer wake-ups than `block_on`, because the sockets belong to the runtime's threads.
        self.handle().spawn(async move {
            let _ = sender.send(AssertUnwindSafe(work).catch_unwind().await);
        });
        match receiver.blocking_recv() {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_closed) => resume_unwind(shut_down()),
        }
    }
}

/// The panic of a caller whose task was dropped because the runtime was shut down. Logged here, since
/// resuming a panic does not call the panic hook.
pub(crate) fn shut_down() -> Box<dyn Any + Send> {
    const MESSAGE: &str = "the runtime was shut down before a task ended";
    tracing::error!("{MESSAGE}");
    Box::new(MESSAGE)
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.tokio.take() {
            runtime.shutdown_timeout(SHUTDOWN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_of_a_task_resumes_in_the_caller() {
        let runtime = Runtime::new("test", Stop::new(), || {}, || {}).unwrap();
        assert_eq!(runtime.run(async { 7 }), 7);
        let caught = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.run(async { panic!("boom") })));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"boom"));
    }
}
