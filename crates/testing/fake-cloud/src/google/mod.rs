//! Google Cloud Storage, and Google Cloud KMS at the same address. The XML interface of the former is a dialect of S3's,
//! so `s3s` serves it behind Google's tokens and headers.

mod account;
mod batch;
mod headers;
mod intercept;
mod jwt;
mod kms;
mod oauth;
mod options;
mod settings;
mod tokens;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use s3s::Body;
use s3s::service::{S3Service, S3ServiceBuilder};

use crate::body::{Upload, drain};
use crate::dialect::{AnswerBody, Dialect, Refusal, document, escaped};
use crate::operation::{Operation, Target};
use crate::s3::service::Service;
use crate::s3::store::Store;
use crate::s3::{Quirks, carry_out};
use crate::stored::Buckets;

pub use account::{AuthorizedUser, ServiceAccount};
pub use intercept::Interceptor;
pub use kms::CryptoKeys;
pub use options::GoogleOptions;
pub use tokens::Tokens;

/// Google Cloud Storage as `storage.googleapis.com` speaks XML.
#[derive(Debug)]
pub(crate) struct GoogleDialect {
    service: S3Service,
    store: Arc<Store>,
    options: GoogleOptions,
    next_request: AtomicU64,
}

impl GoogleDialect {
    pub(crate) fn new(options: GoogleOptions) -> Self {
        let store = Arc::new(Store::new());
        let service = Service {
            store: Arc::clone(&store),
            quirks: Quirks::default(),
            settings: options.settings.clone(),
            more_headers: headers::hashes,
        };
        let service = S3ServiceBuilder::new(service).build();
        Self { service, store, options, next_request: AtomicU64::new(1) }
    }

    /// Returns the account whose valid token a request has.
    fn admit(&self, headers: &HeaderMap) -> Result<String, Refusal> {
        let denied = |message| Refusal::new(StatusCode::FORBIDDEN, "AccessDenied", message);
        let Some(value) = headers.get(AUTHORIZATION) else {
            return Err(denied("Anonymous caller does not have access."));
        };
        let token = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
        let signer = |token: &str| jwt::verify(token, &self.options.service_accounts).ok();
        let holder = token.and_then(|token| self.options.tokens.holder(token).or_else(|| signer(token)));
        match holder {
            Some(holder) if self.options.without_access.contains(&holder) => Err(denied("Access denied.")),
            Some(holder) => Ok(holder),
            None => Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "AuthenticationRequired",
                "Authentication required.",
            )),
        }
    }

    /// Refuses to delete an object that does not exist, which S3 would accept.
    fn check_exists(&self, target: &Target) -> Result<(), Refusal> {
        if target.operation != Operation::DeleteObject {
            return Ok(());
        }
        self.store.get(&target.bucket, &target.key).map(drop).map_err(|error| {
            Refusal::new(StatusCode::NOT_FOUND, error.code().as_str(), error.message().unwrap_or_default())
        })
    }

    /// Adds the headers that every answer of Google has.
    fn sign_off(&self, mut answer: Response<AnswerBody>) -> Response<AnswerBody> {
        let id = format!("ABgVH8-test-{:06}", self.next_request.fetch_add(1, Ordering::Relaxed));
        if let Ok(id) = HeaderValue::from_str(&id) {
            answer.headers_mut().insert("x-guploader-uploadid", id);
        }
        answer
    }
}

#[async_trait::async_trait]
impl Dialect for GoogleDialect {
    fn target(&self, head: &Parts) -> Target {
        if oauth::is_token_request(head) {
            return Target { bucket: String::new(), key: String::new(), operation: Operation::Token };
        }
        if batch::is_batch(head) {
            return Target { bucket: String::new(), key: String::new(), operation: Operation::DeleteObjects };
        }
        if let Some((key, operation)) = kms::target(head) {
            return Target { bucket: String::new(), key: key.to_owned(), operation };
        }
        Target::of(head, None)
    }

    async fn call(&self, request: Request<Upload>) -> Response<AnswerBody> {
        let (mut head, upload) = request.into_parts();
        if oauth::is_token_request(&head) {
            let body = upload.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            return oauth::answer(&head, &body, &self.options);
        }
        if kms::target(&head).is_some() {
            let body = upload.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let answer =
                self.admit(&head.headers).and_then(|holder| self.options.keys.answer(&holder, &head, &body));
            return answer.unwrap_or_else(|refusal| self.refuse(&head, &refusal));
        }
        if settings::bucket(&head).is_some() {
            let answer =
                self.admit(&head.headers).and_then(|_| settings::answer(&head, &self.options.settings));
            return self.sign_off(answer.unwrap_or_else(|refusal| self.refuse(&head, &refusal)));
        }
        let target = self.target(&head);
        if target.operation == Operation::DeleteObjects {
            return match self.admit(&head.headers) {
                Ok(_) => self.sign_off(batch::answer(&self.store, &head, upload).await),
                Err(refusal) => {
                    drain(upload).await;
                    self.refuse(&head, &refusal)
                }
            };
        }
        let is_open = self.options.settings.is_public && head.method == Method::GET;
        let is_anonymous = !head.headers.contains_key(AUTHORIZATION);
        let admitted = if is_open && is_anonymous { Ok(String::new()) } else { self.admit(&head.headers) };
        if let Err(refusal) = admitted.and_then(|_| self.check_exists(&target)) {
            drain(upload).await;
            return self.refuse(&head, &refusal);
        }
        headers::to_s3(&mut head.headers);
        match carry_out(&self.service, head.clone(), Body::http_body(upload)).await {
            Ok(mut answer) => {
                headers::to_google(answer.headers_mut());
                self.sign_off(answer)
            }
            Err(refusal) => self.refuse(&head, &refusal),
        }
    }

    fn refuse(&self, head: &Parts, refusal: &Refusal) -> Response<AnswerBody> {
        let Refusal { status, code, message } = refusal;
        if oauth::is_token_request(head) {
            return oauth::failure(*status, code, message);
        }
        if kms::target(head).is_some() {
            return document(&head.method, *status, "application/json; charset=UTF-8", kms::error(refusal));
        }
        if settings::bucket(head).is_some() {
            let error = settings::error(refusal);
            return document(&head.method, *status, "application/json; charset=UTF-8", error);
        }
        let code = if code == "SignatureDoesNotMatch" { "AuthenticationRequired" } else { code };
        if batch::is_batch(head) {
            let error = batch::error(*status, code, message);
            return self.sign_off(document(&head.method, *status, "application/json", error));
        }
        let text = format!(
            "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{}</Code><Message>{}</Message>\
             <Details>{}</Details></Error>",
            escaped(code),
            escaped(message),
            escaped(head.uri.path())
        );
        let mut answer = document(&head.method, *status, "application/xml; charset=UTF-8", text);
        if *status == StatusCode::UNAUTHORIZED {
            let realm = HeaderValue::from_static("Bearer realm=\"https://accounts.google.com/\"");
            answer.headers_mut().insert(WWW_AUTHENTICATE, realm);
        }
        self.sign_off(answer)
    }

    async fn replace(&self, target: &Target, content: Bytes) {
        self.store.insert(&target.bucket, &target.key, content);
    }

    fn buckets(&self) -> &dyn Buckets {
        &*self.store
    }
}
