//! Blobs of the earlier Orthanc plugin for Azure Key Vault, as it wrote them.

use anyhow::{Context, Result};
use aws_lc_rs::cipher::{AES_256, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::vault::Vault;

/// A blob, and the content of its sidecar.
pub(crate) struct Blob {
    pub(crate) bytes: Vec<u8>,
    pub(crate) info: Value,
}

/// Encrypts a file with a new key, which the vault wraps.
pub(crate) fn encrypt(file: &[u8], vault: &Vault) -> Result<Blob> {
    let mut key = [0; 32];
    let mut iv = [0; 16];
    rand::fill(&mut key)?;
    rand::fill(&mut iv)?;
    let (kid, wrapped) = vault.wrap(&URL_SAFE_NO_PAD.encode(key))?;
    let cipher = UnboundCipherKey::new(&AES_256, &key).and_then(PaddedBlockEncryptingKey::cbc_pkcs7);
    let mut bytes = file.to_vec();
    let context = EncryptionContext::Iv128(FixedLength::from(&iv));
    cipher.and_then(|cipher| cipher.less_safe_encrypt(&mut bytes, context)).context("encrypting the blob")?;
    let value: String = wrapped.bytes().map(|byte| format!("{byte:02X}")).collect();
    let info = json!({
        "cek": {"key": {"iv": iv, "value": value}},
        "cipher": {"size_decrypted": file.len(), "size_encrypted": bytes.len()},
        "kek": {"key": {"kid": kid}},
    });
    Ok(Blob { bytes, info })
}
