//! The S3 protocol: `s3s` in front of buckets in memory.

pub(crate) mod answer;
pub(crate) mod attributes;
mod auth;
pub(crate) mod object;
mod options;
pub(crate) mod service;
pub(crate) mod store;
pub(crate) mod target;
mod upload;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3Error, S3ErrorCode};

use crate::body::{Upload, drain};
use crate::dialect::{AnswerBody, Dialect, Refusal};
use crate::operation::Target;
use crate::s3::auth::{BucketHost, OneUser, TokenCheck, check_region};
use crate::s3::service::Service;
use crate::s3::store::Store;
use crate::stored::{StoredObject, UnfinishedUpload};

pub use options::Options;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");
const BUCKET_REGION: HeaderName = HeaderName::from_static("x-amz-bucket-region");

/// S3 as AWS speaks it.
#[derive(Debug)]
pub(crate) struct S3Dialect {
    service: S3Service,
    store: Arc<Store>,
    region: String,
    domain: Option<String>,
    next_request: AtomicU64,
}

impl S3Dialect {
    pub(crate) fn new(options: Options) -> Self {
        let store = Arc::new(Store::new(options.buckets));
        let service = Service {
            store: Arc::clone(&store),
            region: options.region.clone(),
            body_limit: options.body_limit,
            storage_classes: &attributes::STORAGE_CLASSES,
            also: |_| HeaderMap::new(),
        };
        let mut builder = S3ServiceBuilder::new(service);
        builder.set_auth(OneUser { access_key: options.access_key, secret_key: options.secret_key.into() });
        builder.set_access(TokenCheck { session_token: options.session_token });
        if let Some(domain) = options.virtual_host_domain.clone() {
            builder.set_host(BucketHost { domain });
        }
        Self {
            service: builder.build(),
            store,
            region: options.region,
            domain: options.virtual_host_domain,
            next_request: AtomicU64::new(1),
        }
    }

    /// Adds what every answer of S3 has, and completes error documents.
    fn finish(&self, answer: Response<Body>, method: &Method, path: &str) -> Response<AnswerBody> {
        let id = format!("{:016X}", self.next_request.fetch_add(1, Ordering::Relaxed));
        let (mut head, mut body) = answer.into_parts();
        if head.status.is_client_error() || head.status.is_server_error() {
            if let Ok(region) = HeaderValue::from_str(&self.region) {
                head.headers.insert(BUCKET_REGION, region);
            }
            head.headers.remove(CONTENT_LENGTH);
            let document = body.bytes().unwrap_or_default();
            body = match *method {
                Method::HEAD => Body::empty(),
                _ => complete_error(&String::from_utf8_lossy(&document), head.status, path, &id).into(),
            };
        } else if head.status == StatusCode::NOT_MODIFIED {
            head.headers.remove(CONTENT_LENGTH);
            body = Body::empty();
        }
        if let Ok(id) = HeaderValue::from_str(&id) {
            head.headers.insert(REQUEST_ID, id);
        }
        Response::from_parts(head, body.boxed_unsync())
    }
}

#[async_trait::async_trait]
impl Dialect for S3Dialect {
    fn target(&self, head: &Parts) -> Target {
        Target::of(head, self.domain.as_deref())
    }

    async fn call(&self, request: Request<Upload>) -> Response<AnswerBody> {
        let (head, upload) = request.into_parts();
        let (method, path) = (head.method.clone(), head.uri.path().to_owned());
        let answer = match check_region(&head, &self.region) {
            Err(error) => {
                drain(upload).await;
                error_answer(error)
            }
            Ok(()) => {
                let request = Request::from_parts(head, Body::http_body(upload));
                self.service.call(request).await.unwrap_or_else(|_| internal_error())
            }
        };
        self.finish(answer, &method, &path)
    }

    fn refuse(&self, head: &Parts, refusal: &Refusal) -> Response<AnswerBody> {
        self.finish(injected(refusal), &head.method, head.uri.path())
    }

    async fn replace(&self, target: &Target, content: Bytes) {
        self.store.replace(&target.bucket, &target.key, content);
    }

    fn keys(&self, bucket: &str) -> Vec<String> {
        self.store.objects(bucket).into_keys().collect()
    }

    fn object(&self, bucket: &str, key: &str) -> Option<StoredObject> {
        self.store.get(bucket, key).ok().map(|object| object.inspect())
    }

    fn insert(&self, bucket: &str, key: &str, content: Bytes) {
        self.store.create_bucket(bucket);
        self.store.replace(bucket, key, content);
    }

    fn remove(&self, bucket: &str, key: &str) -> Option<StoredObject> {
        self.store.remove(bucket, key).ok().flatten().map(|object| object.inspect())
    }

    fn unfinished_uploads(&self, bucket: &str) -> Vec<UnfinishedUpload> {
        self.store.uploads(bucket).unwrap_or_default()
    }

    fn clear(&self) {
        self.store.clear();
    }
}

/// The error that a test asked for.
pub(crate) fn injected(refusal: &Refusal) -> Response<Body> {
    let code = S3ErrorCode::Custom(refusal.code.as_str().into());
    let mut error = S3Error::with_message(code, "Injected by the test server");
    error.set_status_code(refusal.status);
    error_answer(error)
}

fn error_answer(error: S3Error) -> Response<Body> {
    error.to_http_response().unwrap_or_else(|_| internal_error())
}

pub(crate) fn internal_error() -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    answer
}

/// Adds what `s3s` leaves out of error documents: the resource, the request's identifier and, at times, a message.
fn complete_error(document: &str, status: StatusCode, path: &str, id: &str) -> String {
    let start = document.strip_suffix("</Error>").unwrap_or(document);
    let message = match status.canonical_reason() {
        Some(reason) if !start.contains("<Message>") => format!("<Message>{reason}</Message>"),
        _ => String::new(),
    };
    let path = path.replace('&', "&amp;").replace('<', "&lt;");
    format!("{start}{message}<Resource>{path}</Resource><RequestId>{id}</RequestId></Error>")
}
