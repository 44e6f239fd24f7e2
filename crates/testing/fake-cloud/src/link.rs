//! The server's end of one TCP connection: at a given speed, and cut when a fault says so.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

/// How a connection ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// FIN: the client gets what was sent.
    Close,
    /// RST.
    Reset,
}

/// Shared by a connection's task, its socket and the bodies that pass through it.
#[derive(Debug, Default)]
pub(crate) struct Control {
    cut: Mutex<Option<Cut>>,
    when_flushed: Mutex<Option<Cut>>,
    requested: Notify,
}

impl Control {
    /// Ends the connection now.
    pub(crate) fn cut(&self, how: Cut) {
        *self.cut.lock() = Some(how);
        self.requested.notify_one();
    }

    /// Ends the connection when all that was given to it has gone out.
    pub(crate) fn cut_when_flushed(&self, how: Cut) {
        *self.when_flushed.lock() = Some(how);
    }

    /// Waits until the connection is to end.
    pub(crate) async fn cut_requested(&self) -> Cut {
        loop {
            if let Some(how) = *self.cut.lock() {
                return how;
            }
            self.requested.notified().await;
        }
    }

    fn flushed(&self) {
        let how = self.when_flushed.lock().take();
        if let Some(how) = how {
            self.cut(how);
        }
    }
}

/// A TCP connection that hyper reads and writes.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    control: Arc<Control>,
    /// Bytes for each second in either direction; 0 is without limit.
    bandwidth: Arc<AtomicU64>,
    reading: Pace,
    writing: Pace,
}

impl Link {
    pub(crate) fn new(stream: TcpStream, control: Arc<Control>, bandwidth: Arc<AtomicU64>) -> Self {
        Self { stream, control, bandwidth, reading: Pace::new(), writing: Pace::new() }
    }

    fn poll_write_allowance(&mut self, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        self.writing.poll(cx, self.bandwidth.load(Ordering::Relaxed))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if *self.control.cut.lock() == Some(Cut::Reset) {
            // If it fails, the client sees an orderly end instead.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let rate = this.bandwidth.load(Ordering::Relaxed);
        let Some(allowance) = ready!(this.reading.poll(cx, rate)) else {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        };
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(allowance.min(buf.remaining())));
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buf.advance(read);
        this.reading.spend(read, rate);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let allowance = ready!(this.poll_write_allowance(cx)).unwrap_or(usize::MAX);
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, &buf[..allowance.min(buf.len())]))?;
        this.writing.spend(written, this.bandwidth.load(Ordering::Relaxed));
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.bandwidth.load(Ordering::Relaxed) == 0 {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        }
        let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| &**buf);
        self.poll_write(cx, first)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.control.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Keeps one direction of a connection at its speed: what was sent must have had its time before more is.
#[derive(Debug)]
struct Pace {
    /// When the bytes so far would have passed at the given speed.
    busy_until: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// What a late timer may make up for.
    const CATCH_UP: Duration = Duration::from_millis(50);

    fn new() -> Self {
        Self { busy_until: Instant::now(), sleep: None }
    }

    /// How many bytes may pass now; `None` for any number.
    fn poll(&mut self, cx: &mut Context<'_>, rate: u64) -> Poll<Option<usize>> {
        if rate == 0 {
            return Poll::Ready(None);
        }
        if self.busy_until > Instant::now() {
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(self.busy_until)));
            if sleep.deadline() != self.busy_until {
                sleep.as_mut().reset(self.busy_until);
            }
            ready!(sleep.as_mut().poll(cx));
        }
        // 10 ms worth, or a packet.
        Poll::Ready(Some(usize::try_from(rate / 100).unwrap_or(usize::MAX).max(1460)))
    }

    fn spend(&mut self, bytes: usize, rate: u64) {
        let Some(nanos) = (bytes as u64).saturating_mul(1_000_000_000).checked_div(rate) else { return };
        let now = Instant::now();
        let start = self.busy_until.max(now.checked_sub(Self::CATCH_UP).unwrap_or(now));
        self.busy_until = start + Duration::from_nanos(nanos);
    }
}
