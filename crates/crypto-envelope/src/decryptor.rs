//! Encryption to a given format, and decryption that recognizes the format.

use std::fmt;
use std::sync::Arc;

use crate::a1::{self, A1Decryptor};
use crate::a2::decryptor::A2Decryptor;
use crate::a2::opener::A2Opener;
use crate::a2::sealer;
use crate::error::{DecryptError, EncryptError};
use crate::format::{Format, IDENTIFY_LEN, identify, inspect};
use crate::key_ring::KeyRing;
use crate::target::RevocableTarget;

/// Encrypts an attachment under the ring's current key.
///
/// Returns one allocation of exactly [`envelope_len`](crate::envelope_len) bytes, written in one pass over
/// the plaintext. A2 binds the envelope to `uuid`; A1 ignores it.
///
/// # Errors
/// [`EncryptError::InvalidUuid`] (A2 only), [`EncryptError::TooLarge`], [`EncryptError::Primitive`].
pub fn encrypt(
    ring: &KeyRing,
    format: Format,
    uuid: &str,
    plaintext: &[u8],
) -> Result<Vec<u8>, EncryptError> {
    let mut envelope = Vec::new();
    encrypt_into(ring, format, uuid, plaintext, &mut envelope)?;
    Ok(envelope)
}

/// Encrypts like [`encrypt`], but into a reused buffer, whose content is replaced.
///
/// For large attachments this is several times faster than a new buffer: the kernel must map and zero each
/// page of a new buffer, which takes longer than AES.
///
/// # Errors
/// The same as [`encrypt`]. Errors clear the buffer.
pub fn encrypt_into(
    ring: &KeyRing,
    format: Format,
    uuid: &str,
    plaintext: &[u8],
    envelope: &mut Vec<u8>,
) -> Result<(), EncryptError> {
    let outcome = match format {
        Format::A1 => a1::encrypt(ring, plaintext, envelope),
        Format::A2 => sealer::encrypt(ring, uuid, plaintext, envelope),
    };
    if outcome.is_err() {
        envelope.clear();
    }
    outcome
}

/// Decrypts a whole envelope of either format.
///
/// # Errors
/// Any [`DecryptError`].
pub fn decrypt(ring: &KeyRing, uuid: &str, envelope: &[u8]) -> Result<Vec<u8>, DecryptError> {
    let envelope_len = envelope.len() as u64;
    let plaintext_len = inspect(envelope, envelope_len)?.plaintext_len;
    let mut plaintext = Vec::new();
    plaintext
        .try_reserve_exact(usize::try_from(plaintext_len).map_err(DecryptError::target)?)
        .map_err(DecryptError::target)?;
    let mut decryptor = Decryptor::new(ring, uuid, envelope_len, plaintext);
    decryptor.push(envelope)?;
    decryptor.finish()
}

/// Decrypts an envelope whose bytes are pushed as they arrive, and whose format is recognized by the first of
/// them.
///
/// [`finish`](Self::finish) returns the target. [`A1Decryptor`] and [`A2Decryptor`] say what the target
/// contains after an error.
pub struct Decryptor<T: RevocableTarget> {
    ring: KeyRing,
    uuid: String,
    envelope_len: u64,
    stage: Stage<T>,
}

enum Stage<T: RevocableTarget> {
    Unknown { start: Vec<u8>, target: T },
    A1(A1Decryptor<T>),
    A2(A2Decryptor<T>),
    Failed,
}

impl<T: RevocableTarget> Decryptor<T> {
    /// Creates a decryptor for the envelope of the attachment `uuid`, which has `envelope_len` bytes as
    /// reported by the storage.
    pub fn new(ring: &KeyRing, uuid: &str, envelope_len: u64, target: T) -> Self {
        let stage = Stage::Unknown { start: Vec::new(), target };
        Self { ring: ring.clone(), uuid: uuid.to_owned(), envelope_len, stage }
    }

    /// Decrypts the next bytes of the envelope, any number of them.
    ///
    /// # Errors
    /// Any [`DecryptError`] except [`Truncated`](DecryptError::Truncated). Errors are final.
    pub fn push(&mut self, mut chunk: &[u8]) -> Result<(), DecryptError> {
        let outcome = match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Unknown { mut start, target } => {
                let (taken, rest) = chunk.split_at(chunk.len().min(IDENTIFY_LEN - start.len()));
                start.extend_from_slice(taken);
                chunk = rest;
                if start.len() < IDENTIFY_LEN {
                    self.stage = Stage::Unknown { start, target };
                    return Ok(());
                }
                self.recognize(&start, target)
            }
            stage => Ok(stage),
        };
        self.stage = outcome?;
        match &mut self.stage {
            Stage::A1(decryptor) => decryptor.push(chunk),
            Stage::A2(decryptor) => decryptor.push(chunk),
            Stage::Unknown { .. } | Stage::Failed => Err(DecryptError::AlreadyFailed),
        }
    }

    fn recognize(&self, start: &[u8], target: T) -> Result<Stage<T>, DecryptError> {
        match identify(start).ok_or(DecryptError::NotAnEnvelope)?.format {
            Format::A1 => {
                let mut decryptor = A1Decryptor::new(&self.ring, self.envelope_len, target)?;
                decryptor.push(start)?;
                Ok(Stage::A1(decryptor))
            }
            Format::A2 => {
                let mut decryptor = A2Decryptor::new(&self.ring, &self.uuid, self.envelope_len, target)?;
                decryptor.push(start)?;
                Ok(Stage::A2(decryptor))
            }
        }
    }

    /// Returns the format, once its bytes have been pushed.
    pub fn format(&self) -> Option<Format> {
        match &self.stage {
            Stage::A1(_) => Some(Format::A1),
            Stage::A2(_) => Some(Format::A2),
            Stage::Unknown { .. } | Stage::Failed => None,
        }
    }

    /// Returns the opener of an A2 envelope, once its header has been pushed. Keep the opener to read ranges
    /// of the same object.
    pub fn opener(&self) -> Option<&Arc<A2Opener>> {
        match &self.stage {
            Stage::A2(decryptor) => decryptor.opener(),
            _ => None,
        }
    }

    /// Returns the target with the whole, verified plaintext.
    ///
    /// # Errors
    /// [`DecryptError::Truncated`] when bytes are missing, [`DecryptError::A1NotAuthentic`].
    pub fn finish(self) -> Result<T, DecryptError> {
        match self.stage {
            Stage::A1(decryptor) => decryptor.finish(),
            Stage::A2(decryptor) => decryptor.finish(),
            Stage::Unknown { start, .. } => {
                let received = start.len() as u64;
                let expected = self.envelope_len.max(IDENTIFY_LEN as u64);
                Err(DecryptError::Truncated { expected, received })
            }
            Stage::Failed => Err(DecryptError::AlreadyFailed),
        }
    }
}

impl<T: RevocableTarget> fmt::Debug for Decryptor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decryptor").field("format", &self.format()).finish_non_exhaustive()
    }
}
