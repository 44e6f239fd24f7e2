//! Client-side encryption of attachments: plaintext to envelope and back.
//!
//! An *envelope* is the encrypted form of one attachment as it lies in a bucket or on a disk. There are two formats,
//! specified to the byte in `docs/encryption-format.md`:
//!
//! - **A1**, what existing installations have: one AES-256-GCM message, readable only as a whole.
//! - **A2**, this project's own: 64 KiB segments that are verified one by one, so that ranges can be read, bound to the
//!   attachment's UUID.
//!
//! Each envelope is encrypted under a *data key* (A2: a *file key* from which the content key is derived), which is
//! itself stored in the envelope, encrypted under a *master key* of the [`KeyRing`].
//!
//! The crate does no I/O, starts no threads and knows nothing of storage. Encryption takes a slice and returns a
//! buffer ([`encrypt`], [`encrypt_into`]); decryption is *pushed*: the caller hands over bytes as they arrive, in pieces of any size, and
//! the plaintext is written in place into a [`PlaintextTarget`] that the caller provides.
//!
//! # What a caller can rely on
//!
//! - No plaintext is released unverified. A2 writes a segment to the target only after its tag was verified. A1, whose
//!   only tag is at the very end, owns its target until [`A1Decryptor::finish`] has verified it, and has it
//!   [discarded](RevocableTarget::discard) otherwise.
//! - A truncated, extended, reordered or otherwise altered envelope is an error, never a shorter plaintext.
//! - Keys are wiped from memory when dropped; no error and no `Debug` output contains key material.
//!
//! # Example
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

mod a1;
mod a2;
mod decryptor;
mod error;
mod format;
mod key_file;
mod key_ring;
mod long_iv_gcm;
mod primitives;
mod target;

pub use a1::A1Decryptor;
pub use a2::decryptor::A2Decryptor;
pub use a2::header::{A2Header, HeaderReader, KeyWrap};
pub use a2::layout::{A2Geometry, A2Layout, RangePlan, speculative_header_len};
pub use a2::opener::{A2Opener, FileKey};
pub use a2::range::A2RangeDecryptor;
pub use a2::sealer::{a2_envelope_len, encrypt_a2_with_file_key};
pub use decryptor::{Decryptor, decrypt, encrypt, encrypt_into};
pub use error::{
    DecryptError, EncryptError, HeaderError, InvalidUuid, KeyFileError, KeyRingError, PrimitiveFailed,
    RangeError, UnknownKeyId,
};
pub use format::{
    EnvelopeDetails, EnvelopeHeader, Format, IDENTIFY_LEN, INSPECT_LEN, Inspection, envelope_len, identify,
    inspect,
};
pub use key_file::{new_key_file, parse_key_file};
pub use key_ring::{KeyRing, MasterKey};
pub use target::{PlaintextTarget, RevocableTarget, SliceTarget};
