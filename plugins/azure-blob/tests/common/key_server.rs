//! Azure Key Vault for the conformance suite.

use std::path::PathBuf;

use anyhow::Result;
use conformance::{KeyServer, with};
use fake_cloud::VaultFault;
use fake_cloud::VaultOperation::{UnwrapKey, WrapKey};
use serde_json::{Value, json};

#[path = "earlier.rs"]
pub mod earlier;
#[path = "vault.rs"]
pub mod vault;
use earlier::Blobs;
use vault::{HOST, Setup};

/// More requests than a test sends.
const MANY: usize = 10_000;

pub(super) struct Vault {
    setup: Setup,
    blobs: Blobs,
}

impl Vault {
    pub(super) fn start() -> Result<Self> {
        let setup = Setup::new()?;
        let service = setup.service(&setup.options())?;
        let blobs = Blobs::new(&setup.kid, |key| Ok(setup.wrap(&*service, key)?.wrapped))?;
        let _ = setup.vault.take_operations();
        Ok(Self { setup, blobs })
    }
}

impl KeyServer for Vault {
    fn name(&self) -> &'static str {
        "Azure Key Vault"
    }

    fn endpoint(&self) -> String {
        self.setup.vault.proxy()
    }

    /// Without a version of the key, so that new file keys are wrapped with the newest one.
    fn master_key(&self, _endpoint: &str) -> Value {
        let newest = json!({"kid": format!("https://{HOST}/keys/images")});
        json!({"AzureKeyVault": with(self.setup.options(), &newest)})
    }

    fn section(&self, endpoint: &str) -> Value {
        json!({"Proxy": endpoint})
    }

    fn authority(&self) -> Option<PathBuf> {
        Some(self.setup.authority())
    }

    fn take_counts(&self) -> (usize, usize) {
        let operations = self.setup.vault.take_operations();
        let of = |operation| operations.iter().filter(|other| **other == operation).count();
        (of(WrapKey), of(UnwrapKey))
    }

    fn refuse(&self, status: Option<u16>) {
        self.setup.vault.clear_faults();
        for operation in [WrapKey, UnwrapKey] {
            if let Some(status) = status {
                self.setup.vault.fault(operation, &VaultFault::Status(status, None), MANY);
            }
        }
    }

    fn rotate(&self) -> Result<()> {
        self.setup.vault.create_key("images")?;
        Ok(())
    }

    fn disable_first(&self) {
        let version = self.setup.kid.rsplit('/').next().unwrap_or_default();
        self.setup.vault.enable(version, false);
    }

    fn earlier_blob(&self, content: &[u8]) -> Result<[Vec<u8>; 2]> {
        Ok([earlier::encrypt(content)?, self.blobs.info(content.len()).to_string().into_bytes()])
    }

    fn file_keys(&self) -> Vec<Vec<u8>> {
        self.setup.vault.plaintexts()
    }

    fn secrets(&self) -> Vec<String> {
        vec![self.setup.client.secret.clone(), "Bearer ".to_owned(), "eyJ".to_owned()]
    }
}
