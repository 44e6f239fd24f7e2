//! What an earlier search has found.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::SystemTime;

use bucket::ListedObject;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;

use crate::jobs::{Reports, ReportsError};

/// The orphans of the last complete search, 8 bytes each.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Earlier(Vec<u64>);

impl Earlier {
    /// Reads the report of the last complete search of a job type in the bucket and root path `place`, with the database
    /// `id`. `None` if there is none.
    ///
    /// # Errors
    ///
    /// If a report cannot be read.
    pub(super) fn read(
        reports: &Reports,
        job_type: &str,
        place: &str,
        id: &str,
    ) -> Result<Option<Self>, ReportsError> {
        let is_complete = |summary: &Value| {
            summary["State"] == "Success" && summary["Place"] == place && summary["Database"] == id
        };
        let Some(summary) = reports.last(&[job_type], is_complete)? else { return Ok(None) };
        let mut found = Vec::new();
        reports.each_finding(summary["JobId"].as_str().unwrap_or_default(), |finding| {
            let text = |field: &str| finding[field].as_str().unwrap_or_default();
            if let Some(size) = finding["Size"].as_u64() {
                found.push(print(text("Object"), size, text("Modified")));
            }
        })?;
        found.sort_unstable();
        Ok(Some(Self(found)))
    }

    /// Whether an object with the name `url` in messages was found, with the same size and age.
    pub(super) fn has(&self, url: &str, object: &ListedObject) -> bool {
        self.0.binary_search(&print(url, object.size, &time(object.modified))).is_ok()
    }
}

/// A time as it is in reports.
pub(super) fn time(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn print(url: &str, size: u64, modified: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (url, size, modified).hash(&mut hasher);
    hasher.finish()
}
