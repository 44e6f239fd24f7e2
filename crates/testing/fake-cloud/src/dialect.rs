//! The protocol of one cloud: how requests are read, carried out and refused.

use std::fmt;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use s3s::StdError;

use crate::body::Upload;
use crate::operation::Target;
use crate::stored::Buckets;

/// The body of an answer, before a fault damages it.
pub(crate) type AnswerBody = UnsyncBoxBody<Bytes, StdError>;

/// The reason why a request is not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// The error's name in S3; a dialect may replace it.
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &str, message: &str) -> Self {
        Self { status, code: code.to_owned(), message: message.to_owned() }
    }
}

/// The protocol of one cloud, with its buckets.
#[async_trait::async_trait]
pub(crate) trait Dialect: fmt::Debug + Send + Sync {
    /// Returns the bucket, key and operation of a request.
    fn target(&self, head: &Parts) -> Target;

    /// Carries out a request.
    async fn call(&self, request: Request<Upload>) -> Response<AnswerBody>;

    /// Returns the answer that this cloud gives for a refusal.
    fn refuse(&self, head: &Parts, refusal: &Refusal) -> Response<AnswerBody>;

    /// Replaces an object.
    async fn replace(&self, target: &Target, content: Bytes);

    /// Returns the buckets.
    fn buckets(&self) -> &dyn Buckets;
}

/// Returns a body of these bytes.
pub(crate) fn full(bytes: impl Into<Bytes>) -> AnswerBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Returns an answer with a document, which is left out for a `HEAD`.
pub(crate) fn document(
    method: &Method,
    status: StatusCode,
    content_type: &'static str,
    text: String,
) -> Response<AnswerBody> {
    let body = if method == Method::HEAD { Bytes::new() } else { text.into() };
    let mut answer = Response::new(full(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Escapes text for an XML document.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
