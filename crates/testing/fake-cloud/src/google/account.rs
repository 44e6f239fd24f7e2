//! Who may use a Google server: service accounts with real keys, and users with refresh tokens.

use std::fmt;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

/// One account for all tests of a process: a key takes its time.
static SHARED: LazyLock<Result<ServiceAccount, Unspecified>> = LazyLock::new(ServiceAccount::generate);

/// A service account with its RSA key of 2048 bits.
#[derive(Clone)]
pub struct ServiceAccount {
    /// `…@….iam.gserviceaccount.com`.
    pub client_email: String,
    /// The key's identifier, `kid` in tokens.
    pub private_key_id: String,
    key: Arc<KeyPair>,
}

impl fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceAccount")
            .field("client_email", &self.client_email)
            .field("private_key_id", &self.private_key_id)
            .finish_non_exhaustive()
    }
}

impl ServiceAccount {
    /// An account with a new key.
    ///
    /// # Errors
    ///
    /// When the key cannot be generated.
    pub fn generate() -> Result<Self, Unspecified> {
        let key = KeyPair::generate(KeySize::Rsa2048)?;
        let mut id = [0; 20];
        aws_lc_rs::rand::fill(&mut id)?;
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let client_email = format!("storage-{}@test-project.iam.gserviceaccount.com", &id[..6]);
        Ok(Self { client_email, private_key_id: id, key: Arc::new(key) })
    }

    /// The one account that all servers of this process know by default.
    ///
    /// # Errors
    ///
    /// When its key cannot be generated.
    pub fn shared() -> Result<Self, Unspecified> {
        SHARED.clone()
    }

    /// The file that Google's console hands out for it, with the token endpoint of the server at `endpoint`.
    #[must_use]
    pub fn json(&self, endpoint: &str) -> Value {
        json!({
            "type": "service_account",
            "project_id": "test-project",
            "private_key_id": self.private_key_id,
            "private_key": self.private_key_pem(),
            "client_email": self.client_email,
            "client_id": "100000000000000000001",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": format!("{endpoint}/token"),
            "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
            "client_x509_cert_url": format!(
                "https://www.googleapis.com/robot/v1/metadata/x509/{}",
                self.client_email.replace('@', "%40")
            ),
            "universe_domain": "googleapis.com",
        })
    }

    /// The private key as PKCS#8 in PEM format.
    #[must_use]
    pub fn private_key_pem(&self) -> String {
        // A key that was just made can be written.
        let der: Option<Pkcs8V1Der<'_>> = self.key.as_der().ok();
        let text = BASE64.encode(der.as_ref().map_or(&[][..], |der| der.as_ref()));
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
    }

    /// A signature with RS256, for tests that make tokens of their own.
    ///
    /// # Errors
    ///
    /// When signing fails.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)?;
        Ok(signature)
    }

    /// Whether a signature is this account's.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, self.key.public_key().as_ref());
        key.verify(message, signature).is_ok()
    }
}

/// A person who has signed in with `gcloud auth application-default login`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizedUser {
    /// The client's identifier.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: String,
    /// What access tokens are had for.
    pub refresh_token: String,
}

impl Default for AuthorizedUser {
    fn default() -> Self {
        Self {
            client_id: "764086051850-test.apps.googleusercontent.com".to_owned(),
            client_secret: "test-client-secret".to_owned(),
            refresh_token: "1//test-refresh-token".to_owned(),
        }
    }
}

impl AuthorizedUser {
    /// The file that `gcloud` writes for the user.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "account": "",
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "quota_project_id": "test-project",
            "refresh_token": self.refresh_token,
            "type": "authorized_user",
            "universe_domain": "googleapis.com",
        })
    }
}
