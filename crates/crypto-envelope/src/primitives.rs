//! Cryptographic primitives in the form that the formats use: HKDF-SHA256 to 32 bytes, AES-256-KWP of 32
//! bytes, the first 32 bytes of an AES-256-CTR key stream, and random bytes.

use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::key_wrap::{AES_256 as KW_AES_256, AesKek, KeyWrapPadded};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::{constant_time, hkdf};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::PrimitiveFailed;

/// Length of all symmetric keys (AES-256), in bytes.
pub(crate) const KEY_LEN: usize = 32;
/// Length of a GCM tag in bytes: the full 128 bits (NIST SP 800-38D, 5.2.1.2).
pub(crate) const TAG_LEN: usize = 16;
/// Length of a 32-byte key wrapped with AES-KWP, in bytes (RFC 5649, 3: padded to 8 bytes, plus one
/// semi-block).
pub(crate) const KWP_LEN: usize = KEY_LEN + 8;

/// 32 secret bytes on the heap, wiped on drop. They are boxed because moving an array would leave an unwiped
/// copy on the stack.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Secret(Box<[u8; KEY_LEN]>);

impl Secret {
    /// Returns zeros, to be overwritten in place.
    pub(crate) fn zeroed() -> Self {
        Self(Box::new([0; KEY_LEN]))
    }

    pub(crate) fn copy_of(bytes: &[u8; KEY_LEN]) -> Self {
        let mut secret = Self::zeroed();
        secret.0.copy_from_slice(bytes);
        secret
    }

    pub(crate) fn random() -> Result<Self, PrimitiveFailed> {
        let mut secret = Self::zeroed();
        fill_random(secret.as_mut())?;
        Ok(secret)
    }

    pub(crate) fn as_mut(&mut self) -> &mut [u8; KEY_LEN] {
        &mut self.0
    }
}

impl AsRef<[u8; KEY_LEN]> for Secret {
    fn as_ref(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

/// Fills `out` with bytes of the library's generator, which is seeded by the operating system (NIST SP
/// 800-90A).
pub(crate) fn fill_random(out: &mut [u8]) -> Result<(), PrimitiveFailed> {
    SystemRandom::new().fill(out).map_err(|Unspecified| PrimitiveFailed("draw random bytes"))
}

/// HKDF-SHA256 (RFC 5869) with 32 bytes of output; `info` is the concatenation of the slices. An empty `salt`
/// means 32 zero bytes, the RFC's default.
pub(crate) fn hkdf_sha256(
    ikm: &[u8; KEY_LEN],
    salt: &[u8],
    info: &[&[u8]],
) -> Result<Secret, PrimitiveFailed> {
    let mut okm = Secret::zeroed();
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(ikm)
        .expand(info, hkdf::HKDF_SHA256)
        .and_then(|expanded| expanded.fill(okm.as_mut()))
        .map_err(|Unspecified| PrimitiveFailed("derive a key with HKDF"))?;
    Ok(okm)
}

/// Returns the first 32 bytes of the AES-256-CTR key stream that starts at the all-zero counter block (NIST
/// SP 800-38A, 6.5).
pub(crate) fn ctr_key_stream(key: &[u8; KEY_LEN]) -> Result<Secret, PrimitiveFailed> {
    let mut stream = Secret::zeroed();
    UnboundCipherKey::new(&AES_256, key)
        .and_then(EncryptingKey::ctr)
        .and_then(|key| {
            let counter = EncryptionContext::Iv128(FixedLength::from(&[0; 16]));
            key.less_safe_encrypt(stream.as_mut(), counter)
        })
        .map_err(|Unspecified| PrimitiveFailed("encrypt with AES-CTR"))?;
    Ok(stream)
}

/// Wraps a 32-byte key with AES-256-KWP (RFC 5649; NIST SP 800-38F, 6.3).
pub(crate) fn kwp_wrap(kek: &[u8; KEY_LEN], key: &[u8; KEY_LEN]) -> Result<[u8; KWP_LEN], PrimitiveFailed> {
    let failed = PrimitiveFailed("wrap a key with AES-KWP");
    let mut wrapped = [0; KWP_LEN];
    let written = AesKek::new(&KW_AES_256, kek)
        .and_then(|kek| kek.wrap_with_padding(key, &mut wrapped))
        .map_err(|Unspecified| failed)?
        .len();
    if written == KWP_LEN { Ok(wrapped) } else { Err(failed) }
}

/// Reverses [`kwp_wrap`]. Returns `None` if `wrapped` is not authentic or does not contain 32 bytes.
pub(crate) fn kwp_unwrap(kek: &[u8; KEY_LEN], wrapped: &[u8; KWP_LEN]) -> Option<Secret> {
    let mut output = Zeroizing::new([0; KWP_LEN]);
    let key = AesKek::new(&KW_AES_256, kek).ok()?.unwrap_with_padding(wrapped, output.as_mut()).ok()?;
    if key.len() != KEY_LEN {
        return None;
    }
    let mut secret = Secret::zeroed();
    secret.as_mut().copy_from_slice(key);
    Some(secret)
}

/// Whether two secrets are equal, compared in constant time.
pub(crate) fn equal(left: &Secret, right: &Secret) -> bool {
    constant_time::verify_slices_are_equal(left.as_ref(), right.as_ref()).is_ok()
}
