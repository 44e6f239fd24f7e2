//! Tells envelopes from content in clear where the name of the object or file says nothing.
//!
//! Two bytes are not enough: a DICOM file may begin with anything, and one in 65,536 compressed files begins
//! with `A1`. [`recognize`] therefore looks at the first [`RECOGNIZE_LEN`] bytes.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::a1;
use crate::a2::header::{A2Header, SALT_LEN};
use crate::a2::layout::A2Geometry;
use crate::format::{EnvelopeHeader, Format, IDENTIFY_LEN, identify};
use crate::key_ring::KeyRing;
use crate::primitives::KWP_LEN;

/// Number of bytes from the start of content that [`recognize`] requires; the whole content if it is shorter.
pub const RECOGNIZE_LEN: usize = DICM_OFFSET + DICM.len();

/// The magic bytes of a DICOM file, after a preamble that may contain anything.
const DICM: &[u8] = b"DICM";
const DICM_OFFSET: usize = 128;

/// The random bytes of A1: masked data IV and data key.
const A1_RANDOM: Range<usize> = IDENTIFY_LEN..a1::HEADER_LEN;
/// The salt of A2.
const SALT: Range<usize> = A2Header::FIXED_LEN - SALT_LEN..A2Header::FIXED_LEN;
/// The wrap algorithm of A2 for which the wrapped key is random and has [`KWP_LEN`] bytes.
const MASTER_KEY: u8 = 1;
/// The wrap algorithms of key services, whose envelopes have the master key id 0.
const KEY_SERVICES: std::ops::RangeInclusive<u8> = 2..=4;

/// Recognizes an envelope by its first [`RECOGNIZE_LEN`] bytes (all bytes of shorter content); `start` may be
/// longer. `ring` has the configured keys, if any. Returns `None` for content in clear.
///
/// Content that begins with `A1` or `A2` is an envelope, unless one of these rows says that it is in clear.
/// The probability is that of a real envelope having this property, since its bytes are random.
///
/// | property of content in clear | probability | decides if the key id is in `ring` |
/// | --- | --- | --- |
/// | A1: fewer than 86 bytes | 0 | no |
/// | A2: algorithm, segment size or length of the wrapped key is impossible | 0 | no |
/// | the bytes that are random in an envelope have less than half as many different values | 1.4 · 10⁻²¹ (64 bytes), 3 · 10⁻¹⁷ (A2 of a key service: the salt) | yes |
/// | text: UTF-8 without control characters other than tabs and line ends | below 4 · 10⁻²⁷ (A1), 0 (A2) | yes |
/// | DICOM: `DICM` at offset 128 | 2.3 · 10⁻¹⁰ | no; for A2 if the header is impossible |
/// | Orthanc's `StorageCompression`: a size below 2⁴⁸ in 8 bytes, then zlib with valid check bits | 9 · 10⁻¹⁰ (A1), 0 (A2) | no; for A2 if the header is impossible |
///
/// So content that may be an envelope under a configured key is not taken to be in clear, even if it was
/// damaged or truncated: its decryption fails. On the other hand, content in clear is taken for an envelope
/// if it begins with `A1` and looks random (a user's attachment, such as an encrypted archive: one in 65,536),
/// or if it is compressed and its uncompressed size is the id of a configured key · 65,536 + 12,609.
pub fn recognize(start: &[u8], ring: Option<&KeyRing>) -> Option<EnvelopeHeader> {
    let start = &start[..start.len().min(RECOGNIZE_LEN)];
    let header = identify(start)?;
    let has_key = ring.is_some_and(|ring| match header.service {
        Some(_) => ring.file_keys().is_some(),
        None => ring.get(header.key_id).is_ok(),
    });
    let possible = match header.format {
        Format::A1 => start.len() as u64 >= a1::OVERHEAD,
        Format::A2 => is_possible_a2(header.key_id, start),
    };
    let certain = has_key && (possible || header.format == Format::A1);
    let in_clear = is_uniform(random_bytes(header.format, start))
        || is_text(start)
        || (!certain && (is_dicom(start) || is_compressed(start)))
        || !(has_key || possible);
    (!in_clear).then_some(header)
}

/// Whether a header of A2 can begin like this. The length of the content does not matter, so that a truncated
/// envelope is still recognized.
fn is_possible_a2(key_id: u32, start: &[u8]) -> bool {
    let Some(&[algorithm, k, low, high]) = start.get(6..10) else { return false };
    let wrapped_len = u16::from_le_bytes([low, high]);
    let wrapped_is_possible = match algorithm {
        MASTER_KEY => usize::from(wrapped_len) == KWP_LEN,
        service => KEY_SERVICES.contains(&service) && key_id == 0 && wrapped_len > 2,
    };
    wrapped_is_possible && A2Geometry::new(k, wrapped_len).is_ok()
}

/// The bytes of `start` that are random in an envelope.
fn random_bytes(format: Format, start: &[u8]) -> &[u8] {
    let range = match (format, start.get(6)) {
        (Format::A1, _) => A1_RANDOM,
        // The wrapped key begins with the key's name.
        (Format::A2, Some(algorithm)) if KEY_SERVICES.contains(algorithm) => SALT,
        // 64 bytes, as in A1.
        (Format::A2, _) => SALT.start..SALT.start + A1_RANDOM.len(),
    };
    let end = range.end.min(start.len());
    start.get(range.start..end).unwrap_or_default()
}

/// Whether `bytes` have less than half as many different values as there are bytes.
fn is_uniform(bytes: &[u8]) -> bool {
    bytes.iter().collect::<BTreeSet<_>>().len() * 2 < bytes.len()
}

/// Whether `start` is text, possibly cut within its last character.
fn is_text(start: &[u8]) -> bool {
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    text.chars().all(|letter| !letter.is_control() || matches!(letter, '\t' | '\n' | '\r'))
}

fn is_dicom(start: &[u8]) -> bool {
    start.get(DICM_OFFSET..).is_some_and(|rest| rest.starts_with(DICM))
}

/// Whether `start` is the uncompressed size, 8 bytes little-endian, and a zlib stream (RFC 1950) with a window
/// of 32 KiB and without a dictionary.
fn is_compressed(start: &[u8]) -> bool {
    let [_, _, _, _, _, _, 0, 0, 0x78, flags, ..] = *start else { return false };
    flags & 0x20 == 0 && (0x7800 + u16::from(flags)).is_multiple_of(31)
}
