//! `StowRs`: a STOW-RS gateway (PS3.18, 10.5) that stores instances in the bucket by their UIDs, for other readers of the
//! bucket. Orthanc's index does not know them.

mod counts;
mod room;
mod sink;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bucket::Bucket;
use orthanc_ffi::{BodyReader, ErrorCode, Orthanc, OrthancError, RestAnswer, RestFailure, RestRequest};
use stow_gateway::{Answer, Format, Receiver, Report, RequestHead};

pub(crate) use self::counts::Counts;
use self::room::Room;
use self::sink::{BucketSink, Target};
use crate::area::encryption::Encryption;
use crate::config::StowOptions;
use crate::runtime::Runtime;

/// Failures of a request that are logged; the answer has all of them.
const LOGGED: usize = 10;

/// The gateway.
#[derive(Debug)]
pub(crate) struct Gateway {
    target: Arc<Target>,
    root: String,
    wado_url: String,
    delay: Duration,
    counts: Arc<Counts>,
}

impl Gateway {
    /// A gateway to `bucket`. Messages do not name its objects, which UIDs are part of.
    pub(crate) fn new(
        options: StowOptions,
        bucket: &Bucket,
        encryption: Option<&Arc<Encryption>>,
        runtime: &Arc<Runtime>,
    ) -> Self {
        let StowOptions { root, prefix, wado_url, delay, encrypt } = options;
        let target = Target {
            runtime: Arc::clone(runtime),
            bucket: bucket.clone().with_hidden_names(),
            prefix,
            encryption: encryption.filter(|_| encrypt).cloned(),
            room: Room::default(),
        };
        let wado_url = wado_url.unwrap_or_default();
        Self { target: Arc::new(target), root, wado_url, delay, counts: Arc::default() }
    }

    /// What the gateway has received.
    pub(crate) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Registers the routes with Orthanc.
    pub(crate) fn register(self, orthanc: &Orthanc) -> Result<(), OrthancError> {
        let root = self.root.clone();
        tracing::info!("STOW-RS requests to {root}/studies store instances in {}", self.target.bucket.url());
        let gateway = Arc::new(self);
        let any = Arc::clone(&gateway);
        orthanc.register_chunked_post(&format!("{root}/studies"), move |request| any.open(request, None))?;
        orthanc.register_chunked_post(&format!("{root}/studies/([^/]+)"), move |request| {
            gateway.open(request, request.groups().first().copied())
        })
    }

    /// Begins to receive a request.
    #[expect(clippy::unnecessary_wraps, reason = "the type of Orthanc's routes")]
    fn open(
        self: &Arc<Self>,
        request: &RestRequest<'_>,
        study: Option<&str>,
    ) -> Result<Box<dyn BodyReader>, ErrorCode> {
        let head = RequestHead {
            content_type: request.header("content-type"),
            content_encoding: request.header("content-encoding"),
            study,
        };
        let sink = BucketSink::new(Arc::clone(&self.target));
        Ok(match Receiver::new(sink, &head) {
            Ok(receiver) => Box::new(Body {
                gateway: Arc::clone(self),
                receiver,
                format: Format::for_accept(request.header("accept")),
                start: Instant::now(),
                bytes: 0,
            }),
            Err(rejection) => {
                tracing::info!("STOW-RS request refused: {rejection}");
                self.counts.refused();
                Box::new(Refused(Answer::from(&rejection)))
            }
        })
    }

    fn log(&self, report: &Report, bytes: u64, time: Duration) {
        self.counts.received(report);
        for (part, failure) in report.failures().take(LOGGED) {
            tracing::warn!("STOW-RS request: part {part} is not stored: {failure}");
        }
        if let Some(malformed) = &report.malformed {
            tracing::warn!("STOW-RS request: {malformed}");
        }
        tracing::info!(
            "STOW-RS request: stored {} of {} instances; received {bytes} bytes in {:.3} s; status {}",
            report.stored(),
            report.outcomes.len(),
            time.as_secs_f64(),
            report.status()
        );
    }
}

/// The body of a request.
struct Body {
    gateway: Arc<Gateway>,
    receiver: Receiver<BucketSink>,
    format: Format,
    start: Instant,
    /// Number of bytes received.
    bytes: u64,
}

impl BodyReader for Body {
    fn chunk(&mut self, bytes: &[u8]) -> Result<(), ErrorCode> {
        self.bytes += bytes.len() as u64;
        self.receiver.push(bytes);
        Ok(())
    }

    fn answer(self: Box<Self>) -> Result<RestAnswer, RestFailure> {
        let Self { gateway, receiver, format, start, bytes } = *self;
        let report = receiver.finish();
        gateway.log(&report, bytes, start.elapsed());
        if !gateway.delay.is_zero() {
            gateway.target.runtime.run_until_stopped(tokio::time::sleep(gateway.delay));
        }
        Ok(rest_answer(report.answer(format, &gateway.wado_url)))
    }
}

/// The body of a request whose headers are wrong.
struct Refused(Answer);

impl BodyReader for Refused {
    fn chunk(&mut self, _bytes: &[u8]) -> Result<(), ErrorCode> {
        Ok(())
    }

    fn answer(self: Box<Self>) -> Result<RestAnswer, RestFailure> {
        Ok(rest_answer(self.0))
    }
}

fn rest_answer(answer: Answer) -> RestAnswer {
    let Answer { status, content_type, retry_after, body } = answer;
    let rest = RestAnswer::bytes(content_type, body).with_status(status);
    match retry_after {
        Some(seconds) => rest.with_header("Retry-After", seconds.to_string()),
        None => rest,
    }
}
