//! Reads of ranges. Encrypted content is read in whole segments, and only verified bytes are returned.

use std::ops::Range;
use std::sync::Arc;

use bucket::{Cause, ReadRange, StorageError};
use crypto_envelope::{
    A2Decryptor, A2Geometry, A2Header, A2Opener, A2RangeDecryptor, DecryptError, Format, INSPECT_LEN,
    RECOGNIZE_LEN, RangeError, inspect,
};
use hybrid::Head;
use orthanc_ffi::Target;

use super::incoming::{Batch, Incoming};
use super::sink::{Sink, Window};
use super::{Form, ReadError, Reading};
use crate::area::encryption::{Encryption, KnownEnvelope};

/// Bytes of an envelope that are read in excess to get header and range with one request. A round trip takes
/// longer.
const SURPLUS: u64 = 128 * 1024;

impl Reading<'_> {
    pub(super) fn range_once(&self, range: Range<u64>, target: &mut Target<'_>) -> Result<u64, ReadError> {
        let Some(encryption) = self.encryption else { return self.clear_range(range, target) };
        if let Some(known) = encryption.known(&self.attachment) {
            match self.known_range(encryption, &known, None, range.clone(), target) {
                // The object was replaced, perhaps by a shorter one. Its new header is read below.
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

    /// A range of an A2 envelope whose header is known: one request for just its segments. `begun` is the object whose
    /// header this read has read.
    fn known_range(
        &self,
        encryption: &Encryption,
        known: &KnownEnvelope,
        begun: Option<&Head>,
        range: Range<u64>,
        target: &mut Target<'_>,
    ) -> Result<u64, ReadError> {
        let layout = known.opener.layout(known.size).map_err(|cause| self.envelope(cause))?;
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
            Cause::OutOfRange if begun.is_some() => {
                ReadError::Interrupted(StorageError { cause: Cause::Changed, ..error })
            }
            _ => error.into(),
        })?;
        let is_changed = begun.is_some_and(|begun| !begun.is_same(&first.head));
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
        let size = first.head.size;
        match self.form(&first)? {
            // A range that is the whole attachment, which newer releases of Orthanc ask for.
            Form::Clear if first.head.range == range => {
                self.size.set(Some(size));
                self.fill(target, first, incoming)
            }
            Form::Envelope(Format::A1) if first.head.range == (0..size) => {
                self.range_of_whole(encryption, range, target, first, incoming)
            }
            Form::Clear => {
                self.size.set(Some(size));
                drop(incoming);
                let (incoming, again) = self.download(&ReadRange::Range(range))?;
                // The bytes returned must be of the object found to be in clear, not of an envelope that has
                // replaced it.
                self.expect_same(&first.head, &again.head)?;
                self.fill(target, again, incoming)
            }
            Form::KeyVault if first.head.range == (0..size) => {
                self.range_of_blob(encryption, range, target, first, incoming)
            }
            Form::KeyVault => {
                drop(incoming);
                let (incoming, first) = self.download(&ReadRange::Whole)?;
                if self.form(&first)? != Form::KeyVault {
                    return Err(self.changed());
                }
                self.range_of_blob(encryption, range, target, first, incoming)
            }
            Form::Envelope(Format::A1) => {
                drop(incoming);
                let (incoming, first) = self.download(&ReadRange::Whole)?;
                match self.form(&first)? {
                    Form::Envelope(_) => self.range_of_whole(encryption, range, target, first, incoming),
                    Form::Clear | Form::KeyVault => Err(self.changed()),
                }
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
                self.known_range(encryption, &known, Some(&first.head), range, target)
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
        let size = first.head.size;
        let mut decryptor =
            A2Decryptor::for_range(encryption.ring(), uuid, size, range.clone(), Sink(target))
                .map_err(|cause| self.envelope(cause))?;
        let wrong = self.push_envelope(encryption, first, &mut incoming, |chunk| decryptor.push(chunk))?;
        if let Some(opener) = decryptor.opener() {
            encryption.remember(&self.attachment, opener, size);
            self.size.set(opener.layout(size).ok().map(|layout| layout.plaintext_len()));
        }
        if wrong.is_some() && self.size.get() != Some(range.end - range.start) {
            // Only the tags of the range are known to be right.
            self.copy.take();
        }
        self.decrypted(decryptor.finish(), wrong)?;
        Ok(range.end - range.start)
    }

    /// Unwraps the data key of an envelope. `parsed` is its header, unless the header is longer than the
    /// bytes read so far.
    fn open(
        &self,
        encryption: &Encryption,
        parsed: Option<A2Header>,
        begun: &Head,
    ) -> Result<KnownEnvelope, ReadError> {
        let size = begun.size;
        let header = match parsed {
            Some(header) => header,
            None => {
                // The length of the longest possible header, whose length field has 16 bits.
                let longest = INSPECT_LEN as u64 + u64::from(u16::MAX);
                let (_incoming, first) = self.download(&ReadRange::UpTo(0..longest))?;
                self.expect_same(begun, &first.head)?;
                let complete = A2Header::parse(&first.gather()).map_err(|cause| self.envelope(cause))?;
                let truncated = DecryptError::Truncated { expected: longest, received: size };
                complete.ok_or_else(|| self.envelope(truncated))?
            }
        };
        let _key = self.file_key(encryption, &header)?;
        let unwrapped = A2Opener::unwrap(encryption.ring(), header, self.attachment.uuid.as_str());
        let opener = Arc::new(unwrapped.map_err(|cause| self.envelope(cause))?);
        encryption.remember(&self.attachment, &opener, size);
        Ok(KnownEnvelope { opener, size })
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
        let inspected = inspect(&first.start(), first.head.size);
        let length = inspected.map_err(|cause| self.envelope(cause))?.plaintext_len;
        self.size.set(Some(length));
        let Range { start, end } = range;
        if start >= end || end > length {
            let cause = RangeError { start, end, plaintext_len: length };
            return Err(self.envelope(cause.into()));
        }
        self.decrypt(encryption, first, incoming, Window::new(Sink(target), range))?;
        Ok(end - start)
    }
}
