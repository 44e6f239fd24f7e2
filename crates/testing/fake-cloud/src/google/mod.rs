//! Google Cloud Storage: its XML interface is a dialect of S3's, so `s3s` stands behind, with Google's tokens before it.

mod account;
mod error;
mod headers;
mod intercept;
mod jwt;
mod oauth;
mod options;
mod tokens;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::{AUTHORIZATION, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use s3s::Body;
use s3s::service::{S3Service, S3ServiceBuilder};

use crate::body::{Upload, drain};
use crate::dialect::{AnswerBody, Dialect, Refusal};
use crate::google::error::Refused;
use crate::operation::{Operation, Target};
use crate::s3::object::Object;
use crate::s3::service::Service;
use crate::s3::store::Store;
use crate::s3::{injected, internal_error};
use crate::stored::{StoredObject, UnfinishedUpload};

pub use account::{AuthorizedUser, ServiceAccount};
pub use intercept::Interceptor;
pub use options::GoogleOptions;
pub use tokens::Tokens;

const STORAGE_CLASSES: [&str; 7] = [
    "STANDARD",
    "NEARLINE",
    "COLDLINE",
    "ARCHIVE",
    "MULTI_REGIONAL",
    "REGIONAL",
    "DURABLE_REDUCED_AVAILABILITY",
];

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
        let store = Arc::new(Store::new(options.buckets.iter().cloned()));
        let service = Service {
            store: Arc::clone(&store),
            region: "us".to_owned(),
            body_limit: options.body_limit,
            storage_classes: &STORAGE_CLASSES,
            also: headers::of_object,
        };
        let service = S3ServiceBuilder::new(service).build();
        Self { service, store, options, next_request: AtomicU64::new(1) }
    }

    /// Whether the request has a good token.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let value = headers.get(AUTHORIZATION).ok_or(Refused::ANONYMOUS)?;
        let token = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
        let holder = token.and_then(|token| self.options.tokens.holder(token).or_else(|| self.signer(token)));
        let holder = holder.ok_or(Refused::UNAUTHENTICATED)?;
        if self.options.without_access.contains(&holder) { Err(Refused::DENIED) } else { Ok(()) }
    }

    /// Who signed a token that was not handed out here.
    fn signer(&self, token: &str) -> Option<String> {
        let refused = self.options.tokens.self_signed_refused();
        (!refused).then(|| jwt::verify(token, &self.options.service_accounts, None).ok()).flatten()
    }

    /// What Google checks and S3 does not: generations, and that there is something to delete.
    fn check(&self, head: &mut Parts, target: &Target) -> Result<(), Refused> {
        let existing = self.store.get(&target.bucket, &target.key);
        if target.operation == Operation::DeleteObject && existing.is_err() {
            let no_bucket = self.store.check_bucket(&target.bucket).is_err();
            return Err(if no_bucket { Refused::NO_BUCKET } else { Refused::NO_KEY });
        }
        let generation = existing.ok().map(|object| headers::generation(&object).to_string());
        let query = head.uri.query().unwrap_or("");
        let asked = query.split('&').find_map(|pair| pair.strip_prefix("generation="));
        if asked.is_some_and(|asked| generation.as_deref() != Some(asked)) {
            return Err(Refused::NO_KEY);
        }
        let expected = head.headers.remove("x-goog-if-generation-match");
        match expected.as_ref().and_then(|expected| expected.to_str().ok()) {
            // Left to the store, which does it at once with the put.
            Some("0") => {
                head.headers.insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
                Ok(())
            }
            Some(expected) if generation.as_deref() != Some(expected) => Err(Refused::PRECONDITION),
            _ => Ok(()),
        }
    }

    async fn carry_out(&self, mut head: Parts, upload: Upload) -> Response<Body> {
        let target = self.target(&head);
        let refused = self.admit(&head.headers).and_then(|()| self.check(&mut head, &target));
        if let Err(refused) = refused {
            drain(upload).await;
            return refused.answer();
        }
        headers::to_s3(&mut head.headers);
        let request = Request::from_parts(head, Body::http_body(upload));
        let mut answer = self.service.call(request).await.unwrap_or_else(|_| internal_error());
        headers::to_google(answer.headers_mut());
        answer
    }

    /// Adds what every answer of Google has.
    fn sign_off(&self, mut answer: Response<AnswerBody>) -> Response<AnswerBody> {
        let id = format!("ABgVH8-test-{:06}", self.next_request.fetch_add(1, Ordering::Relaxed));
        if let Ok(id) = HeaderValue::from_str(&id) {
            answer.headers_mut().insert("x-guploader-uploadid", id);
        }
        answer.headers_mut().insert(http::header::SERVER, HeaderValue::from_static("UploadServer"));
        answer
    }
}

fn inspect(object: &Object) -> StoredObject {
    let hashes = object.hashes();
    StoredObject {
        checksum_crc32c: Some(hashes.crc32c.clone()),
        checksum_md5: hashes.md5.clone(),
        ..object.inspect()
    }
}

#[async_trait::async_trait]
impl Dialect for GoogleDialect {
    fn target(&self, head: &Parts) -> Target {
        let mut target = Target::of(head, None);
        if oauth::is_token_request(head) {
            target = Target { bucket: String::new(), key: String::new(), operation: Operation::Token };
        } else if head.headers.contains_key("x-goog-copy-source") {
            target.operation = Operation::Other;
        }
        target
    }

    async fn call(&self, request: Request<Upload>) -> Response<AnswerBody> {
        let (head, upload) = request.into_parts();
        if oauth::is_token_request(&head) {
            let body = upload.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            return oauth::answer(&head, &body, &self.options);
        }
        let answer = self.carry_out(head.clone(), upload).await;
        self.sign_off(error::finish(answer, &head))
    }

    fn refuse(&self, head: &Parts, refusal: &Refusal) -> Response<AnswerBody> {
        if oauth::is_token_request(head) {
            return oauth::failure(refusal.status, &refusal.code, "Injected by the test server");
        }
        self.sign_off(error::finish(injected(refusal), head))
    }

    async fn replace(&self, target: &Target, content: Bytes) {
        self.store.replace(&target.bucket, &target.key, content);
    }

    fn keys(&self, bucket: &str) -> Vec<String> {
        self.store.objects(bucket).into_keys().collect()
    }

    fn object(&self, bucket: &str, key: &str) -> Option<StoredObject> {
        self.store.get(bucket, key).ok().map(|object| inspect(&object))
    }

    fn insert(&self, bucket: &str, key: &str, content: Bytes) {
        self.store.create_bucket(bucket);
        self.store.replace(bucket, key, content);
    }

    fn remove(&self, bucket: &str, key: &str) -> Option<StoredObject> {
        self.store.remove(bucket, key).ok().flatten().map(|object| inspect(&object))
    }

    fn unfinished_uploads(&self, bucket: &str) -> Vec<UnfinishedUpload> {
        self.store.uploads(bucket).unwrap_or_default()
    }

    fn clear(&self) {
        self.store.clear();
    }
}
