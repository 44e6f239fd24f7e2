//! Encryption of plaintext that arrives in chunks.

use std::fmt;

use crate::a1::A1Sealer;
use crate::a2::header::KeyWrap;
use crate::a2::opener::FileKey;
use crate::a2::sealer::A2Sealer;
use crate::error::EncryptError;
use crate::format::Format;
use crate::key_ring::KeyRing;

/// Encrypts an attachment whose bytes are pushed as they arrive, without knowing its length.
///
/// Each function appends to the buffer `envelope`, which the caller empties as it likes: the encryptor keeps at
/// most one segment of the plaintext. An unfinished envelope does not decrypt.
///
/// ```
/// use crypto_envelope::{Encryptor, Format, KeyRing, MasterKey, decrypt};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ring = KeyRing::new(3, MasterKey::new(&[7; 32])?, [])?;
/// let uuid = "6a3e9a74-3a2c-4b7e-9d0a-1f6f5c1d2e3b";
/// let mut envelope = Vec::new();
/// let mut encryptor = Encryptor::new(&ring, Format::A2, uuid, &mut envelope)?;
/// for chunk in [b"DI", b"CM"] {
///     encryptor.push(chunk, &mut envelope)?;
/// }
/// encryptor.finish(&mut envelope)?;
/// assert_eq!(decrypt(&ring, uuid, &envelope)?, b"DICM");
/// # Ok(())
/// # }
/// ```
pub struct Encryptor {
    stage: Stage,
}

enum Stage {
    A1(A1Sealer),
    A2(A2Sealer),
    Failed,
}

impl Encryptor {
    /// Begins an envelope under the ring's current key. A2 binds it to `uuid`; A1 ignores it.
    ///
    /// # Errors
    /// [`EncryptError::InvalidUuid`] (A2 only), [`EncryptError::Primitive`].
    pub fn new(
        ring: &KeyRing,
        format: Format,
        uuid: &str,
        envelope: &mut Vec<u8>,
    ) -> Result<Self, EncryptError> {
        let stage = match format {
            Format::A1 => Stage::A1(A1Sealer::new(ring, envelope)?),
            Format::A2 => Stage::A2(A2Sealer::new(ring, uuid, envelope)?),
        };
        Ok(Self { stage })
    }

    /// Begins an A2 envelope with a file key that a key service wrapped, and binds it to `uuid`.
    ///
    /// # Errors
    /// The same as [`encrypt_a2_with_file_key`](crate::encrypt_a2_with_file_key).
    pub fn with_file_key(
        wrap: &KeyWrap<'_>,
        file_key: &FileKey,
        uuid: &str,
        envelope: &mut Vec<u8>,
    ) -> Result<Self, EncryptError> {
        Ok(Self { stage: Stage::A2(A2Sealer::with_file_key(wrap, file_key, uuid, envelope)?) })
    }

    /// Encrypts the next bytes of the attachment, any number of them.
    ///
    /// # Errors
    /// [`EncryptError::TooLarge`] (A1 only), [`EncryptError::Primitive`]. Errors are final.
    pub fn push(&mut self, plaintext: &[u8], envelope: &mut Vec<u8>) -> Result<(), EncryptError> {
        let outcome = match &mut self.stage {
            Stage::A1(sealer) => sealer.push(plaintext, envelope),
            Stage::A2(sealer) => sealer.push(plaintext, envelope),
            Stage::Failed => Err(EncryptError::AlreadyFailed),
        };
        if outcome.is_err() {
            self.stage = Stage::Failed;
        }
        outcome
    }

    /// Appends the end of the envelope.
    ///
    /// # Errors
    /// [`EncryptError::Primitive`].
    pub fn finish(self, envelope: &mut Vec<u8>) -> Result<(), EncryptError> {
        match self.stage {
            Stage::A1(sealer) => sealer.finish(envelope),
            Stage::A2(sealer) => sealer.finish(envelope),
            Stage::Failed => Err(EncryptError::AlreadyFailed),
        }
    }
}

impl fmt::Debug for Encryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryptor").finish_non_exhaustive()
    }
}
