//! Key files: 32 bytes as base64 text (RFC 4648, section 4), as written by `openssl rand -base64 32`.

use std::path::Path;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use crate::a2::opener::FileKey;
use crate::error::{KeyFileError, PrimitiveFailed};
use crate::key_ring::MasterKey;
use crate::primitives::Secret;

/// Number of base64 digits of 32 bytes, without the padding.
const DIGITS: usize = 43;

/// Padding is optional and the two surplus bits of the last digit are ignored: neither affects the key, and
/// the C++ plugins accept such files.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Reads a master key from the content of a key file. Line ends and blanks are ignored.
///
/// # Errors
/// [`KeyFileError`] if the content is not base64 of exactly 32 bytes. The error contains no key material.
pub fn parse_key_file(content: &[u8]) -> Result<MasterKey, KeyFileError> {
    Ok(MasterKey::new(parse(content)?.as_ref())?)
}

/// Reads a file key that a key service has unwrapped, in the same form as a key file.
///
/// # Errors
/// As [`parse_key_file`].
pub fn parse_file_key(content: &[u8]) -> Result<FileKey, KeyFileError> {
    parse(content).map(|key| FileKey::new(key.as_ref()))
}

fn parse(content: &[u8]) -> Result<Secret, KeyFileError> {
    let mut digits = Zeroizing::new([0; DIGITS]);
    let mut count = 0;
    let mut padding = 0;
    for (offset, &byte) in content.iter().enumerate() {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'=' if count > 0 && padding < 2 => padding += 1,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' if padding == 0 => {
                if let Some(digit) = digits.get_mut(count) {
                    *digit = byte;
                }
                count += 1;
            }
            _ => return Err(KeyFileError::NotBase64 { offset }),
        }
    }
    if count == 2 * MasterKey::LEN
        && content.iter().all(|byte| byte.is_ascii_hexdigit() || byte.is_ascii_whitespace())
    {
        return Err(KeyFileError::Hexadecimal);
    }
    if count != DIGITS || padding > 1 {
        return Err(KeyFileError::WrongLength { bytes: count.saturating_mul(6) / 8 });
    }
    // The buffer is longer than a key because the decoder requires whole groups of three bytes.
    let mut decoded = Zeroizing::new([0; DIGITS.div_ceil(4) * 3]);
    match BASE64.decode_slice(digits.as_ref(), decoded.as_mut()) {
        Ok(MasterKey::LEN) => {}
        // Unreachable: 43 digits are 32 bytes.
        other => return Err(KeyFileError::WrongLength { bytes: other.unwrap_or(0) }),
    }
    let mut key = Secret::zeroed();
    key.as_mut().copy_from_slice(&decoded[..MasterKey::LEN]);
    Ok(key)
}

/// Shorter names cannot be a key, not even with several letters missing.
const SHORTEST_KEY: usize = 24;

/// Whether a message may show `name`, which was given as the name of a key file but may be a key by mistake:
/// complete or not, in base64 of any alphabet, which includes `/`, or in hexadecimal. `is_folder` says whether
/// a folder exists.
pub fn can_be_shown(name: &str, is_folder: impl FnOnce(&Path) -> bool) -> bool {
    if name.chars().count() < SHORTEST_KEY {
        return true;
    }
    match Path::new(name).parent() {
        None => true,
        Some(folder) if folder.as_os_str().is_empty() => false,
        // The root and `.` exist, but say nothing about the rest.
        Some(folder) => folder.file_name().is_some() && is_folder(folder),
    }
}

/// Returns the content of a new key file: a random master key in base64 and a line feed.
///
/// # Errors
/// [`PrimitiveFailed`] if no random bytes are available.
pub fn new_key_file() -> Result<Zeroizing<String>, PrimitiveFailed> {
    let key = Secret::random()?;
    let failed = PrimitiveFailed("encode a key as base64");
    let mut digits = Zeroizing::new([0; DIGITS + 1]);
    let written = BASE64.encode_slice(key.as_ref(), digits.as_mut()).map_err(|_| failed)?;
    // The full capacity is reserved, so that the string does not grow and leave an unwiped allocation behind.
    let mut text = Zeroizing::new(String::with_capacity(written + 1));
    text.push_str(std::str::from_utf8(&digits[..written]).map_err(|_| failed)?);
    text.push('\n');
    Ok(text)
}
