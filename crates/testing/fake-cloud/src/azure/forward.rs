//! Forwards requests to Azurite, and streams both bodies.

use std::net::Ipv4Addr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use s3s::StdError;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::dialect::AnswerBody;

/// Maximum number of bytes that hyper reads at once.
const READ_BUFFER: usize = 1024 * 1024;

/// Sends a request on a new connection, so that no earlier request can affect it.
pub(crate) async fn forward<B>(port: u16, request: Request<B>) -> Result<Response<AnswerBody>, StdError>
where
    B: Body<Data = Bytes, Error = StdError> + Send + Unpin + 'static,
{
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    let mut builder = http1::Builder::new();
    let (mut sender, connection) = builder.max_buf_size(READ_BUFFER).handshake(TokioIo::new(stream)).await?;
    let (sent, all_sent) = oneshot::channel::<()>();
    // The sender is dropped with the body, without sending.
    let mut request = request.map(|inner| Keeping { inner, _kept: sent });
    for name in [CONNECTION, EXPECT] {
        request.headers_mut().remove(name);
    }
    let task = Task(tokio::spawn(async move {
        // The request below reports errors.
        let _ = connection.await;
    }));
    let answer = sender.send_request(request).await?;
    // Azurite can refuse a request before the whole body has arrived, but clients send it first.
    let _ = all_sent.await;
    Ok(answer.map(|inner| Keeping { inner, _kept: task }.boxed_unsync()))
}

/// A body that owns another value as long as it exists.
struct Keeping<B, K> {
    inner: B,
    _kept: K,
}

impl<B, K> Body for Keeping<B, K>
where
    B: Body<Data = Bytes, Error: Into<StdError>> + Unpin,
    K: Unpin,
{
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        Pin::new(&mut self.inner).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The task of a connection. Dropping it cuts the connection, so that Azurite drops the request of a client
/// that has disconnected.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
