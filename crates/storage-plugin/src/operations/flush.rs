//! `POST /object-storage/flush`: waits until everything pending is in the bucket.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hybrid::WriteBack;
use orthanc_ffi::{RestAnswer, RestFailure, RestRequest};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::catalog::CatalogError;
use crate::context::Context;
use crate::jobs::bad_request;
use crate::post::only_post;

/// How long a request waits by default, in seconds. It holds one of Orthanc's HTTP threads, also after its client has
/// broken the connection.
const DEFAULT_TIMEOUT: u64 = 60 * 60;
/// The longest wait, in seconds.
const LONGEST_TIMEOUT: u64 = 24 * 60 * 60;

/// Uploads everything that is pending, and waits for that.
pub(super) fn answer(context: &Context, request: &RestRequest<'_>) -> Result<RestAnswer, RestFailure> {
    only_post(request)?;
    let limit = limit(request.body())?;
    let start = Instant::now();
    let flushed = match context.storage.local() {
        Some(local) => flush(context, Arc::clone(local), limit)?,
        None => 0,
    };
    Ok(RestAnswer::json(&json!({"Flushed": flushed, "Seconds": start.elapsed().as_secs_f64()})))
}

/// Returns the number of attachments that were pending.
fn flush(context: &Context, local: Arc<WriteBack>, limit: Duration) -> Result<u64, RestFailure> {
    let pending = Arc::clone(&local);
    let flushed = context.run_until_stopped(async move { timeout(limit, local.flush()).await });
    match flushed.ok_or(CatalogError::Stopped)? {
        Ok(Ok(flushed)) => Ok(flushed),
        Ok(Err(error)) => Err(RestFailure::Status { status: 502, message: error.to_string() }),
        Err(_elapsed) => Err(late(limit, pending.totals().pending)),
    }
}

fn late(limit: Duration, pending: u64) -> RestFailure {
    let seconds = limit.as_secs();
    let message = format!("attachments still pending after {seconds} s: {pending}; the uploads go on");
    RestFailure::Status { status: 504, message }
}

/// The longest wait that the body asks for.
fn limit(body: &[u8]) -> Result<Duration, RestFailure> {
    if body.trim_ascii().is_empty() {
        return Ok(Duration::from_secs(DEFAULT_TIMEOUT));
    }
    let json: Value = serde_json::from_slice(body).map_err(|_| bad_request("the body must be JSON"))?;
    let fields = json.as_object().ok_or_else(|| bad_request("the body must be a JSON object"))?;
    let seconds = fields.get("Timeout").map_or(Some(DEFAULT_TIMEOUT), Value::as_u64);
    let seconds = seconds.filter(|seconds| (1..=LONGEST_TIMEOUT).contains(seconds)).ok_or_else(|| {
        bad_request(format!("Timeout must be an integer from 1 to {LONGEST_TIMEOUT}, in seconds"))
    })?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use hybrid::NotFlushed;

    use super::*;

    #[test]
    fn refusals() {
        let message = |failure| match failure {
            RestFailure::Status { status, message } => format!("{status} {message}"),
            other => panic!("{other:?}"),
        };
        let invalid = ["{", "[]", r#"{"Timeout": 0}"#, r#"{"Timeout": "60"}"#, r#"{"Timeout": 86401}"#];
        let refused =
            invalid.map(|body| format!("{body}\n    {}", message(limit(body.as_bytes()).unwrap_err())));
        let error = || "REASON".to_owned();
        let failed = [
            NotFlushed::Pending { files: 3, error: error() },
            NotFlushed::Damaged { files: 3 },
            NotFlushed::Unknown { error: error() },
        ];
        let failed = failed.map(|error| format!("end of the flush\n    502 {error}"));
        let late = format!("time limit\n    {}", message(late(Duration::from_secs(60), 3)));
        insta::with_settings!({
            snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/../testing/messages"),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, { insta::assert_snapshot!("flush", [&refused[..], &failed, &[late]].concat().join("\n")) });
    }

    #[test]
    fn body_is_optional() {
        let hour = Duration::from_secs(60 * 60);
        for (body, expected) in
            [("", hour), (" \n", hour), ("{}", hour), (r#"{"Timeout": 5}"#, Duration::from_secs(5))]
        {
            assert_eq!(limit(body.as_bytes()).unwrap(), expected, "{body:?}");
        }
    }
}
