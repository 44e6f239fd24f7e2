//! The address of Google Cloud Storage.

use storage_plugin::{ConfigError, Section, endpoint_option};
use url::Url;

const ENDPOINT: &str = "Endpoint";
const DEFAULT: &str = "https://storage.googleapis.com";

/// Reads the option `Endpoint`.
pub(crate) fn read(section: &mut Section<'_>) -> Result<Url, ConfigError> {
    let configured = section.non_empty(ENDPOINT)?.filter(|endpoint| !endpoint.trim().is_empty());
    endpoint_option(section, ENDPOINT, configured.as_deref().unwrap_or(DEFAULT))
}
