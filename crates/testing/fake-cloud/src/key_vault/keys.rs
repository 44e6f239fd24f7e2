//! RSA keys with versions.

use std::fmt;
use std::io;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use aws_lc_rs::rsa::{
    KeyPair, KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey,
    PrivateDecryptingKey,
};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// The keys of all vaults.
#[derive(Default)]
pub(super) struct Keys {
    versions: Mutex<Vec<Version>>,
    plaintexts: Mutex<Vec<Vec<u8>>>,
}

/// A version of a key.
#[derive(Clone)]
struct Version {
    name: String,
    version: String,
    is_enabled: bool,
    key: PrivateDecryptingKey,
}

/// Why the vault refuses an operation: status, code and message.
pub(super) type Refusal = (u16, &'static str, String);

impl Keys {
    pub(super) fn create(&self, name: &str) -> io::Result<String> {
        let version = random_hex()?;
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).map_err(io::Error::other)?;
        let new = Version { name: name.to_owned(), version: version.clone(), is_enabled: true, key };
        self.versions.lock().push(new);
        Ok(version)
    }

    pub(super) fn enable(&self, version: &str, is_enabled: bool) {
        for key in self.versions.lock().iter_mut().filter(|key| key.version == version) {
            key.is_enabled = is_enabled;
        }
    }

    /// Notes what a client wants to be wrapped.
    pub(super) fn note(&self, body: &[u8]) {
        let request: Value = serde_json::from_slice(body).unwrap_or_default();
        self.plaintexts.lock().extend(request["value"].as_str().and_then(|text| BASE64.decode(text).ok()));
    }

    /// Returns what clients wanted to be wrapped.
    pub(super) fn plaintexts(&self) -> Vec<Vec<u8>> {
        self.plaintexts.lock().clone()
    }

    /// Finds a version, or the newest one.
    fn find(&self, name: &str, version: Option<&str>) -> Result<Version, Refusal> {
        let keys = self.versions.lock();
        let mut newest_first = keys.iter().rev().filter(|key| key.name.eq_ignore_ascii_case(name));
        let found = newest_first.find(|key| version.is_none_or(|version| key.version == version));
        let unknown = || {
            let message = format!("A key with (name/id) {name} was not found in this key vault.");
            (404, "KeyNotFound", message)
        };
        found.cloned().ok_or_else(unknown)
    }

    /// Describes a key as the vault at `host` does.
    pub(super) fn describe(&self, host: &str, name: &str, version: Option<&str>) -> Result<Value, Refusal> {
        let key = self.find(name, version)?;
        let failed = |_| (500, "InternalError", "no public key".to_owned());
        let der: Pkcs8V1Der<'_> = key.key.as_der().map_err(|_| failed(()))?;
        let pair = KeyPair::from_pkcs8(der.as_ref()).map_err(|_| failed(()))?;
        // An RSAPublicKey (RFC 8017, A.1.1) of 2048 bits: two numbers, the first one with a leading zero.
        let (modulus, exponent) = pair.public_key().as_ref().get(9..).unwrap_or_default().split_at(256);
        let modulus = BASE64.encode(modulus);
        let exponent = BASE64.encode(exponent.get(2..).unwrap_or_default());
        let operations = ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"];
        Ok(json!({
            "key": {"kid": key.id(host), "kty": "RSA", "key_ops": operations, "n": modulus, "e": exponent},
            "attributes": {"enabled": key.is_enabled, "created": 1_700_000_000, "updated": 1_700_000_000},
        }))
    }

    /// Wraps or unwraps a text in base64. `body` is the client's request.
    pub(super) fn convert(
        &self,
        host: &str,
        (name, version): (&str, &str),
        wraps: bool,
        body: &[u8],
    ) -> Result<Value, Refusal> {
        let key = self.find(name, Some(version).filter(|version| !version.is_empty()))?;
        if !key.is_enabled {
            let operation = if wraps { "wrapKey" } else { "unwrapKey" };
            let message = format!("Operation {operation} is not permitted on this key: it is disabled.");
            return Err((403, "Forbidden", message));
        }
        let invalid = || (400, "BadParameter", "The parameter is incorrect.".to_owned());
        let request: Value = serde_json::from_slice(body).map_err(|_| invalid())?;
        let input =
            request["value"].as_str().and_then(|text| BASE64.decode(text).ok()).ok_or_else(invalid)?;
        if request["alg"] != "RSA-OAEP-256" {
            return Err(invalid());
        }
        let output = if wraps { key.encrypt(&input) } else { key.decrypt(&input) }.ok_or_else(invalid)?;
        Ok(json!({"kid": key.id(host), "value": BASE64.encode(output)}))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.versions.lock()).finish()
    }
}

impl Version {
    fn id(&self, host: &str) -> String {
        format!("https://{host}/keys/{}/{}", self.name, self.version)
    }

    fn encrypt(&self, input: &[u8]) -> Option<Vec<u8>> {
        let key = OaepPublicEncryptingKey::new(self.key.public_key()).ok()?;
        let mut output = vec![0; key.ciphertext_size()];
        key.encrypt(&OAEP_SHA256_MGF1SHA256, input, &mut output, None).ok().map(|output| output.to_vec())
    }

    fn decrypt(&self, input: &[u8]) -> Option<Vec<u8>> {
        let key = OaepPrivateDecryptingKey::new(self.key.clone()).ok()?;
        let mut output = vec![0; key.min_output_size()];
        key.decrypt(&OAEP_SHA256_MGF1SHA256, input, &mut output, None).ok().map(|output| output.to_vec())
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.version)
    }
}

/// Returns 32 random hexadecimal digits.
pub(super) fn random_hex() -> io::Result<String> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
