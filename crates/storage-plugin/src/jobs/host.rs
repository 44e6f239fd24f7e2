//! What every job needs from the plugin.

use std::sync::Arc;

use super::alarm::Alarm;
use super::courtesy::Courtesy;
use super::reports::Reports;
use crate::catalog::Catalog;
use crate::stop::Stop;

/// What every job needs from the plugin.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// Orthanc's index, until Orthanc stops.
    pub(crate) catalog: Catalog,
    pub(crate) stop: Stop,
    pub(crate) courtesy: Courtesy,
    /// Tells the bucket and the root path apart from all others. What a job has found is about these.
    pub(crate) place: Arc<str>,
    /// `None` without a state directory: then the content of a job is all that is known of it.
    pub(crate) reports: Option<Arc<Reports>>,
    /// `None` in tests without Orthanc: then a job that waits keeps running.
    pub(crate) alarm: Option<Alarm>,
}
