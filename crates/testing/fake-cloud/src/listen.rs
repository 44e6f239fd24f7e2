//! Accepting connections and serving HTTP on them until told to stop.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
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

/// Bytes that hyper may read at once.
/// 1 MiB costs a tenth less CPU than 256 KiB for 100 MB, and nothing measurable for small objects.
const READ_BUFFER: usize = 1024 * 1024;

/// Time for the kernel to hand over what was written before a connection is reset.
const RESET_DELAY: Duration = Duration::from_millis(30);

/// Serves until `stop` speaks or is dropped; then closes the port, cuts every connection and drops `stopped`.
pub(crate) async fn listen(
    listener: TcpListener,
    front: Arc<Front>,
    connection_limit: usize,
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
                Ok((stream, _)) if connections.len() < connection_limit => {
                    front.counters.connections_accepted.fetch_add(1, Ordering::SeqCst);
                    let open = OpenConnection::count(&front.counters);
                    connections.spawn(serve(stream, Arc::clone(&front), open));
                }
                Ok(_) => {}
                // Out of file descriptors, most likely: some will be free again.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
    drop(stopped);
}

async fn serve(stream: TcpStream, front: Arc<Front>, _open: OpenConnection) {
    // Without it small answers would wait; with it failing they are only slower.
    let _ = stream.set_nodelay(true);
    let control = Arc::new(Control::default());
    let link = Link::new(stream, Arc::clone(&control), Arc::clone(&front.bandwidth));
    let service = service_fn(|request| {
        let (front, control) = (Arc::clone(&front), Arc::clone(&control));
        async move { Ok::<_, Infallible>(front.answer(&control, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(READ_BUFFER)
        .serve_connection(TokioIo::new(link), service);
    tokio::select! {
        // The client went away or sent nonsense: nothing to do either way.
        _ = connection => {}
        how = control.cut_requested() => if how == Cut::Reset {
            tokio::time::sleep(RESET_DELAY).await;
        }
    }
}

/// Counts a connection for as long as it is open.
struct OpenConnection(Arc<Counters>);

impl OpenConnection {
    fn count(counters: &Arc<Counters>) -> Self {
        counters.connections_open.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(counters))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections_open.fetch_sub(1, Ordering::SeqCst);
    }
}
