//! Google Cloud KMS: keys with versions that encrypt and decrypt, and that tests rotate and disable.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crc_fast::CrcAlgorithm;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::dialect::{AnswerBody, Refusal, document};
use crate::google::oauth::USER;
use crate::operation::Operation;

const VERSIONS: &str = "/cryptoKeyVersions/";
/// Maximum number of bytes of a plaintext and of additional data.
const LONGEST: usize = 64 * 1024;

/// The keys of Google Cloud KMS, shared by clones, the server and the test.
#[derive(Debug, Clone, Default)]
pub struct CryptoKeys(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    keys: BTreeMap<String, CryptoKey>,
    plaintexts: Vec<Vec<u8>>,
    alter: Option<Alter>,
}

/// Changes an answer.
type Alter = Box<dyn Fn(&mut Value) + Send>;

#[derive(Debug, Default)]
struct CryptoKey {
    /// The last one is the primary version. Their numbers begin with 1.
    versions: Vec<Version>,
    denied: bool,
}

#[derive(Debug)]
struct Version {
    key: [u8; 32],
    enabled: bool,
}

impl CryptoKeys {
    /// Adds a primary version to the key `name`, `projects/…/cryptoKeys/…`, which is created if it does not exist.
    ///
    /// # Panics
    ///
    /// If there are no random numbers.
    pub fn rotate(&self, name: &str) {
        let mut key = [0; 32];
        assert!(aws_lc_rs::rand::fill(&mut key).is_ok(), "no random numbers");
        let mut state = self.0.lock();
        state.keys.entry(name.to_owned()).or_default().versions.push(Version { key, enabled: true });
    }

    /// Enables or disables a version of a key, which begin with 1.
    pub fn enable(&self, name: &str, version: usize, enabled: bool) {
        if let Some(key) = self.0.lock().keys.get_mut(name)
            && let Some(version) = version.checked_sub(1).and_then(|index| key.versions.get_mut(index))
        {
            version.enabled = enabled;
        }
    }

    /// Denies everybody the use of a key, or allows it again.
    pub fn deny(&self, name: &str, denied: bool) {
        if let Some(key) = self.0.lock().keys.get_mut(name) {
            key.denied = denied;
        }
    }

    /// Encrypts with the primary version of a key, with any additional data; `None` if that is not possible.
    #[must_use]
    pub fn encrypt(&self, name: &str, plaintext: &[u8], context: &[u8]) -> Option<Vec<u8>> {
        self.0.lock().keys.get(name)?.seal(name, plaintext, context).ok().map(|(_, ciphertext)| ciphertext)
    }

    /// Changes later successful answers with `alter`.
    pub fn alter_answers(&self, alter: impl Fn(&mut Value) + Send + 'static) {
        self.0.lock().alter = Some(Box::new(alter));
    }

    /// Sends unchanged answers again.
    pub fn stop_altering(&self) {
        self.0.lock().alter = None;
    }

    /// Returns the plaintexts that were encrypted, for searches in logs.
    #[must_use]
    pub fn plaintexts(&self) -> Vec<Vec<u8>> {
        self.0.lock().plaintexts.clone()
    }

    /// Carries out `encrypt` or `decrypt` for the account `holder`.
    pub(crate) fn answer(
        &self,
        holder: &str,
        head: &Parts,
        body: &[u8],
    ) -> Result<Response<AnswerBody>, Refusal> {
        if holder == USER && !head.headers.contains_key("x-goog-user-project") {
            let message =
                "Your application has authenticated using end user credentials, without a quota project.";
            return Err(Refusal::new(StatusCode::FORBIDDEN, "PERMISSION_DENIED", message));
        }
        let (name, operation) = target(head)
            .ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "NOT_FOUND", "Method not found."))?;
        let request = serde_json::from_slice(body).map_err(|_| invalid("Invalid JSON payload received."))?;
        let mut state = self.0.lock();
        let key = state.keys.get(name).ok_or_else(|| {
            let message = format!("CryptoKey {name} not found.");
            Refusal::new(StatusCode::NOT_FOUND, "NOT_FOUND", &message)
        })?;
        let mut answer = if operation == Operation::WrapKey {
            let (answer, plaintext) = key.encrypt(name, &request)?;
            state.plaintexts.push(plaintext);
            answer
        } else {
            key.decrypt(name, &request)?
        };
        if let Some(alter) = &state.alter {
            alter(&mut answer);
        }
        Ok(document(&Method::POST, StatusCode::OK, "application/json; charset=UTF-8", answer.to_string()))
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// Returns the key and the operation that a request asks for; `None` if it is not one of Cloud KMS.
pub(crate) fn target(head: &Parts) -> Option<(&str, Operation)> {
    let path = head.uri.path().strip_prefix("/v1/").filter(|path| path.starts_with("projects/"))?;
    let (name, method) = path.rsplit_once(':').filter(|_| head.method == Method::POST)?;
    match method {
        "encrypt" => Some((name, Operation::WrapKey)),
        "decrypt" => Some((name, Operation::UnwrapKey)),
        _ => None,
    }
}

/// Returns an error in the form of Cloud KMS.
pub(crate) fn error(Refusal { status, code, message }: &Refusal) -> String {
    let code = match code.as_str() {
        "AuthenticationRequired" => "UNAUTHENTICATED",
        "AccessDenied" => "PERMISSION_DENIED",
        other => other,
    };
    json!({"error": {"code": status.as_u16(), "message": message, "status": code}}).to_string()
}

fn invalid(message: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message)
}

impl CryptoKey {
    fn encrypt(&self, name: &str, request: &Value) -> Result<(Value, Vec<u8>), Refusal> {
        self.check(name, "useToEncrypt")?;
        let plaintext = value(request, "plaintext")?;
        let context = value(request, "additionalAuthenticatedData")?;
        if plaintext.len() + context.len() > LONGEST {
            return Err(invalid("plaintext or additionalAuthenticatedData is too long."));
        }
        let (number, ciphertext) = self.seal(name, &plaintext, &context)?;
        let has = |field| !request[field].is_null();
        let answer = json!({
            "name": format!("{name}{VERSIONS}{number}"),
            "ciphertext": BASE64.encode(&ciphertext),
            "ciphertextCrc32c": crc32c(&ciphertext).to_string(),
            "verifiedPlaintextCrc32c": has("plaintextCrc32c"),
            "verifiedAdditionalAuthenticatedDataCrc32c": has("additionalAuthenticatedDataCrc32c"),
            "protectionLevel": "SOFTWARE",
        });
        Ok((answer, plaintext))
    }

    /// Encrypts with the primary version, and returns its number and the ciphertext.
    fn seal(&self, name: &str, plaintext: &[u8], context: &[u8]) -> Result<(u32, Vec<u8>), Refusal> {
        let number = self.versions.len();
        let version = self.version(name, number)?;
        let mut sealed = plaintext.to_vec();
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &version.key);
        let nonce = cipher.and_then(|key| key.seal_in_place_append_tag(Aad::from(context), &mut sealed));
        let nonce = nonce.map_err(|_| invalid("Encryption failed."))?;
        let number = u32::try_from(number).unwrap_or_default();
        Ok((number, [&number.to_be_bytes(), nonce.as_ref().as_slice(), &sealed].concat()))
    }

    fn decrypt(&self, name: &str, request: &Value) -> Result<Value, Refusal> {
        const WRONG: &str = "Decryption failed: verify that 'name' refers to the correct CryptoKey.";
        self.check(name, "useToDecrypt")?;
        let ciphertext = value(request, "ciphertext")?;
        let context = value(request, "additionalAuthenticatedData")?;
        let parts = ciphertext.split_first_chunk::<4>();
        let (number, rest) = parts.ok_or_else(|| invalid(WRONG))?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(|| invalid(WRONG))?;
        let number = usize::try_from(u32::from_be_bytes(*number)).unwrap_or_default();
        if !(1..=self.versions.len()).contains(&number) {
            return Err(invalid(WRONG));
        }
        let version = self.version(name, number)?;
        let mut opened = sealed.to_vec();
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &version.key).map_err(|_| invalid(WRONG))?;
        let plaintext = cipher.open_in_place(nonce.into(), Aad::from(&context), &mut opened);
        let plaintext = plaintext.map_err(|_| invalid(WRONG))?;
        Ok(json!({
            "plaintext": BASE64.encode(&plaintext),
            "plaintextCrc32c": crc32c(plaintext).to_string(),
            "usedPrimary": number == self.versions.len(),
            "protectionLevel": "SOFTWARE",
        }))
    }

    fn check(&self, name: &str, permission: &str) -> Result<(), Refusal> {
        if !self.denied {
            return Ok(());
        }
        let message = format!(
            "Permission 'cloudkms.cryptoKeyVersions.{permission}' denied on resource '{name}' (or it may not exist)."
        );
        Err(Refusal::new(StatusCode::FORBIDDEN, "PERMISSION_DENIED", &message))
    }

    fn version(&self, name: &str, number: usize) -> Result<&Version, Refusal> {
        let version = number.checked_sub(1).and_then(|index| self.versions.get(index));
        version.filter(|version| version.enabled).ok_or_else(|| {
            let message = format!("{name}{VERSIONS}{number} is not enabled, current state is: DISABLED.");
            Refusal::new(StatusCode::BAD_REQUEST, "FAILED_PRECONDITION", &message)
        })
    }
}

/// Returns a value of a request, after a comparison with its checksum, if there is one.
fn value(request: &Value, name: &str) -> Result<Vec<u8>, Refusal> {
    let text = request[name].as_str().unwrap_or_default();
    let bytes = BASE64.decode(text).map_err(|_| invalid("Base64 decoding failed."))?;
    let checksum = request[format!("{name}Crc32c")].as_str();
    if checksum.is_some_and(|checksum| checksum != crc32c(&bytes).to_string()) {
        return Err(invalid("The checksum in a field did not match the data in the field."));
    }
    Ok(bytes)
}

fn crc32c(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes)
}
