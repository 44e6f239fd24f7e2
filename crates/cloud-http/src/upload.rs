//! The body of a request, whose payload can be taken back.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::HeaderValue;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use object_store::client::HttpRequestBody;
use parking_lot::Mutex;

use crate::checksum;
use crate::pieces::{self, PIECE};
use crate::stall::Progress;

/// Number of bytes passed to the connection at a time. Chunks are small enough to stay in a core's cache and
/// to make progress visible, and large enough to cost nothing.
const CHUNK: usize = PIECE;

tokio::task_local! {
    static LENT: ();
}

/// Runs `operation`, whose requests have payloads that are borrowed from the caller.
///
/// A connection can outlive its request, and keep a part of the payload while the peer does not read. So a
/// borrowed payload is copied chunk by chunk as the connection takes it, and the client releases it when the
/// request ends, regardless of the connection.
pub async fn with_lent_payload<T>(operation: impl Future<Output = T>) -> T {
    LENT.scope((), operation).await
}

/// Whether the payload of the current request is borrowed.
pub(crate) fn is_lent() -> bool {
    LENT.try_with(|()| ()).is_ok()
}

/// The chunks that remain to be sent; `None` after the payload was taken back.
type Remaining = Arc<Mutex<Option<VecDeque<Bytes>>>>;

/// A request body for `reqwest`, in chunks.
#[derive(Debug)]
pub(crate) struct UploadBody {
    remaining: Remaining,
    left: u64,
    lent: bool,
    progress: Progress,
}

/// Takes the payload back when dropped.
#[derive(Debug)]
pub(crate) struct Lease(Remaining);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.lock().take();
    }
}

/// The payload was taken back before the connection had read all of it.
#[derive(Debug, thiserror::Error)]
#[error("the request has ended")]
pub(crate) struct TakenBack;

impl UploadBody {
    pub(crate) async fn new(
        mut body: HttpRequestBody,
        lent: bool,
        progress: Progress,
    ) -> Result<(Self, Lease), object_store::client::HttpError> {
        let mut chunks = VecDeque::new();
        // An `HttpRequestBody` is in memory, so this does not wait.
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                chunks.push_back(data);
            }
        }
        let left = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let remaining = Arc::new(Mutex::new(Some(chunks)));
        let lease = Lease(Arc::clone(&remaining));
        Ok((Self { remaining, left, lent, progress }, lease))
    }

    /// Returns Google's checksum header for the remaining chunks.
    pub(crate) fn google_hash(&self) -> Option<HeaderValue> {
        let remaining = self.remaining.lock();
        checksum::google_hash(remaining.iter().flatten().map(|chunk| &chunk[..]))
    }

    /// Returns the next chunk; `Ok(None)` after the last one.
    fn next_chunk(&mut self) -> Result<Option<Bytes>, TakenBack> {
        let mut remaining = self.remaining.lock();
        let queue = remaining.as_mut().ok_or(TakenBack)?;
        while let Some(front) = queue.front_mut() {
            if front.is_empty() {
                queue.pop_front();
                continue;
            }
            let length = front.len().min(CHUNK);
            let chunk = if self.lent {
                let copy = pieces::copy_of(&front[..length]);
                front.advance(length);
                copy
            } else {
                front.split_to(length)
            };
            return Ok(Some(chunk));
        }
        Ok(None)
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = TakenBack;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TakenBack>>> {
        let chunk = self.next_chunk();
        self.progress.taken();
        Poll::Ready(match chunk {
            Ok(Some(chunk)) => {
                self.left -= chunk.len() as u64;
                if self.left == 0 {
                    self.progress.all_taken();
                }
                Some(Ok(Frame::data(chunk)))
            }
            Ok(None) => None,
            Err(taken_back) => Some(Err(taken_back)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lent(payload: Bytes) -> (UploadBody, Lease) {
        UploadBody::new(payload.into(), true, Progress::start()).await.unwrap()
    }

    #[tokio::test]
    async fn chunks_add_up_to_the_payload() {
        let payload = Bytes::from((0..3 * CHUNK + 17).map(|i| i.to_le_bytes()[0]).collect::<Vec<_>>());
        let (body, _lease) = lent(payload.clone()).await;
        assert_eq!(body.size_hint().exact(), Some(payload.len() as u64));
        assert_eq!(body.collect().await.unwrap().to_bytes(), payload);
    }

    #[tokio::test]
    async fn payload_can_be_taken_back() {
        let payload = Bytes::from(vec![7; 2 * CHUNK]);
        let (mut body, lease) = lent(payload.clone()).await;
        let chunk = body.frame().await.unwrap().unwrap().into_data().unwrap();
        drop(lease);
        assert!(payload.is_unique(), "the sent chunk must be a copy, and the rest must be released");
        assert_eq!(chunk.len(), CHUNK);
        assert!(body.frame().await.unwrap().is_err(), "a short body must not look complete");
    }

    #[tokio::test]
    async fn owned_payload_is_not_copied() {
        let payload = Bytes::from(vec![7; CHUNK]);
        let (mut body, _lease) =
            UploadBody::new(payload.clone().into(), false, Progress::start()).await.unwrap();
        let chunk = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(chunk.as_ptr(), payload.as_ptr());
    }
}
