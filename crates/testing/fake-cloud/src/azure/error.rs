//! Refusals in Azure's form.

use std::time::SystemTime;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Response};

use crate::azure::sas::{VERSION, iso};
use crate::dialect::{AnswerBody, Refusal, document, escaped};

/// The names in S3 and in Azure of errors that tests inject under the name in S3.
const CODES: [(&str, &str); 3] = [
    ("SlowDown", "ServerBusy"),
    ("AccessDenied", "AuthorizationFailure"),
    ("SignatureDoesNotMatch", "AuthenticationFailed"),
];

/// Returns the answer with this refusal. The request's identifier contains `number`.
pub(crate) fn answer(head: &Parts, refusal: &Refusal, number: u64) -> Response<AnswerBody> {
    let Refusal { status, code, message } = refusal;
    let code = CODES.iter().find(|(s3, _)| s3 == code).map_or(code.as_str(), |(_, azure)| azure);
    let id = format!("00000000-0000-4000-8000-{number:012x}");
    let text = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{}</Code><Message>{}\n\
         RequestId:{id}\nTime:{}</Message></Error>",
        escaped(code),
        escaped(message),
        iso(SystemTime::now())
    );
    let mut answer = document(&head.method, *status, "application/xml", text);
    for (name, value) in [("x-ms-error-code", code), ("x-ms-request-id", &id), ("x-ms-version", VERSION)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            answer.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    answer
}
