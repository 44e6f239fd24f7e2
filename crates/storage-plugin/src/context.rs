//! What routes, jobs and background threads share: Orthanc, the storage, the runtime, and the signal to stop.

use std::sync::Arc;

use hybrid::HybridStorage;
use orthanc_ffi::Orthanc;
use tokio::sync::watch;

use crate::catalog::Catalog;
use crate::runtime::Runtime;

/// Shared by everything that works outside the storage area's callbacks.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) orthanc: Orthanc,
    pub(crate) storage: HybridStorage,
    pub(crate) runtime: Arc<Runtime>,
    stopping: watch::Receiver<bool>,
}

/// Stops what the clones of a [`Context`] are doing.
#[derive(Debug)]
pub(crate) struct Stop(watch::Sender<bool>);

impl Stop {
    pub(crate) fn now(&self) {
        self.0.send_replace(true);
    }
}

impl Context {
    pub(crate) fn new(orthanc: Orthanc, storage: HybridStorage, runtime: Arc<Runtime>) -> (Self, Stop) {
        let (sender, stopping) = watch::channel(false);
        (Self { orthanc, storage, runtime, stopping }, Stop(sender))
    }

    pub(crate) fn catalog(&self) -> Catalog {
        Catalog::new(self.orthanc.clone())
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow() || self.stopping.has_changed().is_err()
    }

    /// Runs `work` on the runtime and waits for it. Drops `work` and returns `None` when Orthanc stops.
    pub(crate) fn run_until_stopped<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let mut stopping = self.stopping.clone();
        self.runtime.run(async move {
            tokio::select! {
                done = work => Some(done),
                // An error means that the plugin has already been dropped.
                _ = stopping.wait_for(|stopping| *stopping) => None,
            }
        })
    }
}
