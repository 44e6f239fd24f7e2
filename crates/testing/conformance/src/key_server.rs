//! The key service of a cloud, as the tests see it.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::{Value, json};

/// A server with one key that wraps file keys.
pub trait KeyServer: Send + Sync {
    /// The service's name in messages.
    fn name(&self) -> &'static str;

    /// The URL at which all requests arrive, `http://127.0.0.1:1234`. A client may be configured with the URL of a proxy in
    /// front of it.
    fn endpoint(&self) -> String;

    /// The value of `MasterKey`, for a client of `endpoint`.
    fn master_key(&self, endpoint: &str) -> Value;

    /// Changes of the plugin's section with which `endpoint` is reached.
    fn section(&self, endpoint: &str) -> Value {
        let _ = endpoint;
        json!({})
    }

    /// The certificate of the authority that clients must trust.
    fn authority(&self) -> Option<PathBuf> {
        None
    }

    /// Returns the number of requests to wrap and to unwrap a file key since the last call.
    fn take_counts(&self) -> (usize, usize);

    /// Answers all later requests to wrap or unwrap with this status, or as usual.
    fn refuse(&self, status: Option<u16>);

    /// Makes a version of the key, which wraps file keys from now on.
    fn rotate(&self) -> Result<()> {
        bail!("the key has no versions")
    }

    /// Disables the first version of the key.
    fn disable_first(&self) {}

    /// Encrypts an attachment as the earlier plugin for Azure Key Vault did. Returns its blob and the blob's sidecar.
    fn earlier_blob(&self, content: &[u8]) -> Result<[Vec<u8>; 2]> {
        let _ = content;
        bail!("there was no earlier plugin")
    }

    /// Returns the file keys that were to be wrapped.
    fn file_keys(&self) -> Vec<Vec<u8>>;

    /// Returns texts that no log may contain, besides keys.
    fn secrets(&self) -> Vec<String>;
}
