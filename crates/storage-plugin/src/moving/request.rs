//! `POST /move-storage`.

use std::time::Duration;

use orthanc_ffi::{ErrorCode, Method, OrthancError, RestAnswer, RestFailure, RestRequest};
use serde_json::{Map, Value, json};

use super::job::{End, JOB_TYPE, MoveJob, Watch, target};
use crate::catalog::CatalogError;
use crate::moving::mover::Engine;

/// How often Orthanc is asked for a job that says nothing: one that is cancelled before it began never does.
const PATIENCE: Duration = Duration::from_secs(1);

impl From<CatalogError> for RestFailure {
    fn from(error: CatalogError) -> Self {
        Self::Status { status: 500, message: error.to_string() }
    }
}

/// How a job is to be run, as Orthanc's own routes understand it.
struct Running {
    synchronous: bool,
    priority: i32,
}

impl Running {
    fn read(body: &Map<String, Value>) -> Result<Self, RestFailure> {
        let flag = |name: &str| match body.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(bad_request(format!("{name} is neither true nor false"))),
        };
        let (synchronous, asynchronous) = (flag("Synchronous")?, flag("Asynchronous")?);
        let priority = match body.get("Priority") {
            None => Some(0),
            Some(priority) => priority.as_i64().and_then(|priority| i32::try_from(priority).ok()),
        };
        Ok(Self {
            synchronous: synchronous.unwrap_or(!asynchronous.unwrap_or(false)),
            priority: priority.ok_or_else(|| bad_request("Priority is no whole number"))?,
        })
    }
}

/// Starts the job that the request asks for.
pub(crate) fn move_storage(engine: &Engine, request: &RestRequest<'_>) -> Result<RestAnswer, RestFailure> {
    if request.method() != Method::Post {
        return Err(RestFailure::MethodNotAllowed { allow: "POST" });
    }
    let body: Value =
        serde_json::from_slice(request.body()).map_err(|_| bad_request("the body is not JSON"))?;
    let body = body.as_object().ok_or_else(|| bad_request("the body is no JSON object"))?;
    let target = body.get("TargetStorage").and_then(Value::as_str).and_then(target).ok_or_else(|| {
        bad_request("TargetStorage is missing or unknown: \"file-system\" or \"object-storage\" is needed")
    })?;
    let running = Running::read(body)?;
    let mut resources = Vec::new();
    for id in resource_ids(body)? {
        let found = engine.catalog().find(id)?;
        resources.push(found.ok_or_else(|| RestFailure::Status {
            status: 404,
            message: format!("no patient, study, series or instance has the Orthanc id {id:?}"),
        })?);
    }
    let job = MoveJob::new(engine.clone(), target, &resources)?;
    let watch = job.watch();
    let submitted = engine.orthanc.submit_job(JOB_TYPE, Box::new(job), running.priority);
    let id = submitted.map_err(|error| internal(&error))?;
    if running.synchronous {
        return wait(engine, &id, &watch);
    }
    Ok(RestAnswer::json(&json!({"ID": id, "Path": format!("/jobs/{id}")})))
}

fn resource_ids(body: &Map<String, Value>) -> Result<Vec<&str>, RestFailure> {
    let list = body.get("Resources").and_then(Value::as_array);
    let list = list.ok_or_else(|| bad_request("Resources is missing: a list of Orthanc ids is needed"))?;
    let ids: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
    ids.ok_or_else(|| bad_request("Resources has something else than Orthanc ids in it"))
}

/// Waits for the end of a job, and answers with its content.
fn wait(engine: &Engine, id: &str, watch: &Watch) -> Result<RestAnswer, RestFailure> {
    let end = loop {
        if let Some(end) = watch.wait(PATIENCE) {
            break end;
        }
        let state = engine.catalog().get(&format!("/jobs/{id}"))?;
        match state.as_ref().and_then(|state| state["State"].as_str()) {
            // It may have ended in order since.
            Some("Success" | "Failure") | None => break watch.wait(PATIENCE).unwrap_or(End::Canceled),
            Some(_) => {}
        }
    };
    let failed = |status, message| Err(RestFailure::Status { status, message });
    match end {
        End::Success(content) => Ok(RestAnswer::json(&content)),
        End::Failure(error) => failed(500, error),
        End::Paused => failed(503, format!("the job {id} is paused: it goes on with POST /jobs/{id}/resume")),
        End::Canceled => failed(500, format!("the job {id} was cancelled")),
        End::Gone => failed(500, format!("Orthanc has dropped the job {id}")),
    }
}

/// A refusal that Orthanc does not log as an error of its own.
fn bad_request(message: impl Into<String>) -> RestFailure {
    RestFailure::Status { status: 400, message: message.into() }
}

fn internal(error: &OrthancError) -> RestFailure {
    match error.code() {
        ErrorCode::BAD_SEQUENCE_OF_CALLS => {
            RestFailure::Status { status: 503, message: "Orthanc stops".to_owned() }
        }
        _ => RestFailure::Status { status: 500, message: error.to_string() },
    }
}
