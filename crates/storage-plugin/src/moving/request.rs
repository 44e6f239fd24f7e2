//! `POST /move-storage` and `POST /object-storage/prefetch`.

use std::time::{Duration, Instant};

use hybrid::Side;
use orthanc_ffi::{ErrorCode, Method, OrthancError, RestAnswer, RestFailure, RestRequest};
use serde_json::{Map, Value, json};

use super::job::{End, MoveJob, Task, Watch, target};
use super::mover::{JobContext as _, Mover};
use crate::catalog::{CatalogError, Level, Resource, unknown_id};

/// How often to ask Orthanc for the job's state: a job that is cancelled before it begins never reports its
/// end.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often to check whether Orthanc stops.
const TICK: Duration = Duration::from_millis(100);

/// The body of a request. The last two fields are as in Orthanc's own routes that create jobs.
#[derive(Debug)]
struct Requested {
    target: Side,
    /// Orthanc ids.
    resources: Vec<String>,
    synchronous: bool,
    priority: i32,
}

impl Requested {
    fn read(task: Task, body: &[u8]) -> Result<Self, RestFailure> {
        let json: Value = serde_json::from_slice(body).map_err(|_| bad_request("the body must be JSON"))?;
        let fields = json.as_object().ok_or_else(|| bad_request("the body must be a JSON object"))?;
        let named = match task {
            Task::Move => fields.get("TargetStorage").and_then(Value::as_str).and_then(target),
            Task::Prefetch => Some(Side::FileSystem),
        };
        let target = named
            .ok_or_else(|| bad_request("TargetStorage must be \"file-system\" or \"object-storage\""))?;
        let flag = |name: &str| match fields.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(bad_request(format!("{name} must be true or false"))),
        };
        let synchronous = flag("Synchronous")?;
        let asynchronous = flag("Asynchronous")?;
        let priority = match fields.get("Priority") {
            None => Some(0),
            Some(priority) => priority.as_i64().and_then(|priority| i32::try_from(priority).ok()),
        };
        Ok(Self {
            target,
            synchronous: synchronous.unwrap_or(!asynchronous.unwrap_or(false)),
            priority: priority.ok_or_else(|| bad_request("Priority must be an integer"))?,
            resources: resource_ids(fields)?,
        })
    }
}

/// Starts the requested job.
pub(crate) fn start_job(
    mover: &Mover,
    task: Task,
    request: &RestRequest<'_>,
) -> Result<RestAnswer, RestFailure> {
    if request.method() != Method::Post {
        return Err(RestFailure::MethodNotAllowed { allow: "POST" });
    }
    let requested = Requested::read(task, request.body())?;
    // A saved job must not begin to delete from the bucket if the mode is changed.
    let task = if mover.only_copies_to(requested.target) { Task::Prefetch } else { task };
    let context = mover.for_job(task, requested.target).map_err(|error| bad_request(error.to_string()))?;
    let mut resources: Vec<Resource> = Vec::new();
    for id in &requested.resources {
        // The ids of a request mostly are of one level.
        let level = resources.last().map_or(Level::Patient, |last| last.level);
        resources.push(mover.catalog().find_near(id, level)?.ok_or_else(|| unknown_id(id))?);
    }
    resources.sort_unstable();
    resources.dedup();
    let job = MoveJob::new(context, task, requested.target, resources);
    let watch = job.watch();
    let submit = || mover.context.orthanc.submit_job(task.job_type(), Box::new(job), requested.priority);
    let submitted = mover.context.runtime.stop().call(submit).ok_or(CatalogError::Stopped)?;
    let id = submitted.map_err(|error| internal(&error))?;
    if requested.synchronous {
        return wait(mover, &id, &watch);
    }
    Ok(RestAnswer::json(&json!({"ID": id, "Path": format!("/jobs/{id}")})))
}

fn resource_ids(fields: &Map<String, Value>) -> Result<Vec<String>, RestFailure> {
    let list = match fields.get("Resources") {
        Some(Value::Array(list)) => list.as_slice(),
        // Orthanc Explorer 2 cannot send a list.
        Some(id @ Value::String(_)) => std::slice::from_ref(id),
        _ => return Err(bad_request("Resources must be an Orthanc id or a list of Orthanc ids")),
    };
    let ids: Option<Vec<String>> = list.iter().map(|id| id.as_str().map(str::to_owned)).collect();
    ids.ok_or_else(|| bad_request("Resources must contain only Orthanc ids"))
}

/// Waits for the end of a job and answers with its content. Orthanc waits for this request when it stops.
fn wait(mover: &Mover, id: &str, watch: &Watch) -> Result<RestAnswer, RestFailure> {
    let mut next_question = Instant::now() + PATIENCE;
    let end = loop {
        if let Some(end) = watch.wait(TICK) {
            break end;
        }
        if mover.is_stopping() {
            return Err(interrupted(id));
        }
        if Instant::now() < next_question {
            continue;
        }
        next_question = Instant::now() + PATIENCE;
        let state = mover.catalog().get(&format!("/jobs/{id}"))?;
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
            r#"{"TargetStorage": "tape"}"#,
            r#"{"TargetStorage": "file-system", "Synchronous": "no"}"#,
            r#"{"TargetStorage": "file-system", "Priority": "high"}"#,
            r#"{"TargetStorage": "file-system"}"#,
            r#"{"TargetStorage": "file-system", "Resources": [7]}"#,
        ];
        let mut failures: Vec<_> =
            invalid.map(|body| (body, Requested::read(Task::Move, body.as_bytes()).unwrap_err())).into();
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
        }, { insta::assert_snapshot!("move-storage", text) });
    }
}
