//! The errors: each says what was attempted and what can be done about it, and none carries key material or plaintext.

use std::error::Error as StdError;

use thiserror::Error;

/// The cryptographic library refused an operation whose inputs were valid: out of memory, no entropy, or a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the cryptographic library failed to {0}; this is not caused by the data, look at the machine's memory and entropy"
)]
pub struct PrimitiveFailed(pub(crate) &'static str);

/// An envelope names a master key that is not configured.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the envelope was encrypted under master key {id}, which is not among the configured keys {configured:?}; \
     add that key to the previous master keys"
)]
pub struct UnknownKeyId {
    /// The id that the envelope carries.
    pub id: u32,
    /// The ids that are configured, in ascending order.
    pub configured: Vec<u32>,
}

/// A string that should be an attachment's UUID is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the format A2 binds an envelope to its attachment's UUID: 36 characters, hexadecimal digits with hyphens \
     (8-4-4-4-12)"
)]
pub struct InvalidUuid;

/// A key file does not hold a master key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyFileError {
    /// Something else than base64, blanks and line ends.
    #[error(
        "the key file is not base64 text: unexpected byte at offset {offset}; `openssl rand -base64 32` writes a \
         valid one"
    )]
    NotBase64 {
        /// Where in the file the first unexpected byte is, from 0.
        offset: usize,
    },
    /// Base64, but not of 32 bytes.
    #[error(
        "the key file holds {bytes} bytes where a master key has exactly 32; `openssl rand -base64 32` writes a \
         valid one"
    )]
    WrongLength {
        /// The length after decoding, in bytes.
        bytes: usize,
    },
    /// The library failed to derive the key's working forms.
    #[error(transparent)]
    Primitive(#[from] PrimitiveFailed),
}

/// A set of master keys that cannot be used together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyRingError {
    /// Envelopes name their key by its id alone.
    #[error("two master keys have the id {id}; every key, current or previous, needs an id of its own")]
    DuplicateId {
        /// The id given twice.
        id: u32,
    },
}

/// A header that announces A2 but that this version cannot read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// The segment size's exponent is outside 12..=24.
    #[error(
        "the A2 header has a segment size of 2^{0} bytes, 2^12 to 2^24 are valid; the object is damaged or newer than this software"
    )]
    SegmentSize(u8),
    /// The key wrap algorithm's number is not known.
    #[error(
        "the A2 header names the key wrap algorithm {0}, 1 and 2 are known; the object is damaged or newer than this software"
    )]
    WrapAlgorithm(u8),
    /// The wrapped key has a length that its algorithm cannot produce.
    #[error(
        "the A2 header has a wrapped key of {len} bytes, which algorithm {algorithm} does not make; the object is damaged"
    )]
    WrappedKeyLength {
        /// The key wrap algorithm's number.
        algorithm: u8,
        /// The length of the wrapped key, in bytes.
        len: usize,
    },
    /// The wrapped key of algorithm 2 is not a key's name and a ciphertext, or its master key id is not 0.
    #[error("the A2 header's Key Vault wrapped key is malformed; the object is damaged")]
    MalformedKeyVaultWrap,
}

/// A range outside the plaintext, or one that ends before it starts.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("bytes {start} to {end} (exclusive) were asked of an attachment of {plaintext_len} bytes")]
pub struct RangeError {
    /// First byte asked for.
    pub start: u64,
    /// First byte not asked for.
    pub end: u64,
    /// Length of the whole plaintext, in bytes.
    pub plaintext_len: u64,
}

/// Why an attachment could not be encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncryptError {
    /// A2 needs the attachment's UUID.
    #[error(transparent)]
    InvalidUuid(#[from] InvalidUuid),
    /// The wrapped key given for the header cannot be written.
    #[error("cannot write the A2 header: {0}")]
    Header(#[from] HeaderError),
    /// The plaintext exceeds what the format can hold.
    #[error("an attachment of {len} bytes exceeds what one envelope can hold")]
    TooLarge {
        /// Length of the plaintext, in bytes.
        len: u64,
    },
    /// The library failed.
    #[error(transparent)]
    Primitive(#[from] PrimitiveFailed),
}

/// Why an envelope could not be decrypted. Whatever the variant, nothing unverified has been released.
#[derive(Debug, Error)]
pub enum DecryptError {
    /// The content begins with neither `A1` nor `A2`.
    #[error(
        "the content is not an envelope (it starts with neither A1 nor A2): it was stored unencrypted, or is damaged"
    )]
    NotAnEnvelope,
    /// The master key is not configured.
    #[error(transparent)]
    UnknownKeyId(#[from] UnknownKeyId),
    /// An A2 header that cannot be read.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A2 needs the attachment's UUID.
    #[error(transparent)]
    InvalidUuid(#[from] InvalidUuid),
    /// No envelope with this header has this length.
    #[error("no {format} envelope is {envelope_len} bytes long; the object was truncated or extended")]
    InvalidLength {
        /// The format that the header announces.
        format: crate::Format,
        /// The length that the storage reports, in bytes.
        envelope_len: u64,
    },
    /// Fewer bytes arrived than announced.
    #[error("the object ended after {received} of {expected} bytes; read it again")]
    Truncated {
        /// Bytes that should have come.
        expected: u64,
        /// Bytes that came.
        received: u64,
    },
    /// More bytes arrived than announced.
    #[error(
        "more bytes arrived than the announced {expected}; the object was replaced while it was read, read it again"
    )]
    TooLong {
        /// Bytes that should have come.
        expected: u64,
    },
    /// A1's tag does not match: the whole plaintext must be forgotten, and has been discarded from the target.
    #[error(
        "the A1 envelope is not authentic: the object was altered, or master key {key_id} is not the key it was \
         encrypted under; the decrypted bytes were discarded"
    )]
    A1NotAuthentic {
        /// The id that the envelope carries.
        key_id: u32,
    },
    /// The wrapped file key does not unwrap.
    #[error(
        "the A2 file key does not unwrap: the object's header was altered, or master key {key_id} is not the key it \
         was encrypted under"
    )]
    WrappedKeyNotAuthentic {
        /// The id that the envelope carries.
        key_id: u32,
    },
    /// A segment's tag does not match.
    #[error(
        "segment {segment} of {segments} of the A2 envelope is not authentic: the object was altered or truncated, \
         or belongs to another attachment than {uuid}"
    )]
    SegmentNotAuthentic {
        /// The segment's index, from 0.
        segment: u64,
        /// Number of segments, by the object's length.
        segments: u64,
        /// The attachment's UUID that the envelope was read for.
        uuid: String,
    },
    /// The file key is wrapped by Azure Key Vault, which this crate does not talk to: unwrap it there, then use
    /// [`A2Opener::with_file_key`](crate::A2Opener::with_file_key).
    #[error(
        "the file key is wrapped by Azure Key Vault ({kid}), which is not available here; configure the key vault, or unwrap it there first"
    )]
    KeyVaultNotAvailable {
        /// The vault key's identifier, a URL without secrets.
        kid: String,
    },
    /// The range is not one of this plaintext.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// The target could not take the plaintext.
    #[error("the decrypted bytes could not be delivered: {0}")]
    Target(#[source] Box<dyn StdError + Send + Sync>),
    /// Bytes were pushed after an error.
    #[error("this decryption failed before; start it again")]
    AlreadyFailed,
    /// The library failed.
    #[error(transparent)]
    Primitive(#[from] PrimitiveFailed),
}

impl DecryptError {
    /// Wraps a [`PlaintextTarget`](crate::PlaintextTarget)'s own error.
    pub fn target(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Target(error.into())
    }
}
