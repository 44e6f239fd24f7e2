//! How an Azure server is set up, and what clients need to reach it.

use std::fmt;
use std::time::SystemTime;

use crate::azure::sign::Signer;

/// The account that every installation of Azurite knows.
const ACCOUNT: &str = "devstoreaccount1";
/// Its key, which Microsoft publishes: no secret.
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// The settings of [`crate::BucketServer::start_azure`]. The default has one container, `bucket`, in Azurite's usual
/// account, on a free port.
#[derive(Clone)]
pub struct AzureOptions {
    /// The storage account's name; `devstoreaccount1` by default.
    pub account: String,
    /// The account's key in base64; Azurite's published one by default.
    pub key: String,
    /// Containers to begin with.
    pub containers: Vec<String>,
    /// Port on 127.0.0.1; a free one by default.
    pub port: Option<u16>,
    /// Connections open at once; further ones are closed as they come. 1024 by default.
    pub connection_limit: usize,
}

impl Default for AzureOptions {
    fn default() -> Self {
        Self {
            account: ACCOUNT.to_owned(),
            key: KEY.to_owned(),
            containers: vec!["bucket".to_owned()],
            port: None,
            connection_limit: 1024,
        }
    }
}

impl fmt::Debug for AzureOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureOptions")
            .field("account", &self.account)
            .field("containers", &self.containers)
            .field("port", &self.port)
            .field("connection_limit", &self.connection_limit)
            .finish_non_exhaustive()
    }
}

/// What a shared access signature allows, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sas {
    /// `sp`: letters in Azure's order `racwdxyltmeop`.
    pub permissions: String,
    /// `st`: not valid before.
    pub start: Option<SystemTime>,
    /// `se`: not valid after. Whole seconds count.
    pub expiry: SystemTime,
}

impl Sas {
    /// Everything a client needs to read, write, delete and list, until `expiry`.
    #[must_use]
    pub fn until(expiry: SystemTime) -> Self {
        Self { permissions: "racwdl".to_owned(), start: None, expiry }
    }
}

impl AzureOptions {
    /// `http://127.0.0.1:PORT/ACCOUNT`, from [`crate::BucketServer::endpoint`].
    #[must_use]
    pub fn blob_endpoint(&self, endpoint: &str) -> String {
        format!("{endpoint}/{}", self.account)
    }

    /// The connection string with the account's key.
    #[must_use]
    pub fn connection_string(&self, endpoint: &str) -> String {
        format!(
            "DefaultEndpointsProtocol=http;AccountName={};AccountKey={};BlobEndpoint={};",
            self.account,
            self.key,
            self.blob_endpoint(endpoint)
        )
    }

    /// The connection string with a shared access signature in place of the key.
    #[must_use]
    pub fn sas_connection_string(&self, endpoint: &str, sas: &str) -> String {
        format!("BlobEndpoint={};SharedAccessSignature={sas};", self.blob_endpoint(endpoint))
    }

    /// A signature for the whole account's blobs, as the part of an address after `?`.
    #[must_use]
    pub fn account_sas(&self, sas: &Sas) -> String {
        Signer::new(&self.account, &self.key).account_sas(sas)
    }

    /// A signature for one container and its blobs, as the part of an address after `?`.
    #[must_use]
    pub fn service_sas(&self, container: &str, sas: &Sas) -> String {
        Signer::new(&self.account, &self.key).service_sas(container, sas)
    }
}
