//! Reads: from the bytes of an object or file to those of the attachment.
//!
//! | request | content | function | downloads |
//! | --- | --- | --- | --- |
//! | whole | clear, A1 or A2 | `whole_once` (`whole.rs`) | 1 |
//! | range, encryption off | clear | `range_once` (`range.rs`) | 1 |
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
//! place starts over.

mod error;
mod incoming;
mod range;
mod sink;
mod whole;

use std::cell::Cell;

use bucket::{Cause, Naming, Operation, ReadRange, StorageError};
use crypto_envelope::{DecryptError, Format, identify};
use hybrid::{Head, HybridStorage, Side};
use orthanc_ffi::{Target, TargetOverflow, WholeTarget};
use storage_layout::Attachment;

pub(crate) use self::error::ReadError;
use self::incoming::{Batch, Incoming};
use super::encryption::Encryption;
use crate::runtime::Runtime;

/// How many times a read starts over because of a move.
const RESTARTS: usize = 3;

/// The form of stored content.
enum Content {
    Clear,
    Envelope(Format),
}

/// One read of an attachment.
pub(crate) struct Reading<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) storage: &'a HybridStorage,
    pub(crate) encryption: Option<&'a Encryption>,
    pub(crate) attachment: Attachment,
    /// Where the attachment was last looked for, for messages.
    pub(crate) side: Cell<Side>,
}

impl Reading<'_> {
    /// Reads the whole attachment. Returns its size.
    pub(crate) fn whole(&self, target: &mut WholeTarget<'_>) -> Result<u64, ReadError> {
        self.restart_if_moved(|| self.whole_once(target))
    }

    /// Reads the bytes from `start` on that `target` has room for. Returns their number.
    pub(crate) fn range(&self, start: u64, target: &mut Target<'_>) -> Result<u64, ReadError> {
        self.restart_if_moved(|| {
            target.rewind();
            self.range_once(start, target)
        })
    }

    fn restart_if_moved(&self, mut read: impl FnMut() -> Result<u64, ReadError>) -> Result<u64, ReadError> {
        for _ in 0..RESTARTS {
            match read() {
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
            let first = incoming.next()?;
            Ok((incoming, first))
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
            if batch.last {
                return Ok(target.filled() as u64);
            }
            batch = incoming.next().map_err(ReadError::Interrupted)?;
        }
    }

    /// Passes all bytes of a download to `push`, which decrypts them within the memory budget.
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
            batch = incoming.next().map_err(ReadError::Interrupted)?;
        }
    }

    /// The form of content that begins with `start`. Its name decides, or its first bytes if the name does
    /// not say.
    fn content(&self, batch: &Batch, start: &[u8]) -> Result<Content, ReadError> {
        match (batch.head.naming, identify(start)) {
            (Naming::Clear, _) | (Naming::Either, None) => Ok(Content::Clear),
            (Naming::Either | Naming::Envelope, Some(header)) => Ok(Content::Envelope(header.format)),
            (Naming::Envelope, None) => Err(ReadError::Unencrypted { object: self.object() }),
        }
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
