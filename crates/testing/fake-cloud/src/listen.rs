//! Accepts connections and serves HTTP on them until stopped.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::count::Counters;
use crate::front::Front;
use crate::link::{Control, Cut, Link};

/// Maximum number of bytes that hyper reads at once. For 100 MB, 1 MiB costs a tenth less CPU than 256 KiB;
/// for small objects there is no measurable difference.
const READ_BUFFER: usize = 1024 * 1024;

/// Maximum number of open connections; further ones are closed as they arrive.
const CONNECTION_LIMIT: usize = 1024;

/// Time for the kernel to deliver what was written before a connection is reset.
const RESET_DELAY: Duration = Duration::from_millis(30);

/// Serves until `stop` is sent or dropped, then closes the port, cuts every connection and drops `stopped`.
pub(crate) async fn listen(
    listener: TcpListener,
    front: Arc<Front>,
    stop: oneshot::Receiver<()>,
    stopped: mpsc::Sender<Infallible>,
) {
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            _ = &mut stop => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < CONNECTION_LIMIT => {
                    let open = OpenConnection::count(&front.counters);
                    connections.spawn(serve(stream, Arc::clone(&front), open));
                }
                Ok(_) => {}
                // Most likely there are no file descriptors left; wait for connections to close.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
    drop(stopped);
}

async fn serve(stream: TcpStream, front: Arc<Front>, _open: OpenConnection) {
    // Without this option small answers are delayed. If it cannot be set, they are only slower.
    let _ = stream.set_nodelay(true);
    let control = Arc::new(Control::default());
    let link = Link::new(stream, Arc::clone(&control), Arc::clone(&front.bandwidth));
    let service = service_fn(|request| {
        let front = Arc::clone(&front);
        let control = Arc::clone(&control);
        async move { Ok::<_, Infallible>(front.answer(&control, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(READ_BUFFER)
        .serve_connection(TokioIo::new(link), service);
    tokio::select! {
        // Errors mean that the client closed the connection or sent no HTTP: there is nobody to report them
        // to.
        _ = connection => {}
        how = control.cut_requested() => if how == Cut::Reset {
            tokio::time::sleep(RESET_DELAY).await;
        }
    }
}

/// Counts a connection while it is open.
struct OpenConnection(Arc<Counters>);

impl OpenConnection {
    fn count(counters: &Arc<Counters>) -> Self {
        counters.connected();
        Self(Arc::clone(counters))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.disconnected();
    }
}
