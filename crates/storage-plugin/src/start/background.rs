//! Work that no callback of Orthanc waits for: deletions, uploads of pending attachments, scheduled
//! verifications, samples for the history.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bucket::ObjectStorage;
use futures_util::FutureExt as _;
use hybrid::{DeletionWorker, StateDirectory, UploadWorker};
use orthanc_ffi::InitializeError;

use crate::catalog::Catalog;
use crate::context::Context;
use crate::operations::figures::Figures;
use crate::operations::history::History;
use crate::orphans::{Database, keep_marker};
use crate::runtime::Runtime;
use crate::verifying::Scheduler;

/// How long a worker rests after a panic.
const AFTER_PANIC: Duration = Duration::from_secs(60);

/// Work that no callback of Orthanc waits for.
pub(crate) struct Background {
    runtime: Arc<Runtime>,
    state: Option<Arc<StateDirectory>>,
    scheduler: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts the background work, which ends when Orthanc stops.
    pub(crate) fn start(
        context: &Context,
        state: Option<Arc<StateDirectory>>,
        deletions: Option<DeletionWorker>,
        uploads: Option<UploadWorker>,
        verifications: Option<Scheduler>,
    ) -> Result<Self, InitializeError> {
        let Context { orthanc, runtime, .. } = context;
        let mut background = Self { runtime: Arc::clone(runtime), state, scheduler: None };
        let stop = runtime.stop().clone();
        orthanc.register_on_stop(move || stop.now())?;
        if let Some(worker) = deletions {
            run_until_stopped(runtime, move || worker.clone().run());
        }
        if let Some(worker) = uploads {
            run_until_stopped(runtime, move || worker.clone().run());
        }
        if let Some(scheduler) = verifications {
            let begin = orthanc.clone();
            let end = orthanc.clone();
            let thread = thread::Builder::new().name("verifications".to_owned()).spawn(move || {
                begin.name_thread(c"OBJECT-STORAGE");
                scheduler.run();
                end.forget_thread();
            });
            let failed = |error| InitializeError::new(format!("cannot start a thread: {error}"));
            background.scheduler = Some(thread.map_err(failed)?);
        }
        Ok(background)
    }

    /// Adds samples to the history.
    pub(crate) fn sample(&self, figures: Figures, history: Arc<History>) {
        run_until_stopped(&self.runtime, move || figures.clone().sample(Arc::clone(&history)));
    }

    /// Keeps the marker of Orthanc's database in the bucket, so that jobs of Orthancs with other databases notice it.
    pub(crate) fn keep_marker(&self, database: Arc<dyn Database>, catalog: Catalog, objects: ObjectStorage) {
        run_until_stopped(&self.runtime, move || {
            keep_marker(Arc::clone(&database), catalog.clone(), objects.clone())
        });
    }
}

/// Runs a worker until Orthanc stops, again after a panic, which the panic hook has logged.
fn run_until_stopped<W: Future<Output = ()> + Send>(
    runtime: &Runtime,
    work: impl Fn() -> W + Send + Sync + 'static,
) {
    let stop = runtime.stop().clone();
    runtime.handle().spawn(async move {
        let forever = async {
            while AssertUnwindSafe(Box::pin(work())).catch_unwind().await.is_err() {
                tokio::time::sleep(AFTER_PANIC).await;
            }
        };
        tokio::select! {
            () = forever => {}
            () = stop.signal() => {}
        }
    });
}

impl Drop for Background {
    fn drop(&mut self) {
        self.runtime.stop().now();
        if let Some(Err(_panic)) = self.scheduler.take().map(JoinHandle::join) {
            tracing::error!("the thread for scheduled verifications has panicked");
        }
        if let Some(state) = &self.state
            && let Err(error) = state.markers().sync()
        {
            tracing::warn!("{error}; a power failure could lose recent deletions");
        }
    }
}
