//! What stands between HTTP and `s3s`: counting, holding, faults, the region, request identifiers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, ETAG, HeaderName, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use s3s::service::S3Service;
use s3s::{Body, S3Error, S3ErrorCode};

use crate::auth::check_region;
use crate::body::{Download, End, Upload};
use crate::count::Counters;
use crate::fault::{Fault, Faults};
use crate::hold::Holds;
use crate::link::{Control, Cut};
use crate::object::{Attributes, Content, Object};
use crate::operation::Target;
use crate::store::{Condition, Store};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");
const BUCKET_REGION: HeaderName = HeaderName::from_static("x-amz-bucket-region");

/// A request that was not answered after so long is given up, whatever holds it.
const REQUEST_LIMIT: Duration = Duration::from_mins(10);

/// All that answers requests, shared by the connections of one server.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) service: S3Service,
    pub(crate) store: Arc<Store>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) faults: Faults,
    pub(crate) holds: Arc<Holds>,
    /// Nanoseconds.
    pub(crate) latency: AtomicU64,
    /// Bytes for each second; 0 is without limit.
    pub(crate) bandwidth: Arc<AtomicU64>,
    pub(crate) region: String,
    pub(crate) domain: Option<String>,
    pub(crate) next_request: AtomicU64,
}

impl Front {
    /// Answers one request, or has its connection cut and never returns.
    pub(crate) async fn answer(
        &self,
        control: &Arc<Control>,
        request: Request<Incoming>,
    ) -> Response<Download> {
        match tokio::time::timeout(REQUEST_LIMIT, Box::pin(self.carry_out(control, request))).await {
            Ok(answer) => answer,
            Err(_) => cut(control, Cut::Reset).await,
        }
    }

    async fn carry_out(&self, control: &Arc<Control>, request: Request<Incoming>) -> Response<Download> {
        let (head, body) = request.into_parts();
        let target = Target::of(&head, self.domain.as_deref());
        let number = self.counters.arrived(target.operation, &head);
        self.holds.pass(&target).await;
        let latency = Duration::from_nanos(self.latency.load(Ordering::Relaxed));
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let fault = self.faults.meet(&target);
        let end = match fault {
            Some(Fault::CloseAfterRequestBytes(0)) => cut(control, Cut::Reset).await,
            Some(Fault::CloseAfterRequestBytes(bytes)) => Some((bytes, End::Cut(Cut::Reset))),
            Some(Fault::StallRequestAfter(bytes)) => Some((bytes, End::Stall)),
            _ => None,
        };
        if let Some(Fault::ReplaceObject(bytes)) = &fault {
            let object = Object::new(Content::of(bytes.clone()), Attributes::default());
            // Without the bucket there is nothing to replace; the client learns that anyway.
            let _ = self.store.put(&target.bucket, &target.key, object, &Condition::Always);
        }
        let counters = Arc::clone(&self.counters);
        let upload = Upload { inner: body, counters, control: Arc::clone(control), end, received: 0 };
        let (method, path) = (head.method.clone(), head.uri.path().to_owned());
        let answer = match refusal(fault.as_ref()).or_else(|| check_region(&head, &self.region).err()) {
            Some(error) => {
                // Read to its end, so that the client can read the answer on a connection that lives on.
                drain(upload).await;
                error.to_http_response()
            }
            None => {
                let request = Request::from_parts(head, Body::http_body(upload));
                Ok(self.service.call(request).await.unwrap_or_else(|_| internal_error()))
            }
        };
        let answer = answer.unwrap_or_else(|_| internal_error());
        match fault {
            Some(Fault::CloseBeforeResponse) => cut(control, Cut::Close).await,
            Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
            _ => {}
        }
        let answer = self.finish(answer, &method, &path);
        self.counters.answered(number, answer.status());
        let (mut head, body) = answer.into_parts();
        if matches!(fault, Some(Fault::DropEtag)) {
            head.headers.remove(ETAG);
        }
        if let Some(Fault::Status { retry_after_seconds: Some(seconds), .. }) = fault {
            head.headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        let mut body = Download::new(body, Arc::clone(&self.counters), Arc::clone(control));
        match fault {
            Some(Fault::ResetAfterResponseBytes(bytes)) => body.end_after(bytes, End::Cut(Cut::Reset)),
            Some(Fault::CloseAfterResponseBytes(bytes)) => body.end_after(bytes, End::Cut(Cut::Close)),
            Some(Fault::StallResponseAfter(bytes)) => body.end_after(bytes, End::Stall),
            Some(Fault::CorruptResponseByte(offset)) => body.corrupt(offset),
            _ => {}
        }
        Response::from_parts(head, body)
    }

    /// Adds what every answer of S3 has, and completes error documents.
    fn finish(&self, answer: Response<Body>, method: &Method, path: &str) -> Response<Body> {
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
        Response::from_parts(head, body)
    }
}

/// Ends the connection; its task drops this future with it.
async fn cut(control: &Control, how: Cut) -> ! {
    control.cut(how);
    std::future::pending().await
}

async fn drain(mut upload: Upload) {
    while let Some(Ok(_)) = upload.frame().await {}
}

/// The error in place of carrying out the request.
fn refusal(fault: Option<&Fault>) -> Option<S3Error> {
    let Some(Fault::Status { code, s3_code, .. }) = fault else { return None };
    let mut error =
        S3Error::with_message(S3ErrorCode::Custom(s3_code.as_str().into()), "Injected by the test server");
    error.set_status_code(StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    Some(error)
}

fn internal_error() -> Response<Body> {
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
