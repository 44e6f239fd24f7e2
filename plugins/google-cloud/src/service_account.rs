//! Tokens that a service account signs itself (AIP-4111). `object_store` signs them too, but only with this machine's
//! clock.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use async_trait::async_trait;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cloud_http::{Clock, CredentialError};
use object_store::gcp::GcpCredential;
use object_store::{CredentialProvider, Result};
use parking_lot::Mutex;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// What the account may do is set in Google Cloud.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// The longest life that Google accepts.
const LIFE: Duration = Duration::from_secs(3600);
/// How long before its expiry a token is replaced.
const RENEWAL: Duration = Duration::from_secs(300);

/// A service account with its key.
pub(crate) struct ServiceAccount {
    email: String,
    key_id: String,
    key: RsaKeyPair,
    clock: Arc<Clock>,
    token: Mutex<Option<Token>>,
}

struct Token {
    credential: Arc<GcpCredential>,
    made: Instant,
    /// The correction of the clock that it was made with.
    offset: i64,
}

impl ServiceAccount {
    /// Reads a JSON key file; `None` if it has no RSA key in PEM format.
    pub(crate) fn read(file: &str, clock: Arc<Clock>) -> Option<Self> {
        let json: Value = serde_json::from_str(file).ok()?;
        let string = |name: &str| json.get(name).and_then(Value::as_str);
        Some(Self {
            email: string("client_email")?.to_owned(),
            key_id: string("private_key_id")?.to_owned(),
            key: parse(string("private_key")?)?,
            clock,
            token: Mutex::default(),
        })
    }

    fn sign(&self) -> Option<GcpCredential> {
        let now = self.clock.now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": self.key_id});
        let claims = json!({
            "iss": self.email, "sub": self.email, "scope": SCOPE, "iat": now, "exp": now + LIFE.as_secs(),
        });
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).ok()?;
        Some(GcpCredential { bearer: format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)) })
    }
}

/// Parses a private key in PEM format: PKCS #8, or PKCS #1 of old files.
pub(crate) fn parse(pem: &str) -> Option<RsaKeyPair> {
    let (_, text) = pem.split_once("PRIVATE KEY-----")?;
    let (text, _) = text.split_once("-----END ")?;
    let text: Zeroizing<String> = Zeroizing::new(text.split_ascii_whitespace().collect());
    let key = Zeroizing::new(STANDARD.decode(text.as_bytes()).ok()?);
    RsaKeyPair::from_pkcs8(&key).or_else(|_| RsaKeyPair::from_der(&key)).ok()
}

#[async_trait]
impl CredentialProvider for ServiceAccount {
    type Credential = GcpCredential;

    async fn get_credential(&self) -> Result<Arc<GcpCredential>> {
        let mut token = self.token.lock();
        let offset = self.clock.offset();
        let is_good = |token: &&Token| token.offset == offset && token.made.elapsed() < LIFE - RENEWAL;
        if let Some(token) = token.as_ref().filter(is_good) {
            return Ok(Arc::clone(&token.credential));
        }
        let Some(signed) = self.sign() else {
            let reason = "the key of the service account cannot sign".to_owned();
            let source = Box::new(CredentialError { reason, transient: false });
            return Err(object_store::Error::Generic { store: "credentials", source });
        };
        let credential = Arc::new(signed);
        *token = Some(Token { credential: Arc::clone(&credential), made: Instant::now(), offset });
        Ok(credential)
    }
}

impl fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceAccount").field("email", &self.email).finish_non_exhaustive()
    }
}
