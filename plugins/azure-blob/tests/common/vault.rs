//! A vault, and clients of the key `images` in it.
#![allow(unreachable_pub, dead_code, reason = "each test binary uses a part")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use OrthancAzureBlobStorage::Azure;
use anyhow::{Context, Result};
use conformance::with;
use crypto_envelope::{FileKey, KeyService, KeyServiceError, Wrapped};
use fake_cloud::{KeyVault, VaultClient, VaultOperation};
use serde_json::{Value, json};
use storage_plugin::{Provider, ProviderContext, Section};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// The host of the vault.
pub const HOST: &str = "hospital.vault.azure.net";

/// A vault with a key of one version.
pub struct Setup {
    pub vault: KeyVault,
    pub client: VaultClient,
    /// `https://hospital.vault.azure.net/keys/images/VERSION`.
    pub kid: String,
    folder: TempDir,
    runtime: Runtime,
}

impl Setup {
    pub fn new() -> Result<Self> {
        let client = VaultClient::default();
        let vault = KeyVault::start(client.clone())?;
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("authority.pem"), vault.authority())?;
        // The clock of one with several threads cannot be changed.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let kid = format!("https://{HOST}/keys/images/{}", vault.create_key("images")?);
        Ok(Self { vault, client, kid, folder, runtime })
    }

    /// Returns the path of the certificate that clients must trust.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// Returns the options of the client with a secret.
    pub fn options(&self) -> Value {
        json!({
            "kid": self.kid, "clientId": self.client.id, "clientSecret": self.client.secret,
            "tenantId": self.client.tenant,
        })
    }

    /// Returns the options without a tenant.
    pub fn without_tenant(&self) -> Value {
        conformance::without(self.options(), &["tenantId"])
    }

    /// Adds the way to the vault to a configuration of Orthanc.
    pub fn reach(&self, mut configuration: Value) -> Value {
        configuration["HttpsCACertificates"] = json!(self.authority());
        configuration["AzureBlobStorage"]["Proxy"] = json!(self.vault.proxy());
        configuration
    }

    /// Returns a client, or the error of its options.
    pub fn open(&self, options: &Value, network: &Value) -> Result<Arc<dyn KeyService>> {
        let section = with(json!({"AzureKeyVault": options}), network);
        let configuration = self.reach(json!({"AzureBlobStorage": section}));
        let configuration = configuration.as_object().context("no object")?;
        let mut own = Section::find(configuration, "AzureBlobStorage")?.context("no section")?;
        let context = ProviderContext::read::<Azure>(&mut own, configuration, self.runtime.handle())?;
        let section = configuration["AzureBlobStorage"].as_object().context("no object")?;
        let mut service = Section::find(section, "AzureKeyVault")?.context("no section")?;
        Ok(Azure::key_service(&mut service, &mut own, &context)?)
    }

    /// Returns a client that repeats requests twice.
    pub fn service(&self, options: &Value) -> Result<Arc<dyn KeyService>> {
        self.open(options, &json!({"MaxRetries": 2, "OutageTimeout": 20}))
    }

    pub fn wrap(&self, service: &dyn KeyService, key: &FileKey) -> Result<Wrapped, KeyServiceError> {
        self.runtime.block_on(service.wrap(key))
    }

    pub fn unwrap(&self, service: &dyn KeyService, wrapped: &Wrapped) -> Result<FileKey, KeyServiceError> {
        self.runtime.block_on(service.unwrap(&wrapped.key, &wrapped.wrapped))
    }

    /// Checks that a file key comes back, and returns it wrapped.
    pub fn round_trip(&self, service: &dyn KeyService) -> Result<Wrapped> {
        let key = FileKey::random()?;
        let wrapped = self.wrap(service, &key)?;
        assert_eq!(self.unwrap(service, &wrapped)?.expose(), key.expose());
        Ok(wrapped)
    }

    /// Advances the clock of the clients.
    pub fn advance(&self, time: Duration) {
        self.runtime.block_on(async {
            // While the clock stands still, an answer that takes a moment would be late.
            tokio::time::pause();
            tokio::time::advance(time).await;
            tokio::time::resume();
        });
    }

    /// Stops the vault.
    pub fn into_runtime(self) -> Runtime {
        self.runtime
    }

    /// Returns the hosts of all requests so far, in order and without repetitions.
    pub fn hosts(&self) -> Vec<String> {
        let mut hosts: Vec<_> = self.vault.requests().into_iter().map(|request| request.host).collect();
        hosts.dedup();
        hosts
    }

    /// Returns how many requests for an operation there were since the last call.
    pub fn count(&self, operation: VaultOperation) -> usize {
        self.vault.take_operations().into_iter().filter(|other| *other == operation).count()
    }
}
