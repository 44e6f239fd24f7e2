//! The S3 protocol: `s3s` in front of buckets in memory.

mod archive;
mod auth;
mod options;
mod quirks;
pub(crate) mod service;
mod settings;
pub(crate) mod store;
mod target;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use s3s::Body;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::host::SingleDomain;
use s3s::service::{S3Service, S3ServiceBuilder};

use crate::body::{Upload, drain};
use crate::checksum::md5_header;
use crate::dialect::{AnswerBody, Dialect, Refusal, document, escaped};
use crate::operation::{Operation, Target};
use crate::s3::auth::{TokenCheck, User, check_region};
use crate::s3::service::Service;
use crate::s3::store::Store;
use crate::stored::Buckets;

pub use options::Options;
pub use quirks::{QuirkSettings, Quirks, RefusedChecksums};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");

/// The protocol of AWS S3.
#[derive(Debug)]
pub(crate) struct S3Dialect {
    service: S3Service,
    store: Arc<Store>,
    region: String,
    domain: Option<String>,
    quirks: Quirks,
    next_request: AtomicU64,
}

impl S3Dialect {
    pub(crate) fn new(options: Options) -> io::Result<Self> {
        let store = Arc::new(Store::new());
        let quirks = options.quirks;
        let settings = options.settings;
        let service = Service {
            store: Arc::clone(&store),
            quirks: quirks.clone(),
            settings: settings.clone(),
            more_headers: |_| HeaderMap::new(),
        };
        let mut builder = S3ServiceBuilder::new(service);
        builder.set_auth(User { access_key: options.access_key, secret_key: options.secret_key.into() });
        // The quirks check the time.
        let mut config = S3Config::default();
        config.presigned_url_max_skew_time_secs = u32::MAX;
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
        builder
            .set_access(TokenCheck { session_token: options.session_token, is_public: settings.is_public });
        if let Some(domain) = &options.virtual_host_domain {
            builder.set_host(SingleDomain::new(domain).map_err(io::Error::other)?);
        }
        Ok(Self {
            service: builder.build(),
            store,
            region: options.region,
            domain: options.virtual_host_domain,
            quirks,
            next_request: AtomicU64::new(1),
        })
    }

    async fn answer(
        &self,
        quirks: &QuirkSettings,
        head: &Parts,
        upload: Upload,
    ) -> Result<Response<AnswerBody>, Refusal> {
        if let Err(refusal) = check_region(head, &self.region) {
            drain(upload).await;
            return Err(refusal);
        }
        let operation = self.target(head).operation;
        let body = body(quirks, operation, head, upload).await?;
        let mut answer = carry_out(&self.service, head.clone(), body).await?;
        if let Ok(id) = HeaderValue::from_str(&self.request_id()) {
            answer.headers_mut().insert(REQUEST_ID, id);
        }
        Ok(answer)
    }

    fn request_id(&self) -> String {
        format!("{:016X}", self.next_request.fetch_add(1, Ordering::Relaxed))
    }
}

#[async_trait::async_trait]
impl Dialect for S3Dialect {
    fn target(&self, head: &Parts) -> Target {
        Target::of(head, self.domain.as_deref())
    }

    async fn call(&self, request: Request<Upload>) -> Response<AnswerBody> {
        let (head, upload) = request.into_parts();
        let quirks = self.quirks.set().clone();
        if let Some(answer) = quirks.too_large(&head) {
            return answer;
        }
        let answer = self.answer(&quirks, &head, upload).await;
        let mut answer = answer.unwrap_or_else(|refusal| self.refuse(&head, &refusal));
        quirks.date(&mut answer);
        answer
    }

    fn refuse(&self, head: &Parts, refusal: &Refusal) -> Response<AnswerBody> {
        let Refusal { status, code, message } = refusal;
        let id = self.request_id();
        let text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{}</Code><Message>{}</Message>\
             <Resource>{}</Resource><RequestId>{id}</RequestId></Error>",
            escaped(code),
            escaped(message),
            escaped(head.uri.path())
        );
        let mut answer = document(&head.method, *status, "application/xml", text);
        if let Ok(id) = HeaderValue::from_str(&id) {
            answer.headers_mut().insert(REQUEST_ID, id);
        }
        answer
    }

    async fn replace(&self, target: &Target, content: Bytes) {
        self.store.insert(&target.bucket, &target.key, content);
    }

    fn buckets(&self) -> &dyn Buckets {
        &*self.store
    }
}

/// Returns the body of a request that the server's quirks permit. Checks the MD5 of a bulk deletion, which S3 demands and
/// `s3s` ignores.
async fn body(
    quirks: &QuirkSettings,
    operation: Operation,
    head: &Parts,
    upload: Upload,
) -> Result<Body, Refusal> {
    if !matches!(operation, Operation::DeleteObjects | Operation::CompleteMultipartUpload) {
        if let Err(refusal) = quirks.check(operation, head, &[]) {
            drain(upload).await;
            return Err(refusal);
        }
        return Ok(Body::http_body(upload));
    }
    let bytes = upload.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    quirks.check(operation, head, &bytes)?;
    if operation == Operation::CompleteMultipartUpload {
        return Ok(bytes.into());
    }
    let refusal = |code, message| Refusal::new(StatusCode::BAD_REQUEST, code, message);
    match head.headers.get("content-md5") {
        None => Err(refusal("InvalidRequest", "Missing required header for this request: Content-MD5")),
        Some(md5) if *md5 != md5_header(&bytes) => {
            Err(refusal("BadDigest", "The Content-MD5 you specified did not match what we received."))
        }
        Some(_) => Ok(bytes.into()),
    }
}

/// Carries out a request with `s3s`, whose error documents become a [`Refusal`].
pub(crate) async fn carry_out(
    service: &S3Service,
    head: Parts,
    body: Body,
) -> Result<Response<AnswerBody>, Refusal> {
    let request = Request::from_parts(head, body);
    let answer = service.call(request).await.map_err(|error| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &format!("{error:?}"))
    })?;
    let status = answer.status();
    if !status.is_client_error() && !status.is_server_error() {
        return Ok(answer.map(BodyExt::boxed_unsync));
    }
    let document = answer.into_body().bytes().unwrap_or_default();
    let document = String::from_utf8_lossy(&document);
    let element = |name: &str| {
        let (_, rest) = document.split_once(&format!("<{name}>"))?;
        let (text, _) = rest.split_once(&format!("</{name}>"))?;
        Some(quick_xml::escape::unescape(text).ok()?.into_owned())
    };
    let code = element("Code").unwrap_or_else(|| "InternalError".to_owned());
    let reason = || status.canonical_reason().unwrap_or("Unknown").to_owned();
    Err(Refusal { status, code, message: element("Message").unwrap_or_else(reason) })
}
