//! Reading an object to its end, whatever happens to the connection.

use std::ops::Range;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};

use crate::error::{Cause, StorageError};
use crate::retry::Attempts;

/// HTTP: the object is no longer the one with the ETag that was given.
const PRECONDITION_FAILED: u16 = 412;
/// HTTP: the range begins behind the end of the object.
const RANGE_NOT_SATISFIABLE: u16 = 416;
const CHANGED: &str = "the object changed while it was read";

/// An object, or a range of it, on its way.
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
    checksum: Option<Checksum>,
}

impl Download {
    /// Sends the request and waits for the head of the answer.
    pub(crate) async fn start(
        store: Arc<dyn ObjectStore>,
        path: Path,
        range: Option<Range<u64>>,
        mut attempts: Attempts,
    ) -> Result<Self, StorageError> {
        let options = GetOptions { range: range.clone().map(GetRange::Bounded), ..GetOptions::default() };
        let answer = attempts.run(|| store.get_opts(&path, options.clone())).await;
        let (answer, exchange) = answer.map_err(|error| match &range {
            Some(Range { start, end }) if error.status() == Some(RANGE_NOT_SATISFIABLE) => {
                StorageError { cause: Cause::OutOfRange { start: *start, end: *end }, ..error }
            }
            _ => error,
        })?;
        if let Some(range) = range
            && answer.range != range
        {
            return Err(attempts.error(Cause::OutOfRange { start: range.start, end: range.end }, false));
        }
        let whole = answer.range == (0..answer.meta.size);
        let expected = exchange.crc64nvme.as_deref().filter(|_| whole).and_then(Checksum::parse);
        Ok(Self {
            store,
            path,
            attempts,
            object: answer.meta.clone(),
            next: answer.range.start,
            range: answer.range.clone(),
            checksum: expected.map(Checksum::expect),
            body: answer.into_stream(),
        })
    }

    /// The size of the whole object, in bytes.
    pub fn object_size(&self) -> u64 {
        self.object.size
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
        loop {
            let frame = match tokio::time::timeout_at(self.attempts.deadline(), self.body.next()).await {
                Ok(frame) => frame,
                Err(_elapsed) => return Err(self.attempts.timed_out()),
            };
            let failure = match frame {
                Some(Ok(bytes)) => return self.accept(bytes).map(Some),
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
            checksum.digest.update(&bytes);
        }
        self.next = next;
        self.attempts.made_progress();
        Ok(bytes)
    }

    fn verify(&self) -> Result<(), StorageError> {
        match &self.checksum {
            Some(checksum) if checksum.digest.finalize() != checksum.expected => {
                Err(self.damaged("its CRC-64/NVME is not that of the stored object"))
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
        let (answer, _) = answer.map_err(|error| match error.status() {
            Some(PRECONDITION_FAILED | RANGE_NOT_SATISFIABLE) => {
                StorageError { cause: Cause::Damaged(CHANGED.to_owned()), ..error }
            }
            _ => error,
        })?;
        // Where the server gave no ETag to insist on, its other answers tell.
        let same =
            answer.meta.size == self.object.size && answer.meta.last_modified == self.object.last_modified;
        if !same || answer.range != missing {
            return Err(self.damaged(CHANGED));
        }
        self.body = answer.into_stream();
        Ok(())
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

/// CRC-64/NVME, which S3 keeps for each object and sends when asked (`x-amz-checksum-mode`).
struct Checksum {
    digest: Digest,
    expected: u64,
}

impl Checksum {
    fn expect(expected: u64) -> Self {
        Self { digest: Digest::new(CrcAlgorithm::Crc64Nvme), expected }
    }

    /// Base64 of the eight bytes, big-endian.
    fn parse(header: &str) -> Option<u64> {
        let bytes = BASE64.decode(header).ok()?;
        Some(u64::from_be_bytes(bytes.try_into().ok()?))
    }
}
