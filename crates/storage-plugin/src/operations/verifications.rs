//! The last verification of the whole archive, as its report says, and the next one.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::jobs::Reports;
use crate::verifying::{JOB_TYPE, Schedule};

/// What the reports say about verifications of the whole archive.
#[derive(Debug)]
pub(crate) struct Verifications {
    /// `None` without a state directory.
    reports: Option<Arc<Reports>>,
    /// The bucket and the root path, as reports name them.
    place: Arc<str>,
    schedule: Option<Schedule>,
    known: Mutex<Known>,
    /// Held while the reports are read.
    reading: Mutex<()>,
}

#[derive(Debug, Default, Clone)]
struct Known {
    /// The summary of the last one that was completed.
    last: Option<Value>,
    /// When the last one began that the plugin has started by itself.
    scheduled: Option<DateTime<Utc>>,
}

/// What problems and metrics need.
#[derive(Debug, Default, Clone)]
pub(super) struct Overview {
    pub(super) last: Option<LastVerification>,
    /// The time from one scheduled verification to the next.
    pub(super) every: Option<Duration>,
}

/// The last verification of the whole archive that was completed.
#[derive(Debug, Clone)]
pub(super) struct LastVerification {
    /// In UTC.
    pub(super) ended: String,
    pub(super) age: Duration,
    /// Attachments with a problem.
    pub(super) failures: u64,
}

impl Verifications {
    pub(crate) fn new(reports: Option<Arc<Reports>>, place: Arc<str>, schedule: Option<Schedule>) -> Self {
        Self { reports, place, schedule, known: Mutex::default(), reading: Mutex::default() }
    }

    /// Reads the reports, unless another thread does. What cannot be read remains as it was.
    pub(crate) fn refresh(&self) {
        let Some((reports, _reading)) = self.reports.as_ref().zip(self.reading.try_lock()) else { return };
        let is_complete = |summary: &Value| {
            summary["Everything"] == true && summary["State"] == "Success" && summary["Place"] == *self.place
        };
        let Ok(last) = reports.last(&[JOB_TYPE], is_complete) else { return };
        let is_scheduled = |summary: &Value| is_complete(summary) && summary["Scheduled"] == true;
        let Ok(scheduled) = reports.last(&[JOB_TYPE], is_scheduled) else { return };
        let scheduled = scheduled.and_then(|summary| time(&summary["Started"]));
        *self.known.lock() = Known { last, scheduled };
    }

    /// What problems and metrics need. Reads no file.
    pub(super) fn overview(&self) -> Overview {
        let known = self.known.lock();
        let last = known.last.as_ref().and_then(|summary| {
            let ended = time(&summary["Ended"])?;
            Some(LastVerification {
                ended: ended.to_rfc3339_opts(SecondsFormat::Secs, true),
                age: (Utc::now() - ended).to_std().unwrap_or_default(),
                failures: summary["Failures"].as_u64().unwrap_or_default(),
            })
        });
        Overview { last, every: self.schedule.map(|schedule| schedule.every) }
    }

    /// The field `Verification` of `GET /object-storage/status`.
    pub(super) fn to_json(&self) -> Value {
        const FIELDS: [&str; 6] = ["JobId", "Started", "Ended", "Depth", "VerifiedAttachments", "Failures"];
        let Known { last, scheduled } = self.known.lock().clone();
        let last = last.map(|summary| {
            let mut shown: Value =
                FIELDS.iter().map(|field| ((*field).to_owned(), summary[*field].clone())).collect();
            shown["Scheduled"] = json!(summary["Scheduled"] == true);
            shown
        });
        let schedule = self.schedule.map(|schedule| {
            json!({
                "Window": schedule.window.to_string(),
                "EveryDays": schedule.every.as_secs() / (24 * 60 * 60),
                "Depth": schedule.depth.as_str(),
            })
        });
        let next = self.schedule.zip(scheduled).and_then(|(schedule, started)| {
            started.checked_add_signed(chrono::Duration::from_std(schedule.every).ok()?)
        });
        let next = next.map(|next| next.to_rfc3339_opts(SecondsFormat::Secs, true));
        json!({"Last": last, "Schedule": schedule, "NextDue": next})
    }
}

fn time(field: &Value) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(field.as_str()?).ok().map(|time| time.with_timezone(&Utc))
}
