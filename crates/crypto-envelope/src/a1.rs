//! A1, the format of existing installations: one AES-256-GCM message.
//!
//! ```text
//! offset  bytes
//!      0      2  "A1"
//!      2      4  master key id, little-endian
//!      6     32  data IV, XORed with the master key's mask
//!     38     32  data key, XORed with the same mask
//!     70      n  AES-256-GCM ciphertext; bytes 0..70 are its additional data
//!   70+n     16  tag
//! ```
//!
//! The only tag comes last, so no byte of the plaintext may be used before the whole envelope has been read:
//! see [`A1Decryptor`].

use std::fmt;

use zeroize::Zeroizing;

use crate::error::{DecryptError, EncryptError};
use crate::format::{Format, IDENTIFY_LEN};
use crate::key_ring::KeyRing;
use crate::long_iv_gcm::{IV_LEN, Open, Seal};
use crate::primitives::{KEY_LEN, Secret, TAG_LEN, fill_random};
use crate::target::RevocableTarget;

/// Length of everything before the ciphertext, in bytes.
pub(crate) const HEADER_LEN: usize = IDENTIFY_LEN + IV_LEN + KEY_LEN;

/// Difference between the lengths of an envelope and its plaintext, in bytes.
pub(crate) const OVERHEAD: u64 = (HEADER_LEN + TAG_LEN) as u64;

/// Maximum number of bytes that GCM can encrypt under one IV: 2^39 - 256 bits (NIST SP 800-38D, 5.2.1.1).
const MAX_PLAINTEXT: u64 = (1 << 36) - 32;

/// Returns the length of the plaintext in an envelope of `envelope_len` bytes.
pub(crate) fn plaintext_len(envelope_len: u64) -> Result<u64, DecryptError> {
    envelope_len
        .checked_sub(OVERHEAD)
        .filter(|&len| len <= MAX_PLAINTEXT)
        .ok_or(DecryptError::InvalidLength { format: Format::A1, envelope_len })
}

/// XORs `bytes` with `mask`, which encrypts and decrypts: see [`MasterKey::a1_mask`](crate::MasterKey).
fn apply_mask(bytes: &mut [u8], mask: &Secret) {
    bytes.iter_mut().zip(mask.as_ref()).for_each(|(byte, mask)| *byte ^= mask);
}

/// Encrypts under the ring's current key, replacing the content of `envelope`.
pub(crate) fn encrypt(ring: &KeyRing, plaintext: &[u8], envelope: &mut Vec<u8>) -> Result<(), EncryptError> {
    envelope.clear();
    envelope.reserve_exact(HEADER_LEN + plaintext.len() + TAG_LEN);
    let mut sealer = A1Sealer::new(ring, envelope)?;
    sealer.push(plaintext, envelope)?;
    sealer.finish(envelope)
}

/// Encrypts to A1 as the plaintext arrives. Each function appends to the envelope.
pub(crate) struct A1Sealer {
    gcm: Seal,
    /// Number of bytes encrypted so far.
    len: u64,
}

impl A1Sealer {
    /// Appends the header.
    pub(crate) fn new(ring: &KeyRing, envelope: &mut Vec<u8>) -> Result<Self, EncryptError> {
        let (key_id, master_key) = ring.current().ok_or(EncryptError::KeyService)?;
        let data_key = Secret::random()?;
        let mut iv = Zeroizing::new([0; IV_LEN]);
        fill_random(iv.as_mut())?;

        let mut header = [0; HEADER_LEN];
        let mask = master_key.a1_mask();
        header[..2].copy_from_slice(&Format::A1.magic());
        header[2..6].copy_from_slice(&key_id.to_le_bytes());
        header[6..38].copy_from_slice(iv.as_ref());
        header[38..].copy_from_slice(data_key.as_ref());
        apply_mask(&mut header[6..38], mask);
        apply_mask(&mut header[38..], mask);

        envelope.extend_from_slice(&header);
        Ok(Self { gcm: Seal::new(data_key.as_ref(), &iv, &header)?, len: 0 })
    }

    pub(crate) fn push(&mut self, plaintext: &[u8], envelope: &mut Vec<u8>) -> Result<(), EncryptError> {
        self.len = self.len.saturating_add(plaintext.len() as u64);
        if self.len > MAX_PLAINTEXT {
            return Err(EncryptError::TooLarge { len: self.len });
        }
        Ok(self.gcm.append(plaintext, envelope)?)
    }

    /// Appends the tag.
    pub(crate) fn finish(self, envelope: &mut Vec<u8>) -> Result<(), EncryptError> {
        envelope.extend_from_slice(&self.gcm.finish()?);
        Ok(())
    }
}

/// Decrypts an A1 envelope whose bytes are pushed as they arrive.
///
/// The plaintext is decrypted as it arrives, but can be verified only after the last byte. The decryptor
/// therefore owns the target and returns it from [`finish`](Self::finish) once the tag has been verified. If
/// an error occurs, or the decryptor is dropped early, the target is [discarded](RevocableTarget::discard).
///
/// Callers that pass a `&mut` target must not read it until `finish` has succeeded.
pub struct A1Decryptor<T: RevocableTarget> {
    ring: KeyRing,
    envelope_len: u64,
    /// Bytes pushed so far.
    position: u64,
    header: [u8; HEADER_LEN],
    key_id: u32,
    gcm: Option<Open>,
    tag: [u8; TAG_LEN],
    /// `None` after an error or a successful `finish`.
    target: Option<T>,
}

impl<T: RevocableTarget> A1Decryptor<T> {
    /// Creates a decryptor for an envelope of `envelope_len` bytes, as reported by the storage. The target
    /// receives `envelope_len - 86` bytes.
    ///
    /// # Errors
    /// [`DecryptError::InvalidLength`].
    pub fn new(ring: &KeyRing, envelope_len: u64, mut target: T) -> Result<Self, DecryptError> {
        if let Err(error) = plaintext_len(envelope_len) {
            target.discard();
            return Err(error);
        }
        Ok(Self {
            ring: ring.clone(),
            envelope_len,
            position: 0,
            header: [0; HEADER_LEN],
            key_id: 0,
            gcm: None,
            tag: [0; TAG_LEN],
            target: Some(target),
        })
    }

    /// Decrypts the next bytes of the envelope, any number of them.
    ///
    /// # Errors
    /// [`DecryptError::NotAnEnvelope`], [`DecryptError::UnknownKeyId`], [`DecryptError::TooLong`],
    /// [`DecryptError::Target`]. Errors are final and discard the target.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), DecryptError> {
        if self.target.is_none() {
            return Err(DecryptError::AlreadyFailed);
        }
        let outcome = self.try_push(chunk);
        if outcome.is_err() {
            self.discard();
        }
        outcome
    }

    fn try_push(&mut self, mut chunk: &[u8]) -> Result<(), DecryptError> {
        let tag_start = self.envelope_len - TAG_LEN as u64;
        while !chunk.is_empty() {
            let header_missing = (HEADER_LEN as u64).saturating_sub(self.position);
            let ciphertext_missing = tag_start.saturating_sub(self.position);
            let taken = if header_missing > 0 {
                let taken = copy_tail(&mut self.header, header_missing, chunk);
                if taken as u64 == header_missing {
                    self.open_header()?;
                }
                taken
            } else if ciphertext_missing > 0 {
                let gcm = self.gcm.as_mut().ok_or(DecryptError::AlreadyFailed)?;
                let target = self.target.as_mut().ok_or(DecryptError::AlreadyFailed)?;
                let taken = clamp(ciphertext_missing, chunk.len());
                target.append_with(taken, |out| Ok(gcm.update(&chunk[..taken], out)?))?;
                taken
            } else {
                let tag_missing = self.envelope_len - self.position;
                if tag_missing == 0 {
                    return Err(DecryptError::TooLong { expected: self.envelope_len });
                }
                copy_tail(&mut self.tag, tag_missing, chunk)
            };
            self.position += taken as u64;
            chunk = &chunk[taken..];
        }
        Ok(())
    }

    /// Reads the master key's id, and unmasks data key and IV.
    fn open_header(&mut self) -> Result<(), DecryptError> {
        let start = crate::identify(&self.header).filter(|start| start.format == Format::A1);
        self.key_id = start.ok_or(DecryptError::NotAnEnvelope)?.key_id;
        let mask = self.ring.get(self.key_id)?.a1_mask();
        let mut iv = Zeroizing::new([0; IV_LEN]);
        iv.copy_from_slice(&self.header[6..38]);
        apply_mask(iv.as_mut(), mask);
        let mut data_key = Secret::zeroed();
        data_key.as_mut().copy_from_slice(&self.header[38..]);
        apply_mask(data_key.as_mut(), mask);
        self.gcm = Some(Open::new(data_key.as_ref(), &iv, &self.header)?);
        Ok(())
    }

    /// Verifies the tag, and returns the target with the whole plaintext.
    ///
    /// # Errors
    /// [`DecryptError::Truncated`], [`DecryptError::A1NotAuthentic`]. Errors discard the target.
    pub fn finish(mut self) -> Result<T, DecryptError> {
        if self.target.is_none() {
            return Err(DecryptError::AlreadyFailed);
        }
        if self.position != self.envelope_len {
            return Err(DecryptError::Truncated { expected: self.envelope_len, received: self.position });
        }
        let verified = self.gcm.take().is_some_and(|gcm| gcm.verify(&self.tag));
        if !verified {
            return Err(DecryptError::A1NotAuthentic { key_id: self.key_id });
        }
        // The target is returned, so `drop` must not discard it.
        self.target.take().ok_or(DecryptError::AlreadyFailed)
    }

    fn discard(&mut self) {
        if let Some(mut target) = self.target.take() {
            target.discard();
        }
        self.gcm = None;
    }
}

impl<T: RevocableTarget> Drop for A1Decryptor<T> {
    fn drop(&mut self) {
        self.discard();
    }
}

impl<T: RevocableTarget> fmt::Debug for A1Decryptor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("A1Decryptor")
            .field("position", &self.position)
            .field("envelope_len", &self.envelope_len)
            .finish_non_exhaustive()
    }
}

/// Copies from the start of `chunk` to where the last `missing` bytes of `whole` begin; returns how many it
/// copied.
fn copy_tail(whole: &mut [u8], missing: u64, chunk: &[u8]) -> usize {
    let taken = clamp(missing, chunk.len());
    let start = whole.len() - clamp(missing, whole.len());
    whole[start..start + taken].copy_from_slice(&chunk[..taken]);
    taken
}

/// Returns the smaller of both.
fn clamp(missing: u64, available: usize) -> usize {
    usize::try_from(missing).map_or(available, |missing| missing.min(available))
}
