//! What routes, jobs and background threads share: Orthanc, the storage and the runtime.

use std::sync::Arc;

use hybrid::HybridStorage;
use orthanc_ffi::Orthanc;

use crate::catalog::Catalog;
use crate::runtime::Runtime;

/// Shared by everything that works outside the storage area's callbacks.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) orthanc: Orthanc,
    pub(crate) storage: HybridStorage,
    pub(crate) runtime: Arc<Runtime>,
}

impl Context {
    pub(crate) fn catalog(&self) -> Catalog {
        Catalog::new(self.clone())
    }

    /// Runs `work` on the runtime and waits for it. Drops `work` and returns `None` when Orthanc stops.
    pub(crate) fn run_until_stopped<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        self.runtime.run_until_stopped(work)
    }
}
