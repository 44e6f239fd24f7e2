//! Refusals as the XML interface of Google words them.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::BodyExt;
use s3s::Body;

use crate::dialect::AnswerBody;

/// What Google calls the errors that it names otherwise than S3.
const CODES: [(&str, &str); 3] = [
    ("SignatureDoesNotMatch", "AuthenticationRequired"),
    ("InvalidAccessKeyId", "AuthenticationRequired"),
    ("InvalidStorageClass", "InvalidArgument"),
];

/// Why a request is not carried out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
}

impl Refused {
    pub(crate) const ANONYMOUS: Self =
        Self::new(StatusCode::FORBIDDEN, "AccessDenied", "Anonymous caller does not have access.");
    pub(crate) const DENIED: Self = Self::new(StatusCode::FORBIDDEN, "AccessDenied", "Access denied.");
    pub(crate) const NO_BUCKET: Self =
        Self::new(StatusCode::NOT_FOUND, "NoSuchBucket", "The specified bucket does not exist.");
    pub(crate) const NO_KEY: Self =
        Self::new(StatusCode::NOT_FOUND, "NoSuchKey", "The specified key does not exist.");
    pub(crate) const PRECONDITION: Self = Self::new(
        StatusCode::PRECONDITION_FAILED,
        "PreconditionFailed",
        "At least one of the pre-conditions you specified did not hold.",
    );
    pub(crate) const UNAUTHENTICATED: Self =
        Self::new(StatusCode::UNAUTHORIZED, "AuthenticationRequired", "Authentication required.");

    const fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message }
    }

    /// The answer, for [`finish`].
    pub(crate) fn answer(self) -> Response<Body> {
        let (code, message) = (self.code, self.message);
        let document = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
        let mut answer = Response::new(Body::from(document));
        *answer.status_mut() = self.status;
        if self.status == StatusCode::UNAUTHORIZED {
            let realm = HeaderValue::from_static("Bearer realm=\"https://accounts.google.com/\"");
            answer.headers_mut().insert(WWW_AUTHENTICATE, realm);
        }
        answer
    }
}

/// Completes an answer: errors become Google's.
pub(crate) fn finish(answer: Response<Body>, head: &Parts) -> Response<AnswerBody> {
    let (mut parts, mut body) = answer.into_parts();
    if parts.status.is_client_error() || parts.status.is_server_error() {
        parts.headers.remove(CONTENT_LENGTH);
        let kind = HeaderValue::from_static("application/xml; charset=UTF-8");
        parts.headers.insert(CONTENT_TYPE, kind);
        let document = body.bytes().unwrap_or_default();
        body = match head.method {
            Method::HEAD => Body::empty(),
            _ => rewritten(&String::from_utf8_lossy(&document), parts.status, head.uri.path()).into(),
        };
    } else if parts.status == StatusCode::NOT_MODIFIED {
        parts.headers.remove(CONTENT_LENGTH);
        body = Body::empty();
    }
    Response::from_parts(parts, body.boxed_unsync())
}

fn rewritten(document: &str, status: StatusCode, path: &str) -> String {
    let element = |name: &str| {
        let (_, rest) = document.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0)
    };
    let reason = status.canonical_reason().unwrap_or("Unknown");
    let code = element("Code").unwrap_or("InternalError");
    let code = CODES.iter().find(|(s3, _)| *s3 == code).map_or(code, |(_, own)| own);
    let message = element("Message").unwrap_or(reason);
    let path = path.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message>\
         <Details>{path}</Details></Error>"
    )
}
