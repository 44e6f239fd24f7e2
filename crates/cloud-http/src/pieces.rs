//! Memory for the content of requests, in reused pieces of one size.
//!
//! A new buffer of some size costs more than the encryption or the copy that fills it, since the kernel maps and zeroes each
//! of its pages. A piece returns to the pool when the last [`Bytes`] over it is dropped, which may be after its request: a
//! connection keeps what it has not sent yet.
//!
//! The pool keeps what was in use a short while ago, up to a maximum, and frees the rest. Pieces are not wiped:
//! they hold ciphertext or, if encryption is off, copies of what Orthanc has in its own memory and the bucket has in clear.
//! The next user of a piece sees only bytes that it has written itself.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;

/// Size of a piece, in bytes: four segments of an A2 envelope with their tags. Small enough to stay in a core's cache between
/// encryption and sending.
pub const PIECE: usize = 4 * (64 * 1024 + 16);
/// What is smaller gets memory of its own, in bytes: the C library has blocks of this size at hand.
const SMALL: usize = 32 * 1024;
/// Maximum number of unused pieces: 128 MiB.
const MOST_IDLE: usize = 512;
/// Pieces that were not needed for this long are freed.
const PERIOD: Duration = Duration::from_secs(5);

/// The pieces of all buckets in the process.
static POOL: LazyLock<Arc<Pool>> = LazyLock::new(Arc::default);

/// Returns `len` bytes, up to [`PIECE`], that `fill` writes. It gets zeros or what was in the piece before, and must
/// overwrite all of it.
///
/// # Errors
///
/// The error of `fill`.
pub fn filled<E>(len: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Bytes, E> {
    POOL.filled(len, fill)
}

/// Returns the bytes that `append` appends to an empty buffer, about `len` and at most [`PIECE`] of them.
///
/// # Errors
///
/// The error of `append`.
pub fn appended<E>(len: usize, append: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<Bytes, E> {
    POOL.appended(len, append)
}

/// Returns a copy of at most [`PIECE`] bytes.
pub(crate) fn copy_of(bytes: &[u8]) -> Bytes {
    let copied = appended::<std::convert::Infallible>(bytes.len(), |buffer| {
        buffer.extend_from_slice(bytes);
        Ok(())
    });
    match copied {
        Ok(copy) => copy,
        Err(never) => match never {},
    }
}

/// Numbers of pieces since the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceCounts {
    /// In use now.
    pub in_use: usize,
    /// The highest number in use at once.
    pub most_in_use: usize,
    /// Allocated so far.
    pub allocated: usize,
}

/// Returns the counts of all pieces in the process.
pub fn piece_counts() -> PieceCounts {
    POOL.counts()
}

#[derive(Default)]
struct Pool {
    idle: Mutex<Idle>,
    in_use: AtomicUsize,
    most_in_use: AtomicUsize,
    allocated: AtomicUsize,
}

/// Unused pieces.
#[derive(Default)]
struct Idle {
    /// The last one was used most recently. Each has the capacity [`PIECE`], and any length.
    buffers: Vec<Vec<u8>>,
    /// The lowest number of pieces since the pool was last trimmed.
    lowest: usize,
    /// Whether a task frees pieces.
    is_trimmed: bool,
}

/// The owner inside the `Bytes` of a piece.
struct Piece {
    pool: Arc<Pool>,
    buffer: Vec<u8>,
    len: usize,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.buffer));
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.counts().fmt(f)
    }
}

impl Pool {
    fn filled<E>(
        self: &Arc<Self>,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Bytes, E> {
        if len <= SMALL {
            let mut buffer = vec![0; len];
            fill(&mut buffer)?;
            return Ok(buffer.into());
        }
        let mut piece = self.take();
        if piece.buffer.len() < len {
            piece.buffer.resize(len, 0);
        }
        fill(&mut piece.buffer[..len])?;
        piece.len = len;
        Ok(Bytes::from_owner(piece))
    }

    fn appended<E>(
        self: &Arc<Self>,
        len: usize,
        append: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Bytes, E> {
        if len <= SMALL {
            let mut buffer = Vec::with_capacity(len);
            append(&mut buffer)?;
            return Ok(buffer.into());
        }
        let mut piece = self.take();
        piece.buffer.clear();
        append(&mut piece.buffer)?;
        piece.len = piece.buffer.len();
        Ok(Bytes::from_owner(piece))
    }

    fn take(self: &Arc<Self>) -> Piece {
        let taken = {
            let mut idle = self.idle.lock();
            let taken = idle.buffers.pop();
            idle.lowest = idle.lowest.min(idle.buffers.len());
            taken
        };
        let buffer = taken.unwrap_or_else(|| {
            self.allocated.fetch_add(1, Ordering::Relaxed);
            // Callers that append overwrite the zeros.
            vec![0; PIECE]
        });
        let in_use = self.in_use.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_in_use.fetch_max(in_use, Ordering::Relaxed);
        Piece { pool: Arc::clone(self), buffer, len: 0 }
    }

    fn give_back(self: &Arc<Self>, buffer: Vec<u8>) {
        self.in_use.fetch_sub(1, Ordering::Relaxed);
        let mut idle = self.idle.lock();
        // A buffer that has grown is of another size.
        if buffer.capacity() != PIECE || idle.buffers.len() >= MOST_IDLE {
            return;
        }
        idle.buffers.push(buffer);
        if idle.is_trimmed {
            return;
        }
        // Without a runtime, the next piece that returns on one starts the task.
        if let Ok(runtime) = Handle::try_current() {
            idle.is_trimmed = true;
            drop(idle);
            let trimming = Trimming { pool: Arc::clone(self), is_done: false };
            runtime.spawn(async move { trimming.run().await });
        }
    }

    /// Frees the pieces that were not needed since the last call. Returns whether there are others.
    fn trim(&self) -> bool {
        let mut idle = self.idle.lock();
        let unused = idle.lowest.min(idle.buffers.len());
        let freed: Vec<Vec<u8>> = idle.buffers.drain(..unused).collect();
        let left = idle.buffers.len();
        idle.lowest = left;
        idle.is_trimmed = left > 0;
        drop(idle);
        drop(freed);
        left > 0
    }

    fn counts(&self) -> PieceCounts {
        let [in_use, most_in_use, allocated] =
            [&self.in_use, &self.most_in_use, &self.allocated].map(|count| count.load(Ordering::Relaxed));
        PieceCounts { in_use, most_in_use, allocated }
    }
}

/// The task that frees pieces. It ends when none is left.
struct Trimming {
    pool: Arc<Pool>,
    is_done: bool,
}

impl Trimming {
    async fn run(mut self) {
        while !self.is_done {
            tokio::time::sleep(PERIOD).await;
            self.is_done = !self.pool.trim();
        }
    }
}

impl Drop for Trimming {
    fn drop(&mut self) {
        if !self.is_done {
            // Its runtime is shutting down: another one frees the pieces.
            self.pool.idle.lock().is_trimmed = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Arc<Pool> {
        Arc::default()
    }

    fn piece(pool: &Arc<Pool>, byte: u8) -> Bytes {
        pool.filled(PIECE, |out| {
            out.fill(byte);
            Ok::<_, ()>(())
        })
        .unwrap()
    }

    fn appended(pool: &Arc<Pool>, len: usize, bytes: &[u8]) -> Bytes {
        pool.appended(len, |out| {
            out.extend_from_slice(bytes);
            Ok::<_, ()>(())
        })
        .unwrap()
    }

    fn counts(in_use: usize, most_in_use: usize, allocated: usize) -> PieceCounts {
        PieceCounts { in_use, most_in_use, allocated }
    }

    #[test]
    fn pieces_are_used_again() {
        let pool = pool();
        let first = piece(&pool, 1);
        let address = first.as_ptr();
        let part = first.slice(100..200);
        drop(first);
        assert_eq!(pool.counts(), counts(1, 1, 1), "a slice keeps the piece");
        drop(part);
        let short = appended(&pool, SMALL + 1, b"short");
        assert_eq!((&short[..], short.as_ptr()), (&b"short"[..], address));
        drop(short);
        let filled = piece(&pool, 2);
        assert!(filled.len() == PIECE && filled.iter().all(|byte| *byte == 2));
        assert_eq!(pool.counts(), counts(1, 1, 1));
    }

    #[test]
    fn failures_return_the_piece() {
        let pool = pool();
        assert_eq!(pool.filled(PIECE, |_| Err(7)).unwrap_err(), 7);
        assert_eq!(pool.appended(PIECE, |_| Err(8)).unwrap_err(), 8);
        assert_eq!(pool.counts(), counts(0, 1, 1));
    }

    #[test]
    fn small_and_oversized_buffers_are_not_pooled() {
        let pool = pool();
        assert_eq!(pool.filled(SMALL, |_| Ok::<_, ()>(())).unwrap().len(), SMALL);
        assert_eq!(pool.counts(), counts(0, 0, 0));
        let large = appended(&pool, PIECE, &vec![3; PIECE + 1]);
        assert_eq!(large.len(), PIECE + 1);
        drop(large);
        assert!(pool.idle.lock().buffers.is_empty(), "a buffer that has grown is freed");
    }

    #[test]
    fn idle_pieces_are_limited() {
        let pool = pool();
        let pieces: Vec<Piece> = (0..MOST_IDLE + 3).map(|_| pool.take()).collect();
        drop(pieces);
        assert_eq!(pool.idle.lock().buffers.len(), MOST_IDLE);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_pieces_are_freed_after_a_while() {
        let pool = pool();
        drop([1, 2, 3].map(|byte| piece(&pool, byte)));
        tokio::time::sleep(PERIOD * 3 / 2).await;
        assert_eq!(pool.idle.lock().buffers.len(), 3, "all were needed in this period");
        drop(piece(&pool, 4));
        tokio::time::sleep(PERIOD).await;
        assert_eq!(pool.idle.lock().buffers.len(), 1, "one was needed");
        tokio::time::sleep(PERIOD).await;
        assert!(pool.idle.lock().buffers.is_empty());
        assert_eq!(Arc::strong_count(&pool), 1, "the task has ended");
    }

    #[test]
    fn pieces_are_freed_after_a_runtime_was_shut_down() {
        let pool = pool();
        for _ in 0..2 {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { drop(piece(&pool, 1)) });
            assert!(pool.idle.lock().is_trimmed);
            drop(runtime);
            assert!(!pool.idle.lock().is_trimmed);
        }
    }
}
