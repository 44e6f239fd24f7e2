//! Batches of the JSON interface, which only delete objects here.
//!
//! <https://cloud.google.com/storage/docs/batch>

use std::fmt::Write as _;

use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use percent_encoding::percent_decode_str;
use serde_json::json;

use crate::body::Upload;
use crate::dialect::{AnswerBody, document};
use crate::s3::store::Store;

/// Maximum number of requests in a batch.
const LIMIT: usize = 100;
const BOUNDARY: &str = "batch_of_the_test_server";
const CONTENT_TYPE_OF_ANSWER: &str = "multipart/mixed; boundary=batch_of_the_test_server";

/// Whether a request is a batch.
pub(crate) fn is_batch(head: &Parts) -> bool {
    head.method == Method::POST && head.uri.path() == "/batch/storage/v1"
}

/// Carries out a batch.
pub(crate) async fn answer(store: &Store, head: &Parts, upload: Upload) -> Response<AnswerBody> {
    let body = upload.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    let Some(parts) = parts(head, &text).filter(|parts| (1..=LIMIT).contains(&parts.len())) else {
        let status = StatusCode::BAD_REQUEST;
        return document(
            &head.method,
            status,
            "application/json",
            error(status, "badRequest", "Failed to parse"),
        );
    };
    let mut answers = String::new();
    for (id, path) in parts {
        let (status, body) = delete(store, path);
        let reason = status.canonical_reason().unwrap_or_default();
        let _ = write!(
            answers,
            "--{BOUNDARY}\r\nContent-Type: application/http\r\nContent-ID: <response-{id}>\r\n\r\n\
             HTTP/1.1 {} {reason}\r\nContent-Length: {}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n\
             {body}\r\n",
            status.as_u16(),
            body.len()
        );
    }
    let _ = write!(answers, "--{BOUNDARY}--\r\n");
    document(&head.method, StatusCode::OK, CONTENT_TYPE_OF_ANSWER, answers)
}

/// Returns the identifier and the path of each request in a batch, all of which must be deletions.
fn parts<'a>(head: &Parts, body: &'a str) -> Option<Vec<(&'a str, &'a str)>> {
    let content_type = head.headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let boundary = content_type.strip_prefix("multipart/mixed; boundary=")?;
    let (parts, rest) = body.split_once(&format!("--{boundary}--"))?;
    if rest != "\r\n" {
        return None;
    }
    let start = format!("--{boundary}\r\n");
    let part = |part: &'a str| {
        let (head, request) = part.split_once("\r\n\r\n")?;
        let mut lines = head.lines();
        lines.find(|line| *line == "Content-Type: application/http")?;
        let id = head.lines().find_map(|line| line.strip_prefix("Content-ID: <")?.strip_suffix('>'))?;
        let line = request.strip_suffix("\r\n\r\n")?.lines().next()?;
        Some((id, line.strip_prefix("DELETE ")?.strip_suffix(" HTTP/1.1")?))
    };
    parts.split(&start).skip(1).map(part).collect()
}

/// Deletes the object at a path of the JSON interface. Returns the status and the body.
fn delete(store: &Store, path: &str) -> (StatusCode, String) {
    let refused = |status, reason, message: &str| (status, error(status, reason, message));
    let names = path.strip_prefix("/storage/v1/b/").and_then(|path| path.split_once("/o/"));
    let Some((bucket, name)) = names.filter(|(_, name)| !name.contains('/')) else {
        return refused(StatusCode::NOT_FOUND, "notFound", "Not Found");
    };
    let Ok(name) = percent_decode_str(name).decode_utf8() else {
        return refused(StatusCode::BAD_REQUEST, "invalid", "Invalid object name");
    };
    if store.check_bucket(bucket).is_err() {
        return refused(StatusCode::NOT_FOUND, "notFound", "The specified bucket does not exist.");
    }
    match store.delete(bucket, &name) {
        Ok(Some(_)) => (StatusCode::NO_CONTENT, String::new()),
        Ok(None) => {
            let message = format!("No such object: {bucket}/{name}");
            refused(StatusCode::NOT_FOUND, "notFound", &message)
        }
        Err(_) => refused(StatusCode::FORBIDDEN, "forbidden", "Object is under active Event-Based hold."),
    }
}

/// Returns an error of the JSON interface.
pub(crate) fn error(status: StatusCode, reason: &str, message: &str) -> String {
    let errors = [json!({"message": message, "domain": "global", "reason": reason})];
    json!({"error": {"code": status.as_u16(), "message": message, "errors": errors}}).to_string()
}
