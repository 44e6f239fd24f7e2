//! Orthanc's threads wait, the engine does not: where the two meet.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use crypto_envelope::INSPECT_LEN;
use hybrid::{Found, Naming, StorageError};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};

/// Threads for the network. Encryption and copies into Orthanc's buffers are work of Orthanc's own threads; for the rest, a
/// second thread cost more in wake-ups than it brought on two cores (docs/performance.md).
const THREADS: usize = 1;
/// How long the end of the threads is waited for.
const SHUTDOWN: Duration = Duration::from_secs(5);
/// Bytes that are handed to Orthanc's thread at a time: an ordinary slice wakes it once.
const BATCH: usize = 1024 * 1024;
/// Batches that wait for Orthanc's thread. With the one being filled and the one being copied they bound a download's
/// memory to some 10 MB.
const BATCHES: usize = 8;

/// The task that was to answer has panicked; the panic was logged where it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Panicked;

/// The threads on which the engine runs, as long as the plugin is loaded.
#[derive(Debug)]
pub(crate) struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(THREADS).thread_name(name).enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    pub(crate) fn handle(&self) -> &Handle {
        match &self.0 {
            Some(runtime) => runtime.handle(),
            None => unreachable!("the runtime is taken by drop alone"),
        }
    }

    /// Runs `work` and waits for it.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Panicked> {
        let (sender, receiver) = oneshot::channel();
        // Handing the work over costs fewer wake-ups than driving it from here: its sockets belong to those threads.
        self.handle().spawn(async move {
            let _ = sender.send(work.await);
        });
        receiver.blocking_recv().map_err(|_| Panicked)
    }

    /// Starts a download, whose bytes are then to be had from [`Incoming`].
    pub(crate) fn download(
        &self,
        start: impl Future<Output = Result<Found, StorageError>> + Send + 'static,
    ) -> Incoming {
        let (sender, receiver) = mpsc::channel(BATCHES);
        self.handle().spawn(async move {
            // Fails when nobody reads any more: then there is nothing left to do.
            let _ = forward(start, &sender).await;
        });
        Incoming { receiver }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(SHUTDOWN);
        }
    }
}

/// What is known of a download before its first byte.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    /// Bytes in the whole download.
    pub(crate) length: u64,
    /// Bytes in the object.
    pub(crate) object_size: u64,
    pub(crate) naming: Naming,
}

/// Some of the bytes of a download.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) head: Head,
    pub(crate) chunks: Vec<Bytes>,
    /// Whether these were the last ones, and all was verified.
    pub(crate) last: bool,
}

impl Batch {
    /// Its first bytes, as many as tell what an envelope is.
    pub(crate) fn start(&self) -> Vec<u8> {
        self.chunks.iter().flatten().take(INSPECT_LEN).copied().collect()
    }

    /// All its bytes.
    pub(crate) fn gather(&self) -> Vec<u8> {
        self.chunks.concat()
    }
}

/// A download on its way to Orthanc's thread. Dropping it ends the download.
#[derive(Debug)]
pub(crate) struct Incoming {
    receiver: mpsc::Receiver<Result<Batch, StorageError>>,
}

impl Incoming {
    /// Waits for the next batch.
    pub(crate) fn next(&mut self) -> Result<Result<Batch, StorageError>, Panicked> {
        self.receiver.blocking_recv().ok_or(Panicked)
    }
}

/// Collects the chunks of a download into batches.
async fn forward(
    start: impl Future<Output = Result<Found, StorageError>>,
    sender: &mpsc::Sender<Result<Batch, StorageError>>,
) -> Result<(), mpsc::error::SendError<Result<Batch, StorageError>>> {
    let Found { mut download, naming } = match start.await {
        Ok(found) => found,
        Err(error) => return sender.send(Err(error)).await,
    };
    let range = download.range();
    let head = Head { length: range.end - range.start, object_size: download.object_size(), naming };
    let (mut chunks, mut size) = (Vec::new(), 0);
    loop {
        match download.next().await {
            Ok(Some(chunk)) => {
                size += chunk.len();
                chunks.push(chunk);
                if size >= BATCH {
                    let chunks = std::mem::take(&mut chunks);
                    size = 0;
                    sender.send(Ok(Batch { head, chunks, last: false })).await?;
                }
            }
            Ok(None) => return sender.send(Ok(Batch { head, chunks, last: true })).await,
            Err(error) => return sender.send(Err(error)).await,
        }
    }
}
