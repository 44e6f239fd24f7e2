//! `POST /move-storage` and `POST /object-storage/prefetch`.

use hybrid::Side;
use orthanc_ffi::{RestAnswer, RestFailure, RestRequest};
use serde_json::{Map, Value};

use super::mover::{Mover, Task, target};
use crate::jobs::{JobRequest, bad_request, start_job};
use crate::post::only_post;

/// Starts the requested job.
pub(crate) fn start_move(
    mover: &Mover,
    task: Task,
    request: &RestRequest<'_>,
) -> Result<RestAnswer, RestFailure> {
    only_post(request)?;
    let requested = JobRequest::read(request.body())?;
    let target = target_of(task, &requested.fields)?;
    requested.expect_resources()?;
    // A saved job must not begin to delete from the bucket if the mode is changed.
    let task = if mover.only_copies_to(target) { Task::Prefetch } else { task };
    mover.check(task, target).map_err(|error| bad_request(error.to_string()))?;
    start_job(&mover.context.orthanc, &mover.host, mover.work(task, target), &requested)
}

fn target_of(task: Task, fields: &Map<String, Value>) -> Result<Side, RestFailure> {
    let named = match task {
        Task::Move => fields.get("TargetStorage").and_then(Value::as_str).and_then(target),
        Task::Prefetch => Some(Side::FileSystem),
    };
    named.ok_or_else(|| bad_request("TargetStorage must be \"file-system\" or \"object-storage\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_is_required() {
        let fields = serde_json::json!({"TargetStorage": "tape"});
        let fields = fields.as_object().unwrap();
        let refused = target_of(Task::Move, fields).unwrap_err();
        assert!(matches!(refused, RestFailure::Status { status: 400, .. }), "{refused:?}");
        assert_eq!(target_of(Task::Prefetch, fields).unwrap(), Side::FileSystem);
    }
}
