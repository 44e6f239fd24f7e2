//! A key vault on this machine, and a client of it, which does what `az keyvault key` would do.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use fake_cloud::{KeyVault, VaultClient, VaultFault, VaultOperation};
use reqwest::{Certificate, Client, Proxy};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::{self, Runtime};

/// The address of the vault. Its name exists on this machine only.
pub(crate) const URL: &str = "https://hospital.vault.azure.net";
const KEY: &str = "images";
const RESOURCE: &str = "https://vault.azure.net";
/// More requests than the demonstration makes.
const ALL: usize = 1000;

/// A vault with the key `images`.
pub(crate) struct Vault {
    server: KeyVault,
    client: VaultClient,
    http: Client,
    runtime: Runtime,
    /// Holds the certificate of the vault's authority.
    folder: TempDir,
}

/// How often the vault was asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) wrapped: usize,
    pub(crate) unwrapped: usize,
}

impl Vault {
    pub(crate) fn start() -> Result<Self> {
        let client = VaultClient::default();
        let server = KeyVault::start(client.clone())?;
        server.create_key(KEY)?;
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("authority.pem"), server.authority())?;
        let authority = Certificate::from_pem(server.authority().as_bytes())?;
        let http =
            Client::builder().proxy(Proxy::all(server.proxy())?).tls_certs_only([authority]).build()?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { server, client, http, runtime, folder })
    }

    /// The plugin's options for the key, without a version.
    pub(crate) fn options(&self) -> Value {
        json!({
            "kid": format!("{URL}/keys/{KEY}"),
            "clientId": self.client.id,
            "clientSecret": self.client.secret,
        })
    }

    /// The proxy that leads to the vault.
    pub(crate) fn proxy(&self) -> String {
        self.server.proxy()
    }

    /// The file with the certificate that clients must trust.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// Creates a new version of the key.
    pub(crate) fn rotate(&self) -> Result<()> {
        self.server.create_key(KEY)?;
        Ok(())
    }

    /// Leaves all further requests without an answer.
    pub(crate) fn fall_silent(&self) {
        use VaultOperation::{Challenge, GetKey, Token, UnwrapKey, WrapKey};
        for operation in [Challenge, Token, GetKey, WrapKey, UnwrapKey] {
            self.server.fault(operation, &VaultFault::Silence, ALL);
        }
    }

    /// Answers requests again.
    pub(crate) fn come_back(&self) {
        self.server.clear_faults();
    }

    /// Counts the operations with keys since the last call.
    pub(crate) fn take_counts(&self) -> Counts {
        let operations = self.server.take_operations();
        let count = |wanted| operations.iter().filter(|operation| **operation == wanted).count();
        Counts { wrapped: count(VaultOperation::WrapKey), unwrapped: count(VaultOperation::UnwrapKey) }
    }

    /// Wraps bytes in base64url with the newest version of the key. Returns the version's identifier and the wrapped bytes.
    pub(crate) fn wrap(&self, value: &str) -> Result<(String, String)> {
        let answer = self.ask(&format!("{URL}/keys/{KEY}//wrapkey"), value)?;
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        text("kid").zip(text("value")).with_context(|| format!("the vault answered {answer}"))
    }

    /// Unwraps what a version of the key has wrapped.
    pub(crate) fn unwrap(&self, version: &str, value: &str) -> Result<String> {
        let answer = self.ask(&format!("{version}/unwrapkey"), value)?;
        let key = answer["value"].as_str().map(str::to_owned);
        key.with_context(|| format!("the vault answered {answer}"))
    }

    fn ask(&self, url: &str, value: &str) -> Result<Value> {
        let request = self
            .http
            .post(format!("{url}?api-version=7.4"))
            .bearer_auth(self.server.token(RESOURCE))
            .body(json!({"alg": "RSA-OAEP-256", "value": value}).to_string());
        let (status, answer) = self.runtime.block_on(async {
            let answer = request.send().await?;
            Ok::<_, reqwest::Error>((answer.status(), answer.bytes().await?))
        })?;
        ensure!(status.is_success(), "the vault answered {status}: {}", String::from_utf8_lossy(&answer));
        Ok(serde_json::from_slice(&answer)?)
    }
}
