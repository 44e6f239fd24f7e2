//! The layer between HTTP and the protocol of a cloud: counters, holds, latency and faults.

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
use crate::odd::{Odd, describe};
use crate::operation::Target;

/// The state of one server, shared by its connections.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) dialect: Arc<dyn Dialect>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) faults: Faults,
    pub(crate) holds: Arc<Holds>,
    /// Nanoseconds.
    pub(crate) latency: AtomicU64,
    /// Bytes per second; 0 means unlimited.
    pub(crate) bandwidth: Arc<AtomicU64>,
}

impl Front {
    pub(crate) fn new(dialect: Arc<dyn Dialect>) -> Self {
        Self {
            dialect,
            counters: Arc::default(),
            faults: Faults::default(),
            holds: Arc::default(),
            latency: AtomicU64::new(0),
            bandwidth: Arc::default(),
        }
    }

    /// Answers one request, or cuts its connection and never returns.
    pub(crate) async fn answer(
        &self,
        control: &Arc<Control>,
        request: Request<Incoming>,
    ) -> Response<Download> {
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
        let odd = match fault {
            Some(Fault::Odd(odd) | Fault::OddAndCut(odd, _)) => Some(odd),
            _ => None,
        };
        let mut answer = if let Some(answer) = odd.and_then(Odd::instead) {
            drain(upload).await;
            answer
        } else if let Some(refusal) = refusal(fault.as_ref(), &target) {
            drain(upload).await;
            self.dialect.refuse(&head, &refusal)
        } else {
            self.dialect.call(Request::from_parts(head, upload)).await
        };
        if let Some(Fault::StoreInstead(content)) = &fault
            && answer.status().is_success()
        {
            self.dialect.replace(&target, content.clone()).await;
            describe(answer.headers_mut(), content);
        }
        if let Some(odd) = odd {
            answer = odd.change(&*self.dialect, &target, answer);
        }
        match fault {
            Some(Fault::CloseBeforeResponse) => cut(control, Cut::Close).await,
            Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
            Some(Fault::ErrorInSuccess(_)) => *answer.status_mut() = StatusCode::OK,
            Some(Fault::DropEtag) => drop(answer.headers_mut().remove(ETAG)),
            Some(Fault::Status { retry_after_seconds: Some(seconds), .. }) => {
                answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            _ => {}
        }
        self.counters.answered(number, answer.status());
        answer.map(|body| {
            let mut body = Download::new(body, Arc::clone(&self.counters), Arc::clone(control));
            match fault {
                Some(Fault::ResetAfterResponseBytes(bytes)) => body.end_after(bytes, End::Cut(Cut::Reset)),
                Some(Fault::CloseAfterResponseBytes(bytes)) => body.end_after(bytes, End::Cut(Cut::Close)),
                Some(Fault::StallResponseAfter(bytes)) => body.end_after(bytes, End::Stall),
                Some(Fault::CorruptResponseByte(offset)) => body.corrupt(offset),
                Some(Fault::OddAndCut(_, bytes)) => body.end_after(bytes, End::Cut(Cut::Close)),
                _ => {}
            }
            if odd == Some(Odd::Chunked) {
                body.hide_length();
            }
            body
        })
    }
}

/// Ends the connection, whose task drops this future.
async fn cut(control: &Control, how: Cut) -> ! {
    control.cut(how);
    std::future::pending().await
}

/// Returns the refusal that a fault demands. As many servers do, it quotes the object's name.
fn refusal(fault: Option<&Fault>, target: &Target) -> Option<Refusal> {
    let (code, s3_code) = match fault? {
        Fault::Status { code, s3_code, .. } => (*code, s3_code),
        Fault::ErrorInSuccess(code) => (500, code),
        _ => return None,
    };
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let message = format!("Injected by the test server for {}/{}", target.bucket, target.key);
    Some(Refusal::new(status, s3_code, &message))
}
