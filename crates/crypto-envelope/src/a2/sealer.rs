//! Encryption to A2: of a slice, and as the plaintext arrives.

use zeroize::Zeroizing;

use crate::a2::header::{A2Header, KeyWrap, SALT_LEN};
use crate::a2::layout::A2Geometry;
use crate::a2::opener::{BoundUuid, ContentKey, FileKey};
use crate::error::EncryptError;
use crate::key_ring::KeyRing;
use crate::primitives::{TAG_LEN, fill_random, kwp_wrap};

/// Encrypts under the ring's current key, replacing the content of `envelope`.
pub(crate) fn encrypt(
    ring: &KeyRing,
    uuid: &str,
    plaintext: &[u8],
    envelope: &mut Vec<u8>,
) -> Result<(), EncryptError> {
    seal(&new_envelope(ring, uuid)?, plaintext, envelope)
}

/// Encrypts to A2 with a file key that a key service wrapped.
///
/// Several envelopes may share a file key: each envelope has a random salt, and therefore a different content
/// key. Returns one allocation of exactly [`a2_envelope_len`] bytes, written in one pass over the plaintext.
///
/// # Errors
/// [`EncryptError::InvalidUuid`]; [`EncryptError::Header`] if `wrap` does not fit in a header.
pub fn encrypt_a2_with_file_key(
    wrap: &KeyWrap<'_>,
    file_key: &FileKey,
    uuid: &str,
    plaintext: &[u8],
) -> Result<Vec<u8>, EncryptError> {
    let mut envelope = Vec::new();
    seal(&with_file_key(wrap, file_key, uuid)?, plaintext, &mut envelope)?;
    Ok(envelope)
}

/// The header of a new envelope, and the key of its segments.
pub(crate) type NewEnvelope = (A2Header, ContentKey);

/// Draws a file key, and wraps it under the ring's current key.
pub(crate) fn new_envelope(ring: &KeyRing, uuid: &str) -> Result<NewEnvelope, EncryptError> {
    let (key_id, master_key) = ring.current().ok_or(EncryptError::KeyService)?;
    let file_key = FileKey::random()?;
    let wrapped = kwp_wrap(master_key.wrapping_key().as_ref(), file_key.expose())?;
    let wrap = KeyWrap::MasterKey { key_id, wrapped: &wrapped };
    with_file_key(&wrap, &file_key, uuid)
}

pub(crate) fn with_file_key(
    wrap: &KeyWrap<'_>,
    file_key: &FileKey,
    uuid: &str,
) -> Result<NewEnvelope, EncryptError> {
    let bound_uuid = BoundUuid::parse(uuid)?;
    let mut salt = [0; SALT_LEN];
    fill_random(&mut salt)?;
    let header = A2Header::new(wrap, &salt)?;
    let key = ContentKey::derive(file_key, &header, &bound_uuid)?;
    Ok((header, key))
}

fn seal((header, key): &NewEnvelope, plaintext: &[u8], envelope: &mut Vec<u8>) -> Result<(), EncryptError> {
    let too_large = EncryptError::TooLarge { len: plaintext.len() as u64 };
    let geometry = header.geometry();
    let envelope_len =
        usize::try_from(geometry.envelope_len(plaintext.len() as u64)).map_err(|_| too_large.clone())?;
    let segment_size = usize::try_from(geometry.segment_size()).map_err(|_| too_large)?;
    envelope.reserve_exact(envelope_len.saturating_sub(envelope.len()));
    let mut end = header.bytes().len();
    make_room(envelope, 0, end).copy_from_slice(header.bytes());
    let mut rest = plaintext;
    for index in 0.. {
        let (segment, after) = rest.split_at(segment_size.min(rest.len()));
        rest = after;
        let start = end;
        end += segment.len() + TAG_LEN;
        key.seal(index, rest.is_empty(), segment, make_room(envelope, start, end))?;
        if rest.is_empty() {
            break;
        }
    }
    envelope.truncate(end);
    Ok(())
}

/// Returns the bytes `start` to `end` of `envelope` to overwrite, growing the buffer if needed.
///
/// New bytes are zeroed segment by segment, just before they are written, which is faster than a separate
/// pass over the whole buffer. Bytes of a reused buffer are not zeroed.
fn make_room(envelope: &mut Vec<u8>, start: usize, end: usize) -> &mut [u8] {
    if envelope.len() < end {
        envelope.resize(end, 0);
    }
    &mut envelope[start..end]
}

/// Encrypts to A2 as the plaintext arrives. Each function appends to the envelope.
pub(crate) struct A2Sealer {
    key: ContentKey,
    segment_size: usize,
    /// Index of the next segment.
    next: u64,
    /// The plaintext of the next segment, at most a full one. A full segment waits here too, because only what
    /// follows shows that it is not the last one. Its capacity is never exceeded, so that no copy is left behind.
    pending: Zeroizing<Vec<u8>>,
}

impl A2Sealer {
    /// Appends the header.
    pub(crate) fn new(ring: &KeyRing, uuid: &str, envelope: &mut Vec<u8>) -> Result<Self, EncryptError> {
        Ok(Self::begin(new_envelope(ring, uuid)?, envelope))
    }

    /// Appends the header of an envelope with a file key that a key service wrapped.
    pub(crate) fn with_file_key(
        wrap: &KeyWrap<'_>,
        file_key: &FileKey,
        uuid: &str,
        envelope: &mut Vec<u8>,
    ) -> Result<Self, EncryptError> {
        Ok(Self::begin(with_file_key(wrap, file_key, uuid)?, envelope))
    }

    fn begin((header, key): NewEnvelope, envelope: &mut Vec<u8>) -> Self {
        // The segment size of new envelopes is 64 KiB.
        let segment_size = usize::try_from(header.geometry().segment_size()).unwrap_or(usize::MAX);
        envelope.extend_from_slice(header.bytes());
        Self { key, segment_size, next: 0, pending: Zeroizing::new(Vec::with_capacity(segment_size)) }
    }

    pub(crate) fn push(&mut self, mut plaintext: &[u8], envelope: &mut Vec<u8>) -> Result<(), EncryptError> {
        while self.pending.len() + plaintext.len() > self.segment_size {
            if self.pending.is_empty() {
                // The chunk contains the whole segment, which needs no copy.
                let (segment, rest) = plaintext.split_at(self.segment_size);
                plaintext = rest;
                self.seal(false, segment, envelope)?;
            } else {
                let (taken, rest) = plaintext.split_at(self.segment_size - self.pending.len());
                plaintext = rest;
                self.pending.extend_from_slice(taken);
                self.seal_pending(false, envelope)?;
            }
        }
        self.pending.extend_from_slice(plaintext);
        Ok(())
    }

    /// Appends the last segment.
    pub(crate) fn finish(mut self, envelope: &mut Vec<u8>) -> Result<(), EncryptError> {
        self.seal_pending(true, envelope)
    }

    fn seal_pending(&mut self, last: bool, envelope: &mut Vec<u8>) -> Result<(), EncryptError> {
        let mut segment = std::mem::take(&mut self.pending);
        self.seal(last, &segment, envelope)?;
        segment.clear();
        self.pending = segment;
        Ok(())
    }

    fn seal(&mut self, last: bool, segment: &[u8], envelope: &mut Vec<u8>) -> Result<(), EncryptError> {
        let start = envelope.len();
        let out = make_room(envelope, start, start + segment.len() + TAG_LEN);
        self.key.seal(self.next, last, segment, out)?;
        self.next += 1;
        Ok(())
    }
}

/// Returns the length of the envelope of `plaintext_len` bytes with this key wrap, at most `u64::MAX`.
///
/// # Errors
/// [`EncryptError::Header`] if `wrap` does not fit in a header.
pub fn a2_envelope_len(wrap: &KeyWrap<'_>, plaintext_len: u64) -> Result<u64, EncryptError> {
    let geometry: A2Geometry = A2Header::new(wrap, &[0; SALT_LEN])?.geometry();
    Ok(geometry.envelope_len(plaintext_len))
}
