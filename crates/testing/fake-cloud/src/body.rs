//! Bodies on their way through the server: counted, and damaged where a fault says so.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use s3s::StdError;

use crate::count::Counters;
use crate::dialect::AnswerBody;
use crate::link::{Control, Cut};

/// Maximum size of one frame of an answer, so that the counters follow a download.
const FRAME: usize = 1024 * 1024;

/// The event that replaces the rest of a body.
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
    /// A number of bytes, and the event that follows them.
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
        // A body whose length is satisfied may not be polled again, so that the event would not happen.
        let left = self.end.map_or(u64::MAX, |(limit, _)| limit - self.received);
        let room = usize::try_from(left).unwrap_or(usize::MAX);
        Poll::Ready(frame.map(|frame| match frame.map(Frame::into_data) {
            Ok(Ok(mut data)) => {
                data.truncate(room);
                self.received += data.len() as u64;
                self.counters.received(data.len() as u64);
                Ok(Frame::data(data))
            }
            Ok(Err(trailers)) => Ok(trailers),
            Err(error) => Err(error.into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.end.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Reads a body to its end, so that the client can read the answer on a connection that stays open.
pub(crate) async fn drain(mut upload: Upload) {
    while let Some(Ok(_)) = upload.frame().await {}
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct Download {
    inner: AnswerBody,
    /// The rest of a frame of `inner`.
    rest: Bytes,
    length: SizeHint,
    counters: Arc<Counters>,
    control: Arc<Control>,
    /// A number of bytes, and the event that follows them. Only set if the body is longer.
    end: Option<(u64, End)>,
    /// Offset of the byte to invert.
    corrupt: Option<u64>,
    sent: u64,
}

impl Download {
    pub(crate) fn new(inner: AnswerBody, counters: Arc<Counters>, control: Arc<Control>) -> Self {
        let length = inner.size_hint();
        Self { inner, rest: Bytes::new(), length, counters, control, end: None, corrupt: None, sent: 0 }
    }

    /// Ends the body after this many bytes, if it is longer.
    pub(crate) fn end_after(&mut self, bytes: u64, end: End) {
        let longer = self.length.exact().is_none_or(|length| length > bytes);
        self.end = longer.then_some((bytes, end));
    }

    /// Does not announce the length, so that the body is chunked.
    pub(crate) fn hide_length(&mut self) {
        self.length = SizeHint::new();
    }

    /// Inverts the byte at this offset.
    pub(crate) fn corrupt(&mut self, offset: u64) {
        self.corrupt = Some(offset);
    }

    fn damage(&self, mut data: Bytes) -> Bytes {
        if let Some((limit, _)) = self.end {
            data.truncate(usize::try_from(limit - self.sent).unwrap_or(usize::MAX));
        }
        let index = self.corrupt.and_then(|offset| usize::try_from(offset.checked_sub(self.sent)?).ok());
        let Some(index) = index.filter(|index| *index < data.len()) else { return data };
        let mut copy = BytesMut::from(data.as_ref());
        if let Some(byte) = copy.get_mut(index) {
            *byte = !*byte;
        }
        copy.freeze()
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
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)?).map(Frame::into_data) {
                Some(Ok(data)) => self.rest = data,
                Some(Err(frame)) => return Poll::Ready(Some(Ok(frame))),
                None => return Poll::Ready(None),
            }
        }
        let size = self.rest.len().min(FRAME);
        let whole = self.rest.split_to(size);
        let data = self.damage(whole);
        let bytes = data.len() as u64;
        self.sent += bytes;
        self.counters.sent(bytes);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.end.is_none() && self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let Some(length) = self.length.exact() else { return SizeHint::new() };
        SizeHint::with_exact(length.saturating_sub(self.sent))
    }
}
