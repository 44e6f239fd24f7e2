//! Work that no callback of Orthanc waits for: deletions, offloading.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::FutureExt as _;
use hybrid::{DeletionWorker, StateDirectory};
use orthanc_ffi::{Change, InitializeError};
use parking_lot::Mutex;

use crate::context::Context;
use crate::moving::mover::Mover;
use crate::offload::Offload;
use crate::runtime::Runtime;

/// How long the worker of deletions rests after a panic.
const AFTER_PANIC: Duration = Duration::from_secs(60);

/// Work that no callback of Orthanc waits for.
pub(crate) struct Background {
    runtime: Arc<Runtime>,
    state: Option<Arc<StateDirectory>>,
    offload: Arc<OffloadThread>,
}

/// The thread of [`Offload`], which calls Orthanc and must therefore end before Orthanc shuts down.
#[derive(Default)]
struct OffloadThread(Mutex<Option<(Arc<Offload>, JoinHandle<()>)>>);

impl Background {
    /// Starts the background work. Threads that call Orthanc wait until Orthanc has started, and have ended
    /// when Orthanc's signal to stop returns.
    pub(crate) fn start(
        mover: &Mover,
        state: Option<Arc<StateDirectory>>,
        worker: Option<DeletionWorker>,
        offload: Option<Arc<Offload>>,
    ) -> Result<Self, InitializeError> {
        let Context { orthanc, storage, runtime } = &mover.context;
        let thread = Arc::<OffloadThread>::default();
        let starting = offload.clone();
        let stop = runtime.stop().clone();
        let ending = Arc::clone(&thread);
        orthanc.register_on_change(move |change| match change {
            Change::OrthancStarted => starting.iter().for_each(|offload| offload.begin()),
            Change::OrthancStopped => {
                stop.now();
                ending.end();
            }
        })?;
        if let (Some(offload), Some(files)) = (offload, storage.files()) {
            let worker = offload.spawn(mover.clone(), files.clone());
            let failed = |error| InitializeError::new(format!("cannot start threads: {error}"));
            *thread.0.lock() = Some((offload, worker.map_err(failed)?));
        }
        if let Some(worker) = worker {
            let stop = runtime.stop().clone();
            runtime.handle().spawn(async move {
                tokio::select! {
                    () = delete_until_stopped(worker) => {}
                    () = stop.signal() => {}
                }
            });
        }
        Ok(Self { runtime: Arc::clone(runtime), state, offload: thread })
    }
}

/// Runs the worker, again after a panic, which the panic hook has logged.
async fn delete_until_stopped(worker: DeletionWorker) {
    loop {
        if AssertUnwindSafe(Box::pin(worker.clone().run())).catch_unwind().await.is_ok() {
            return;
        }
        tokio::time::sleep(AFTER_PANIC).await;
    }
}

impl OffloadThread {
    fn end(&self) {
        if let Some((offload, worker)) = self.0.lock().take() {
            offload.stop();
            // The panic hook has already logged a panic of the worker.
            let _ = worker.join();
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.runtime.stop().now();
        self.offload.end();
        if let Some(state) = &self.state
            && let Err(error) = state.markers().sync()
        {
            tracing::warn!("{error}; a power failure could lose recent deletions");
        }
    }
}
