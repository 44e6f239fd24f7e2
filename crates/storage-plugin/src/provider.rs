//! What a cloud's plugin has to bring.

use std::ffi::CStr;
use std::fmt;

use cloud_http::{CloudHttp, HttpOptions, HttpSetupError};
use hybrid::ObjectStorageOptions;
use orthanc_ffi::InitializeError;
use serde_json::{Map, Value};
use url::{Host, Url};

use crate::config::{ConfigError, Section};

/// A cloud.
pub trait Provider: Send + Sync + 'static {
    /// The plugin's name, as Orthanc lists it and log lines begin.
    const NAME: &'static CStr;
    /// The plugin's description, as Orthanc shows it.
    const DESCRIPTION: &'static str;
    /// The plugin's section of Orthanc's configuration.
    const SECTION: &'static str;
    /// The section that older releases had, which is read where [`Self::SECTION`] is missing.
    const OLDER_SECTION: Option<&'static str> = None;

    /// Reads the options of this cloud, and makes the client of its bucket. No request is sent yet.
    ///
    /// # Errors
    ///
    /// A mistake in the configuration.
    fn connect(section: &mut Section<'_>, setup: &Setup<'_>) -> Result<Connection, InitializeError>;
}

/// A bucket that can be used.
#[derive(Debug)]
pub struct Connection {
    /// The bucket.
    pub bucket: ObjectStorageOptions,
    /// Whether each request of the HTTP client goes into Orthanc's log.
    pub http_logs: bool,
}

/// What a provider is given besides its section.
pub struct Setup<'a> {
    pub(crate) configuration: &'a Map<String, Value>,
    pub(crate) runtime: &'a tokio::runtime::Handle,
}

impl<'a> Setup<'a> {
    /// For a provider that is tested without a plugin. `configuration` is Orthanc's, the section is in it.
    pub fn new(configuration: &'a Map<String, Value>, runtime: &'a tokio::runtime::Handle) -> Self {
        Self { configuration, runtime }
    }

    /// The runtime on which requests are made.
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        self.runtime
    }

    /// An HTTP client with `options`, and with the proxy and the additional certificates of Orthanc's configuration
    /// (`HttpProxy`, `HttpsCACertificates`).
    ///
    /// # Errors
    ///
    /// When one of the two is not usable.
    pub fn http(&self, options: &HttpOptions) -> Result<CloudHttp, InitializeError> {
        let mut root = Section::root(self.configuration);
        // Empty ones are none.
        let proxy = root.text("HttpProxy")?.filter(|proxy| !proxy.is_empty());
        let certificates = root.text("HttpsCACertificates")?.filter(|path| !path.is_empty());
        let refused = |path: &str, problem: String| {
            InitializeError::new(format!("option HttpsCACertificates is {path:?}: {problem}"))
        };
        let root_certificates = match &certificates {
            None => None,
            Some(path) => Some(
                std::fs::read(path)
                    .map_err(|error| refused(path, format!("the file cannot be read: {error}")))?,
            ),
        };
        let options = HttpOptions { proxy, root_certificates, ..*options };
        CloudHttp::new(&options).map_err(|error| match (error, &certificates) {
            (error @ HttpSetupError::Certificates, Some(path)) => {
                refused(path, format!("{error}: a file of -----BEGIN CERTIFICATE----- blocks is needed"))
            }
            // It may hold a password.
            (error @ HttpSetupError::Proxy, _) => InitializeError::new(format!(
                "option HttpProxy is {error}: [protocol://][user:password@]host[:port] is needed"
            )),
            (error, _) => InitializeError::new(error.to_string()),
        })
    }
}

impl fmt::Debug for Setup<'_> {
    /// Without the configuration: there are secrets in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").finish_non_exhaustive()
    }
}

/// Whether what is sent to `endpoint` can be read or changed on its way: `http`, and not on this machine.
pub fn is_exposed(endpoint: &Url) -> bool {
    let loopback = match endpoint.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    endpoint.scheme() == "http" && !loopback
}

impl From<ConfigError> for InitializeError {
    fn from(error: ConfigError) -> Self {
        Self::new(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_beyond_this_machine_is_exposed() {
        let exposed = |url: &str| is_exposed(&url.parse().unwrap());
        assert!(exposed("http://minio:9000"));
        assert!(exposed("http://192.168.1.2:9000"));
        for safe in [
            "https://minio",
            "http://localhost:9000",
            "http://b.localhost",
            "http://127.0.0.1:1",
            "http://[::1]:1",
        ] {
            assert!(!exposed(safe), "{safe}");
        }
    }
}
