//! Makes blobs as the earlier plugin for Azure Key Vault did, with OpenSSL.
#![allow(unreachable_pub)]

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crypto_envelope::FileKey;
use serde_json::{Value, json};

const KEY: [u8; 32] = [7; 32];
const IV: [u8; 16] = [9; 16];

/// Blobs that share a file key.
pub struct Blobs {
    kid: String,
    /// The hexadecimal form of the text that the vault returned.
    wrapped: String,
}

impl Blobs {
    /// `wrap` sends the file key to the vault, whose key is `kid`, and returns the ciphertext.
    pub fn new(kid: &str, wrap: impl FnOnce(&FileKey) -> Result<Vec<u8>>) -> Result<Self> {
        let wrapped = hex(URL_SAFE_NO_PAD.encode(wrap(&FileKey::new(&KEY))?).as_bytes());
        Ok(Self { kid: kid.to_owned(), wrapped })
    }

    /// Returns the sidecar of a blob with this number of bytes before the encryption.
    pub fn info(&self, len: usize) -> Value {
        json!({
            "cek": {"key": {"iv": IV, "value": self.wrapped}},
            "cipher": {"size_decrypted": len, "size_encrypted": (len / 16 + 1) * 16},
            "kek": {"key": {"kid": self.kid}},
        })
    }
}

/// Returns the blob of an attachment.
pub fn encrypt(content: &[u8]) -> Result<Vec<u8>> {
    let mut openssl = Command::new("openssl")
        .args(["enc", "-aes-256-cbc", "-K", &hex(&KEY), "-iv", &hex(&IV)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = openssl.stdin.take().context("no input")?;
    let content = content.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&content));
    let output = openssl.wait_with_output()?;
    writer.join().ok().context("panicked")??;
    ensure!(output.status.success(), "openssl failed");
    Ok(output.stdout)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}
