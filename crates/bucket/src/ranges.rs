//! Ranges of an object that arrive in parallel and are returned in order.

use std::any::Any;
use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::climb::rate;
use crate::download::{Download, ReadRange};
use crate::error::{Cause, StorageError};
use crate::retry::{Attempts, RetryPolicy};
use crate::verification::Verification;

/// Memory for the ranges of a download, in bytes.
pub(crate) const MEMORY: u64 = 20 * 1024 * 1024;
/// Size of the smallest and of the largest range, in bytes.
const SMALLEST: u64 = 1024 * 1024;
const LARGEST: u64 = 8 * 1024 * 1024;
/// Maximum number of connections of a download: the memory has no room for more of the smallest ranges.
pub(crate) const MOST: usize = 20;
const _: () = assert!(MOST as u64 == MEMORY / SMALLEST);

/// The object to read from.
pub(crate) struct Source {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) path: Path,
    pub(crate) object: ObjectMeta,
    pub(crate) policy: RetryPolicy,
}

/// Ranges of one object.
pub(crate) struct Ranges {
    source: Source,
    /// The bytes that no request asks for yet.
    waiting: Range<u64>,
    /// The ranges asked for, in order.
    live: VecDeque<Live>,
    events: UnboundedReceiver<(u64, Event)>,
    sender: UnboundedSender<(u64, Event)>,
}

/// A range whose bytes were not all returned.
struct Live {
    /// The position of the next byte to return.
    next: u64,
    end: u64,
    id: u64,
    /// Number of bytes that have arrived.
    received: u64,
    chunks: VecDeque<Bytes>,
    is_running: bool,
    _task: AbortOnDrop,
}

enum Event {
    Bytes(Bytes),
    Ended(Arrival),
    Failed(StorageError),
    /// The task panicked, with this payload.
    Panicked(Box<dyn Any + Send>),
}

/// Timing of a completed range.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// The number of connections in use when it began.
    pub(crate) connections: usize,
    /// Until its first bytes.
    pub(crate) latency: Duration,
    /// In bytes per second, after its first bytes; `None` if there were no more.
    pub(crate) rate: Option<f64>,
}

/// Aborts the task when dropped.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The size of ranges over `connections`, of `left` bytes in total: as large as the memory permits, since each waits for an
/// answer.
pub(crate) fn size(connections: usize, left: u64) -> u64 {
    let connections = connections.max(1) as u64;
    (MEMORY / connections).min(left.div_ceil(connections)).clamp(SMALLEST, LARGEST)
}

impl Ranges {
    pub(crate) fn new(source: Source) -> Self {
        let (sender, events) = unbounded_channel();
        Self { source, waiting: 0..0, live: VecDeque::new(), events, sender }
    }

    /// Sets the bytes to ask for. They end where the ranges already asked for begin.
    pub(crate) fn wait(&mut self, range: Range<u64>) {
        self.waiting = range;
    }

    /// Returns the bytes that no request asks for yet, and does not ask for them.
    pub(crate) fn take_waiting(&mut self) -> Range<u64> {
        std::mem::replace(&mut self.waiting, 0..0)
    }

    pub(crate) fn waiting(&self) -> Range<u64> {
        self.waiting.clone()
    }

    /// Number of requests in progress.
    pub(crate) fn running(&self) -> usize {
        self.live.iter().filter(|live| live.is_running).count()
    }

    /// Number of bytes that have arrived, of the ranges that were not returned completely.
    pub(crate) fn received(&self) -> u64 {
        self.live.iter().map(|live| live.received).sum()
    }

    /// Whether `bytes` of each range asked for have arrived.
    pub(crate) fn have(&self, bytes: u64) -> bool {
        self.live.iter().all(|live| live.received >= bytes)
    }

    /// Whether a range asked for has the byte at `position`.
    pub(crate) fn has(&self, position: u64) -> bool {
        self.live.front().is_some_and(|live| live.next == position)
    }

    /// Asks for ranges of `size` bytes until `requests` are in progress, or the memory is used up. `connections` is the number
    /// in use in total.
    pub(crate) fn fill(&mut self, requests: usize, connections: usize, size: u64, attempts: &Attempts) {
        while self.running() < requests && !self.waiting.is_empty() {
            let start = self.waiting.start;
            let end = self.waiting.end.min(start.saturating_add(size));
            let held: u64 = self.live.iter().map(|live| live.end - live.next).sum();
            if held + (end - start) > MEMORY && self.has_front(start) {
                return;
            }
            self.waiting.start = end;
            self.start(start..end, connections, attempts);
        }
    }

    /// Whether there is a range before `start`.
    fn has_front(&self, start: u64) -> bool {
        self.live.front().is_some_and(|live| live.next < start)
    }

    /// Reads a range in a separate task, so that it arrives while the reader is busy with another.
    pub(crate) fn start(&mut self, range: Range<u64>, connections: usize, attempts: &Attempts) {
        let Range { start: id, end } = range;
        let mut attempts = attempts.again(self.source.policy);
        attempts.made_progress();
        let sender = self.sender.clone();
        let arrival = arrive(&self.source, range, connections, attempts, sender.clone());
        let task = tokio::spawn(async move {
            let event = match AssertUnwindSafe(arrival).catch_unwind().await {
                Ok(result) => result.map_or_else(Event::Failed, Event::Ended),
                Err(panic) => Event::Panicked(panic),
            };
            // The receiver is gone only if this task is aborted.
            let _ = sender.send((id, event));
        });
        let live = Live {
            next: id,
            end,
            id,
            received: 0,
            chunks: VecDeque::new(),
            is_running: true,
            _task: AbortOnDrop(task),
        };
        let index = self.live.partition_point(|other| other.id < id);
        self.live.insert(index, live);
    }

    /// Returns the bytes at `position` that have arrived.
    pub(crate) fn take(&mut self, position: u64) -> Option<Bytes> {
        let front = self.live.front_mut().filter(|live| live.next == position)?;
        let bytes = front.chunks.pop_front()?;
        front.next += bytes.len() as u64;
        if front.next == front.end && !front.is_running {
            self.live.pop_front();
        }
        Some(bytes)
    }

    /// Waits for the next event.
    pub(crate) async fn event(&mut self, attempts: &Attempts) -> Result<Option<Arrival>, StorageError> {
        let event = tokio::time::timeout_at(attempts.deadline(), self.events.recv()).await;
        event.map_err(|_elapsed| attempts.timed_out())?.map_or(Ok(None), |(id, event)| self.handle(id, event))
    }

    /// Handles what has happened until now. Returns how ranges arrived.
    pub(crate) fn events(&mut self) -> Result<Vec<Arrival>, StorageError> {
        let mut arrivals = Vec::new();
        while let Ok((id, event)) = self.events.try_recv() {
            arrivals.extend(self.handle(id, event)?);
        }
        Ok(arrivals)
    }

    fn handle(&mut self, id: u64, event: Event) -> Result<Option<Arrival>, StorageError> {
        let Some(index) = self.live.iter().position(|live| live.id == id) else { return Ok(None) };
        let live = &mut self.live[index];
        match event {
            Event::Bytes(bytes) => {
                live.received += bytes.len() as u64;
                live.chunks.push_back(bytes);
                Ok(None)
            }
            Event::Ended(arrival) => {
                live.is_running = false;
                if live.next == live.end {
                    self.live.remove(index);
                }
                Ok(Some(arrival))
            }
            Event::Failed(error) => Err(error),
            Event::Panicked(panic) => resume_unwind(panic),
        }
    }
}

/// Reads a range of the object, and sends its bytes.
fn arrive(
    source: &Source,
    range: Range<u64>,
    connections: usize,
    attempts: Attempts,
    sender: UnboundedSender<(u64, Event)>,
) -> impl Future<Output = Result<Arrival, StorageError>> + Send + 'static {
    let store = Arc::clone(&source.store);
    let path = source.path.clone();
    let object = source.object.clone();
    async move {
        let id = range.start;
        let begun = Instant::now();
        let range = ReadRange::Range(range);
        let mut download = match Download::start(store, path, range, Verification::default(), attempts).await
        {
            // The object has become shorter.
            Err(error) if error.cause == Cause::OutOfRange => {
                return Err(StorageError { cause: Cause::Changed, ..error });
            }
            result => result?,
        };
        download.expect_version(&object)?;
        let mut first = None;
        let mut bytes = 0;
        while let Some(chunk) = download.next().await? {
            match first {
                None => first = Some(Instant::now()),
                Some(_) => bytes += chunk.len() as u64,
            }
            let _ = sender.send((id, Event::Bytes(chunk)));
        }
        let first = first.unwrap_or(begun);
        let rate = (bytes > 0).then(|| rate(bytes, first.elapsed()));
        Ok(Arrival { connections, latency: first - begun, rate })
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;
    use crate::error::Operation;

    #[tokio::test]
    async fn ranges_of_an_absurd_size_take_no_memory() {
        let object = ObjectMeta {
            location: Path::from("object"),
            last_modified: std::time::SystemTime::UNIX_EPOCH.into(),
            size: u64::MAX,
            e_tag: None,
            version: None,
        };
        let store = Arc::new(InMemory::new());
        let path = object.location.clone();
        let policy = RetryPolicy::default();
        let mut ranges = Ranges::new(Source { store, path, object, policy });
        ranges.wait(7..u64::MAX);
        let size = size(10, u64::MAX);
        let attempts = Attempts::new(policy, Operation::Read, String::new());
        ranges.fill(usize::MAX, 10, size, &attempts);
        assert_eq!(ranges.running() as u64, MEMORY / size);
        assert_eq!(ranges.waiting().start, 7 + ranges.running() as u64 * size);
        ranges.wait(u64::MAX - 1..u64::MAX);
        ranges.live.clear();
        ranges.fill(usize::MAX, 10, size, &attempts);
        assert_eq!((ranges.running(), ranges.waiting().is_empty()), (1, true));
    }

    #[tokio::test]
    async fn object_that_became_shorter_has_changed() {
        let store = Arc::new(InMemory::new());
        let path = Path::from("object");
        store.put(&path, vec![0; 100].into()).await.unwrap();
        let object = ObjectMeta { size: 101, ..store.head(&path).await.unwrap() };
        let policy = RetryPolicy::default();
        let mut ranges = Ranges::new(Source { store, path, object, policy });
        let attempts = Attempts::new(policy, Operation::Read, String::new());
        ranges.wait(90..101);
        ranges.fill(1, 2, 20, &attempts);
        assert_eq!(ranges.event(&attempts).await.unwrap_err().cause, Cause::Changed);
    }

    #[test]
    fn ranges_are_as_large_as_the_memory_permits() {
        assert_eq!(size(10, u64::MAX), MEMORY / 10);
        assert_eq!(size(1, u64::MAX), LARGEST);
        assert_eq!(size(1000, u64::MAX), SMALLEST);
        assert_eq!(size(4, 16 * 1024 * 1024), 4 * 1024 * 1024, "each connection has its part of the rest");
    }
}
