//! Orthanc's threads wait, the engine does not: where the two meet.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bucket::{Found, Naming, ReadRange, StorageError};
use bytes::Bytes;
use crypto_envelope::INSPECT_LEN;
use hybrid::FileReader;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};

/// Threads for the network. Encryption and copies into Orthanc's buffers are work of Orthanc's own threads; for the rest, a
/// second thread cost more in wake-ups than it brought on two cores (docs/performance.md).
const THREADS: usize = 1;
/// Threads for files that are being moved. They are there only while there is such work.
const FILE_THREADS: usize = 16;
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
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(THREADS).max_blocking_threads(FILE_THREADS);
        let runtime = builder.thread_name(name).enable_all().build()?;
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
        Incoming::Network(receiver)
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
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// Bytes in the whole download.
    pub(crate) length: u64,
    /// Bytes in the object or file.
    pub(crate) object_size: u64,
    pub(crate) naming: Naming,
    pub(crate) version: Version,
}

/// What tells an object or file from others that had or will have its name, and from its copy on the other storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Version {
    Object(Option<Arc<str>>),
    File(SystemTime),
}

impl Head {
    /// Whether both are of the same bytes.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        (&self.version, self.object_size) == (&other.version, other.object_size)
    }
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

/// An attachment on its way to Orthanc's thread. Dropping it ends the download.
#[derive(Debug)]
pub(crate) enum Incoming {
    Network(mpsc::Receiver<Result<Batch, StorageError>>),
    /// Read by Orthanc's thread itself: it would wait for it anyhow, and the network has no need to.
    File {
        file: FileReader,
        head: Head,
        left: u64,
    },
}

impl Incoming {
    /// A part of a file.
    pub(crate) fn file(mut file: FileReader, naming: Naming, part: &ReadRange) -> Result<Self, StorageError> {
        let range = file.seek(part)?;
        let length = range.end - range.start;
        let version = Version::File(file.last_written());
        let head = Head { length, object_size: file.size(), naming, version };
        Ok(Self::File { file, head, left: length })
    }

    /// Waits for the next batch.
    pub(crate) fn next(&mut self) -> Result<Result<Batch, StorageError>, Panicked> {
        match self {
            Self::Network(receiver) => receiver.blocking_recv().ok_or(Panicked),
            Self::File { file, head, left } => Ok(file.next(BATCH).map(|bytes| {
                let chunks: Vec<Bytes> = bytes.into_iter().collect();
                *left -= chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
                Batch { head: head.clone(), chunks, last: *left == 0 }
            })),
        }
    }
}

/// Collects the chunks of a download into batches.
async fn forward(
    start: impl Future<Output = Result<Found, StorageError>>,
    sender: &mpsc::Sender<Result<Batch, StorageError>>,
) -> Result<(), mpsc::error::SendError<Result<Batch, StorageError>>> {
    let Found { mut download, naming, .. } = match start.await {
        Ok(found) => found,
        Err(error) => return sender.send(Err(error)).await,
    };
    let range = download.range();
    let version = Version::Object(download.version().map(Arc::from));
    let length = range.end - range.start;
    let head = Head { length, object_size: download.object_size(), naming, version };
    let (mut chunks, mut size) = (Vec::new(), 0);
    loop {
        match download.next().await {
            Ok(Some(chunk)) => {
                size += chunk.len();
                chunks.push(chunk);
                if size >= BATCH {
                    let chunks = std::mem::take(&mut chunks);
                    size = 0;
                    sender.send(Ok(Batch { head: head.clone(), chunks, last: false })).await?;
                }
            }
            Ok(None) => return sender.send(Ok(Batch { head, chunks, last: true })).await,
            Err(error) => return sender.send(Err(error)).await,
        }
    }
}
