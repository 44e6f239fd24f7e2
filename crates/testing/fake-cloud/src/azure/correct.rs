//! Corrects answers of Azurite that differ from Azure's in a way that matters to clients.

use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;

use crate::azure::error;
use crate::dialect::{AnswerBody, Refusal, full};

const ERROR_CODE: &str = "x-ms-error-code";

/// Returns Azure's answer in place of Azurite's.
pub(crate) async fn corrected(
    answer: Response<AnswerBody>,
    head: &Parts,
    number: u64,
) -> Response<AnswerBody> {
    if let Some(total) = length_before_range(&answer) {
        return unsatisfiable(head, &total, number);
    }
    match answer.headers().get(ERROR_CODE) {
        Some(code) if code == "AuthorizationFailure" => unauthenticated(answer).await,
        _ => answer,
    }
}

/// Returns the length of the blob if the range starts beyond its end, which Azurite answers with 206 and no
/// bytes.
fn length_before_range(answer: &Response<AnswerBody>) -> Option<String> {
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        return None;
    }
    let range = answer.headers().get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (range, total) = range.split_once('/')?;
    let start: u64 = range.split_once('-')?.0.parse().ok()?;
    (start >= total.parse().ok()?).then(|| total.to_owned())
}

fn unsatisfiable(head: &Parts, total: &str, number: u64) -> Response<AnswerBody> {
    let message = "The range specified is invalid for the current size of the resource.";
    let refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange", message);
    let mut refused = error::answer(head, &refusal, number);
    if let Ok(range) = HeaderValue::try_from(format!("bytes */{total}")) {
        refused.headers_mut().insert(CONTENT_RANGE, range);
    }
    refused
}

/// Corrects the code for a wrong or expired signature. In Azure, Azurite's code means that a firewall refused
/// the request.
async fn unauthenticated(answer: Response<AnswerBody>) -> Response<AnswerBody> {
    let (mut head, body) = answer.into_parts();
    let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let document =
        String::from_utf8_lossy(&bytes).replace("<Code>AuthorizationFailure<", "<Code>AuthenticationFailed<");
    head.headers.insert(ERROR_CODE, HeaderValue::from_static("AuthenticationFailed"));
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, full(document))
}
