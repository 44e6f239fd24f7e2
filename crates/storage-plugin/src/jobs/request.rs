//! The routes that start jobs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use orthanc_ffi::{ErrorCode, Orthanc, OrthancError, RestAnswer, RestFailure};
use serde_json::{Map, Value, json};

use super::host::Host;
use super::job::{End, StorageJob, Watch};
use super::scope::Scope;
use super::work::Work;
use crate::catalog::{CatalogError, Level, Resource, unknown_id};

/// How often to ask Orthanc for the job's state: a job that is cancelled before it begins never reports its
/// end.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often to check whether Orthanc stops.
const TICK: Duration = Duration::from_millis(100);

/// The body of a request. `Synchronous`, `Asynchronous` and `Priority` are as in Orthanc's own routes that create jobs.
#[derive(Debug)]
pub(crate) struct JobRequest {
    /// All fields.
    pub(crate) fields: Map<String, Value>,
    /// Orthanc ids; `None` for everything.
    resources: Option<Vec<String>>,
    synchronous: bool,
    priority: i32,
}

impl JobRequest {
    /// Reads a body, which may be empty if no field is required.
    ///
    /// # Errors
    ///
    /// The refusal of a body that is not such an object.
    pub(crate) fn read(body: &[u8]) -> Result<Self, RestFailure> {
        let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
        let json: Value = serde_json::from_slice(body).map_err(|_| bad_request("the body must be JSON"))?;
        let Value::Object(fields) = json else { return Err(bad_request("the body must be a JSON object")) };
        let synchronous = flag(&fields, "Synchronous")?;
        let asynchronous = flag(&fields, "Asynchronous")?;
        let priority = match fields.get("Priority") {
            None => Some(0),
            Some(priority) => priority.as_i64().and_then(|priority| i32::try_from(priority).ok()),
        };
        let resources = resource_ids(&fields)?;
        // A request for the whole archive would hold one of Orthanc's threads for hours.
        let waits = resources.is_some();
        Ok(Self {
            resources,
            synchronous: synchronous.unwrap_or_else(|| asynchronous.map_or(waits, |flag| !flag)),
            priority: priority.ok_or_else(|| bad_request("Priority must be an integer"))?,
            fields,
        })
    }

    /// Does not wait for the job unless the request asks for it: it may take days.
    #[must_use]
    pub(crate) fn asynchronous_by_default(self) -> Self {
        let is_asked = self.fields.contains_key("Synchronous") || self.fields.contains_key("Asynchronous");
        Self { synchronous: self.synchronous && is_asked, ..self }
    }

    /// Fails without resources.
    ///
    /// # Errors
    ///
    /// The refusal of a request for everything.
    pub(crate) fn expect_resources(&self) -> Result<(), RestFailure> {
        self.resources.is_some().then_some(()).ok_or_else(|| bad_request(RESOURCES))
    }
}

/// A field that is true or false; `None` if it is missing.
pub(crate) fn flag(fields: &Map<String, Value>, name: &str) -> Result<Option<bool>, RestFailure> {
    match fields.get(name) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(_) => Err(bad_request(format!("{name} must be true or false"))),
    }
}

/// Starts the requested job.
///
/// # Errors
///
/// If a resource does not exist or Orthanc does not take the job; if the request waits for the job, also if that fails.
pub(crate) fn start_job(
    orthanc: &Orthanc,
    host: &Host,
    work: Arc<dyn Work>,
    request: &JobRequest,
) -> Result<RestAnswer, RestFailure> {
    let scope = match &request.resources {
        None => Scope::Everything,
        Some(ids) => Scope::resources(find(host, ids)?),
    };
    let (id, watch) = submit(orthanc, host, work, scope, request.priority)?;
    if request.synchronous {
        return wait(host, &id, &watch);
    }
    Ok(RestAnswer::json(&json!({"ID": id, "Path": format!("/jobs/{id}")})))
}

/// Submits a job that nobody waits for. Returns its id.
///
/// # Errors
///
/// If Orthanc does not take the job.
pub(crate) fn submit_job(
    orthanc: &Orthanc,
    host: &Host,
    work: Arc<dyn Work>,
    scope: Scope,
    priority: i32,
) -> Result<String, RestFailure> {
    submit(orthanc, host, work, scope, priority).map(|(id, _)| id)
}

fn submit(
    orthanc: &Orthanc,
    host: &Host,
    work: Arc<dyn Work>,
    scope: Scope,
    priority: i32,
) -> Result<(String, Arc<Watch>), RestFailure> {
    let job_type = work.job_type();
    let job = StorageJob::new(host.clone(), work, scope);
    let watch = job.watch();
    let submit = || orthanc.submit_job(job_type, Box::new(job), priority);
    let submitted = host.stop.call(submit).ok_or(CatalogError::Stopped)?;
    let id = submitted.map_err(|error| internal(&error))?;
    watch.set_job_id(&id);
    Ok((id, watch))
}

fn find(host: &Host, ids: &[String]) -> Result<Vec<Resource>, RestFailure> {
    let mut resources: Vec<Resource> = Vec::new();
    for id in ids {
        // The ids of a request mostly are of one level.
        let level = resources.last().map_or(Level::Patient, |last| last.level);
        resources.push(host.catalog.find_near(id, level)?.ok_or_else(|| unknown_id(id))?);
    }
    resources.sort_unstable();
    resources.dedup();
    Ok(resources)
}

const RESOURCES: &str = "Resources must be an Orthanc id or a list of Orthanc ids";

fn resource_ids(fields: &Map<String, Value>) -> Result<Option<Vec<String>>, RestFailure> {
    let list = match fields.get("Resources") {
        None => return expect_no_other_spelling(fields).map(|()| None),
        Some(Value::Array(list)) => list.as_slice(),
        // Orthanc Explorer 2 cannot send a list.
        Some(id @ Value::String(_)) => std::slice::from_ref(id),
        Some(_) => return Err(bad_request(RESOURCES)),
    };
    let ids: Option<Vec<String>> = list.iter().map(|id| id.as_str().map(str::to_owned)).collect();
    ids.map(Some).ok_or_else(|| bad_request("Resources must contain only Orthanc ids"))
}

/// Refuses fields that are meant to be `Resources`: to restore the whole archive, for example, can be expensive.
fn expect_no_other_spelling(fields: &Map<String, Value>) -> Result<(), RestFailure> {
    let mut names = fields.keys();
    let is_meant = |name: &&String| ["resources", "resource"].contains(&name.to_ascii_lowercase().as_str());
    match names.find(is_meant) {
        None => Ok(()),
        Some(name) => Err(bad_request(format!("unknown field \"{name}\"; did you mean \"Resources\"?"))),
    }
}

/// Waits for the end of a job and answers with its content. Orthanc waits for this request when it stops.
fn wait(host: &Host, id: &str, watch: &Watch) -> Result<RestAnswer, RestFailure> {
    let mut next_question = Instant::now() + PATIENCE;
    let end = loop {
        if let Some(end) = watch.wait(TICK) {
            break end;
        }
        if host.stop.is_given() {
            return Err(interrupted(id));
        }
        if Instant::now() < next_question {
            continue;
        }
        next_question = Instant::now() + PATIENCE;
        let state = host.catalog.get(&format!("/jobs/{id}"))?;
        match state.as_ref().and_then(|state| state["State"].as_str()) {
            // The job may have reported its end since.
            Some("Success" | "Failure") | None => break watch.wait(PATIENCE).unwrap_or(End::Canceled),
            Some(_) => {}
        }
    };
    answer(end, id)
}

fn interrupted(id: &str) -> RestFailure {
    let message = format!("Orthanc is shutting down: job {id} continues after the restart");
    RestFailure::Status { status: 503, message }
}

fn answer(end: End, id: &str) -> Result<RestAnswer, RestFailure> {
    let failed = |status, message| Err(RestFailure::Status { status, message });
    match end {
        End::Success(content) => Ok(RestAnswer::json(&content)),
        End::Failure(error) => failed(500, error),
        End::Paused => failed(503, format!("job {id} is paused: resume it with POST /jobs/{id}/resume")),
        End::Canceled => failed(500, format!("job {id} was cancelled")),
        End::Gone => failed(500, format!("Orthanc dropped job {id}")),
    }
}

/// A refusal that Orthanc does not log as its own error.
pub(crate) fn bad_request(message: impl Into<String>) -> RestFailure {
    RestFailure::Status { status: 400, message: message.into() }
}

fn internal(error: &OrthancError) -> RestFailure {
    match error.code() {
        ErrorCode::BAD_SEQUENCE_OF_CALLS => {
            RestFailure::Status { status: 503, message: "Orthanc is shutting down".to_owned() }
        }
        _ => RestFailure::Status { status: 500, message: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals() {
        let invalid = [
            r#"{"#,
            r#"[]"#,
            r#"{"Synchronous": "no"}"#,
            r#"{"Priority": "high"}"#,
            r#"{"Resources": 7}"#,
            r#"{"Resources": [7]}"#,
            r#"{"resource": "ID"}"#,
        ];
        let mut failures: Vec<_> =
            invalid.map(|body| (body, JobRequest::read(body.as_bytes()).unwrap_err())).into();
        failures.push(("no resources", JobRequest::read(b"").unwrap().expect_resources().unwrap_err()));
        failures.push(("unknown id", unknown_id("ID")));
        for end in [End::Failure("REASON".to_owned()), End::Paused, End::Canceled, End::Gone] {
            failures.push(("end of the job", answer(end, "JOB").unwrap_err()));
        }
        failures.push(("stop", interrupted("JOB")));
        failures.push(("submission", internal(&OrthancError::Finalized)));
        let lines = failures.iter().map(|(cause, failure)| match failure {
            RestFailure::Status { status, message } => format!("{cause}\n    {status} {message}"),
            other => panic!("{other:?}"),
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        insta::with_settings!({
            snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/../testing/messages"),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, { insta::assert_snapshot!("job-requests", text) });
    }

    #[test]
    fn only_requests_for_resources_wait_by_default() {
        for (body, synchronous) in [
            ("", false),
            (r#"{"Synchronous": true}"#, true),
            (r#"{"Resources": []}"#, true),
            (r#"{"Resources": [], "Asynchronous": true}"#, false),
        ] {
            assert_eq!(JobRequest::read(body.as_bytes()).unwrap().synchronous, synchronous, "{body}");
        }
    }
}
