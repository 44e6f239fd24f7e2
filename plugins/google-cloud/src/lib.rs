//! Orthanc plugin that stores DICOM files in a bucket of Google Cloud Storage.
//!
//! This crate contains only Google's options, endpoint, credentials, bulk deletion and key service. All else is in
//! `storage-plugin`. Copy this configuration to use the plugin:
//!
//! ```json
//! {
//!   "GoogleCloudStorage": {
//!     "BucketName": "my-hospital-images",
//!     "ServiceAccountFile": "/etc/orthanc/service-account.key"
//!   }
//! }
//! ```
//!
//! Without `ServiceAccountFile`, the plugin uses Google's application default credentials.
#![allow(non_snake_case, reason = "the library keeps the name of the C++ plugin")]

mod audit;
mod credentials;
mod deletion;
mod endpoint;
mod key_service;
mod listing;
#[cfg(test)]
mod messages;
mod options;
mod service_account;

use std::ffi::CStr;
use std::sync::Arc;

use cloud_http::{CloudHttp, no_retries};
use crypto_envelope::KeyService;
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};
use orthanc_ffi::InitializeError;
use storage_plugin::{
    Connection, Provider, ProviderContext, Section, StoragePlugin, c_str, client_error, warn_if_exposed,
};

use crate::audit::ObjectAudit;
use crate::credentials::Credentials;
use crate::deletion::ObjectDeletion;
use crate::listing::ObjectListing;
use crate::options::Options;

/// Google Cloud Storage.
#[derive(Debug)]
pub struct Google;

/// Maximum size of an object, in bytes. Google has no lower limit for one request.
const LARGEST_PUT: u64 = 5 * 1024 * 1024 * 1024 * 1024;

impl Provider for Google {
    const NAME: &'static CStr = c_str(concat!(env!("ORTHANC_PLUGIN_NAME"), "\0"));
    const DESCRIPTION: &'static str = env!("CARGO_PKG_DESCRIPTION");
    const COMMIT: Option<&'static str> = option_env!("ORTHANC_PLUGIN_COMMIT");
    const SECTION: &'static str = env!("ORTHANC_PLUGIN_SECTION");
    const SERVER: &'static str = "a Google Cloud Storage server";
    const READ_PERMISSIONS: &'static str = "storage.objects.get, and storage.objects.list, without which Google denies \
        access to an object that does not exist";
    const WRITE_PERMISSIONS: &'static str =
        "storage.objects.create, and storage.objects.delete to replace an object";
    const DELETE_PERMISSIONS: &'static str = "storage.objects.delete";
    const KEY_SERVICE: Option<&'static str> = Some("GoogleKms");

    fn connect(
        section: &mut Section<'_>,
        context: &ProviderContext<'_>,
    ) -> Result<Connection, InitializeError> {
        let options = Options::read(section)?;
        let credentials = Credentials::find(options.service_account_file.as_ref())
            .map_err(|error| InitializeError::new(error.to_string()))?;
        let http = context.http()?.with_crc32c_of_uploads();
        let source = credentials.source(options.service_account_file.as_ref());
        let (store, http) = store(&options, &credentials, http).map_err(client_error)?;
        let credentials = Arc::clone(store.credentials());
        let listing = ObjectListing::new(&options.endpoint, &options.bucket, Arc::clone(&credentials), &http);
        let audit = ObjectAudit::new(&options.endpoint, &options.bucket, Arc::clone(&credentials), &http);
        let deletion = ObjectDeletion::new(&options.endpoint, &options.bucket, credentials, &http);
        let url = format!("gs://{}", options.bucket);
        let endpoint = &options.endpoint;
        let mut connection =
            context.bucket(Arc::new(store), url, endpoint, options.put_options, LARGEST_PUT, source);
        connection.audit = Some(Arc::new(audit));
        connection.bucket.list = Some(Arc::new(listing));
        connection.bucket.bulk_delete = Some(Arc::new(deletion));
        Ok(connection)
    }

    fn key_service(
        service: &mut Section<'_>,
        own: &mut Section<'_>,
        context: &ProviderContext<'_>,
    ) -> Result<Arc<dyn KeyService>, InitializeError> {
        key_service::open(service, own, context)
    }
}

fn store(
    options: &Options,
    credentials: &Credentials,
    http: CloudHttp,
) -> object_store::Result<(GoogleCloudStorage, CloudHttp)> {
    warn_if_exposed(&options.endpoint);
    let (provider, http) = credentials.provider(options.service_account_file.clone(), http)?;
    let store = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&options.bucket)
        .with_base_url(options.endpoint.as_str().trim_end_matches('/'))
        .with_credentials(provider)
        .with_retry(no_retries())
        .with_http_connector(http.clone())
        .build()?;
    Ok((store, http))
}

orthanc_ffi::export_plugin!(StoragePlugin<Google>);
