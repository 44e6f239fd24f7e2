//! Orthanc plugin that stores DICOM files in a container of Azure Blob Storage.
//!
//! This crate contains only Azure's options, endpoint, connection strings, credentials and key service, and the requests
//! that `object_store` does not make. All else is in `storage-plugin`. Copy this configuration to use the plugin:
//!
//! ```json
//! {
//!   "AzureBlobStorage": {
//!     "ConnectionString": "DefaultEndpointsProtocol=https;AccountName=my-account;AccountKey=my-key;EndpointSuffix=core.windows.net",
//!     "ContainerName": "orthanc"
//!   }
//! }
//! ```
//!
//! With `"AccountName"` instead of the connection string, the plugin uses a managed identity, a service principal or the
//! user of the Azure CLI.
#![allow(non_snake_case, reason = "the library keeps the name of the C++ plugin")]

mod audit;
mod azure_cli;
mod connection_string;
mod container;
mod credentials;
mod deletion;
mod endpoint;
mod key_service;
mod listing;
#[cfg(test)]
mod messages;
mod options;
mod restore;
mod shared_key;
mod token_requests;

use std::ffi::CStr;
use std::sync::Arc;

use cloud_http::{CloudHttp, no_retries};
use crypto_envelope::KeyService;
use object_store::azure::MicrosoftAzureBuilder;
use orthanc_ffi::InitializeError;
use storage_plugin::{
    Connection, Provider, ProviderContext, Section, StoragePlugin, c_str, client_error, warn_if_exposed,
};

use crate::container::Container;
use crate::options::Options;

/// Azure Blob Storage.
#[derive(Debug)]
pub struct Azure;

/// Maximum size of a blob in one request, in bytes (Put Blob since version 2019-12-12).
const LARGEST_PUT: u64 = 5000 * 1024 * 1024;
/// Maximum size of a block, in bytes (Put Block since version 2019-12-12).
const LARGEST_BLOCK: u64 = 4000 * 1024 * 1024;

impl Provider for Azure {
    const NAME: &'static CStr = c_str(concat!(env!("ORTHANC_PLUGIN_NAME"), "\0"));
    const DESCRIPTION: &'static str = env!("CARGO_PKG_DESCRIPTION");
    const COMMIT: Option<&'static str> = option_env!("ORTHANC_PLUGIN_COMMIT");
    const SECTION: &'static str = env!("ORTHANC_PLUGIN_SECTION");
    const SERVER: &'static str = "an Azure server";
    const ENDPOINT_OPTION: &'static str =
        "BlobEndpoint, or where it is not set DefaultEndpointsProtocol in ConnectionString";
    const READ_PERMISSIONS: &'static str = "the role Storage Blob Data Contributor, or the permission to read (r) in \
        the shared access signature";
    const WRITE_PERMISSIONS: &'static str = "the role Storage Blob Data Contributor, or the permissions to create and to \
        write (cw) in the shared access signature";
    const DELETE_PERMISSIONS: &'static str = "the role Storage Blob Data Contributor, or the permission to delete (d) in \
        the shared access signature";
    const KEY_SERVICE: Option<&'static str> = Some("AzureKeyVault");
    const HAS_KEY_VAULT_BLOBS: bool = true;
    const OLDER_SECTION: Option<&'static str> = Some("BlobStorage");

    fn connect(
        section: &mut Section<'_>,
        context: &ProviderContext<'_>,
    ) -> Result<Connection, InitializeError> {
        let options = Options::read(section)?;
        let container = Arc::new(container(&options, context.http()?).map_err(client_error)?);
        let url = format!("azure://{}", options.container);
        let mut connection = context.bucket(
            Arc::clone(&container),
            url,
            &options.account.endpoint,
            options.put_options,
            LARGEST_PUT,
            options.account.credentials.source(),
        );
        connection.audit = Some(Arc::<Container>::clone(&container));
        let bucket = &mut connection.bucket;
        bucket.transfer.part_size = bucket.transfer.part_size.min(LARGEST_BLOCK);
        if options.create_container {
            bucket.create = Some(Arc::<Container>::clone(&container));
        }
        bucket.list = Some(Arc::<Container>::clone(&container));
        bucket.restore = Some(Arc::<Container>::clone(&container));
        bucket.bulk_delete = Some(container);
        Ok(connection)
    }

    fn key_service(
        service: &mut Section<'_>,
        _own: &mut Section<'_>,
        context: &ProviderContext<'_>,
    ) -> Result<Arc<dyn KeyService>, InitializeError> {
        key_service::open(service, context)
    }
}

fn container(options: &Options, http: CloudHttp) -> object_store::Result<Container> {
    let account = &options.account;
    warn_if_exposed(&account.endpoint);
    let (credentials, http) = account.credentials.provider(&account.name, http)?;
    let store = MicrosoftAzureBuilder::new()
        .with_account(&account.name)
        .with_container_name(&options.container)
        .with_endpoint(account.endpoint.as_str().trim_end_matches('/').to_owned())
        .with_credentials(Arc::clone(&credentials))
        .with_retry(no_retries())
        .with_http_connector(http.clone())
        .build()?;
    Ok(Container::new(store, credentials, account, &options.container, options.access_tier, http))
}

orthanc_ffi::export_plugin!(StoragePlugin<Azure>);

#[cfg(test)]
mod tests {
    use cloud_http::HttpOptions;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn debug_output_has_no_secret() {
        let key = "aHVudGVyMg==";
        let sas = "sv=2022-11-02&sig=swordfish";
        for credentials in [format!("AccountKey={key}"), format!("SharedAccessSignature={sas}")] {
            let Value::Object(configuration) = json!({"AzureBlobStorage": {
                "ConnectionString": format!("AccountName=name;{credentials}"), "ContainerName": "container",
            }}) else {
                unreachable!()
            };
            let mut section = Section::find(&configuration, Azure::SECTION).unwrap().unwrap();
            let options = Options::read(&mut section).unwrap();
            let http = CloudHttp::new(&HttpOptions::default()).unwrap();
            let container = container(&options, http).unwrap();
            let text = format!("{section:?} {options:?} {container:?}");
            assert!(text.contains("container"), "{text}");
            // The last one is how `Debug` prints the bytes of the key.
            for secret in [key, "hunter2", "swordfish", "104, 117, 110"] {
                assert!(!text.contains(secret), "{text}");
            }
        }
    }
}
