//! `POST /object-storage/orphans`.

use std::time::Duration;

use orthanc_ffi::{Orthanc, RestAnswer, RestFailure, RestRequest};
use serde_json::{Map, Value, json};

use super::{Finder, JOB_TYPE};
use crate::jobs::{JobRequest, Scope, StorageJob, bad_request, flag, resume, start_job};
use crate::post::only_post;

/// The age from which objects can be orphans, unless the request says otherwise, in hours.
const MIN_AGE: f64 = 24.0;
/// The greatest age in a request, in hours: ten years.
const GREATEST_AGE: f64 = 87_600.0;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Parameters {
    /// Whether to delete what was an orphan in the earlier search, too.
    pub(super) delete: bool,
    /// The age from which objects can be orphans, in hours: Orthanc stores an attachment before its index has it.
    pub(super) min_age_hours: f64,
}

impl Parameters {
    fn read(fields: &Map<String, Value>) -> Result<Self, RestFailure> {
        let delete = flag(fields, "Delete")?.unwrap_or_default();
        let hours = match fields.get("MinAgeHours") {
            None => Some(MIN_AGE),
            Some(hours) => hours.as_f64().filter(|hours| (0.0..=GREATEST_AGE).contains(hours)),
        };
        let refused = || bad_request(format!("MinAgeHours must be a number from 0 to {GREATEST_AGE}"));
        Ok(Self { delete, min_age_hours: hours.ok_or_else(refused)? })
    }

    /// The fields in the content of the job.
    pub(super) fn show(self) -> Map<String, Value> {
        [("Delete", json!(self.delete)), ("MinAgeHours", json!(self.min_age_hours))]
            .map(|(field, value)| (field.to_owned(), value))
            .into_iter()
            .collect()
    }

    pub(super) fn min_age(self) -> Duration {
        Duration::from_secs_f64(self.min_age_hours * 3600.0)
    }
}

/// Starts the requested job.
pub(crate) fn start_find(
    orthanc: &Orthanc,
    finder: &Finder,
    request: &RestRequest<'_>,
) -> Result<RestAnswer, RestFailure> {
    only_post(request)?;
    let requested = JobRequest::read(request.body())?;
    let parameters = Parameters::read(&requested.fields)?;
    // An orphan belongs to no resource.
    if requested.fields.contains_key("Resources") {
        return Err(bad_request("the whole bucket is searched: leave out Resources"));
    }
    start_job(orthanc, &finder.host, finder.work(parameters), &requested)
}

/// Restores a saved job, which starts again. `None` if it is of another type.
pub(crate) fn resume_find(finder: &Finder, job_type: &str, saved: &Value) -> Option<StorageJob> {
    if job_type != JOB_TYPE {
        return None;
    }
    let parameters = Parameters::read(saved.as_object()?).ok()?;
    Some(resume(finder.host.clone(), finder.work(parameters), Scope::Everything, saved))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &Value) -> Option<Parameters> {
        Parameters::read(fields.as_object().unwrap()).ok()
    }

    #[test]
    fn nothing_is_deleted_unless_asked_for() {
        let parameters = read(&json!({})).unwrap();
        assert_eq!(parameters, Parameters { delete: false, min_age_hours: 24.0 });
        assert_eq!(parameters.min_age(), Duration::from_secs(24 * 3600));
        assert_eq!(read(&Value::Object(parameters.show())), Some(parameters));
        assert_eq!(read(&json!({"MinAgeHours": 0.5})).unwrap().min_age(), Duration::from_secs(1800));
        for wrong in [
            json!({"Delete": "yes"}),
            json!({"MinAgeHours": -1}),
            json!({"MinAgeHours": "1"}),
            json!({"MinAgeHours": 1e9}),
        ] {
            assert_eq!(read(&wrong), None, "{wrong}");
        }
    }
}
