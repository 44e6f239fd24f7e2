//! What every job needs from the plugin.

use std::sync::Arc;

use orthanc_ffi::ErrorCode;
use serde_json::Value;

use super::alarm::Alarm;
use super::courtesy::Courtesy;
use super::reports::{Reports, canceled, is_waiting};
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

impl Host {
    /// The summary of a report, corrected if the job was cancelled while it waited: Orthanc does not tell it. A summary
    /// that cannot be compared with Orthanc's jobs now remains as it is.
    pub(crate) fn corrected(&self, mut summary: Value) -> Value {
        let Some((reports, id)) = self.reports.as_ref().zip(summary["JobId"].as_str()) else {
            return summary;
        };
        if !is_waiting(&summary) {
            return summary;
        }
        let Ok(Some(job)) = self.catalog.get(&format!("/jobs/{id}")) else { return summary };
        // Orthanc does not save the code: a restarted one has 0. A job that failed by itself has said so in its report.
        let codes = [ErrorCode::CANCELED_JOB, ErrorCode::SUCCESS].map(|code| Some(i64::from(code.as_raw())));
        if job["State"] != "Failure" || !codes.contains(&job["ErrorCode"].as_i64()) {
            return summary;
        }
        match reports.note_canceled(id) {
            Ok(Some(noted)) => noted,
            noted => {
                if let Err(error) = noted {
                    tracing::warn!("{error}");
                }
                canceled(&mut summary);
                summary
            }
        }
    }
}
