//! A request handed on to Azurite, and its answer handed back, both as they come.

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

/// Bytes to read at once.
const READ_BUFFER: usize = 1024 * 1024;

/// Sends a request on a connection of its own, so that nothing is left over from another one.
pub(crate) async fn forward<B>(port: u16, request: Request<B>) -> Result<Response<AnswerBody>, StdError>
where
    B: Body<Data = Bytes, Error = StdError> + Send + Unpin + 'static,
{
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.set_nodelay(true)?;
    let mut builder = http1::Builder::new();
    let (mut sender, connection) = builder.max_buf_size(READ_BUFFER).handshake(TokioIo::new(stream)).await?;
    let (sent, all_sent) = oneshot::channel::<()>();
    // Nothing is ever sent on it: it is dropped with the body.
    let mut request = request.map(|inner| Keeping { inner, _kept: sent });
    for name in [CONNECTION, EXPECT] {
        request.headers_mut().remove(name);
    }
    let task = Task(tokio::spawn(async move {
        // The one who waits for the answer learns of errors.
        let _ = connection.await;
    }));
    let answer = sender.send_request(request).await?;
    // Azurite refuses before it has the body, but a client wants to send it before it hears of that.
    let _ = all_sent.await;
    Ok(answer.map(|inner| Keeping { inner, _kept: task }.boxed_unsync()))
}

/// A body that keeps something as long as it is needed.
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

/// The connection at work; cut when dropped, so that Azurite forgets a request whose client is gone.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
