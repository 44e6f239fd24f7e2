//! From the bytes of an object to those of the attachment.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

use bucket::{Cause, Naming, Operation, ReadRange, StorageError};
use crypto_envelope::{
    A2Decryptor, A2Geometry, A2Header, A2Opener, A2RangeDecryptor, DecryptError, Decryptor, Format,
    INSPECT_LEN, PlaintextTarget, RevocableTarget, identify, inspect, speculative_header_len,
};
use hybrid::{HybridStorage, Side};
use orthanc_ffi::{ErrorCode, Target, TargetOverflow, WholeTarget};
use storage_layout::Attachment;

use crate::area::encryption::{Encryption, KnownEnvelope};
use crate::runtime::{Batch, Head, Incoming, Panicked, Runtime};

/// Bytes of an envelope that may be read in vain to have header and range in one request. A round trip takes longer.
const SURPLUS: u64 = 128 * 1024;

/// How often a read that was overtaken by a move begins anew.
const ANEW: usize = 3;

/// Why an attachment could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The object could not be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The object began to be read, and then could not be read further.
    #[error(transparent)]
    Interrupted(StorageError),
    /// The object could be read, and what it holds is not the attachment.
    #[error("cannot read {object}: {cause}")]
    Envelope { object: String, cause: DecryptError },
    /// The object is not encrypted, which is not accepted.
    #[error("cannot read {object}: it is not encrypted, and ReadUnencrypted is off")]
    Unencrypted { object: String },
    /// More came than there is room for.
    #[error("cannot read {object}: {cause}")]
    Overflow { object: String, cause: TargetOverflow },
    #[error("a task of the plugin ended unexpectedly")]
    Panicked,
    /// Orthanc gave no memory.
    #[error("Orthanc has no memory for an attachment of {0} bytes")]
    NoMemory(u64, ErrorCode),
}

impl From<Panicked> for ReadError {
    fn from(_: Panicked) -> Self {
        Self::Panicked
    }
}

impl ReadError {
    /// Whether the attachment may have been moved to the other storage while it was read.
    fn is_of_a_move(&self) -> bool {
        matches!(self, Self::Interrupted(error) if matches!(error.cause, Cause::NotFound | Cause::Changed))
    }
}

/// What an object holds.
enum Content {
    Clear,
    Envelope(Format),
}

/// One attachment to be read.
pub(crate) struct Reading<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) storage: &'a HybridStorage,
    pub(crate) encryption: Option<&'a Encryption>,
    pub(crate) attachment: Attachment,
    /// Where the attachment was found last, for messages.
    pub(crate) found: Cell<Option<Side>>,
}

impl Reading<'_> {
    /// Reads the whole attachment. Returns its size.
    pub(crate) fn whole(&self, target: &mut WholeTarget<'_>) -> Result<u64, ReadError> {
        self.anew_if_moved(|| self.whole_once(target))
    }

    /// Reads the bytes of the attachment that `target` has room for, from `start` on.
    pub(crate) fn range(&self, start: u64, target: &mut Target<'_>) -> Result<u64, ReadError> {
        self.anew_if_moved(|| {
            target.rewind();
            self.range_once(start, target)
        })
    }

    /// A read that a move has overtaken begins anew, and finds the attachment where it is now.
    fn anew_if_moved(&self, mut read: impl FnMut() -> Result<u64, ReadError>) -> Result<u64, ReadError> {
        for _ in 0..ANEW {
            match read() {
                Err(error) if error.is_of_a_move() && self.storage.files().is_some() => {
                    tracing::info!("{error}; it may have been moved, reading it anew");
                }
                result => return result,
            }
        }
        read()
    }

    fn whole_once(&self, target: &mut WholeTarget<'_>) -> Result<u64, ReadError> {
        let (mut incoming, first) = self.download(&ReadRange::Whole)?;
        let Some(encryption) = self.encryption else {
            return self.fill(&mut allocate(target, first.head.length)?, first, incoming);
        };
        let start = first.start();
        let size = first.head.object_size;
        if let Content::Clear = self.content(&first, &start)? {
            return self.fill(&mut allocate(target, first.head.length)?, first, incoming);
        }
        let length = inspect(&start, size).map_err(|cause| self.envelope(cause))?.plaintext_len;
        let mut target = allocate(target, length)?;
        let mut decryptor =
            Decryptor::new(encryption.ring(), self.attachment.uuid.as_str(), size, Sink(&mut target));
        self.push_all(encryption, first, &mut incoming, |chunk| decryptor.push(chunk))?;
        if let Some(opener) = decryptor.opener() {
            encryption.remember(&self.attachment, opener, size);
        }
        decryptor.finish().map_err(|cause| self.envelope(cause))?;
        Ok(length)
    }

    fn range_once(&self, start: u64, target: &mut Target<'_>) -> Result<u64, ReadError> {
        let range = start..start.saturating_add(target.len() as u64);
        let Some(encryption) = self.encryption else {
            let (incoming, first) = self.download(&ReadRange::Range(range))?;
            return self.fill(target, first, incoming);
        };
        if let Some(known) = encryption.known(&self.attachment) {
            match self.known_range(encryption, &known, range.clone(), target) {
                // Somebody replaced the object, by a shorter one perhaps: its new header is read below.
                Err(
                    ReadError::Envelope { .. }
                    | ReadError::Storage(StorageError { cause: Cause::OutOfRange, .. }),
                ) => {
                    encryption.forget(&self.attachment);
                    target.rewind();
                }
                result => return result,
            }
        }
        self.unknown_range(encryption, range, target)
    }

    /// A range of an envelope whose header is known: one request for just its segments.
    fn known_range(
        &self,
        encryption: &Encryption,
        known: &KnownEnvelope,
        range: Range<u64>,
        target: &mut Target<'_>,
    ) -> Result<u64, ReadError> {
        let layout = known.opener.layout(known.size).map_err(|cause| self.envelope(cause))?;
        let plan = layout.plan(range.clone()).map_err(|cause| self.envelope(cause.into()))?;
        let (mut incoming, first) = self.download(&ReadRange::Range(plan.envelope_range()))?;
        let mut decryptor = A2RangeDecryptor::new(Arc::clone(&known.opener), plan, Sink(target));
        self.push_all(encryption, first, &mut incoming, |chunk| decryptor.push(chunk))?;
        decryptor.finish().map_err(|cause| self.envelope(cause))?;
        Ok(range.end - range.start)
    }

    /// A range of an object of which nothing is known: one request if it lies near the start, two otherwise.
    fn unknown_range(
        &self,
        encryption: &Encryption,
        range: Range<u64>,
        target: &mut Target<'_>,
    ) -> Result<u64, ReadError> {
        let with_header = A2Geometry::STANDARD.range_with_header(range.clone(), SURPLUS);
        let probe = with_header.clone().unwrap_or(0..speculative_header_len());
        let (incoming, first) = self.download(&ReadRange::UpTo(probe))?;
        let start = first.start();
        let size = first.head.object_size;
        match self.content(&first, &start)? {
            Content::Clear => {
                drop(incoming);
                let (incoming, again) = self.download(&ReadRange::Range(range))?;
                // What was found to be clear must be what is handed out, not an envelope that has taken its place.
                self.expect_same(&first.head, &again.head)?;
                self.fill(target, again, incoming)
            }
            Content::Envelope(Format::A1) => {
                drop(incoming);
                self.range_of_whole(encryption, range, target)
            }
            Content::Envelope(Format::A2) => {
                let parsed = A2Header::parse(&first.gather()).map_err(|cause| self.envelope(cause))?;
                let standard =
                    parsed.as_ref().is_some_and(|header| header.geometry() == A2Geometry::STANDARD);
                if with_header.is_some() && standard {
                    return self.range_with_header(encryption, range, target, first, incoming);
                }
                // The segments are not among the bytes that were asked for.
                drop(incoming);
                let known = self.open(encryption, parsed, size)?;
                self.known_range(encryption, &known, range, target)
            }
        }
    }

    /// A range of an envelope that is on its way from its first byte on.
    fn range_with_header(
        &self,
        encryption: &Encryption,
        range: Range<u64>,
        target: &mut Target<'_>,
        first: Batch,
        mut incoming: Incoming,
    ) -> Result<u64, ReadError> {
        let (uuid, size) = (self.attachment.uuid.as_str(), first.head.object_size);
        let mut decryptor =
            A2Decryptor::for_range(encryption.ring(), uuid, size, range.clone(), Sink(target))
                .map_err(|cause| self.envelope(cause))?;
        self.push_all(encryption, first, &mut incoming, |chunk| decryptor.push(chunk))?;
        if let Some(opener) = decryptor.opener() {
            encryption.remember(&self.attachment, opener, size);
        }
        decryptor.finish().map_err(|cause| self.envelope(cause))?;
        Ok(range.end - range.start)
    }

    /// Unwraps the key of an envelope. `parsed` is its header, unless it was longer than what was read of it.
    fn open(
        &self,
        encryption: &Encryption,
        parsed: Option<A2Header>,
        size: u64,
    ) -> Result<KnownEnvelope, ReadError> {
        let header = match parsed {
            Some(header) => header,
            None => {
                // The longest possible header: its length field has 16 bits.
                let longest = INSPECT_LEN as u64 + u64::from(u16::MAX);
                let (_incoming, first) = self.download(&ReadRange::UpTo(0..longest))?;
                let header = A2Header::parse(&first.gather()).map_err(|cause| self.envelope(cause))?;
                let truncated = DecryptError::Truncated { expected: longest, received: size };
                header.ok_or_else(|| self.envelope(truncated))?
            }
        };
        let opener = A2Opener::unwrap(encryption.ring(), header, self.attachment.uuid.as_str())
            .map_err(|cause| self.envelope(cause))?;
        let opener = Arc::new(opener);
        encryption.remember(&self.attachment, &opener, size);
        Ok(KnownEnvelope { opener, size })
    }

    /// A range of an A1 envelope, which can only be verified as a whole.
    fn range_of_whole(
        &self,
        encryption: &Encryption,
        range: Range<u64>,
        target: &mut Target<'_>,
    ) -> Result<u64, ReadError> {
        let (mut incoming, first) = self.download(&ReadRange::Whole)?;
        let size = first.head.object_size;
        let length = inspect(&first.start(), size).map_err(|cause| self.envelope(cause))?.plaintext_len;
        let plaintext = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        let mut decryptor = Decryptor::new(encryption.ring(), self.attachment.uuid.as_str(), size, plaintext);
        self.push_all(encryption, first, &mut incoming, |chunk| decryptor.push(chunk))?;
        let plaintext = decryptor.finish().map_err(|cause| self.envelope(cause))?;
        let bounds = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        let Some(wanted) = bounds.and_then(|(start, end)| plaintext.get(start..end)) else {
            let Range { start, end } = range;
            let cause = crypto_envelope::RangeError { start, end, plaintext_len: length };
            return Err(self.envelope(cause.into()));
        };
        target.append(wanted).map_err(|cause| self.overflow(cause))?;
        Ok(wanted.len() as u64)
    }

    /// Starts a download from the storage that has the attachment, and waits for its first bytes.
    fn download(&self, part: &ReadRange) -> Result<(Incoming, Batch), ReadError> {
        let begun = self.storage.read(&self.attachment, |side| {
            self.found.set(Some(side));
            let mut incoming = match (side, self.storage.files()) {
                (Side::FileSystem, Some(files)) => {
                    let file = files.open_for_use(&self.attachment.uuid)?;
                    Incoming::file(file, self.storage.objects().file_naming(), part)?
                }
                _ => {
                    let (objects, attachment) = (self.storage.objects().clone(), self.attachment);
                    let part = part.clone();
                    self.runtime.download(async move { objects.read(&attachment, part).await })
                }
            };
            match incoming.next() {
                Ok(first) => Ok(Ok((incoming, first?))),
                Err(panicked) => Ok(Err(panicked)),
            }
        });
        Ok(begun??)
    }

    /// The next bytes of a download.
    fn next(&self, incoming: &mut Incoming) -> Result<Batch, ReadError> {
        incoming.next()?.map_err(ReadError::Interrupted)
    }

    fn expect_same(&self, begun: &Head, again: &Head) -> Result<(), ReadError> {
        if begun.is_of(again) {
            return Ok(());
        }
        Err(ReadError::Interrupted(StorageError {
            operation: Operation::Read,
            object: self.object(),
            cause: Cause::Changed,
            transient: false,
            answer: None,
            attempts: 1,
        }))
    }

    /// Copies a download into `target`. Returns its bytes.
    fn fill(&self, target: &mut Target<'_>, first: Batch, mut incoming: Incoming) -> Result<u64, ReadError> {
        let mut batch = first;
        loop {
            for chunk in &batch.chunks {
                target.append(chunk).map_err(|cause| self.overflow(cause))?;
            }
            if batch.last {
                return Ok(target.filled() as u64);
            }
            batch = self.next(&mut incoming)?;
        }
    }

    /// Hands all bytes of a download to `push`.
    fn push_all(
        &self,
        encryption: &Encryption,
        first: Batch,
        incoming: &mut Incoming,
        mut push: impl FnMut(&[u8]) -> Result<(), DecryptError>,
    ) -> Result<(), ReadError> {
        let mut batch = first;
        loop {
            let bytes = batch.chunks.iter().map(|chunk| chunk.len() as u64).sum();
            encryption
                .within_budget(bytes, || batch.chunks.iter().try_for_each(|chunk| push(chunk)))
                .map_err(|cause| self.envelope(cause))?;
            if batch.last {
                return Ok(());
            }
            batch = self.next(incoming)?;
        }
    }

    /// What an object holds that begins with `start`: its name decides, or its first bytes where the name says nothing.
    fn content(&self, batch: &Batch, start: &[u8]) -> Result<Content, ReadError> {
        match (batch.head.naming, identify(start)) {
            (Naming::Clear, _) | (Naming::Either, None) => Ok(Content::Clear),
            (Naming::Either | Naming::Envelope, Some(header)) => Ok(Content::Envelope(header.format)),
            (Naming::Envelope, None) => Err(ReadError::Unencrypted { object: self.object() }),
        }
    }

    /// Where the attachment was found last.
    pub(crate) fn side(&self) -> Side {
        self.found.get().unwrap_or_else(|| self.storage.first())
    }

    fn object(&self) -> String {
        self.storage.name(&self.attachment, self.side())
    }

    fn envelope(&self, cause: DecryptError) -> ReadError {
        ReadError::Envelope { object: self.object(), cause }
    }

    fn overflow(&self, cause: TargetOverflow) -> ReadError {
        ReadError::Overflow { object: self.object(), cause }
    }
}

fn allocate<'a>(target: &'a mut WholeTarget<'_>, length: u64) -> Result<Target<'a>, ReadError> {
    target.allocate(length).map_err(|code| ReadError::NoMemory(length, code))
}

/// Orthanc's buffer, to be decrypted into.
struct Sink<'a, 'b>(&'a mut Target<'b>);

/// Either of the two errors that can meet in [`Target::append_with`].
enum SinkError {
    Overflow(TargetOverflow),
    Decrypt(DecryptError),
}

impl From<TargetOverflow> for SinkError {
    fn from(overflow: TargetOverflow) -> Self {
        Self::Overflow(overflow)
    }
}

impl PlaintextTarget for Sink<'_, '_> {
    fn append_with(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), DecryptError>,
    ) -> Result<(), DecryptError> {
        let filled = self.0.append_with(len, |part| fill(part).map_err(SinkError::Decrypt));
        filled.map_err(|error| match error {
            SinkError::Decrypt(error) => error,
            SinkError::Overflow(overflow) => DecryptError::target(overflow),
        })
    }
}

impl RevocableTarget for Sink<'_, '_> {
    fn discard(&mut self) {
        // Orthanc sees nothing of a buffer that was not filled.
        self.0.rewind();
    }
}
