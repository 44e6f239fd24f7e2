//! Bodies on their way through the server: counted, and spoiled where a fault says so.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use s3s::StdError;

use crate::count::Counters;
use crate::dialect::AnswerBody;
use crate::link::{Control, Cut};

/// What happens in place of the rest of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Cut(Cut),
    Stall,
}

/// The body of a request.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) inner: Incoming,
    pub(crate) counters: Arc<Counters>,
    pub(crate) control: Arc<Control>,
    /// After how many bytes what happens.
    pub(crate) end: Option<(u64, End)>,
    pub(crate) received: u64,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        if let Some((limit, end)) = self.end
            && self.received >= limit
        {
            if let End::Cut(how) = end {
                self.control.cut(how);
            }
            return Poll::Pending;
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref) {
            let bytes = data.len() as u64;
            self.received += bytes;
            self.counters.body_bytes_received.fetch_add(bytes, Ordering::Relaxed);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.end.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Reads a body to its end.
pub(crate) async fn drain(mut upload: Upload) {
    while let Some(Ok(_)) = upload.frame().await {}
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct Download {
    inner: AnswerBody,
    counters: Arc<Counters>,
    control: Arc<Control>,
    /// After how many bytes what happens; only where there are more.
    end: Option<(u64, End)>,
    /// Offset of the byte to flip.
    corrupt: Option<u64>,
    sent: u64,
}

impl Download {
    pub(crate) fn new(inner: AnswerBody, counters: Arc<Counters>, control: Arc<Control>) -> Self {
        Self { inner, counters, control, end: None, corrupt: None, sent: 0 }
    }

    /// Ends the body after so many bytes, if it has more.
    pub(crate) fn end_after(&mut self, bytes: u64, end: End) {
        let longer = self.inner.size_hint().exact().is_none_or(|length| length > bytes);
        self.end = longer.then_some((bytes, end));
    }

    /// Flips the byte at this offset.
    pub(crate) fn corrupt(&mut self, offset: u64) {
        self.corrupt = Some(offset);
    }

    fn spoil(&self, mut data: Bytes) -> Bytes {
        if let Some((limit, _)) = self.end {
            data.truncate(usize::try_from(limit - self.sent).unwrap_or(usize::MAX));
        }
        let here = self.corrupt.and_then(|offset| usize::try_from(offset.checked_sub(self.sent)?).ok());
        if here.is_some_and(|index| index < data.len()) {
            let mut copy = BytesMut::from(data.as_ref());
            if let Some(byte) = here.and_then(|index| copy.get_mut(index)) {
                *byte = !*byte;
            }
            data = copy.freeze();
        }
        data
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        if let Some((limit, end)) = self.end
            && self.sent >= limit
        {
            if let End::Cut(how) = end {
                self.control.cut_when_flushed(how);
            }
            return Poll::Pending;
        }
        let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)?) else { return Poll::Ready(None) };
        match frame.into_data() {
            Ok(data) => {
                let data = self.spoil(data);
                self.sent += data.len() as u64;
                self.counters.body_bytes_sent.fetch_add(data.len() as u64, Ordering::Relaxed);
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Err(frame) => Poll::Ready(Some(Ok(frame))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.end.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
