//! What stands between HTTP and the cloud's own protocol: counting, holding, faults.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::{ETAG, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::body::{Download, End, Upload, drain};
use crate::count::Counters;
use crate::dialect::{Dialect, Refusal};
use crate::fault::{Fault, Faults};
use crate::hold::Holds;
use crate::link::{Control, Cut};

/// A request that was not answered after so long is given up, whatever holds it.
const REQUEST_LIMIT: Duration = Duration::from_mins(10);

/// All that answers requests, shared by the connections of one server.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) dialect: Arc<dyn Dialect>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) faults: Faults,
    pub(crate) holds: Arc<Holds>,
    /// Nanoseconds.
    pub(crate) latency: AtomicU64,
    /// Bytes for each second; 0 is without limit.
    pub(crate) bandwidth: Arc<AtomicU64>,
}

impl Front {
    /// Nothing in the way of the requests yet.
    pub(crate) fn new(dialect: Arc<dyn Dialect>) -> Self {
        Self {
            dialect,
            counters: Arc::new(Counters::default()),
            faults: Faults::default(),
            holds: Arc::new(Holds::default()),
            latency: AtomicU64::new(0),
            bandwidth: Arc::new(AtomicU64::new(0)),
        }
    }

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
        let target = self.dialect.target(&head);
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
        if let Some(Fault::ReplaceObject(content)) = &fault {
            self.dialect.replace(&target, content.clone()).await;
        }
        let counters = Arc::clone(&self.counters);
        let upload = Upload { inner: body, counters, control: Arc::clone(control), end, received: 0 };
        let answer = match refusal(fault.as_ref()) {
            Some(refusal) => {
                // Read to its end, so that the client can read the answer on a connection that lives on.
                drain(upload).await;
                self.dialect.refuse(&head, &refusal)
            }
            None => self.dialect.call(Request::from_parts(head, upload)).await,
        };
        match fault {
            Some(Fault::CloseBeforeResponse) => cut(control, Cut::Close).await,
            Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
            _ => {}
        }
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
}

/// Ends the connection; its task drops this future with it.
async fn cut(control: &Control, how: Cut) -> ! {
    control.cut(how);
    std::future::pending().await
}

/// The refusal in place of carrying out the request.
fn refusal(fault: Option<&Fault>) -> Option<Refusal> {
    let Some(Fault::Status { code, s3_code, .. }) = fault else { return None };
    let status = StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Some(Refusal { status, code: s3_code.clone() })
}
