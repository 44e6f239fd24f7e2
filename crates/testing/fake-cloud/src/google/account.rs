//! The accounts of a Google server: service accounts with real keys, and users with refresh tokens.

use std::fmt;
use std::sync::{Arc, LazyLock};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

/// One account for all tests of a process, because generating a key is slow.
static SHARED: LazyLock<Result<ServiceAccount, Unspecified>> = LazyLock::new(ServiceAccount::generate);

/// A service account with an RSA key of 2048 bits.
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
    /// Returns an account with a new key.
    ///
    /// # Errors
    ///
    /// Fails if the key cannot be generated.
    pub fn generate() -> Result<Self, Unspecified> {
        let key = KeyPair::generate(KeySize::Rsa2048)?;
        let mut bytes = [0; 20];
        aws_lc_rs::rand::fill(&mut bytes)?;
        let private_key_id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let client_email = format!("storage-{}@test-project.iam.gserviceaccount.com", &private_key_id[..6]);
        Ok(Self { client_email, private_key_id, key: Arc::new(key) })
    }

    /// Returns the account that all servers of this process know by default.
    ///
    /// # Errors
    ///
    /// Fails if its key cannot be generated.
    pub fn shared() -> Result<Self, Unspecified> {
        SHARED.clone()
    }

    /// Returns the key file of Google's console, with the token endpoint of the server at `endpoint`.
    #[must_use]
    pub fn json(&self, endpoint: &str) -> Value {
        json!({
            "type": "service_account",
            "project_id": "test-project",
            "private_key_id": self.private_key_id,
            "private_key": self.private_key_pem(),
            "client_email": self.client_email,
            "client_id": "100000000000000000001",
            "token_uri": format!("{endpoint}/token"),
            "universe_domain": "googleapis.com",
        })
    }

    /// Returns the private key as PKCS#8 in PEM format.
    #[must_use]
    pub fn private_key_pem(&self) -> String {
        // Never fails for a key that was generated.
        let der: Option<Pkcs8V1Der<'_>> = self.key.as_der().ok();
        let text = BASE64.encode(der.as_ref().map_or(&[][..], |der| der.as_ref()));
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
    }

    /// Returns a signature with RS256.
    #[cfg(test)]
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(
            &aws_lc_rs::signature::RSA_PKCS1_SHA256,
            &aws_lc_rs::rand::SystemRandom::new(),
            message,
            &mut signature,
        )?;
        Ok(signature)
    }

    /// Whether this account made a signature.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, self.key.public_key().as_ref());
        key.verify(message, signature).is_ok()
    }
}

/// A user who has signed in with `gcloud auth application-default login`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizedUser {
    /// The client's identifier.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: String,
    /// The token that is exchanged for access tokens.
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
    /// Returns the file that `gcloud` writes for the user.
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
