//! An attachment's bytes on their way to Orthanc's thread.

use std::any::Any;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;

use bucket::{Cause, Comparison, Download, Naming, Operation, ReadRange, StorageError, Verdict};
use bytes::Bytes;
use crypto_envelope::{Format, RECOGNIZE_LEN, envelope_len, speculative_header_len};
use futures_util::FutureExt as _;
use hybrid::{FileReader, Head, Place, Side, Source};
use storage_layout::Attachment;
use tokio::sync::mpsc;

use crate::runtime::{Runtime, shut_down};

/// Bytes passed to Orthanc's thread at a time: a typical slice wakes the thread once.
const BATCH: usize = 1024 * 1024;
/// Batches that may wait for Orthanc's thread. Together with the one being filled and the one being copied,
/// they limit a download's memory to about 10 MB.
const BATCHES: usize = 8;
/// Plaintext bytes in the part of an encrypted file that is read at a time: whole segments, so that they are decrypted
/// without a copy, and few, so that they are still in the processor's cache then.
const STEP: u64 = 256 * 1024;

/// Some of the bytes of an attachment.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) head: Arc<Head>,
    pub(crate) chunks: Vec<Bytes>,
    /// Whether these are the last bytes.
    pub(crate) last: bool,
    /// With the last bytes, after [`Incoming::compare`]: the error if the object does not have the server's checksum.
    pub(crate) wrong_checksum: Option<StorageError>,
    /// With the first bytes of an object: the comparison with its checksum.
    comparison: Option<Comparison>,
    /// With the last bytes of an object: the download, which can ask the server.
    download: Option<Box<Download>>,
    is_compared: bool,
}

impl Batch {
    fn new(head: &Arc<Head>, chunks: Vec<Bytes>, last: bool) -> Self {
        let head = Arc::clone(head);
        Self {
            head,
            chunks,
            last,
            wrong_checksum: None,
            comparison: None,
            download: None,
            is_compared: false,
        }
    }

    /// The first bytes, enough to recognize an envelope.
    pub(crate) fn start(&self) -> Vec<u8> {
        self.chunks.iter().flatten().take(RECOGNIZE_LEN).copied().collect()
    }

    /// All bytes in one piece.
    pub(crate) fn gather(&self) -> Vec<u8> {
        self.chunks.concat()
    }
}

/// What a download's task sends: a batch, an error, or the task's panic.
type Message = Result<Result<Batch, StorageError>, Box<dyn Any + Send>>;

/// The batches of an attachment. Dropping this ends the download.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A task on the runtime downloads the attachment.
    Network {
        /// The batches from that task.
        batches: mpsc::Receiver<Message>,
        /// Computed on Orthanc's thread, because all downloads share the network thread.
        comparison: Option<Comparison>,
    },
    /// Orthanc's thread reads the file itself, since it would have to wait anyway.
    File {
        /// The file.
        file: FileReader,
        /// Its head.
        head: Arc<Head>,
    },
}

impl Incoming {
    /// Opens an attachment in `place`, or a range of it.
    pub(crate) fn open(
        runtime: &Runtime,
        place: Place,
        attachment: Attachment,
        range: &ReadRange,
    ) -> Result<Self, StorageError> {
        if place.side() != Side::ObjectStorage {
            let (mut file, naming) = place.open_file(&attachment)?;
            let head = Arc::new(file.seek(range, naming)?);
            return Ok(Self::File { file, head });
        }
        let range = range.clone();
        let (sender, receiver) = mpsc::channel(BATCHES);
        let stop = runtime.stop().clone();
        runtime.handle().spawn(async move {
            let stopping = || StorageError::new(Operation::Read, place.name(&attachment), Cause::Stopping);
            let download = async {
                tokio::select! {
                    biased;
                    () = forward(&place, attachment, range, &sender) => {}
                    () = stop.grace_over() => drop(sender.send(Ok(Err(stopping()))).await),
                }
            };
            if let Err(panic) = AssertUnwindSafe(download).catch_unwind().await {
                let _ = sender.send(Err(panic)).await;
            }
        });
        Ok(Self::Network { batches: receiver, comparison: None })
    }

    /// Blocks until the first batch is there. It is empty if the content is in clear and can be read straight into
    /// Orthanc's buffer.
    pub(crate) fn first(&mut self) -> Result<Batch, StorageError> {
        let Self::File { file, head } = self else { return self.next() };
        let length = match head.naming {
            Naming::Clear => 0,
            // With the header, after which the segments begin.
            _ if head.range.start == 0 => envelope_len(Format::A2, STEP),
            _ => segments_len(),
        };
        batch(file, head, length)
    }

    /// Blocks until the next batch is there.
    pub(crate) fn next(&mut self) -> Result<Batch, StorageError> {
        match self {
            Self::Network { batches, comparison } => match batches.blocking_recv() {
                Some(Ok(Ok(mut batch))) => {
                    if let Some(begun) = batch.comparison.take() {
                        comparison.replace(begun);
                    }
                    Ok(batch)
                }
                Some(Ok(Err(error))) => Err(error),
                Some(Err(panic)) => resume_unwind(panic),
                None => resume_unwind(shut_down()),
            },
            Self::File { file, head } => batch(file, head, segments_len()),
        }
    }

    /// Leaves out a comparison that takes long, since something else shows whether the bytes are right.
    pub(crate) fn skip_costly_comparison(&mut self) {
        if let Self::Network { comparison, .. } = self {
            comparison.take_if(|comparison| comparison.is_costly());
        }
    }

    /// Compares an object with its checksum, if it has one: call it once for each batch, in their order; further calls for
    /// a batch have no effect. May ask the server after the last one.
    ///
    /// Sets [`Batch::wrong_checksum`] if the bytes are wrong. Fails if the server does not answer.
    pub(crate) fn compare(&mut self, runtime: &Runtime, batch: &mut Batch) -> Result<(), StorageError> {
        let Self::Network { comparison: slot, .. } = self else { return Ok(()) };
        let Some(comparison) = slot.as_mut().filter(|_| !batch.is_compared) else { return Ok(()) };
        batch.is_compared = true;
        batch.chunks.iter().for_each(|chunk| comparison.update(chunk));
        let Some(mut download) = batch.download.take() else { return Ok(()) };
        let Some(comparison) = slot.take() else { return Ok(()) };
        let wrong = match download.verdict(comparison) {
            Verdict::Right => return Ok(()),
            Verdict::Wrong(error) => error,
            Verdict::Open(comparison) => {
                let object = batch.head.name.clone();
                let settled = runtime.run_with_grace(async move { download.settle(comparison).await });
                let stopping = || Err(StorageError::new(Operation::Read, object, Cause::Stopping));
                match settled.unwrap_or_else(stopping) {
                    Ok(()) => return Ok(()),
                    Err(error) if matches!(error.cause, Cause::WrongChecksum(_)) => error,
                    Err(error) => return Err(error),
                }
            }
        };
        batch.wrong_checksum = Some(wrong);
        Ok(())
    }
}

/// The length in an envelope of the segments of `STEP` bytes.
fn segments_len() -> u64 {
    envelope_len(Format::A2, STEP) - speculative_header_len()
}

/// The next bytes of a file, at most `length`.
fn batch(file: &mut FileReader, head: &Arc<Head>, length: u64) -> Result<Batch, StorageError> {
    let limit = usize::try_from(length).unwrap_or(usize::MAX);
    let chunks = if limit == 0 { None } else { file.next(limit)? }.into_iter().collect();
    Ok(Batch::new(head, chunks, file.left() == 0))
}

/// Downloads an attachment and sends its bytes in batches.
async fn forward(place: &Place, attachment: Attachment, range: ReadRange, sender: &mpsc::Sender<Message>) {
    // Sending fails when the reader has been dropped; then there is nothing left to do.
    let _ = match place.open(&attachment, range).await {
        Ok(source) => send_batches(source, sender).await,
        Err(error) => sender.send(Ok(Err(error))).await,
    };
}

async fn send_batches(
    mut source: Source,
    sender: &mpsc::Sender<Message>,
) -> Result<(), mpsc::error::SendError<Message>> {
    let head = Arc::new(source.head().clone());
    let mut comparison = source.take_comparison();
    let mut chunks = Vec::new();
    let mut size = 0;
    loop {
        match source.next().await {
            Ok(Some(chunk)) => {
                size += chunk.len();
                chunks.push(chunk);
                if size >= BATCH {
                    size = 0;
                    let batch = Batch::new(&head, std::mem::take(&mut chunks), false);
                    sender.send(Ok(Ok(Batch { comparison: comparison.take(), ..batch }))).await?;
                }
            }
            Ok(None) => {
                let batch = Batch::new(&head, chunks, true);
                return sender
                    .send(Ok(Ok(Batch { comparison, download: source.into_download(), ..batch })))
                    .await;
            }
            Err(error) => return sender.send(Ok(Err(error))).await,
        }
    }
}
