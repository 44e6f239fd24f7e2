//! The Azure plugin: Orthanc's storage area in a container of Azure Blob Storage.
//!
//! All that is particular to Azure: its options, connection strings, credentials, and the requests that `object_store`
//! does not make. The rest is `storage-plugin`.
#![allow(non_snake_case, reason = "the name of the library is given")]

mod account;
mod connection_string;
mod container;
mod credentials;
mod options;

use std::ffi::CStr;
use std::sync::Arc;

use bucket::BucketOptions;
use cloud_http::{CloudHttp, no_retries};
use object_store::azure::MicrosoftAzureBuilder;
use orthanc_ffi::InitializeError;
use storage_plugin::{Provider, ProviderContext, Section, StoragePlugin, warn_if_exposed};

use crate::container::Container;
use crate::options::Options;

/// Microsoft Azure.
#[derive(Debug)]
pub struct Azure;

/// The largest blob in one request, and the largest block, in bytes (Put Blob and Put Block, from version 2019-12-12 on).
const LARGEST_PUT: u64 = 5000 * 1024 * 1024;
const LARGEST_BLOCK: u64 = 4000 * 1024 * 1024;

impl Provider for Azure {
    const NAME: &'static CStr = c"Azure Blob Storage";
    const DESCRIPTION: &'static str = "Stores the Orthanc storage area in Azure Blob";
    const SECTION: &'static str = "AzureBlobStorage";
    const OLDER_SECTION: Option<&'static str> = Some("BlobStorage");

    fn connect(
        section: &mut Section<'_>,
        context: &ProviderContext<'_>,
    ) -> Result<BucketOptions, InitializeError> {
        let options = Options::read(section)?;
        let container = container(&options, &context.http()?).map_err(|error| {
            InitializeError::new(format!("cannot set up the client of Azure Blob Storage: {error}"))
        })?;
        let container = Arc::new(container);
        let mut transfer = context.network().transfer;
        transfer.part_size = transfer.part_size.min(LARGEST_BLOCK);
        Ok(BucketOptions {
            store: Arc::<Container>::clone(&container),
            multipart: Arc::<Container>::clone(&container),
            url: format!("azure://{}", options.container),
            put_options: options.put_options,
            retry: context.network().retry,
            transfer,
            largest_put: LARGEST_PUT,
            create: if options.create_container { Some(container) } else { None },
        })
    }
}

fn container(options: &Options, http: &CloudHttp) -> object_store::Result<Container> {
    let account = &options.account;
    warn_if_exposed(&account.endpoint);
    let credentials = credentials::provider(&account.credentials, http)?;
    let store = MicrosoftAzureBuilder::new()
        .with_account(&account.name)
        .with_container_name(&options.container)
        .with_endpoint(account.endpoint.as_str().trim_end_matches('/').to_owned())
        .with_credentials(Arc::clone(&credentials))
        .with_retry(no_retries())
        .with_http_connector(http.clone())
        .build()?;
    Ok(Container::new(store, credentials, account, &options.container, options.access_tier, http.clone()))
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
            let container = container(&options, &http).unwrap();
            let text = format!("{section:?} {options:?} {container:?}");
            assert!(text.contains("container"), "{text}");
            // The key's bytes too.
            for secret in [key, "hunter2", "swordfish", "104, 117, 110"] {
                assert!(!text.contains(secret), "{text}");
            }
        }
    }
}
