//! Client-side encryption of attachments.
//!
//! An *envelope* is the encrypted form of one attachment in a bucket or on a disk. There are two formats,
//! which `docs/encryption-format.md` specifies to the byte:
//!
//! - **A1**, the format of existing installations: one AES-256-GCM message that can only be read as a whole.
//! - **A2**, the format of this project: segments of 64 KiB that are verified separately, so that ranges can
//!   be read. An A2 envelope is bound to its attachment's UUID.
//!
//! Each envelope is encrypted under a random *data key* (in A2, a *file key* from which the content key is
//! derived). The envelope contains this key, encrypted under a *master key* of the [`KeyRing`], or *wrapped* by a
//! [`KeyService`].
//!
//! The crate does no I/O and starts no threads. Encryption takes a slice and returns a buffer ([`encrypt`],
//! [`encrypt_into`]), is incremental ([`Encryptor`]), or makes any range of an envelope ([`A2Envelope`]). Decryption is incremental: the caller pushes bytes as
//! they arrive, in chunks of any size, and the plaintext is written in place to a [`PlaintextTarget`].
//!
//! # Guarantees
//!
//! - No plaintext is released unverified. A2 writes a segment to the target only after verifying its tag. A1,
//!   whose only tag is at the end, owns its target until [`A1Decryptor::finish`] has verified the tag, and
//!   otherwise [discards](RevocableTarget::discard) it.
//! - A truncated, extended, reordered or otherwise altered envelope is an error, never a shorter plaintext.
//! - Keys are wiped from memory when dropped, and neither errors nor `Debug` output contain key material.
//!
//! # Examples
//!
//! Encrypt an attachment, and decrypt it from memory:
//!
//! ```
//! use crypto_envelope::{Format, KeyRing, MasterKey, decrypt, encrypt};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let ring = KeyRing::new(3, MasterKey::new(&[7; 32])?, [])?;
//! let uuid = "6a3e9a74-3a2c-4b7e-9d0a-1f6f5c1d2e3b";
//! let envelope = encrypt(&ring, Format::A2, uuid, b"DICM")?;
//! assert_eq!(decrypt(&ring, uuid, &envelope)?, b"DICM");
//! # Ok(())
//! # }
//! ```
//!
//! Decrypt an envelope whose bytes arrive in chunks:
//!
//! ```
//! use crypto_envelope::{Decryptor, Format, KeyRing, encrypt, parse_key_file};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = parse_key_file(b"YSBtYXN0ZXIga2V5IGZvciB0ZXN0cywgMzIgYnl0ZXM=\n")?;
//! let ring = KeyRing::new(3, key, [])?;
//! let uuid = "6a3e9a74-3a2c-4b7e-9d0a-1f6f5c1d2e3b";
//! let envelope = encrypt(&ring, Format::A2, uuid, b"DICM")?;
//!
//! let mut decryptor = Decryptor::new(&ring, uuid, envelope.len() as u64, Vec::new());
//! for chunk in envelope.chunks(16) {
//!     decryptor.push(chunk)?;
//! }
//! assert_eq!(decryptor.finish()?, b"DICM");
//! # Ok(())
//! # }
//! ```

mod a1;
mod a2;
mod cbc;
mod decryptor;
mod encryptor;
mod error;
mod file_keys;
mod format;
mod key_file;
mod key_ring;
mod long_iv_gcm;
mod primitives;
mod recognize;
mod service;
mod target;

pub use a1::A1Decryptor;
pub use a2::decryptor::A2Decryptor;
pub use a2::envelope::A2Envelope;
pub use a2::header::{A2Header, HeaderReader, KeyWrap, Service, ServiceWrap};
pub use a2::layout::{A2Geometry, A2Layout, RangePlan, speculative_header_len};
pub use a2::opener::{A2Opener, FileKey};
pub use a2::range::A2RangeDecryptor;
pub use a2::sealer::{a2_envelope_len, encrypt_a2_with_file_key};
pub use cbc::{CbcError, CbcInfo};
pub use decryptor::{Decryptor, decrypt, encrypt, encrypt_into};
pub use encryptor::Encryptor;
pub use error::{
    DecryptError, EncryptError, HeaderError, InvalidUuid, KeyFileError, KeyRingError, PrimitiveFailed,
    RangeError, UnknownKeyId,
};
pub use file_keys::{FileKeyOptions, FileKeys, WrappedFileKey};
pub use format::{
    EnvelopeDetails, EnvelopeHeader, Format, IDENTIFY_LEN, INSPECT_LEN, Inspection, envelope_len, identify,
    inspect,
};
pub use key_file::{can_be_shown, new_key_file, parse_file_key, parse_key_file};
pub use key_ring::{Fingerprint, KeyRing, MasterKey};
pub use recognize::{RECOGNIZE_LEN, recognize};
pub use service::{KeyService, KeyServiceError, Wrapped};
pub use target::{PlaintextTarget, RevocableTarget, SliceTarget};
