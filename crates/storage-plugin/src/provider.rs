//! The interface between a cloud's plugin and the code that all plugins share.

use std::ffi::CStr;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bucket::BucketOptions;
use cloud_http::{CloudHttp, HttpConfigError, HttpOptions, proxy_for};
use crypto_envelope::KeyService;
use object_store::multipart::MultipartStore;
use object_store::{ObjectStore, PutOptions};
use orthanc_ffi::InitializeError;
use serde_json::{Map, Value};
use tokio::runtime::Handle;
use url::Url;

use crate::audit::BucketAudit;
use crate::config::{ConfigError, NetworkOptions, PROXY, Section, describe_file};

/// Orthanc's own option for its proxy.
const ORTHANC_PROXY: &str = "HttpProxy";

/// A cloud that stores objects in buckets.
pub trait Provider: Send + Sync + 'static {
    /// The plugin's name in Orthanc's list of plugins and at the beginning of log lines.
    const NAME: &'static CStr;
    /// What the plugin does, for Orthanc's page of plugins.
    const DESCRIPTION: &'static str;
    /// The commit that the plugin was built from, if it is known.
    const COMMIT: Option<&'static str> = None;
    /// The plugin's section of Orthanc's configuration.
    const SECTION: &'static str;
    /// The section's name in older releases, which is read if [`Self::SECTION`] is missing.
    const OLDER_SECTION: Option<&'static str> = None;
    /// The server in messages, with its article: `an S3 server`.
    const SERVER: &'static str;
    /// The option with the server's address, in messages.
    const ENDPOINT_OPTION: &'static str = "Endpoint";
    /// The permissions to read objects, in messages.
    const READ_PERMISSIONS: &'static str;
    /// The permissions to write objects, in messages.
    const WRITE_PERMISSIONS: &'static str;
    /// The permissions to delete objects, in messages.
    const DELETE_PERMISSIONS: &'static str;
    /// The cloud's key service in the option `MasterKey`, such as `AwsKms`, if it has one.
    const KEY_SERVICE: Option<&'static str> = None;
    /// Whether the earlier plugin for Azure Key Vault stored attachments in this cloud, whose options and blobs are read.
    const HAS_KEY_VAULT_BLOBS: bool = false;
    /// An alternative name of the option `EnableHttpLogs`.
    const HTTP_LOG_OPTION: Option<&'static str> = None;

    /// Reads this cloud's options and returns a client of the bucket. Does not send a request.
    ///
    /// # Errors
    ///
    /// Returns an error if the configuration is not valid.
    fn connect(
        section: &mut Section<'_>,
        context: &ProviderContext<'_>,
    ) -> Result<Connection, InitializeError>;

    /// Reads the options of a key in the cloud's key service, and returns a client. `own` is the plugin's section,
    /// whose credentials are used unless `service` has others. Does not send a request.
    ///
    /// # Errors
    ///
    /// Returns an error if the configuration is not valid.
    fn key_service(
        service: &mut Section<'_>,
        own: &mut Section<'_>,
        context: &ProviderContext<'_>,
    ) -> Result<Arc<dyn KeyService>, InitializeError> {
        let _ = (own, context);
        Err(InitializeError::new(format!("{} is not supported", service.name())))
    }
}

/// A cloud's bucket, and what the log and `status` say about the way to it.
#[derive(Debug)]
pub struct Connection {
    /// The bucket.
    pub bucket: BucketOptions,
    /// The server's address, without credentials.
    pub endpoint: String,
    /// The proxy, without its password.
    pub proxy: Option<String>,
    /// The region, if the configuration names one.
    pub region: Option<String>,
    /// Where the credentials come from; never their value.
    pub credentials: String,
    /// Asks the server for the audit; `None` for a store without a server.
    pub audit: Option<Arc<dyn BucketAudit>>,
}

/// Returns the bucket that a configuration of Orthanc names, as [`StoragePlugin`](crate::StoragePlugin)
/// connects to it.
///
/// # Errors
///
/// Returns an error if the section of `P` is missing or the configuration is not valid.
pub fn connect<P: Provider>(
    configuration: &Map<String, Value>,
    runtime: &Handle,
) -> Result<BucketOptions, InitializeError> {
    Ok(connection::<P>(configuration, runtime)?.bucket)
}

/// As [`connect`], with what else is known of the way to the bucket.
///
/// # Errors
///
/// As [`connect`].
pub fn connection<P: Provider>(
    configuration: &Map<String, Value>,
    runtime: &Handle,
) -> Result<Connection, InitializeError> {
    let mut section = Section::find(configuration, P::SECTION)?
        .ok_or_else(|| InitializeError::new(format!("no section {:?} in the configuration", P::SECTION)))?;
    let context = ProviderContext::read::<P>(&mut section, configuration, runtime)?;
    P::connect(&mut section, &context)
}

/// Converts an error of creating a cloud's client, for [`Provider::connect`].
#[expect(clippy::needless_pass_by_value, reason = "map_err passes the error by value")]
pub fn client_error(error: object_store::Error) -> InitializeError {
    InitializeError::new(format!("cannot create the bucket client: {error}"))
}

/// Converts a text that ends with a zero byte, for [`Provider::NAME`].
pub const fn c_str(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => c"unknown",
    }
}

/// The configuration and the runtime that a provider uses besides its section.
pub struct ProviderContext<'a> {
    configuration: &'a Map<String, Value>,
    runtime: &'a Handle,
    network: NetworkOptions,
    /// The option that names the proxy.
    proxy_option: String,
}

impl<'a> ProviderContext<'a> {
    /// Reads the network options in the section of `P`, which is part of Orthanc's `configuration`.
    ///
    /// # Errors
    ///
    /// Returns an error if an option is not valid.
    pub fn read<P: Provider>(
        section: &mut Section<'_>,
        configuration: &'a Map<String, Value>,
        runtime: &'a Handle,
    ) -> Result<Self, ConfigError> {
        let mut network = NetworkOptions::read(section, P::HTTP_LOG_OPTION)?;
        let mut proxy_option = format!("{}.{PROXY}", section.name());
        if network.http.proxy.is_none() {
            network.http.proxy = Section::root(configuration).non_empty(ORTHANC_PROXY)?;
            proxy_option = ORTHANC_PROXY.to_owned();
        }
        Ok(Self { configuration, runtime, network, proxy_option })
    }

    /// Returns the network options.
    pub fn network(&self) -> &NetworkOptions {
        &self.network
    }

    /// Returns the runtime on which requests are made.
    pub fn runtime(&self) -> &Handle {
        self.runtime
    }

    /// Returns the bucket `url` at `endpoint` behind `store`, with the network options. `largest_put` is the
    /// largest object, in bytes, that the cloud accepts in one request. `credentials` says where the credentials come from.
    pub fn bucket<S: ObjectStore + MultipartStore>(
        &self,
        store: Arc<S>,
        url: String,
        endpoint: &Url,
        put_options: PutOptions,
        largest_put: u64,
        credentials: impl Into<String>,
    ) -> Connection {
        let host = endpoint.host_str().unwrap_or_default();
        let port = endpoint.port().map(|port| format!(":{port}")).unwrap_or_default();
        let bucket = BucketOptions {
            server: format!("{}{}", endpoint.authority(), endpoint.path()),
            put_options,
            retry: self.network.retry,
            transfer: self.network.transfer,
            largest_put,
            ..BucketOptions::new(store, url)
        };
        Connection {
            bucket,
            endpoint: format!("{}://{host}{port}{}", endpoint.scheme(), endpoint.path()),
            proxy: proxy_for(self.network.http.proxy.as_deref(), endpoint.as_str()),
            region: None,
            credentials: credentials.into(),
            audit: None,
        }
    }

    /// Returns an HTTP client that uses the section's proxy (`Proxy`) or Orthanc's (`HttpProxy`), and additional
    /// certificates (`HttpsCACertificates`).
    ///
    /// # Errors
    ///
    /// Returns an error if one of these options is not valid.
    pub fn http(&self) -> Result<CloudHttp, InitializeError> {
        const CERTIFICATES: &str = "HttpsCACertificates";
        let mut root = Section::root(self.configuration);
        let path = root.non_empty(CERTIFICATES)?;
        let shown = describe_file(Path::new(path.as_deref().unwrap_or_default()));
        let unreadable =
            |error| root.error(CERTIFICATES, format!("must name a readable file, got {shown}: {error}"));
        let root_certificates = path.as_ref().map(std::fs::read).transpose().map_err(unreadable)?;
        let options = HttpOptions { root_certificates, ..self.network.http.clone() };
        CloudHttp::new(&options).map_err(|error| match error {
            HttpConfigError::Certificates => {
                let problem = format!("must be a PEM file with at least one certificate, got {shown}");
                root.error(CERTIFICATES, problem).into()
            }
            // The proxy's address may contain a password.
            HttpConfigError::Proxy => {
                root.error(&self.proxy_option, "must be [protocol://][user:password@]host[:port]").into()
            }
            error => InitializeError::new(error.to_string()),
        })
    }
}

impl fmt::Debug for ProviderContext<'_> {
    /// Omits the configuration, since parts of it are secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderContext").finish_non_exhaustive()
    }
}

impl From<ConfigError> for InitializeError {
    fn from(error: ConfigError) -> Self {
        Self::new(error.to_string())
    }
}
