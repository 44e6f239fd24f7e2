//! A TCP proxy on the loopback that simulates a broken network.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, tcp};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::ports;

/// Forwards connections to a server until it is cut or frozen. Dropping it closes all connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    line: watch::Sender<Line>,
    counts: Arc<Counts>,
    // Dropped last: the tasks end with it.
    _runtime: Runtime,
}

/// State of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Up,
    Frozen,
    Cut,
}

#[derive(Debug, Default)]
struct Counts {
    listening: AtomicBool,
    open: AtomicU64,
    to_target: AtomicU64,
    from_target: AtomicU64,
}

impl Proxy {
    /// Starts a proxy to `target` on a free port of the loopback.
    pub fn start(target: SocketAddr) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .thread_name("proxy")
            .build()?;
        // A port outside the ephemeral range, because the proxy closes the port while the line is cut and
        // binds it again later.
        let bound = ports::bind_free()?;
        let address = bound.local_addr()?;
        bound.set_nonblocking(true)?;
        let (line, watched) = watch::channel(Line::Up);
        let counts = Arc::new(Counts::default());
        let listener = runtime.block_on(async { TcpListener::from_std(bound) })?;
        runtime.spawn(serve(listener, target, watched, Arc::clone(&counts)));
        Ok(Self { address, line, counts, _runtime: runtime })
    }

    /// The URL for clients: `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Resets all connections and refuses new ones, like a server that crashed. Returns when done.
    pub fn cut(&self) {
        self.line.send_replace(Line::Cut);
        wait_until(|| {
            !self.counts.listening.load(Ordering::SeqCst) && self.counts.open.load(Ordering::SeqCst) == 0
        });
    }

    /// Accepts connections and bytes, but forwards nothing in either direction, like a network that lost
    /// its route.
    pub fn freeze(&self) {
        self.line.send_replace(Line::Frozen);
        wait_until(|| self.counts.listening.load(Ordering::SeqCst));
    }

    /// Forwards again; after [`Proxy::freeze`], on the same connections.
    pub fn mend(&self) {
        self.line.send_replace(Line::Up);
        wait_until(|| self.counts.listening.load(Ordering::SeqCst));
    }

    /// Bytes forwarded to the target so far.
    pub fn bytes_to_target(&self) -> u64 {
        self.counts.to_target.load(Ordering::SeqCst)
    }

    /// Bytes forwarded from the target so far.
    pub fn bytes_from_target(&self) -> u64 {
        self.counts.from_target.load(Ordering::SeqCst)
    }
}

/// Waits for the tasks, which act within a millisecond unless the machine is overloaded.
fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Accepts while the line is not cut. Ends when the proxy is dropped.
async fn serve(
    listener: TcpListener,
    target: SocketAddr,
    mut line: watch::Receiver<Line>,
    counts: Arc<Counts>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let mut listener = Some(listener);
    while let Some(open) = listener.take() {
        counts.listening.store(true, Ordering::SeqCst);
        tokio::select! {
            () = accept(&open, target, line.clone(), &counts) => {}
            cut = line.wait_for(|line| *line == Line::Cut) => { cut.map_err(io::Error::other)?; }
        }
        // The kernel refuses connections to a closed listener and resets those in its queue.
        drop(open);
        counts.listening.store(false, Ordering::SeqCst);
        line.wait_for(|line| *line != Line::Cut).await.map_err(io::Error::other)?;
        listener = listen_again(address).await;
    }
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    target: SocketAddr,
    line: watch::Receiver<Line>,
    counts: &Arc<Counts>,
) {
    loop {
        // A failure concerns one connection only: the client closed it before it was accepted.
        if let Ok((client, _)) = listener.accept().await {
            counts.open.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(connection(client, target, line.clone(), Arc::clone(counts)));
        }
    }
}

/// Listens on the same port again. Another process may hold it for a moment; `None` if it does not release
/// it.
async fn listen_again(address: SocketAddr) -> Option<TcpListener> {
    for _ in 0..500 {
        let socket = TcpSocket::new_v4().ok()?;
        // The kernel still knows the earlier connections.
        socket.set_reuseaddr(true).ok()?;
        if socket.bind(address).is_ok() {
            return socket.listen(1024).ok();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    None
}

async fn connection(
    mut client: TcpStream,
    target: SocketAddr,
    line: watch::Receiver<Line>,
    counts: Arc<Counts>,
) {
    let connected = match TcpStream::connect(target).await {
        Ok(mut server) => {
            // Fails only on closed sockets.
            let _ = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
            let ended = forward(&mut client, &mut server, line, &counts).await;
            if ended == Ended::Broken {
                let _ = server.set_zero_linger();
            }
            ended
        }
        Err(_) => Ended::Broken,
    };
    if connected == Ended::Broken {
        // With a linger time of zero, closing sends a reset.
        let _ = client.set_zero_linger();
    }
    drop(client);
    counts.open.fetch_sub(1, Ordering::SeqCst);
}

#[derive(PartialEq, Eq)]
enum Ended {
    Regularly,
    Broken,
}

async fn forward(
    client: &mut TcpStream,
    server: &mut TcpStream,
    mut line: watch::Receiver<Line>,
    counts: &Counts,
) -> Ended {
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let up = line.clone();
    let down = line.clone();
    tokio::select! {
        ended = async {
            tokio::try_join!(
                pump(from_client, to_server, up, &counts.to_target),
                pump(from_server, to_client, down, &counts.from_target),
            )
        } => if ended.is_ok() { Ended::Regularly } else { Ended::Broken },
        _ = line.wait_for(|line| *line == Line::Cut) => Ended::Broken,
    }
}

/// Forwards one direction until the sender closes it.
async fn pump(
    mut from: tcp::ReadHalf<'_>,
    mut to: tcp::WriteHalf<'_>,
    mut line: watch::Receiver<Line>,
    count: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        // After the read, because the line may have been frozen in the meantime.
        line.wait_for(|line| *line == Line::Up).await.map_err(io::Error::other)?;
        if length == 0 {
            return to.shutdown().await;
        }
        // Counted first, so that received bytes are always counted.
        count.fetch_add(length as u64, Ordering::SeqCst);
        to.write_all(&buffer[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::thread;

    use super::*;

    /// A server that sends back what it gets.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut back = client.try_clone().unwrap();
                thread::spawn(move || io::copy(&mut { client }, &mut back));
            }
        });
        address
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        stream
    }

    fn round_trip(stream: &mut TcpStream) -> io::Result<[u8; 4]> {
        stream.write_all(b"ping")?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn frozen_line_forwards_nothing_until_mended() {
        let proxy = Proxy::start(echo()).unwrap();
        let mut stream = connect(&proxy);
        assert_eq!(&round_trip(&mut stream).unwrap(), b"ping");
        assert_eq!((proxy.bytes_to_target(), proxy.bytes_from_target()), (4, 4));
        proxy.freeze();
        assert_eq!(round_trip(&mut stream).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        connect(&proxy).write_all(b"accepted").unwrap();
        proxy.mend();
        stream.read_exact(&mut [0; 4]).unwrap();
        assert_eq!(&round_trip(&mut stream).unwrap(), b"ping");
    }

    #[test]
    fn cut_line_resets_and_refuses_until_mended() {
        let proxy = Proxy::start(echo()).unwrap();
        for _ in 0..3 {
            let mut stream = connect(&proxy);
            round_trip(&mut stream).unwrap();
            proxy.cut();
            assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            let refused = TcpStream::connect(proxy.address).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            proxy.mend();
            assert_eq!(&round_trip(&mut connect(&proxy)).unwrap(), b"ping");
        }
    }
}
