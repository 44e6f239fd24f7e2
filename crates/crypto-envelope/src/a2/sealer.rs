//! Encryption to A2.

use crate::a2::header::{A2Header, KeyWrap, SALT_LEN};
use crate::a2::layout::A2Geometry;
use crate::a2::opener::{BoundUuid, ContentKey, FileKey};
use crate::error::EncryptError;
use crate::key_ring::KeyRing;
use crate::primitives::{TAG_LEN, fill_random, kwp_wrap};

/// Encrypts under the ring's current key, into `envelope`, whose content is overwritten.
pub(crate) fn encrypt(
    ring: &KeyRing,
    uuid: &str,
    plaintext: &[u8],
    envelope: &mut Vec<u8>,
) -> Result<(), EncryptError> {
    let file_key = FileKey::random()?;
    let wrapped = kwp_wrap(ring.current().wrapping_key().as_ref(), file_key.expose())?;
    let wrap = KeyWrap::MasterKey { key_id: ring.current_id(), wrapped: &wrapped };
    seal(&wrap, &file_key, uuid, plaintext, envelope)
}

/// Encrypts to A2 with a file key that was wrapped elsewhere (Key Vault). One file key may serve many envelopes: each
/// draws its own salt, and so has a content key of its own.
///
/// The result is one allocation of exactly [`a2_envelope_len`] bytes, made in one pass over the plaintext.
///
/// # Errors
/// [`EncryptError::InvalidUuid`]; [`EncryptError::Header`] when `wrap` does not fit in a header.
pub fn encrypt_a2_with_file_key(
    wrap: &KeyWrap<'_>,
    file_key: &FileKey,
    uuid: &str,
    plaintext: &[u8],
) -> Result<Vec<u8>, EncryptError> {
    let mut envelope = Vec::new();
    seal(wrap, file_key, uuid, plaintext, &mut envelope)?;
    Ok(envelope)
}

fn seal(
    wrap: &KeyWrap<'_>,
    file_key: &FileKey,
    uuid: &str,
    plaintext: &[u8],
    envelope: &mut Vec<u8>,
) -> Result<(), EncryptError> {
    let uuid = BoundUuid::parse(uuid)?;
    let mut salt = [0; SALT_LEN];
    fill_random(&mut salt)?;
    let header = A2Header::new(wrap, &salt)?;
    let key = ContentKey::derive(file_key, &header, &uuid)?;

    let too_large = EncryptError::TooLarge { len: plaintext.len() as u64 };
    let geometry = header.geometry();
    let envelope_len =
        usize::try_from(geometry.envelope_len(plaintext.len() as u64)).map_err(|_| too_large.clone())?;
    let segment_size = usize::try_from(geometry.segment_size()).map_err(|_| too_large)?;
    envelope.reserve_exact(envelope_len.saturating_sub(envelope.len()));
    let mut end = header.bytes().len();
    room(envelope, 0, end).copy_from_slice(header.bytes());
    let mut rest = plaintext;
    for index in 0.. {
        let (segment, after) = rest.split_at(segment_size.min(rest.len()));
        rest = after;
        let start = end;
        end += segment.len() + TAG_LEN;
        key.seal(index, rest.is_empty(), segment, room(envelope, start, end))?;
        if rest.is_empty() {
            break;
        }
    }
    envelope.truncate(end);
    Ok(())
}

/// The bytes `start` to `end` of `envelope`, to be overwritten. What is not there yet is zeroed now, segment by segment,
/// while it is on its way into the cache anyway, and not in a pass over the whole buffer; what a former use has left is
/// not zeroed at all.
fn room(envelope: &mut Vec<u8>, start: usize, end: usize) -> &mut [u8] {
    if envelope.len() < end {
        envelope.resize(end, 0);
    }
    &mut envelope[start..end]
}

/// Length of the envelope of `plaintext_len` bytes with this key wrap. Saturates at `u64::MAX`.
///
/// # Errors
/// [`EncryptError::Header`] when `wrap` does not fit in a header.
pub fn a2_envelope_len(wrap: &KeyWrap<'_>, plaintext_len: u64) -> Result<u64, EncryptError> {
    let geometry: A2Geometry = A2Header::new(wrap, &[0; SALT_LEN])?.geometry();
    Ok(geometry.envelope_len(plaintext_len))
}
