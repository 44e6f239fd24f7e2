//! Reads of ranges. Encrypted content is read in whole segments, and only verified bytes are returned.

use std::ops::Range;
use std::sync::Arc;

use bucket::{Cause, ReadRange, StorageError};
use crypto_envelope::{
    A2Decryptor, A2Geometry, A2Header, A2Opener, A2RangeDecryptor, DecryptError, Decryptor, Format,
    INSPECT_LEN, RECOGNIZE_LEN, RangeError, inspect,
};
use hybrid::Head;
use orthanc_ffi::Target;

use super::incoming::{Batch, Incoming};
use super::sink::{Sink, Window};
use super::{Form, ReadError, Reading};
use crate::area::encryption::{Encryption, Known, KnownEnvelope};

/// Bytes of an envelope that are read in excess to get header and range with one request. A round trip takes
/// longer.
const SURPLUS: u64 = 128 * 1024;

impl Reading<'_> {
    pub(super) fn range_once(&self, range: Range<u64>, target: &mut Target<'_>) -> Result<u64, ReadError> {
        let Some(encryption) = self.encryption else { return self.clear_range(range, target) };
        let read = match encryption.known(&self.attachment) {
            Some(Known::Whole) => Some(self.range_from_whole(encryption, range.clone(), target)),
            Some(Known::Segments(known)) if known.has(range.clone()) => {
                match self.known_range(encryption, &known, range.clone(), target) {
                    // It cannot be said whether this is still the object with the known header.
                    Err(ReadError::Envelope { .. }) if !known.head.has_version() => Some(Err(self.changed())),
                    read => Some(read),
                }
            }
            // The object may have been replaced by a longer one. Its new header is read below.
            Some(Known::Segments(_)) | None => None,
        };
        match read {
            Some(Err(error)) if error.may_be_due_to_a_move() => target.rewind(),
            Some(read) => return read,
            None => {}
        }
        encryption.forget(&self.attachment);
        match self.known_clear_range(range.clone(), target)? {
            Some(bytes) => Ok(bytes),
            None => self.unknown_range(encryption, range, target),
        }
    }

    /// A range of an A2 envelope whose header is known: one request for just its segments.
    fn known_range(
        &self,
        encryption: &Encryption,
        known: &KnownEnvelope,
        range: Range<u64>,
        target: &mut Target<'_>,
    ) -> Result<u64, ReadError> {
        let layout = known.opener.layout(known.head.size).map_err(|cause| self.envelope(cause))?;
        self.size.set(Some(layout.plaintext_len()));
        if range == (0..layout.plaintext_len()) && self.keeps_reads() {
            // The copy for the cache needs the header too.
            let (incoming, first) = self.download(&ReadRange::Whole)?;
            return self.range_with_header(encryption, range, target, first, incoming);
        }
        let plan = layout.plan(range.clone()).map_err(|cause| self.envelope(cause.into()))?;
        let downloaded = self.download(&ReadRange::Range(plan.envelope_range()));
        let (mut incoming, first) = downloaded.map_err(|error| match error.cause {
            // It was replaced by a shorter one.
            Cause::OutOfRange => {
                encryption.forget(&self.attachment);
                ReadError::Interrupted(StorageError { cause: Cause::Changed, ..error })
            }
            _ => error.into(),
        })?;
        let is_changed = !known.head.is_same(&first.head);
        let mut decryptor = A2RangeDecryptor::new(Arc::clone(&known.opener), plan, Sink(target));
        let pushed = self.push_all(encryption, vec![first], &mut incoming, |chunk| decryptor.push(chunk));
        let decrypted = pushed.and_then(|wrong| self.decrypted(decryptor.finish(), wrong));
        match decrypted {
            // The header was that of an object that has been replaced since.
            Err(ReadError::Envelope { .. }) if is_changed => {
                encryption.forget(&self.attachment);
                Err(self.changed())
            }
            decrypted => decrypted.map(|_| range.end - range.start),
        }
    }

    /// A range of an object that has not been read yet: one request if the range is near the start, two
    /// otherwise.
    fn unknown_range(
        &self,
        encryption: &Encryption,
        range: Range<u64>,
        target: &mut Target<'_>,
    ) -> Result<u64, ReadError> {
        let with_header = A2Geometry::STANDARD.range_with_header(range.clone(), SURPLUS);
        let probe = with_header.clone().unwrap_or(0..RECOGNIZE_LEN as u64);
        let (incoming, first) = self.download(&ReadRange::UpTo(probe))?;
        let is_whole = first.head.range == (0..first.head.size);
        match self.form(&first)? {
            Form::Clear => self.unknown_clear_range(range, target, first, incoming),
            Form::Envelope(Format::A1) if is_whole => {
                self.range_of_whole(encryption, range, target, first, incoming)
            }
            // The copy for the cache is made of one download.
            Form::Envelope(Format::A1) if !self.keeps_reads() => {
                self.range_of_two_parts(encryption, range, target, first, incoming)
            }
            Form::KeyVault if is_whole => self.range_of_blob(encryption, range, target, first, incoming),
            Form::KeyVault | Form::Envelope(Format::A1) => {
                drop(incoming);
                self.range_from_whole(encryption, range, target)
            }
            Form::Envelope(Format::A2) => {
                let parsed = A2Header::parse(&first.gather()).map_err(|cause| self.envelope(cause))?;
                let standard =
                    parsed.as_ref().is_some_and(|header| header.geometry() == A2Geometry::STANDARD);
                if with_header.is_some() && standard {
                    return self.range_with_header(encryption, range, target, first, incoming);
                }
                // The requested bytes do not include the segments.
                drop(incoming);
                let known = self.open(encryption, parsed, &first.head)?;
                let bytes = self.known_range(encryption, &known, range, target)?;
                encryption.remember(&self.attachment, &known.opener, &known.head);
                Ok(bytes)
            }
        }
    }

    /// A range of an attachment in a form that can only be read as a whole.
    fn range_from_whole(
        &self,
        encryption: &Encryption,
        range: Range<u64>,
        target: &mut Target<'_>,
    ) -> Result<u64, ReadError> {
        let (incoming, first) = self.download(&ReadRange::Whole)?;
        match self.form(&first)? {
            Form::Envelope(Format::A1) => self.range_of_whole(encryption, range, target, first, incoming),
            Form::KeyVault => self.range_of_blob(encryption, range, target, first, incoming),
            // It was re-encrypted.
            Form::Envelope(Format::A2) | Form::Clear => {
                encryption.forget(&self.attachment);
                Err(self.changed())
            }
        }
    }

    /// A range of an A2 envelope that is being downloaded from its first byte.
    fn range_with_header(
        &self,
        encryption: &Encryption,
        range: Range<u64>,
        target: &mut Target<'_>,
        first: Batch,
        mut incoming: Incoming,
    ) -> Result<u64, ReadError> {
        let uuid = self.attachment.uuid.as_str();
        let head = Arc::clone(&first.head);
        let size = head.size;
        let mut decryptor =
            A2Decryptor::for_range(encryption.ring(), uuid, size, range.clone(), Sink(target))
                .map_err(|cause| self.envelope(cause))?;
        let wrong = self.push_envelope(encryption, first, &mut incoming, |chunk| decryptor.push(chunk))?;
        let opener = decryptor.opener().cloned();
        let layout = opener.as_ref().and_then(|opener| opener.layout(size).ok());
        self.size.set(layout.map(|layout| layout.plaintext_len()));
        if wrong.is_some() && self.size.get() != Some(range.end - range.start) {
            // Only the tags of the range are known to be right.
            self.copy.take();
        }
        self.decrypted(decryptor.finish(), wrong)?;
        if let Some(opener) = opener {
            encryption.remember(&self.attachment, &opener, &head);
        }
        Ok(range.end - range.start)
    }

    /// Unwraps the data key of an envelope. `parsed` is its header, unless the header is longer than the
    /// bytes read so far.
    fn open(
        &self,
        encryption: &Encryption,
        parsed: Option<A2Header>,
        begun: &Arc<Head>,
    ) -> Result<KnownEnvelope, ReadError> {
        let header = match parsed {
            Some(header) => header,
            None => {
                // The length of the longest possible header, whose length field has 16 bits.
                let longest = INSPECT_LEN as u64 + u64::from(u16::MAX);
                let (_incoming, first) = self.download(&ReadRange::UpTo(0..longest))?;
                self.expect_same(begun, &first.head)?;
                let complete = A2Header::parse(&first.gather()).map_err(|cause| self.envelope(cause))?;
                let truncated = DecryptError::Truncated { expected: longest, received: begun.size };
                complete.ok_or_else(|| self.envelope(truncated))?
            }
        };
        let _key = self.file_key(encryption, &header)?;
        let unwrapped = A2Opener::unwrap(encryption.ring(), header, self.attachment.uuid.as_str());
        let opener = Arc::new(unwrapped.map_err(|cause| self.envelope(cause))?);
        Ok(KnownEnvelope { opener, head: Arc::clone(begun) })
    }

    /// A range of a blob of the earlier plugin for Azure Key Vault, which is read as a whole. `first` and `incoming` are a
    /// download of the whole.
    fn range_of_blob(
        &self,
        encryption: &Encryption,
        range: Range<u64>,
        target: &mut Target<'_>,
        first: Batch,
        incoming: Incoming,
    ) -> Result<u64, ReadError> {
        let content = self.key_vault_blob(encryption, first, incoming)?;
        let length = content.len() as u64;
        self.size.set(Some(length));
        let Range { start, end } = range;
        let wanted = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        match wanted.and_then(|(start, end)| content.get(start..end)) {
            Some(wanted) if start < end => {
                target.append(wanted).map_err(|cause| self.overflow(cause))?;
                Ok(end - start)
            }
            _ => Err(self.envelope(RangeError { start, end, plaintext_len: length }.into())),
        }
    }

    /// A range of an A1 envelope, which can only be verified as a whole and is therefore read as a whole. Only
    /// the range is kept in memory. `first` and `incoming` are a download of the whole.
    fn range_of_whole(
        &self,
        encryption: &Encryption,
        range: Range<u64>,
        target: &mut Target<'_>,
        first: Batch,
        incoming: Incoming,
    ) -> Result<u64, ReadError> {
        self.expect_in_a1(&first, &range)?;
        let length = range.end - range.start;
        self.decrypt(encryption, first, incoming, Window::new(Sink(target), range))?;
        Ok(length)
    }

    /// As [`range_of_whole`](Self::range_of_whole). `first` and `incoming` are a download of the beginning, which is
    /// followed by the rest of the object.
    fn range_of_two_parts(
        &self,
        encryption: &Encryption,
        range: Range<u64>,
        target: &mut Target<'_>,
        first: Batch,
        mut incoming: Incoming,
    ) -> Result<u64, ReadError> {
        self.expect_in_a1(&first, &range)?;
        // Also if this read is repeated.
        encryption.remember_whole(&self.attachment);
        let length = range.end - range.start;
        let head = Arc::clone(&first.head);
        let window = Window::new(Sink(target), range);
        let mut decryptor =
            Decryptor::new(encryption.ring(), self.attachment.uuid.as_str(), head.size, window);
        self.push_all(encryption, vec![first], &mut incoming, |chunk| decryptor.push(chunk))?;
        // A download that waits for another one must not hold a connection.
        drop(incoming);
        let downloaded = self.download(&ReadRange::Range(head.range.end..head.size));
        let (mut incoming, rest) = downloaded.map_err(|error| match error.cause {
            // It was replaced by a shorter one.
            Cause::OutOfRange => self.changed(),
            _ => error.into(),
        })?;
        self.expect_same(&head, &rest.head)?;
        self.push_all(encryption, vec![rest], &mut incoming, |chunk| decryptor.push(chunk))?;
        self.decrypted(decryptor.finish(), None)?;
        Ok(length)
    }

    /// Fails unless the A1 envelope that begins with `first` has this range.
    fn expect_in_a1(&self, first: &Batch, range: &Range<u64>) -> Result<(), ReadError> {
        let inspected = inspect(&first.start(), first.head.size);
        let plaintext_len = inspected.map_err(|cause| self.envelope(cause))?.plaintext_len;
        self.size.set(Some(plaintext_len));
        let Range { start, end } = *range;
        if start < end && end <= plaintext_len {
            return Ok(());
        }
        Err(self.envelope(RangeError { start, end, plaintext_len }.into()))
    }
}
