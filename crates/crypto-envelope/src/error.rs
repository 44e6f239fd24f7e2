//! Errors of keys, headers, encryption and decryption. None contains key material or plaintext.

use std::error::Error as StdError;

use thiserror::Error;

use crate::a2::header::Service;

/// The cryptographic library failed although its input was valid: out of memory, no entropy, or a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the cryptographic library failed to {0}; this is not a data error; check available memory and entropy"
)]
pub struct PrimitiveFailed(pub(crate) &'static str);

/// The envelope's master key is not configured.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the envelope was encrypted under master key {id}, which is not among the configured keys {configured:?}; \
     add that key to the previous master keys"
)]
pub struct UnknownKeyId {
    /// The id in the envelope.
    pub id: u32,
    /// The configured ids, in ascending order.
    pub configured: Vec<u32>,
}

/// The attachment's UUID is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "format A2 requires the attachment's UUID: 36 characters, hexadecimal digits in groups of 8-4-4-4-12"
)]
pub struct InvalidUuid;

/// A key file does not contain a master key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyFileError {
    /// The file contains something other than base64, blanks and line ends.
    #[error(
        "the key file must be base64 text, got an invalid byte at offset {offset}; create one with \
         `openssl rand -base64 32`"
    )]
    NotBase64 {
        /// Offset of the first invalid byte in the file, from 0.
        offset: usize,
    },
    /// The file contains a key in hexadecimal.
    #[error("the key file must be base64 text, got hexadecimal; convert it with `xxd -r -p FILE | base64`")]
    Hexadecimal,
    /// The file is base64, but not of 32 bytes.
    #[error(
        "the key file must contain a key of 32 bytes, got {bytes} bytes; create one with \
         `openssl rand -base64 32`"
    )]
    WrongLength {
        /// The length after decoding, in bytes.
        bytes: usize,
    },
    /// The cryptographic library failed to derive the wrapping key or the A1 mask.
    #[error(transparent)]
    Primitive(#[from] PrimitiveFailed),
}

/// The master keys cannot be used together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyRingError {
    /// Two keys have one id, which is all that an envelope says about its key.
    #[error("two master keys have the id {id}; each key, current or previous, must have a unique id")]
    DuplicateId {
        /// The id given twice.
        id: u32,
    },
}

/// An A2 header that this version cannot read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// The segment size's exponent is outside 12..=24.
    #[error(
        "the segment size in the A2 header must be 2^12 to 2^24 bytes, got 2^{0}; the object is damaged or was \
         written by a newer version"
    )]
    SegmentSize(u8),
    /// The key wrap algorithm is unknown.
    #[error(
        "the key wrap algorithm in the A2 header must be 1 to 4, got {0}; the object is damaged or was written by a \
         newer version"
    )]
    WrapAlgorithm(u8),
    /// The wrapped key has a length that its algorithm cannot produce.
    #[error(
        "the wrapped key in the A2 header has {len} bytes, which is invalid for key wrap algorithm {algorithm}; the \
         object is damaged"
    )]
    WrappedKeyLength {
        /// The key wrap algorithm's number.
        algorithm: u8,
        /// The length of the wrapped key, in bytes.
        len: usize,
    },
    /// The field of a key service is not a key's name and a ciphertext, or the master key id is not 0.
    #[error(
        "the A2 header says that the file key is wrapped by {0}, but is malformed; the object is damaged"
    )]
    MalformedServiceWrap(Service),
}

/// A range is not within the plaintext, or ends before it starts.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the range must be within the {plaintext_len} bytes of the attachment, got {start} to {end} (exclusive)"
)]
pub struct RangeError {
    /// First byte of the range.
    pub start: u64,
    /// First byte after the range.
    pub end: u64,
    /// Length of the whole plaintext, in bytes.
    pub plaintext_len: u64,
}

/// An attachment could not be encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncryptError {
    /// A2 requires the attachment's UUID.
    #[error(transparent)]
    InvalidUuid(#[from] InvalidUuid),
    /// The current key is in a key service: use
    /// [`encrypt_a2_with_file_key`](crate::encrypt_a2_with_file_key) with a key of [`FileKeys`](crate::FileKeys).
    #[error("the current master key is in a key service, and no file key was wrapped there")]
    KeyService,
    /// The given wrapped key does not fit in a header.
    #[error("cannot write the A2 header: {0}")]
    Header(#[from] HeaderError),
    /// The plaintext is longer than the format allows.
    #[error("the attachment is {len} bytes, larger than the format allows")]
    TooLarge {
        /// Length of the plaintext, in bytes.
        len: u64,
    },
    /// An earlier call failed, and the envelope cannot be continued.
    #[error("an earlier part of the attachment could not be encrypted")]
    AlreadyFailed,
    /// The cryptographic library failed.
    #[error(transparent)]
    Primitive(#[from] PrimitiveFailed),
}

/// An envelope could not be decrypted. Nothing unverified has been released, for any variant.
#[derive(Debug, Error)]
pub enum DecryptError {
    /// The content begins with neither `A1` nor `A2`, or is something else that begins like this.
    #[error("the content is not an A1 or A2 envelope: it was stored unencrypted, or is damaged")]
    NotAnEnvelope,
    /// The master key is not configured.
    #[error(transparent)]
    UnknownKeyId(#[from] UnknownKeyId),
    /// An A2 header that cannot be read.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A2 requires the attachment's UUID.
    #[error(transparent)]
    InvalidUuid(#[from] InvalidUuid),
    /// No envelope with this header can have this length.
    #[error("an {format} envelope cannot be {envelope_len} bytes long; the object was truncated or extended")]
    InvalidLength {
        /// The format named in the header.
        format: crate::Format,
        /// The length reported by the storage, in bytes.
        envelope_len: u64,
    },
    /// The envelope ended too early.
    #[error("the object ended after {received} of {expected} bytes; read it again")]
    Truncated {
        /// Expected number of bytes.
        expected: u64,
        /// Received number of bytes.
        received: u64,
    },
    /// The envelope is longer than its reported length.
    #[error(
        "received more than the expected {expected} bytes; the object was replaced during the read: read it again"
    )]
    TooLong {
        /// Expected number of bytes.
        expected: u64,
    },
    /// A1's tag does not match. The whole plaintext is untrusted and has been discarded from the target.
    #[error(
        "the A1 envelope is not authentic: the object was altered, or master key {key_id} is not the key it was \
         encrypted under; the decrypted bytes were discarded"
    )]
    A1NotAuthentic {
        /// The id in the envelope.
        key_id: u32,
    },
    /// The wrapped file key cannot be unwrapped.
    #[error(
        "the A2 file key cannot be unwrapped: the object's header was altered, or master key {key_id} is not the \
         key it was encrypted under"
    )]
    WrappedKeyNotAuthentic {
        /// The id in the envelope.
        key_id: u32,
    },
    /// A segment's tag does not match.
    #[error(
        "segment {segment} of {segments} of the A2 envelope is not authentic: the object was altered or truncated, \
         or belongs to an attachment other than {uuid}"
    )]
    SegmentNotAuthentic {
        /// The segment's index, from 0.
        segment: u64,
        /// Number of segments, computed from the object's length.
        segments: u64,
        /// The attachment's UUID.
        uuid: String,
    },
    /// The file key is wrapped by a key service, and has not been unwrapped. Unwrap it with
    /// [`FileKeys::unwrap`](crate::FileKeys::unwrap), and keep it during the decryption.
    #[error(
        "the file key is wrapped by {service}{}, which is not configured; configure it in MasterKey or \
         PreviousMasterKeys, or unwrap the key there yourself", with_key(.key)
    )]
    NotUnwrapped {
        /// The service.
        service: Service,
        /// The name of its key, which is no secret; empty for AWS.
        key: String,
    },
    /// The range is not within the plaintext.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// The target did not accept the plaintext.
    #[error("cannot write the decrypted bytes: {0}")]
    Target(#[source] Box<dyn StdError + Send + Sync>),
    /// An earlier call failed; errors are final.
    #[error("this decryption has already failed; start again")]
    AlreadyFailed,
    /// The cryptographic library failed.
    #[error(transparent)]
    Primitive(#[from] PrimitiveFailed),
}

impl DecryptError {
    /// Wraps an error of a [`PlaintextTarget`](crate::PlaintextTarget).
    pub fn target(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Target(error.into())
    }
}

/// The name of a key for a message, if there is one. Those in headers and sidecars may be anything, also long or with
/// line ends.
pub(crate) fn with_key(key: &str) -> String {
    const LONGEST: usize = 250;
    if key.is_empty() {
        return String::new();
    }
    let mut shown: String = key.chars().filter(|letter| !letter.is_control()).take(LONGEST).collect();
    if shown.len() < key.len() {
        shown.push('…');
    }
    format!(" ({shown})")
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::cbc::CbcError;

    #[test]
    fn names_of_keys_are_short_and_of_one_line() {
        assert_eq!(with_key(""), "");
        let kid = "https://name.vault.azure.net/keys/images/0123456789abcdef0123456789abcdef";
        assert_eq!(with_key(kid), format!(" ({kid})"));
        assert_eq!(with_key("images\r\nE1127 forged"), " (imagesE1127 forged…)");
        assert_eq!(with_key(&"ä".repeat(60_000)), format!(" ({}…)", "ä".repeat(250)));
    }

    /// Appends one line per variant. The match has no wildcard, so a new variant must be listed to compile.
    macro_rules! append_messages {
        ($text:ident, $enum:ident { $($variant:ident = $example:expr,)+ }) => {
            let name = |error: &$enum| match error {
                $($enum::$variant { .. } => stringify!($variant),)+
            };
            for error in [$($enum::from($example)),+] {
                writeln!($text, "{}::{}: {error}", stringify!($enum), name(&error)).unwrap();
            }
        };
    }

    #[test]
    fn messages() {
        let primitive = PrimitiveFailed("draw random bytes");
        let header = HeaderError::SegmentSize(11);
        let key = "https://example.vault.azure.net/keys/key/1".to_owned();
        let uuid = "6a3e9a74-3a2c-4b7e-9d0a-1f6f5c1d2e3b".to_owned();
        let mut text = String::new();
        append_messages!(text, KeyFileError {
            NotBase64 = KeyFileError::NotBase64 { offset: 9 },
            Hexadecimal = KeyFileError::Hexadecimal,
            WrongLength = KeyFileError::WrongLength { bytes: 3 },
            Primitive = primitive,
        });
        append_messages!(text, KeyRingError { DuplicateId = KeyRingError::DuplicateId { id: 3 }, });
        append_messages!(text, HeaderError {
            SegmentSize = HeaderError::SegmentSize(11),
            WrapAlgorithm = HeaderError::WrapAlgorithm(5),
            WrappedKeyLength = HeaderError::WrappedKeyLength { algorithm: 1, len: 41 },
            MalformedServiceWrap = HeaderError::MalformedServiceWrap(Service::AzureKeyVault),
        });
        append_messages!(text, EncryptError {
            InvalidUuid = InvalidUuid,
            KeyService = EncryptError::KeyService,
            Header = header.clone(),
            TooLarge = EncryptError::TooLarge { len: 1 << 40 },
            AlreadyFailed = EncryptError::AlreadyFailed,
            Primitive = primitive,
        });
        append_messages!(text, DecryptError {
            NotAnEnvelope = DecryptError::NotAnEnvelope,
            UnknownKeyId = UnknownKeyId { id: 3, configured: vec![4, 5] },
            Header = header,
            InvalidUuid = InvalidUuid,
            InvalidLength = DecryptError::InvalidLength { format: crate::Format::A1, envelope_len: 85 },
            Truncated = DecryptError::Truncated { expected: 100, received: 70 },
            TooLong = DecryptError::TooLong { expected: 100 },
            A1NotAuthentic = DecryptError::A1NotAuthentic { key_id: 3 },
            WrappedKeyNotAuthentic = DecryptError::WrappedKeyNotAuthentic { key_id: 3 },
            SegmentNotAuthentic = DecryptError::SegmentNotAuthentic { segment: 1, segments: 3, uuid },
            NotUnwrapped = DecryptError::NotUnwrapped { service: Service::AzureKeyVault, key },
            Range = RangeError { start: 5, end: 12, plaintext_len: 10 },
            Target = DecryptError::target("the disk is full"),
            AlreadyFailed = DecryptError::AlreadyFailed,
            Primitive = primitive,
        });
        append_messages!(text, CbcError {
            Info = CbcError::Info("/cek/key/iv"),
            Length = CbcError::Length { expected: 32, got: 16 },
            NotDecrypted = CbcError::NotDecrypted,
        });
        insta::with_settings!({
            snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/../testing/messages"),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, { insta::assert_snapshot!("crypto-envelope", text) });
    }
}
