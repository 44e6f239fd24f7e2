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
//! | range, `ReadUnencrypted` | clear, known by its name or from two earlier reads | `known_clear_range` | 1 |
//! | range near the start, `ReadUnencrypted` | clear, unknown | `unknown_clear_range` | 1 |
//! | range elsewhere, `ReadUnencrypted` | clear, unknown | `unknown_clear_range` | 2 |
//! | range that is the whole, or form known from an earlier read | A1 | `range_of_whole` | 1 |
//! | other range | A1, unknown | `range_of_two_parts`: no byte twice | 2 |
//!
//! The numbers for A2 hold for the segment size that this project writes; other sizes can take one download
//! more. Content in clear that is found under another name than that of an envelope takes one request more for each
//! name that is tried first.
//!
//! Each download goes straight down: [`Reading::download`] asks [`HybridStorage`] for the places in order,
//! [`Incoming`] opens the attachment in a place. A read during which a move takes the attachment to the other
//! place, or a re-encryption replaces it, starts over, and so does one that finds a damaged file in the state directory. A
//! read of bytes from the bucket that turn out to be wrong is repeated once (`repeat.rs`). An envelope whose tags are
//! right needs no checksum.
//!
//! A download that covers a whole object in the bucket is copied to the cache as well (`copy.rs`). The copy is kept if
//! the read succeeds. Files in clear are read straight into Orthanc's buffer.

mod clear;
mod copy;
mod download;
mod error;
mod incoming;
mod missing_key;
mod range;
mod repeat;
mod sink;
mod whole;

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;

use bucket::{Cause, Operation, ReadRange, StorageError};
use crypto_envelope::{A2Header, DecryptError, Decryptor, HeaderReader, RevocableTarget, WrappedFileKey};
use hybrid::{FileReader, Head, HybridStorage, Keeper, Side};
use orthanc_ffi::{ErrorCode, Target, TargetOverflow, WholeTarget};
use storage_layout::Attachment;

pub(crate) use self::clear::KnownClear;
pub(crate) use self::copy::Copies;
use self::copy::Copy;
pub(crate) use self::error::ReadError;
use self::incoming::{Batch, Incoming};
use self::sink::FillError;
use super::Area;
use super::encryption::{Encryption, Form, form};
use crate::runtime::Runtime;

/// How many times a read starts over because of a move or a re-encryption, or of a damaged file.
const RESTARTS: usize = 3;
/// Bytes of a file that are read into Orthanc's buffer at a time: still in the processor's cache after the zeros that
/// the buffer is filled with before.
const STEP: usize = 256 * 1024;

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
    copies: &'a Copies,
    pub(crate) attachment: Attachment,
    /// Where the attachment was last looked for, for messages.
    pub(crate) side: Cell<Side>,
    /// The attachment's size, once it is known.
    pub(crate) size: Cell<Option<u64>>,
    /// Files of the state directory that turned out to be damaged.
    damaged: RefCell<Vec<(Side, StorageError)>>,
    /// Why the cached file cannot be read with the present keys and options. It is damaged if the bucket's object can.
    suspicion: RefCell<Option<String>>,
    /// The error of a download that was repeated, since its bytes may have been damaged on the way.
    repeated: RefCell<Option<String>>,
    /// For a copy of the download that was started last.
    keeper: RefCell<Option<Keeper>>,
    /// The copy for the cache.
    copy: RefCell<Option<Copy>>,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(area: &'a Area, attachment: Attachment) -> Self {
        Self {
            runtime: &area.runtime,
            storage: &area.storage,
            encryption: area.encryption.as_deref(),
            clear: &area.clear,
            copies: &area.copies,
            attachment,
            side: Cell::new(area.storage.first()),
            size: Cell::default(),
            damaged: RefCell::default(),
            suspicion: RefCell::default(),
            repeated: RefCell::default(),
            keeper: RefCell::default(),
            copy: RefCell::default(),
        }
    }

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

    /// Calls `read` again if it is likely to succeed then. Keeps the copy for the cache of a read that has succeeded.
    fn with_restarts(&self, read: impl FnMut() -> Result<u64, ReadError>) -> Result<u64, ReadError> {
        let result = self.noting_missing_key(read, |read| self.attempts(read));
        let copy = self.copy.take();
        if result.is_ok() {
            if let Some(error) = self.suspicion.take() {
                self.discard_cached(&error);
            }
            if let Some(copy) = copy {
                copy.commit(self.runtime);
            }
            self.report_repeated();
        }
        result
    }

    fn attempts(&self, mut read: impl FnMut() -> Result<u64, ReadError>) -> Result<u64, ReadError> {
        for _ in 0..RESTARTS {
            match read() {
                Err(error) if self.avoids(&error) => {}
                Err(error) if error.may_be_due_to_a_move() => {
                    tracing::info!(
                        "{error}; the attachment may have been moved or re-encrypted; retrying the read"
                    );
                }
                Err(error) if self.repeats(&error) => {}
                result => return result,
            }
            // It is of the read that has failed.
            self.copy.take();
        }
        read()
    }

    /// Whether downloads of whole objects are to be kept in the cache.
    fn keeps_reads(&self) -> bool {
        self.storage.local().is_some_and(|local| local.keeps_reads())
    }

    /// Whether `error` is about a damaged file of the state directory. Such a file is not read again: the bucket may
    /// have the attachment, and does have it if the file is in the cache.
    fn avoids(&self, error: &ReadError) -> bool {
        let Some(reason) = error.damage() else { return false };
        let side = self.side.get();
        let object = self.object();
        let known = match side {
            Side::Cache => {
                if error.is_about_request() {
                    self.suspicion.replace(Some(error.to_string()));
                } else {
                    self.discard_cached(error);
                }
                StorageError::new(Operation::Read, object, Cause::NotFound)
            }
            Side::Pending if !error.is_about_request() => {
                let cause = Cause::Damaged(format!("{reason}; this file is the only copy"));
                StorageError::new(Operation::Read, object, cause)
            }
            Side::Pending | Side::ObjectStorage | Side::FileSystem => return false,
        };
        self.damaged.borrow_mut().push((side, known));
        true
    }

    /// Deletes the cached file, which cannot be read because of `error`.
    fn discard_cached(&self, error: &impl Display) {
        tracing::warn!("{error}; the file is discarded and the attachment read from the bucket");
        if let Some(local) = self.storage.local() {
            local.discard_cached(&self.attachment);
        }
    }

    /// Fails unless both heads are of the same object or file.
    fn expect_same(&self, first: &Head, second: &Head) -> Result<(), ReadError> {
        if first.is_same(second) { Ok(()) } else { Err(self.changed()) }
    }

    /// The error of a read during which the attachment was moved or replaced, which starts over.
    fn changed(&self) -> ReadError {
        ReadError::Interrupted(StorageError::new(Operation::Read, self.object(), Cause::Changed))
    }

    /// Copies a download to `target`. Returns the number of bytes.
    fn fill(&self, target: &mut Target<'_>, first: Batch, incoming: Incoming) -> Result<u64, ReadError> {
        let range = first.head.range.clone();
        self.fill_part(target, first, incoming, &range)
    }

    /// Copies the bytes `range` of a download, which has them, to `target`. Returns their number.
    fn fill_part(
        &self,
        target: &mut Target<'_>,
        first: Batch,
        mut incoming: Incoming,
        range: &Range<u64>,
    ) -> Result<u64, ReadError> {
        self.begin_copy(&first.head, false);
        let is_all = first.head.range == *range;
        let mut position = first.head.range.start;
        let mut batch = first;
        loop {
            incoming.compare(self.runtime, &mut batch).map_err(ReadError::Interrupted)?;
            self.copy(&batch);
            for chunk in &batch.chunks {
                target.append(part(chunk, position, range)).map_err(|cause| self.overflow(cause))?;
                position += chunk.len() as u64;
            }
            if let Some(error) = batch.wrong_checksum {
                return Err(ReadError::Interrupted(error));
            }
            if batch.last {
                return Ok(target.filled() as u64);
            }
            if let Incoming::File { file, .. } = &mut incoming
                && is_all
            {
                self.fill_from_file(target, file)?;
                return Ok(target.filled() as u64);
            }
            batch = incoming.next().map_err(ReadError::Interrupted)?;
        }
    }

    /// Reads the rest of a file straight into `target`.
    fn fill_from_file(&self, target: &mut Target<'_>, file: &mut FileReader) -> Result<(), ReadError> {
        while file.left() > 0 {
            let step = file.left().min(STEP);
            target.append_with(step, |part| file.read_into(part).map_err(FillError::Source)).map_err(
                |error| match error {
                    FillError::Source(error) => ReadError::Interrupted(error),
                    FillError::Overflow(cause) => self.overflow(cause),
                },
            )?;
        }
        Ok(())
    }

    /// Passes all bytes of an envelope to `push`, as [`push_all`](Self::push_all). Unwraps its file key before.
    fn push_envelope(
        &self,
        encryption: &Encryption,
        first: Batch,
        incoming: &mut Incoming,
        push: impl FnMut(&[u8]) -> Result<(), DecryptError>,
    ) -> Result<Option<StorageError>, ReadError> {
        let mut batches = vec![first];
        let header = self.header(encryption, &mut batches, incoming)?;
        let _key = header.map(|header| self.file_key(encryption, &header)).transpose()?;
        self.push_all(encryption, batches, incoming, push)
    }

    /// The header of an envelope whose file key a key service may have wrapped. Usually it is in the first batch; others
    /// are added.
    fn header(
        &self,
        encryption: &Encryption,
        batches: &mut Vec<Batch>,
        incoming: &mut Incoming,
    ) -> Result<Option<A2Header>, ReadError> {
        if encryption.ring().file_keys().is_none() {
            return Ok(None);
        }
        let mut reader = HeaderReader::new();
        while let Some(batch) = batches.last() {
            for chunk in &batch.chunks {
                match reader.push(&mut &chunk[..]) {
                    Ok(None) => {}
                    Ok(header) => return Ok(header),
                    // It is A1, or the decryption reports the error.
                    Err(_) => return Ok(None),
                }
            }
            if batch.last {
                break;
            }
            batches.push(incoming.next().map_err(ReadError::Interrupted)?);
        }
        Ok(None)
    }

    /// Unwraps a file key, if a key service has wrapped it.
    fn file_key(
        &self,
        encryption: &Encryption,
        header: &A2Header,
    ) -> Result<Option<Arc<WrappedFileKey>>, ReadError> {
        let failed = |cause| ReadError::Key { object: self.object(), cause };
        encryption.file_key(self.runtime.handle(), header).map_err(failed)
    }

    /// Passes all bytes of a download, which begins with `ready`, to `push`, which decrypts them within the memory
    /// budget. Returns the error about the server's checksum, if there is one, for [`decrypted`](Self::decrypted).
    fn push_all(
        &self,
        encryption: &Encryption,
        ready: Vec<Batch>,
        incoming: &mut Incoming,
        mut push: impl FnMut(&[u8]) -> Result<(), DecryptError>,
    ) -> Result<Option<StorageError>, ReadError> {
        let mut ready = ready.into_iter();
        let mut next = |incoming: &mut Incoming| ready.next().map_or_else(|| incoming.next(), Ok);
        let mut batch = next(incoming).map_err(ReadError::Interrupted)?;
        self.begin_copy(&batch.head, true);
        if self.copy.borrow().is_none() {
            // The tags are computed anyway. A copy may have more than what they prove.
            incoming.skip_costly_comparison();
        }
        loop {
            incoming.compare(self.runtime, &mut batch).map_err(ReadError::Interrupted)?;
            self.copy(&batch);
            let bytes = batch.chunks.iter().map(|chunk| chunk.len() as u64).sum();
            let pushed = encryption
                .within_budget(self.runtime, bytes, || batch.chunks.iter().try_for_each(|chunk| push(chunk)));
            if let Err(cause) = pushed {
                return self.decrypted(Err(cause), batch.wrong_checksum);
            }
            if batch.last {
                return Ok(batch.wrong_checksum);
            }
            batch = next(incoming).map_err(ReadError::Interrupted)?;
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
        let head = Arc::clone(&first.head);
        let mut decryptor =
            Decryptor::new(encryption.ring(), self.attachment.uuid.as_str(), head.size, target);
        let wrong = self.push_envelope(encryption, first, &mut incoming, |chunk| decryptor.push(chunk))?;
        let opener = decryptor.opener().cloned();
        let decrypted = self.decrypted(decryptor.finish(), wrong)?;
        match opener {
            Some(opener) => encryption.remember(&self.attachment, &opener, &head),
            None => encryption.remember_whole(&self.attachment),
        }
        Ok(decrypted)
    }

    /// Downloads and decrypts a blob of the earlier plugin for Azure Key Vault, which cannot be checked before its last
    /// byte.
    fn key_vault_blob(
        &self,
        encryption: &Encryption,
        first: Batch,
        mut incoming: Incoming,
    ) -> Result<Vec<u8>, ReadError> {
        let size = first.head.size;
        let mut blob = Vec::new();
        let no_memory = |_| ReadError::NoMemory(size, ErrorCode::NOT_ENOUGH_MEMORY);
        blob.try_reserve_exact(usize::try_from(size).unwrap_or(usize::MAX)).map_err(no_memory)?;
        let mut batch = first;
        loop {
            incoming.compare(self.runtime, &mut batch).map_err(ReadError::Interrupted)?;
            batch.chunks.iter().for_each(|chunk| blob.extend_from_slice(chunk));
            if let Some(error) = batch.wrong_checksum {
                return Err(ReadError::Interrupted(error));
            }
            if batch.last {
                break;
            }
            batch = incoming.next().map_err(ReadError::Interrupted)?;
        }
        let opened = encryption.open_blob(self.runtime.handle(), batch.head.sidecar.as_ref(), blob);
        let object = || format!("{}/{}", self.storage.objects().url(), batch.head.name);
        let opened = opened.map_err(|cause| ReadError::Key { object: object(), cause })?;
        encryption.remember_whole(&self.attachment);
        Ok(opened)
    }

    /// The form of content whose first bytes are in `first`.
    fn form(&self, first: &Batch) -> Result<Form, ReadError> {
        form(self.encryption, first.head.naming, &first.start())
            .map_err(|cause| ReadError::Form { object: self.object(), cause })
    }

    /// The name of the object or file in messages.
    fn object(&self) -> String {
        self.storage.name(self.side.get(), &self.attachment)
    }

    fn envelope(&self, cause: DecryptError) -> ReadError {
        ReadError::Envelope { object: self.object(), cause }
    }

    fn overflow(&self, cause: TargetOverflow) -> ReadError {
        ReadError::Overflow { object: self.object(), cause }
    }
}

/// The part of `chunk`, which begins at `position` of an object, that is within `range` of the object.
fn part<'a>(chunk: &'a [u8], position: u64, range: &Range<u64>) -> &'a [u8] {
    let within = |bound: u64| usize::try_from(bound.saturating_sub(position)).unwrap_or(usize::MAX);
    let [start, end] = [range.start, range.end].map(|bound| within(bound).min(chunk.len()));
    chunk.get(start..end).unwrap_or_default()
}
