//! What a cloud's plugin has to bring.

use std::ffi::CStr;
use std::fmt;

use bucket::BucketOptions;
use cloud_http::{CloudHttp, HttpConfigError, HttpOptions};
use orthanc_ffi::InitializeError;
use serde_json::{Map, Value};

use crate::config::{ConfigError, NetworkOptions, Section};

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
    /// Another name of `EnableHttpLogs` in the section.
    const HTTP_LOG_OPTION: Option<&'static str> = None;

    /// Reads the options of this cloud's own, and makes the client of its bucket. No request is sent yet.
    ///
    /// # Errors
    ///
    /// A mistake in the configuration.
    fn connect(
        section: &mut Section<'_>,
        context: &ProviderContext<'_>,
    ) -> Result<BucketOptions, InitializeError>;
}

/// What a provider is given besides its section.
pub struct ProviderContext<'a> {
    configuration: &'a Map<String, Value>,
    runtime: &'a tokio::runtime::Handle,
    network: NetworkOptions,
}

impl<'a> ProviderContext<'a> {
    /// Reads how the bucket is reached from the section of `P`, which is in `configuration`, Orthanc's.
    ///
    /// # Errors
    ///
    /// A mistake in the options that all clouds have.
    pub fn read<P: Provider>(
        section: &mut Section<'_>,
        configuration: &'a Map<String, Value>,
        runtime: &'a tokio::runtime::Handle,
    ) -> Result<Self, ConfigError> {
        Ok(Self { configuration, runtime, network: NetworkOptions::read(section, P::HTTP_LOG_OPTION)? })
    }

    /// How the bucket is reached.
    pub fn network(&self) -> &NetworkOptions {
        &self.network
    }

    /// The runtime on which requests are made.
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        self.runtime
    }

    /// An HTTP client, with the proxy and the additional certificates of Orthanc's configuration (`HttpProxy`,
    /// `HttpsCACertificates`).
    ///
    /// # Errors
    ///
    /// When one of the two is not usable.
    pub fn http(&self) -> Result<CloudHttp, InitializeError> {
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
        let options = HttpOptions { proxy, root_certificates, ..self.network.http };
        CloudHttp::new(&options).map_err(|error| match (error, &certificates) {
            (error @ HttpConfigError::Certificates, Some(path)) => {
                refused(path, format!("{error}: a file of -----BEGIN CERTIFICATE----- blocks is needed"))
            }
            // It may hold a password.
            (error @ HttpConfigError::Proxy, _) => InitializeError::new(format!(
                "option HttpProxy is {error}: [protocol://][user:password@]host[:port] is needed"
            )),
            (error, _) => InitializeError::new(error.to_string()),
        })
    }
}

impl fmt::Debug for ProviderContext<'_> {
    /// Without the configuration: there are secrets in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderContext").finish_non_exhaustive()
    }
}

impl From<ConfigError> for InitializeError {
    fn from(error: ConfigError) -> Self {
        Self::new(error.to_string())
    }
}
