//! The addresses of Google's services.

use storage_plugin::{ConfigError, Section, endpoint_option};
use url::Url;

/// The option with the address.
pub(crate) const ENDPOINT: &str = "Endpoint";
/// Google Cloud Storage.
pub(crate) const STORAGE: &str = "https://storage.googleapis.com";
/// Google Cloud KMS.
pub(crate) const KMS: &str = "https://cloudkms.googleapis.com";

/// Reads the option `Endpoint`.
pub(crate) fn read(section: &mut Section<'_>, default: &str) -> Result<Url, ConfigError> {
    let configured = section.non_empty(ENDPOINT)?.filter(|endpoint| !endpoint.trim().is_empty());
    endpoint_option(section, ENDPOINT, configured.as_deref().unwrap_or(default))
}
