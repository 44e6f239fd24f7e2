//! Refusals as Azure words them.

use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, DATE, SERVER};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response};
use http_body_util::{BodyExt, Empty, Full};

use crate::azure::sign::{VERSION, iso};
use crate::dialect::{AnswerBody, Refusal};

/// What Azure calls the errors that tests name as S3 does.
const CODES: [(&str, &str); 12] = [
    ("SlowDown", "ServerBusy"),
    ("ServiceUnavailable", "ServerBusy"),
    ("NoSuchBucket", "ContainerNotFound"),
    ("NoSuchKey", "BlobNotFound"),
    ("AccessDenied", "AuthorizationFailure"),
    ("SignatureDoesNotMatch", "AuthenticationFailed"),
    ("InvalidAccessKeyId", "AuthenticationFailed"),
    ("RequestTimeout", "OperationTimedOut"),
    ("BadDigest", "Md5Mismatch"),
    ("PreconditionFailed", "ConditionNotMet"),
    ("EntityTooLarge", "RequestBodyTooLarge"),
    ("InvalidObjectState", "BlobArchived"),
];

/// The answer with this refusal. `number` makes it recognisable.
pub(crate) fn answer(head: &Parts, refusal: &Refusal, number: u64, message: &str) -> Response<AnswerBody> {
    let code = CODES.iter().find(|(s3, _)| *s3 == refusal.code).map_or(refusal.code.as_str(), |(_, own)| own);
    let id = format!("00000000-0000-4000-8000-{number:012x}");
    let now = SystemTime::now();
    let escaped = code.replace('&', "&amp;").replace('<', "&lt;");
    let document = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{escaped}</Code><Message>{message}\n\
         RequestId:{id}\nTime:{}</Message></Error>",
        iso(now)
    );
    let body = match head.method {
        Method::HEAD => Empty::new().map_err(|never| match never {}).boxed_unsync(),
        _ => Full::new(Bytes::from(document)).map_err(|never| match never {}).boxed_unsync(),
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = refusal.status;
    for (name, value) in [
        (CONTENT_TYPE, "application/xml"),
        (SERVER, "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0"),
        (HeaderName::from_static("x-ms-error-code"), code),
        (HeaderName::from_static("x-ms-request-id"), &id),
        (HeaderName::from_static("x-ms-version"), VERSION),
        (DATE, &httpdate::fmt_http_date(now)),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}
