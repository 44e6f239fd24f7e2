//! Unique identifiers of DICOM (PS3.5 9.1), as far as they are safe in an object name.

use std::fmt;
use std::sync::Arc;

/// Maximum length of a UID in characters.
const MAX_LEN: usize = 64;

/// A UID: digits and single dots between them, at most 64 characters.
///
/// Components with leading zeros violate the standard, but some modalities send them, and they are safe in an
/// object name: they are accepted, and remain different from the same component without them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Uid(Arc<str>);

/// A value is not a UID. The value itself is left out, because it may contain anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidUid {
    /// The value has no character but padding.
    #[error("it is empty")]
    Empty,
    /// The value is longer than 64 characters.
    #[error("it is longer than {MAX_LEN} characters")]
    TooLong,
    /// The value contains something other than digits and dots.
    #[error("it contains a character other than digits and dots")]
    InvalidCharacter,
    /// The value begins or ends with a dot, or contains two in a row.
    #[error("it has an empty component")]
    EmptyComponent,
}

impl Uid {
    /// Checks a value of a data set, which may be padded with NUL characters or spaces.
    ///
    /// # Errors
    ///
    /// [`InvalidUid`] states what is wrong.
    pub fn parse(value: &[u8]) -> Result<Self, InvalidUid> {
        let trimmed = trim_padding(value);
        if trimmed.is_empty() {
            return Err(InvalidUid::Empty);
        }
        if trimmed.len() > MAX_LEN {
            return Err(InvalidUid::TooLong);
        }
        if !trimmed.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.') {
            return Err(InvalidUid::InvalidCharacter);
        }
        if trimmed.split(|byte| *byte == b'.').any(<[u8]>::is_empty) {
            return Err(InvalidUid::EmptyComponent);
        }
        let text = str::from_utf8(trimmed).map_err(|_| InvalidUid::InvalidCharacter)?;
        Ok(Self(text.into()))
    }

    /// The UID without padding.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Shares the memory of `other` if both are equal.
    pub(crate) fn share(&mut self, other: &Self) {
        if self == other {
            self.0 = Arc::clone(&other.0);
        }
    }
}

/// Removes the trailing NUL character that pads a UID, and spaces, which some devices use instead.
pub(crate) fn trim_padding(value: &[u8]) -> &[u8] {
    let len = value.iter().rposition(|byte| !matches!(byte, 0 | b' ')).map_or(0, |last| last + 1);
    &value[..len]
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{InvalidUid, Uid};

    #[test]
    fn uids_and_others() {
        for valid in ["1", "1.2.840.10008.5.1.4.1.1.2", "1.02.003", &"1".repeat(64)] {
            assert_eq!(Uid::parse(valid.as_bytes()).unwrap().as_str(), valid);
        }
        for padded in ["1.2\0", "1.2 ", "1.2\0\0 "] {
            assert_eq!(Uid::parse(padded.as_bytes()).unwrap().as_str(), "1.2");
        }
        let invalid: [(&[u8], InvalidUid); 13] = [
            (b"", InvalidUid::Empty),
            (b"\0", InvalidUid::Empty),
            (&[b'1'; 65], InvalidUid::TooLong),
            (b"1/2", InvalidUid::InvalidCharacter),
            (b"../1", InvalidUid::InvalidCharacter),
            (b"1\\2", InvalidUid::InvalidCharacter),
            (b"1\0.2", InvalidUid::InvalidCharacter),
            (b" 1.2", InvalidUid::InvalidCharacter),
            (b"1.2\xC2\xB2", InvalidUid::InvalidCharacter),
            (b"..", InvalidUid::EmptyComponent),
            (b".1", InvalidUid::EmptyComponent),
            (b"1.", InvalidUid::EmptyComponent),
            (b"1..2", InvalidUid::EmptyComponent),
        ];
        for (value, error) in invalid {
            assert_eq!(Uid::parse(value), Err(error), "{value:?}");
        }
    }
}
