//! Azurite over TLS, where it takes tokens of Entra ID: it has their claims checked, though not their signature, which only
//! Microsoft could make.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::json;

use crate::azure::azurite::Azurite;
use crate::azure::options::AzureOptions;

/// An Azurite that takes tokens, without our front: nothing is counted, and no fault can be put before it.
#[derive(Debug)]
pub struct AzuriteOverTls {
    azurite: Azurite,
    account: String,
    authority: String,
}

impl AzuriteOverTls {
    /// Starts it, with its certificate in `folder`. It has no container yet.
    ///
    /// # Errors
    ///
    /// When no certificate can be made, or Azurite does not start.
    pub fn start(folder: &Path) -> io::Result<Self> {
        let options = AzureOptions::default();
        let (authority, certificate, key) = certificates().map_err(io::Error::other)?;
        let (certificate_file, key_file) = (folder.join("azurite.pem"), folder.join("azurite.key"));
        fs::write(&certificate_file, certificate)?;
        fs::write(&key_file, key)?;
        let arguments =
            ["--oauth".into(), "basic".into(), "--cert".into(), certificate_file.into_os_string()];
        let arguments = arguments.into_iter().chain(["--key".into(), key_file.into_os_string()]).collect();
        let azurite = Azurite::start_with(&options.account, &options.key, arguments)?;
        Ok(Self { azurite, account: options.account, authority })
    }

    /// `https://127.0.0.1:PORT/ACCOUNT`.
    #[must_use]
    pub fn blob_endpoint(&self) -> String {
        format!("https://127.0.0.1:{}/{}", self.azurite.port(), self.account)
    }

    /// The account's name.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The certificate of the authority that clients must trust, in PEM format.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// A token as Entra ID gives it for storage, valid for so long.
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

/// In PEM format: the authority's certificate, a server's for 127.0.0.1, and its key.
fn certificates() -> Result<(String, String, String), rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Not Microsoft");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()])?.signed_by(&key, &issuer)?;
    Ok((issuer.pem(), certificate.pem(), key.serialize_pem()))
}
