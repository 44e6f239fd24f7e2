//! Blobs of the earlier Orthanc plugin for Azure Key Vault (format `key-vault-cbc`), which are only read.
//!
//! A blob is AES-256-CBC with PKCS#7 padding (RFC 5652, 6.3), without authentication. Its sidecar, a JSON document, has
//! the initialization vector and the key, wrapped by the vault with RSA-OAEP-256. Thousands of blobs share a key, and
//! even the initialization vector.
//!
//! Nothing proves that such content is what was stored: whoever can write to the container can alter it. What can be
//! checked is: the sizes in the sidecar, and the padding.

use std::fmt;

use aws_lc_rs::cipher::{AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::iv::FixedLength;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::a2::header::{Service, ServiceWrap};
use crate::a2::opener::FileKey;

/// Length of a block and of an initialization vector, in bytes.
const BLOCK: usize = 16;

/// The content of a sidecar (`{uuid}-{type}.info`).
pub struct CbcInfo {
    kid: String,
    wrapped: Vec<u8>,
    iv: [u8; BLOCK],
    plaintext_len: u64,
}

/// A blob of the earlier plugin cannot be read. Nothing of it has been released.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CbcError {
    /// A field of the sidecar is missing or malformed.
    #[error("the sidecar of a blob of the earlier Key Vault plugin has no valid {0}; it is damaged")]
    Info(&'static str),
    /// The blob has another size than the sidecar says.
    #[error(
        "the blob of the earlier Key Vault plugin has {got} bytes, and its sidecar says {expected}; it is damaged"
    )]
    Length {
        /// The size in the sidecar, in bytes.
        expected: u64,
        /// The size of the blob, in bytes.
        got: u64,
    },
    /// The padding is wrong, or the plaintext has another size than the sidecar says.
    #[error(
        "the blob of the earlier Key Vault plugin cannot be decrypted with the key in its sidecar: one of them is damaged"
    )]
    NotDecrypted,
}

impl CbcInfo {
    /// Reads a sidecar.
    ///
    /// # Errors
    ///
    /// [`CbcError::Info`], which names the field.
    pub fn parse(sidecar: &[u8]) -> Result<Self, CbcError> {
        let json: Value = serde_json::from_slice(sidecar).map_err(|_| CbcError::Info("JSON"))?;
        let field = |pointer: &'static str| json.pointer(pointer).ok_or(CbcError::Info(pointer));
        let text = |pointer| field(pointer)?.as_str().ok_or(CbcError::Info(pointer));
        let number = |pointer| field(pointer)?.as_u64().ok_or(CbcError::Info(pointer));

        let kid = text("/kek/key/kid").and_then(|kid| match kid {
            "" => Err(CbcError::Info("/kek/key/kid")),
            kid => Ok(kid.to_owned()),
        })?;
        let wrapped = wrapped_key(text("/cek/key/value")?).ok_or(CbcError::Info("/cek/key/value"))?;
        let iv =
            field("/cek/key/iv")?.as_array().and_then(|iv| bytes(iv)).ok_or(CbcError::Info("/cek/key/iv"))?;
        let plaintext_len = number("/cipher/size_decrypted")?;
        if Some(number("/cipher/size_encrypted")?) != encrypted_len(plaintext_len) {
            return Err(CbcError::Info("/cipher/size_encrypted"));
        }
        Ok(Self { kid, wrapped, iv, plaintext_len })
    }

    /// The wrapped key, for [`FileKeys::unwrap`](crate::FileKeys::unwrap).
    pub fn wrap(&self) -> ServiceWrap<'_> {
        ServiceWrap { service: Service::AzureKeyVault, key: &self.kid, wrapped: &self.wrapped }
    }

    /// Length of the plaintext, in bytes.
    pub fn plaintext_len(&self) -> u64 {
        self.plaintext_len
    }

    /// Fails unless the blob has the size that the sidecar says.
    ///
    /// # Errors
    ///
    /// [`CbcError::Length`].
    pub fn check_len(&self, got: u64) -> Result<(), CbcError> {
        let expected = encrypted_len(self.plaintext_len).unwrap_or(u64::MAX);
        if got == expected { Ok(()) } else { Err(CbcError::Length { expected, got }) }
    }

    /// Decrypts a whole blob in place.
    ///
    /// # Errors
    ///
    /// [`CbcError::Length`], [`CbcError::NotDecrypted`].
    pub fn decrypt(&self, key: &FileKey, blob: Vec<u8>) -> Result<Vec<u8>, CbcError> {
        self.check_len(blob.len() as u64)?;
        // Wiped unless all of it is right.
        let mut blob = Zeroizing::new(blob);
        let context = DecryptionContext::Iv128(FixedLength::from(&self.iv));
        let decrypted = UnboundCipherKey::new(&AES_256, key.expose())
            .and_then(PaddedBlockDecryptingKey::cbc_pkcs7)
            .and_then(|key| key.decrypt(&mut blob, context).map(|plaintext| plaintext.len()));
        match decrypted {
            Ok(len) if len as u64 == self.plaintext_len => {
                blob.truncate(len);
                Ok(std::mem::take(&mut *blob))
            }
            Ok(_) | Err(Unspecified) => Err(CbcError::NotDecrypted),
        }
    }
}

impl fmt::Debug for CbcInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CbcInfo").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// The wrapped key: the hexadecimal form of the text that the vault returned, which is base64url without padding.
fn wrapped_key(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let text: Option<Vec<u8>> = digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect();
    URL_SAFE_NO_PAD.decode(text?).ok().filter(|wrapped| !wrapped.is_empty())
}

/// Numbers from 0 to 255.
fn bytes(numbers: &[Value]) -> Option<[u8; BLOCK]> {
    let bytes: Option<Vec<u8>> =
        numbers.iter().map(|number| number.as_u64().and_then(|number| u8::try_from(number).ok())).collect();
    bytes?.try_into().ok()
}

/// Length of a blob of `plaintext_len` bytes: the padding has 1 to 16 bytes.
fn encrypted_len(plaintext_len: u64) -> Option<u64> {
    (plaintext_len / BLOCK as u64 + 1).checked_mul(BLOCK as u64)
}

#[cfg(test)]
mod tests;
