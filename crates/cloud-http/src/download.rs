//! The body of a response, with stall detection.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use object_store::client::HttpError;
use pin_project_lite::pin_project;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use crate::error::TransportError;
use crate::stall::Progress;

pin_project! {
    /// Fails if no data arrives for `limit`, and holds the connection's permit until the end.
    pub(crate) struct DownloadBody {
        #[pin]
        inner: reqwest::Body,
        #[pin]
        stall: Sleep,
        // Whether `stall` is running, which is from the first pending poll to the next frame. The time that a
        // slow reader takes between polls does not count.
        waiting: bool,
        limit: Duration,
        // The progress of all exchanges of the client.
        client: Progress,
        permit: Option<OwnedSemaphorePermit>,
    }
}

impl DownloadBody {
    pub(crate) fn new(
        inner: reqwest::Body,
        limit: Duration,
        client: Progress,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self { inner, stall: tokio::time::sleep(limit), waiting: false, limit, client, permit: Some(permit) }
    }
}

impl Body for DownloadBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let mut this = self.project();
        match this.inner.poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                *this.waiting = false;
                this.client.mark();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.permit.take();
                Poll::Ready(Some(Err(TransportError::from_reqwest(&error).into_http())))
            }
            Poll::Ready(None) => {
                this.permit.take();
                Poll::Ready(None)
            }
            Poll::Pending => {
                if !*this.waiting {
                    *this.waiting = true;
                    this.stall.as_mut().reset(Instant::now() + *this.limit);
                }
                if this.stall.poll(context).is_pending() {
                    return Poll::Pending;
                }
                *this.waiting = false;
                this.permit.take();
                Poll::Ready(Some(Err(TransportError::Stalled { limit: *this.limit }.into_http())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
