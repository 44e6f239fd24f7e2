//! Where Azurite answers otherwise than Azure, and it matters to a client.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full};

use crate::azure::error;
use crate::dialect::{AnswerBody, Refusal};

const ERROR_CODE: &str = "x-ms-error-code";

/// Azure's answer in place of Azurite's.
pub(crate) async fn corrected(answer: Response<AnswerBody>, head: &Parts) -> Response<AnswerBody> {
    if let Some(total) = length_behind_range(&answer) {
        return unsatisfiable(&answer, head, &total);
    }
    let code = answer.headers().get(ERROR_CODE);
    if code.is_some_and(|code| code == "AuthorizationFailure") {
        unauthenticated(answer).await
    } else {
        answer
    }
}

/// The length of the blob if the range begins behind its end, which Azurite takes for a range without bytes.
fn length_behind_range(answer: &Response<AnswerBody>) -> Option<String> {
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        return None;
    }
    let range = answer.headers().get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (range, total) = range.split_once('/')?;
    let start: u64 = range.split_once('-')?.0.parse().ok()?;
    (start >= total.parse().ok()?).then(|| total.to_owned())
}

fn unsatisfiable(answer: &Response<AnswerBody>, head: &Parts, total: &str) -> Response<AnswerBody> {
    let refusal = Refusal { status: StatusCode::RANGE_NOT_SATISFIABLE, code: "InvalidRange".to_owned() };
    let message = "The range specified is invalid for the current size of the resource.";
    let mut refused = error::answer(head, &refusal, 0, message);
    if let Some(id) = answer.headers().get("x-ms-request-id") {
        refused.headers_mut().insert("x-ms-request-id", id.clone());
    }
    if let Ok(range) = HeaderValue::try_from(format!("bytes */{total}")) {
        refused.headers_mut().insert(CONTENT_RANGE, range);
    }
    refused
}

/// A signature that is wrong or no longer valid; what Azurite calls it is a matter of firewalls in Azure.
async fn unauthenticated(answer: Response<AnswerBody>) -> Response<AnswerBody> {
    let (mut head, body) = answer.into_parts();
    let document = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let document = String::from_utf8_lossy(&document)
        .replace("<Code>AuthorizationFailure<", "<Code>AuthenticationFailed<");
    head.headers.insert(ERROR_CODE, HeaderValue::from_static("AuthenticationFailed"));
    head.headers.remove(CONTENT_LENGTH);
    let body = Full::new(Bytes::from(document)).map_err(|never| match never {}).boxed_unsync();
    Response::from_parts(head, body)
}
