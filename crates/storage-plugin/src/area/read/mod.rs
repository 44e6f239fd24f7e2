//! Reads: from the bytes of an object or file to those of the attachment.
//!
//! | request | content | function | downloads |
//! | --- | --- | --- | --- |
//! | whole | clear, A1 or A2 | `whole_once` (`whole.rs`) | 1 |
//! | range, encryption off | clear | `clear_range` (`clear.rs`) | 1 |
//! | range elsewhere, encryption off, legacy structure or file, first read | clear | `clear_range` | 2 |
//! | range | A2, header known from an earlier read | `known_range` | 1 |
//! | range near the start | A2, header unknown | `range_with_header` | 1 |
//! | range elsewhere | A2, header unknown | `unknown_range`, then `known_range` | 2 |
//! | range, `ReadUnencrypted` | clear | `unknown_range` | 2 |
//! | range | A1 | `range_of_whole` | 2 |
//!
//! The numbers for A2 hold for the segment size that this project writes; other sizes can take one download
//! more.
//!
//! Each download goes straight down: [`Reading::download`] asks [`HybridStorage`] for the places in order,
//! [`Incoming`] opens the attachment in a place. A read during which a move takes the attachment to the other
//! place starts over. A read of content that does not have the server's checksum is repeated once. An envelope whose
//! tags are right needs no checksum.

mod clear;
mod error;
mod incoming;
mod range;
mod sink;
mod whole;

use std::cell::Cell;
use std::ops::Range;

use bucket::{Cause, Naming, Operation, ReadRange, StorageError};
use crypto_envelope::{DecryptError, Decryptor, RevocableTarget};
use hybrid::{Head, HybridStorage, Side};
use orthanc_ffi::{Target, TargetOverflow, WholeTarget};
use storage_layout::Attachment;

pub(crate) use self::clear::KnownClear;
pub(crate) use self::error::ReadError;
use self::incoming::{Batch, Incoming};
use super::encryption::{Encryption, Form, form};
use crate::runtime::Runtime;

/// How many times a read starts over because of a move.
const RESTARTS: usize = 3;

/// A read that has succeeded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Served {
    pub(crate) bytes: u64,
    /// Whether these are all bytes of the attachment, which newer releases of Orthanc read as a range.
    pub(crate) whole: bool,
}

/// One read of an attachment.
pub(crate) struct Reading<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) storage: &'a HybridStorage,
    pub(crate) encryption: Option<&'a Encryption>,
    pub(crate) clear: &'a KnownClear,
    pub(crate) attachment: Attachment,
    /// Where the attachment was last looked for, for messages.
    pub(crate) side: Cell<Side>,
    /// The attachment's size, once it is known.
    pub(crate) size: Cell<Option<u64>>,
}

impl Reading<'_> {
    /// Reads the whole attachment.
    pub(crate) fn whole(&self, target: &mut WholeTarget<'_>) -> Result<Served, ReadError> {
        let bytes = self.with_restarts(|| self.whole_once(target))?;
        Ok(Served { bytes, whole: true })
    }

    /// Reads the bytes from `start` on that `target` has room for.
    pub(crate) fn range(&self, start: u64, target: &mut Target<'_>) -> Result<Served, ReadError> {
        let range = start..start.saturating_add(target.len() as u64);
        let read = self.with_restarts(|| {
            target.rewind();
            self.range_once(range.clone(), target)
        });
        let bytes = read.map_err(|error| self.with_size(error, range))?;
        Ok(Served { bytes, whole: start == 0 && self.size.get() == Some(bytes) })
    }

    /// Adds range and size to the error about a range that the attachment does not have.
    fn with_size(&self, error: ReadError, range: Range<u64>) -> ReadError {
        let size = match &error {
            ReadError::Envelope { cause: DecryptError::Range(error), .. } => Some(error.plaintext_len),
            // A range that does not fit in 64 bits is wrong whatever the size.
            ReadError::Storage(StorageError { cause: Cause::OutOfRange, .. }) if range.is_empty() => None,
            ReadError::Storage(StorageError { cause: Cause::OutOfRange, .. }) => self.stored_size(),
            _ => return error,
        };
        ReadError::OutOfRange { object: self.object(), range, size }
    }

    /// The size of the object or file, for a message.
    fn stored_size(&self) -> Option<u64> {
        match self.download(&ReadRange::UpTo(0..1)) {
            Ok((_incoming, first)) => Some(first.head.size),
            // Nothing is within an empty object.
            Err(error) if error.cause == Cause::OutOfRange => Some(0),
            Err(_) => None,
        }
    }

    fn with_restarts(&self, mut read: impl FnMut() -> Result<u64, ReadError>) -> Result<u64, ReadError> {
        let mut repeated = false;
        for _ in 0..RESTARTS {
            match read() {
                Err(error) if error.is_wrong_checksum() && !repeated => {
                    tracing::info!("{error}; reading it once more");
                    repeated = true;
                }
                Err(error) if error.may_be_due_to_a_move() && self.storage.files().is_some() => {
                    tracing::info!("{error}; the attachment may have been moved; retrying the read");
                }
                result => return result,
            }
        }
        read()
    }

    /// Starts a download from the place that has the attachment, and waits for its first bytes.
    fn download(&self, range: &ReadRange) -> Result<(Incoming, Batch), StorageError> {
        self.storage.read(&self.attachment, |place| {
            self.side.set(place.side());
            let mut incoming = Incoming::open(self.runtime, place, self.attachment, range)?;
            let mut first = incoming.next()?;
            let is_clear = self.encryption.is_none() || first.head.naming == Naming::Clear;
            match first.wrong_checksum.take_if(|_| is_clear) {
                // The other place may have a copy that is right.
                Some(error) => Err(error),
                None => Ok((incoming, first)),
            }
        })
    }

    /// Fails unless both heads are of the same object or file.
    fn expect_same(&self, first: &Head, second: &Head) -> Result<(), ReadError> {
        if first.is_same(second) {
            return Ok(());
        }
        Err(ReadError::Interrupted(StorageError::new(Operation::Read, self.object(), Cause::Changed)))
    }

    /// Copies a download to `target`. Returns the number of bytes.
    fn fill(&self, target: &mut Target<'_>, first: Batch, mut incoming: Incoming) -> Result<u64, ReadError> {
        let mut batch = first;
        loop {
            for chunk in &batch.chunks {
                target.append(chunk).map_err(|cause| self.overflow(cause))?;
            }
            if let Some(error) = batch.wrong_checksum {
                return Err(ReadError::Interrupted(error));
            }
            if batch.last {
                return Ok(target.filled() as u64);
            }
            batch = incoming.next().map_err(ReadError::Interrupted)?;
        }
    }

    /// Passes all bytes of a download to `push`, which decrypts them within the memory budget. Returns the error about
    /// the server's checksum, if there is one, for [`decrypted`](Self::decrypted).
    fn push_all(
        &self,
        encryption: &Encryption,
        first: Batch,
        incoming: &mut Incoming,
        mut push: impl FnMut(&[u8]) -> Result<(), DecryptError>,
    ) -> Result<Option<StorageError>, ReadError> {
        let mut batch = first;
        loop {
            let bytes = batch.chunks.iter().map(|chunk| chunk.len() as u64).sum();
            let pushed = encryption
                .within_budget(self.runtime, bytes, || batch.chunks.iter().try_for_each(|chunk| push(chunk)));
            if let Err(cause) = pushed {
                return self.decrypted(Err(cause), batch.wrong_checksum);
            }
            if batch.last {
                return Ok(batch.wrong_checksum);
            }
            batch = incoming.next().map_err(ReadError::Interrupted)?;
        }
    }

    /// The result of a decryption. Content that does not have the server's checksum is right if its tags are.
    fn decrypted<T>(
        &self,
        result: Result<T, DecryptError>,
        wrong_checksum: Option<StorageError>,
    ) -> Result<T, ReadError> {
        match (result, wrong_checksum) {
            (Err(_), Some(error)) => Err(ReadError::Interrupted(error)),
            (Err(cause), None) => Err(self.envelope(cause)),
            (Ok(value), wrong_checksum) => {
                if let Some(error) = wrong_checksum {
                    tracing::warn!(
                        "{error}; it is encrypted and its tags are right, so only the checksum is wrong"
                    );
                }
                Ok(value)
            }
        }
    }

    /// Decrypts a whole envelope to `target`.
    fn decrypt<T: RevocableTarget>(
        &self,
        encryption: &Encryption,
        first: Batch,
        mut incoming: Incoming,
        target: T,
    ) -> Result<T, ReadError> {
        let size = first.head.size;
        let mut decryptor = Decryptor::new(encryption.ring(), self.attachment.uuid.as_str(), size, target);
        let wrong = self.push_all(encryption, first, &mut incoming, |chunk| decryptor.push(chunk))?;
        if let Some(opener) = decryptor.opener() {
            encryption.remember(&self.attachment, opener, size);
        }
        self.decrypted(decryptor.finish(), wrong)
    }

    /// The form of content whose first bytes are in `first`.
    fn form(&self, first: &Batch) -> Result<Form, ReadError> {
        form(self.encryption, first.head.naming, &first.start())
            .map_err(|cause| ReadError::Form { object: self.object(), cause })
    }

    /// The name of the object or file in messages.
    fn object(&self) -> String {
        self.storage.place(self.side.get()).name(&self.attachment)
    }

    fn envelope(&self, cause: DecryptError) -> ReadError {
        ReadError::Envelope { object: self.object(), cause }
    }

    fn overflow(&self, cause: TargetOverflow) -> ReadError {
        ReadError::Overflow { object: self.object(), cause }
    }
}
