//! The server's end of one TCP connection, with limited bandwidth, which faults can cut.

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

/// How a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// With FIN: the client receives everything sent before.
    Close,
    /// With RST.
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

    /// Ends the connection after everything written to it was sent.
    pub(crate) fn cut_when_flushed(&self, how: Cut) {
        *self.when_flushed.lock() = Some(how);
    }

    /// Waits until a fault cuts the connection.
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
    /// Bytes per second in each direction; 0 means unlimited.
    bandwidth: Arc<AtomicU64>,
    reading: Pace,
    writing: Pace,
}

impl Link {
    pub(crate) fn new(stream: TcpStream, control: Arc<Control>, bandwidth: Arc<AtomicU64>) -> Self {
        Self { stream, control, bandwidth, reading: Pace::new(), writing: Pace::new() }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if *self.control.cut.lock() == Some(Cut::Reset) {
            // If this fails, the client sees FIN instead.
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
        let mut limited = ReadBuf::new(buf.initialize_unfilled_to(allowance.min(buf.remaining())));
        if Pin::new(&mut this.stream).poll_read(cx, &mut limited)?.is_pending() {
            this.reading.has_waited = false;
            return Poll::Pending;
        }
        let read = limited.filled().len();
        buf.advance(read);
        this.reading.spend(read, rate);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let rate = this.bandwidth.load(Ordering::Relaxed);
        let allowance = ready!(this.writing.poll(cx, rate)).unwrap_or(usize::MAX);
        let Poll::Ready(written) =
            Pin::new(&mut this.stream).poll_write(cx, &buf[..allowance.min(buf.len())])?
        else {
            // The client is what takes the time.
            this.writing.has_waited = false;
            return Poll::Pending;
        };
        this.writing.spend(written, rate);
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

/// Limits the bandwidth of one direction of a connection: more bytes pass only after the time that earlier
/// ones take.
#[derive(Debug)]
struct Pace {
    /// The time at which the bytes so far would have passed at the given rate.
    busy_until: Instant,
    /// Whether bytes had to wait for that time. If not, the connection was idle.
    has_waited: bool,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// Maximum delay of a timer that later bytes make up for.
    const CATCH_UP: Duration = Duration::from_millis(50);

    fn new() -> Self {
        Self { busy_until: Instant::now(), has_waited: false, sleep: None }
    }

    /// Returns the number of bytes that may pass now; `None` means any number.
    fn poll(&mut self, cx: &mut Context<'_>, rate: u64) -> Poll<Option<usize>> {
        if rate == 0 {
            return Poll::Ready(None);
        }
        if self.busy_until > Instant::now() {
            self.has_waited = true;
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(self.busy_until)));
            if sleep.deadline() != self.busy_until {
                sleep.as_mut().reset(self.busy_until);
            }
            ready!(sleep.as_mut().poll(cx));
        }
        // The bytes of 10 ms, or one packet.
        Poll::Ready(Some(usize::try_from(rate / 100).unwrap_or(usize::MAX).max(1460)))
    }

    fn spend(&mut self, bytes: usize, rate: u64) {
        let Some(nanos) = (bytes as u64).saturating_mul(1_000_000_000).checked_div(rate) else { return };
        let now = Instant::now();
        let late = if self.has_waited { Self::CATCH_UP } else { Duration::ZERO };
        let start = self.busy_until.max(now.checked_sub(late).unwrap_or(now));
        self.busy_until = start + Duration::from_nanos(nanos);
        // Otherwise, there is still time to make up for.
        self.has_waited &= self.busy_until < now;
    }
}
