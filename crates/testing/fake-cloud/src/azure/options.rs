//! The settings of an Azure server, and the credentials for its clients.

use std::fmt;
use std::time::SystemTime;

use crate::azure::sas;

/// The account that every installation of Azurite has.
const ACCOUNT: &str = "devstoreaccount1";
/// The account's key, which Microsoft publishes.
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// The settings of [`crate::BucketServer::start_azure`].
#[derive(Clone)]
pub struct AzureOptions {
    /// Name of the storage account; `devstoreaccount1` by default.
    pub account: String,
    /// The account's key in base64; Azurite's published one by default.
    pub key: String,
    /// Port on 127.0.0.1; a free one by default.
    pub port: Option<u16>,
}

impl Default for AzureOptions {
    fn default() -> Self {
        Self { account: ACCOUNT.to_owned(), key: KEY.to_owned(), port: None }
    }
}

impl fmt::Debug for AzureOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureOptions")
            .field("account", &self.account)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// The permissions and the validity of a shared access signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sas {
    /// `sp`: letters in Azure's order `racwdxyltmeop`.
    pub permissions: String,
    /// `se`: the end of validity, in whole seconds.
    pub expiry: SystemTime,
}

impl Sas {
    /// Returns permissions to read, write, delete and list until `expiry`.
    #[must_use]
    pub fn until(expiry: SystemTime) -> Self {
        Self { permissions: "racwdl".to_owned(), expiry }
    }
}

impl AzureOptions {
    /// Returns `http://127.0.0.1:PORT/ACCOUNT`, given [`crate::BucketServer::endpoint`].
    #[must_use]
    pub fn blob_endpoint(&self, endpoint: &str) -> String {
        format!("{endpoint}/{}", self.account)
    }

    /// Returns the connection string with the account's key.
    #[must_use]
    pub fn connection_string(&self, endpoint: &str) -> String {
        format!(
            "DefaultEndpointsProtocol=http;AccountName={};AccountKey={};BlobEndpoint={};",
            self.account,
            self.key,
            self.blob_endpoint(endpoint)
        )
    }

    /// Returns the connection string with a shared access signature in place of the key.
    #[must_use]
    pub fn sas_connection_string(&self, endpoint: &str, sas: &str) -> String {
        format!("BlobEndpoint={};SharedAccessSignature={sas};", self.blob_endpoint(endpoint))
    }

    /// Returns a signature for all containers and blobs of the account, as the query of a URL.
    #[must_use]
    pub fn account_sas(&self, sas: &Sas) -> String {
        sas::of_account(&self.account, &self.key, sas)
    }

    /// Returns a signature for one container and its blobs, as the query of a URL.
    #[must_use]
    pub fn service_sas(&self, container: &str, sas: &Sas) -> String {
        sas::of_container(&self.account, &self.key, container, sas)
    }
}
