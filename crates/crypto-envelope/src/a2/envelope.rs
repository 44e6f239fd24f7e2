//! Envelopes whose bytes are made range by range.

use std::fmt;
use std::ops::Range;

use crate::a2::header::{A2Header, KeyWrap};
use crate::a2::layout::A2Layout;
use crate::a2::opener::{ContentKey, FileKey};
use crate::a2::sealer::{NewEnvelope, new_envelope, with_file_key};
use crate::error::EncryptError;
use crate::key_ring::KeyRing;
use crate::primitives::TAG_LEN;

/// A new A2 envelope whose bytes are made when they are asked for, any range of them and any number of times.
///
/// The same range always has the same bytes, so that an upload can send a part again without keeping its ciphertext. The
/// envelope owns its plaintext, because a segment that was sealed twice with different plaintexts would break the
/// encryption: both would have the same nonce.
///
/// ```
/// use crypto_envelope::{A2Envelope, KeyRing, MasterKey, decrypt};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ring = KeyRing::new(3, MasterKey::new(&[7; 32])?, [])?;
/// let uuid = "6a3e9a74-3a2c-4b7e-9d0a-1f6f5c1d2e3b";
/// let envelope = A2Envelope::new(&ring, uuid, b"DICM")?;
/// let mut bytes = vec![0; envelope.envelope_len() as usize];
/// let (start, end) = bytes.split_at_mut(90);
/// envelope.write(0, start)?;
/// envelope.write(90, end)?;
/// assert_eq!(decrypt(&ring, uuid, &bytes)?, b"DICM");
/// # Ok(())
/// # }
/// ```
pub struct A2Envelope<P> {
    header: A2Header,
    key: ContentKey,
    plaintext: P,
    layout: A2Layout,
}

impl<P: AsRef<[u8]>> A2Envelope<P> {
    /// The envelope of `plaintext`, whose bytes must not change, under the ring's current key.
    ///
    /// # Errors
    /// [`EncryptError::InvalidUuid`], [`EncryptError::Primitive`].
    pub fn new(ring: &KeyRing, uuid: &str, plaintext: P) -> Result<Self, EncryptError> {
        Self::of(new_envelope(ring, uuid)?, plaintext)
    }

    /// The same with a file key that a key service wrapped.
    ///
    /// # Errors
    /// The same as [`encrypt_a2_with_file_key`](crate::encrypt_a2_with_file_key).
    pub fn with_file_key(
        wrap: &KeyWrap<'_>,
        file_key: &FileKey,
        uuid: &str,
        plaintext: P,
    ) -> Result<Self, EncryptError> {
        Self::of(with_file_key(wrap, file_key, uuid)?, plaintext)
    }

    fn of((header, key): NewEnvelope, plaintext: P) -> Result<Self, EncryptError> {
        let len = plaintext.as_ref().len() as u64;
        let geometry = header.geometry();
        let layout = A2Layout::new(geometry, geometry.envelope_len(len));
        let layout = layout.map_err(|_| EncryptError::TooLarge { len })?;
        Ok(Self { header, key, plaintext, layout })
    }

    /// Returns the length of the envelope, in bytes.
    pub fn envelope_len(&self) -> u64 {
        self.layout.envelope_len()
    }

    /// Returns where to end a range that begins at `start` and has at most `longest` bytes: at the end of a segment if there
    /// is one in it, since [`write`](Self::write) seals a segment that is in two ranges twice.
    pub fn end_of_range(&self, start: u64, longest: usize) -> u64 {
        let latest = start.saturating_add(longest as u64).min(self.envelope_len());
        if latest == self.envelope_len() {
            return latest;
        }
        let end = self.layout.segment_at(latest).map_or(0, |segment| self.layout.sealed_start(segment));
        if end > start { end } else { latest }
    }

    /// Fills `out` with the bytes of the envelope from `start` on. Returns their number, which is lower at the end of the
    /// envelope.
    ///
    /// # Errors
    /// [`EncryptError::Primitive`]. Then `out` has unspecified bytes, but no plaintext.
    pub fn write(&self, start: u64, out: &mut [u8]) -> Result<usize, EncryptError> {
        let len = clamp(self.envelope_len().saturating_sub(start), out.len());
        let mut rest = &mut out[..len];
        let mut position = start;
        if let Some(header) = usize::try_from(start).ok().and_then(|start| self.header.bytes().get(start..)) {
            let taken = header.len().min(rest.len());
            let (head, after) = rest.split_at_mut(taken);
            head.copy_from_slice(&header[..taken]);
            position += taken as u64;
            rest = after;
        }
        while !rest.is_empty()
            && let Some(segment) = self.layout.segment_at(position)
        {
            let sealed = self.layout.sealed(segment);
            let (part, after) = rest.split_at_mut(clamp(sealed.end - position, rest.len()));
            self.write_segment(segment, &sealed, position, part)?;
            position += part.len() as u64;
            rest = after;
        }
        Ok(len)
    }

    /// Fills `out` with the bytes of a segment from `start` on, which is a position in the envelope.
    fn write_segment(
        &self,
        segment: u64,
        sealed: &Range<u64>,
        start: u64,
        out: &mut [u8],
    ) -> Result<(), EncryptError> {
        let plaintext = self.plaintext.as_ref();
        let clear = self.layout.plaintext_range(segment);
        let content = plaintext.get(clear).ok_or(EncryptError::TooLarge { len: plaintext.len() as u64 })?;
        let is_last = self.layout.is_last(segment);
        if out.len() == content.len() + TAG_LEN {
            return Ok(self.key.seal(segment, is_last, content, out)?);
        }
        let mut whole = vec![0; content.len() + TAG_LEN];
        self.key.seal(segment, is_last, content, &mut whole)?;
        let skipped = clamp(start - sealed.start, whole.len());
        out.copy_from_slice(&whole[skipped..skipped + out.len()]);
        Ok(())
    }
}

impl<P> fmt::Debug for A2Envelope<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("A2Envelope").field("layout", &self.layout).finish_non_exhaustive()
    }
}

/// Returns the smaller of both.
fn clamp(wanted: u64, available: usize) -> usize {
    usize::try_from(wanted).map_or(available, |wanted| wanted.min(available))
}
