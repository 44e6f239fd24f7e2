//! Reading an object to its end, whatever happens to the connection.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cloud_http::{Checksum, Verifier};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};

use crate::error::{Cause, StorageError};
use crate::multipart::PartedDownload;
use crate::retry::{Attempts, RetryPolicy};
use crate::throughput::{Experience, LARGE, TransferOptions, rate};

/// HTTP: the object is no longer the one with the ETag that was given.
const PRECONDITION_FAILED: u16 = 412;

/// Which part of an object to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadRange {
    /// All of it.
    Whole,
    /// Exactly these bytes; an object without them is an error.
    Range(Range<u64>),
    /// As many of these bytes as the object has, one at least.
    UpTo(Range<u64>),
}

/// An object, or a part of it, on its way.
///
/// A connection that breaks is replaced, and the download goes on at the byte where it stopped. The bytes handed out
/// are exactly those of [`Download::range`]; the end is only told once the checksum of the whole object, where the
/// server gave one, has been found right.
pub struct Download {
    store: Arc<dyn ObjectStore>,
    path: Path,
    attempts: Attempts,
    body: BoxStream<'static, object_store::Result<Bytes>>,
    object: ObjectMeta,
    range: Range<u64>,
    /// The position of the next byte in the object.
    next: u64,
    checksum: Option<Verifier>,
    splitting: Option<Splitting>,
    parts: Option<PartedDownload>,
}

/// What is needed to split a large download whose one connection turns out to be slow.
struct Splitting {
    options: TransferOptions,
    policy: RetryPolicy,
    experience: Arc<Experience>,
    /// Time spent in waiting for the network, not for the reader.
    waited: Duration,
    bytes: u64,
}

/// So much is read before a connection is called slow, in bytes.
const SAMPLE: u64 = 4 * 1024 * 1024;

impl Download {
    /// Sends the request and waits for the head of the answer.
    pub(crate) async fn start(
        store: Arc<dyn ObjectStore>,
        path: Path,
        part: ReadRange,
        mut attempts: Attempts,
    ) -> Result<Self, StorageError> {
        let range = match &part {
            ReadRange::Whole => None,
            ReadRange::Range(range) | ReadRange::UpTo(range) => Some(GetRange::Bounded(range.clone())),
        };
        let options = GetOptions { range, ..GetOptions::default() };
        let (answer, exchange) = attempts.run(|| store.get_opts(&path, options.clone())).await?;
        if let ReadRange::Range(range) = part
            && answer.range != range
        {
            return Err(attempts.error(Cause::OutOfRange, false));
        }
        let whole = answer.range == (0..answer.meta.size);
        let checksum = exchange.checksum.filter(|_| whole);
        Ok(Self {
            store,
            path,
            attempts,
            object: answer.meta.clone(),
            next: answer.range.start,
            range: answer.range.clone(),
            checksum: checksum.map(Checksum::verifier),
            splitting: None,
            parts: None,
            body: answer.into_stream(),
        })
    }

    /// Lets the download use several connections if it is large and one is slow.
    pub(crate) fn split_if_slow(
        mut self,
        options: TransferOptions,
        policy: RetryPolicy,
        experience: Arc<Experience>,
    ) -> Self {
        if self.range.end - self.range.start >= LARGE && options.connections > 1 {
            self.splitting =
                Some(Splitting { options, policy, experience, waited: Duration::ZERO, bytes: 0 });
        }
        self
    }

    /// Fails unless this is the object that another request has begun to read.
    pub(crate) fn expect_version(&self, e_tag: Option<&str>) -> Result<(), StorageError> {
        if self.object.e_tag.as_deref() == e_tag { Ok(()) } else { Err(self.changed()) }
    }

    /// The size of the whole object, in bytes.
    pub fn object_size(&self) -> u64 {
        self.object.size
    }

    /// What tells this object from others that had or will have its name; `None` where the server gives nothing.
    pub fn version(&self) -> Option<&str> {
        self.object.e_tag.as_deref()
    }

    /// The part of the object that is read.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// The next bytes; `None` after the last ones.
    ///
    /// # Errors
    ///
    /// When the connection broke and could not be replaced, the object changed meanwhile, the time is over, or the
    /// content is not what was stored. What was handed out before is to be discarded then.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        if let Some(parts) = &mut self.parts {
            let start = Instant::now();
            let bytes = parts.next(&self.attempts).await?;
            self.count(start.elapsed(), bytes.as_ref());
            return match bytes {
                Some(bytes) => self.accept(bytes).map(Some),
                None => self.end_of_parts().map(|()| None),
            };
        }
        let bytes = self.next_of_one().await?;
        self.split();
        Ok(bytes)
    }

    /// Goes on with several connections, if this one is slow.
    fn split(&mut self) {
        let left = self.range.end - self.next;
        let Some(splitting) = &mut self.splitting else { return };
        if splitting.bytes < SAMPLE || left < LARGE / 2 {
            return;
        }
        splitting.experience.one(splitting.bytes, splitting.waited);
        if splitting.experience.says_split_at(rate(splitting.bytes, splitting.waited)) {
            let parts = PartedDownload::new(
                Arc::clone(&self.store),
                self.path.clone(),
                self.next..self.range.end,
                self.object.e_tag.clone(),
                splitting.policy,
                splitting.options,
            );
            self.parts = Some(parts);
            // Ends the request: its rest comes in parts.
            self.body = futures_util::stream::empty().boxed();
        }
        (splitting.bytes, splitting.waited) = (0, Duration::ZERO);
    }

    fn count(&mut self, waited: Duration, bytes: Option<&Bytes>) {
        if let Some(splitting) = &mut self.splitting {
            splitting.waited += waited;
            splitting.bytes += bytes.map_or(0, Bytes::len) as u64;
        }
    }

    fn end_of_parts(&mut self) -> Result<(), StorageError> {
        if let Some(splitting) = self.splitting.take() {
            splitting.experience.several(splitting.bytes, splitting.waited);
        }
        if self.next != self.range.end {
            return Err(self.damaged("its parts are not the whole"));
        }
        self.verify()
    }

    async fn next_of_one(&mut self) -> Result<Option<Bytes>, StorageError> {
        loop {
            let start = Instant::now();
            let frame = match tokio::time::timeout_at(self.attempts.deadline(), self.body.next()).await {
                Ok(frame) => frame,
                Err(_elapsed) => return Err(self.attempts.timed_out()),
            };
            let failure = match frame {
                Some(Ok(bytes)) => {
                    // Pauses between attempts are no sign of a slow connection.
                    self.count(start.elapsed(), Some(&bytes));
                    return self.accept(bytes).map(Some);
                }
                // All is there: whatever happened to the connection afterwards.
                _ if self.next == self.range.end => return self.verify().map(|()| None),
                Some(Err(error)) => self.attempts.broken(&error),
                None => self.attempts.error(Cause::Network("the answer ended early".to_owned()), true),
            };
            self.attempts.pause_after((failure, None)).await?;
            self.resume().await?;
        }
    }

    fn accept(&mut self, bytes: Bytes) -> Result<Bytes, StorageError> {
        let next = self.next + bytes.len() as u64;
        if next > self.range.end {
            return Err(self.damaged("the server sent more than was asked for"));
        }
        if let Some(checksum) = &mut self.checksum {
            checksum.update(&bytes);
        }
        self.next = next;
        self.attempts.made_progress();
        Ok(bytes)
    }

    fn verify(&self) -> Result<(), StorageError> {
        match &self.checksum {
            Some(checksum) if !checksum.is_right() => {
                Err(self.damaged(&format!("its {} is not that of the stored object", checksum.expected())))
            }
            _ => Ok(()),
        }
    }

    /// Asks for the bytes that are missing, of the same object.
    async fn resume(&mut self) -> Result<(), StorageError> {
        let missing = self.next..self.range.end;
        let options = GetOptions {
            range: Some(GetRange::Bounded(missing.clone())),
            if_match: self.object.e_tag.clone(),
            ..GetOptions::default()
        };
        let (store, path) = (&self.store, &self.path);
        let answer = self.attempts.run(|| store.get_opts(path, options.clone())).await;
        let (answer, _) = answer.map_err(|error| {
            if error.status() == Some(PRECONDITION_FAILED) || error.cause == Cause::OutOfRange {
                StorageError { cause: Cause::Changed, ..error }
            } else {
                error
            }
        })?;
        // Where the server gave no ETag to insist on, its other answers tell.
        let same =
            answer.meta.size == self.object.size && answer.meta.last_modified == self.object.last_modified;
        if !same || answer.range != missing {
            return Err(self.changed());
        }
        self.body = answer.into_stream();
        Ok(())
    }

    fn changed(&self) -> StorageError {
        self.attempts.error(Cause::Changed, false)
    }

    fn damaged(&self, how: &str) -> StorageError {
        self.attempts.error(Cause::Damaged(how.to_owned()), false)
    }
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download")
            .field("path", &self.path)
            .field("range", &self.range)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
