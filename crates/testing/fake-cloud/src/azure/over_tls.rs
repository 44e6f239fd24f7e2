//! Azurite over TLS, where it accepts tokens of Entra ID. Azurite checks their claims, but not their
//! signature, which only Microsoft can make.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::azure::azurite::Azurite;
use crate::azure::options::AzureOptions;
use crate::tls::Certificates;

/// An Azurite that accepts tokens. Clients connect to it directly, so there are no counters and no faults.
#[derive(Debug)]
pub struct AzuriteOverTls {
    azurite: Azurite,
    account: String,
    authority: String,
}

impl AzuriteOverTls {
    /// Starts Azurite without a container, with its certificate in `folder`.
    ///
    /// # Errors
    ///
    /// Fails if the certificate cannot be created or Azurite does not start.
    pub fn start(folder: &Path) -> io::Result<Self> {
        let options = AzureOptions::default();
        let certificates = Certificates::issue("Not Microsoft", &["127.0.0.1"]).map_err(io::Error::other)?;
        let certificate_file = folder.join("azurite.pem");
        fs::write(&certificate_file, certificates.server.pem())?;
        let key_file = folder.join("azurite.key");
        fs::write(&key_file, certificates.key.serialize_pem())?;
        let arguments = [
            "--oauth".as_ref(),
            "basic".as_ref(),
            "--cert".as_ref(),
            certificate_file.as_os_str(),
            "--key".as_ref(),
            key_file.as_os_str(),
        ];
        let azurite = Azurite::start_with(&options.account, &options.key, &arguments)?;
        Ok(Self { azurite, account: options.account, authority: certificates.authority })
    }

    /// Returns `https://127.0.0.1:PORT/ACCOUNT`.
    #[must_use]
    pub fn blob_endpoint(&self) -> String {
        format!("https://127.0.0.1:{}/{}", self.azurite.port(), self.account)
    }

    /// Returns the account's name.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Returns the certificate of the authority that clients must trust, in PEM format.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns a token like Entra ID's for storage, valid for `life`.
    #[must_use]
    pub fn token(life: Duration) -> String {
        let seconds =
            |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = SystemTime::now();
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = json!({
            "aud": "https://storage.azure.com",
            "iss": "https://sts.windows.net/00000000-0000-4000-8000-000000000000/",
            "iat": seconds(now), "nbf": seconds(now) - 60, "exp": seconds(now + life),
        });
        format!("{}.{}.c2lnbmF0dXJl", part(json!({"typ": "JWT", "alg": "RS256"})), part(claims))
    }
}
