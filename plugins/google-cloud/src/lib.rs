//! The Google plugin: Orthanc's storage area in a bucket of Google Cloud Storage.
//!
//! All that is particular to Google: its options, its credentials. The rest is `storage-plugin`.
#![allow(non_snake_case, reason = "the name of the library is given")]

mod credentials;
mod options;

use std::ffi::CStr;
use std::sync::Arc;

use bucket::BucketOptions;
use cloud_http::{CloudHttp, no_retries};
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};
use orthanc_ffi::InitializeError;
use storage_plugin::{Provider, ProviderContext, Section, StoragePlugin, warn_if_exposed};

use crate::credentials::Credentials;
use crate::options::Options;

/// The Google Cloud.
#[derive(Debug)]
pub struct Google;

/// The largest object, in bytes. There is no other limit for one request.
const LARGEST_PUT: u64 = 5 * 1024 * 1024 * 1024 * 1024;

impl Provider for Google {
    const NAME: &'static CStr = c"Google Cloud Storage";
    const DESCRIPTION: &'static str = "Stores the Orthanc storage area in Google Cloud";
    const SECTION: &'static str = "GoogleCloudStorage";

    fn connect(
        section: &mut Section<'_>,
        context: &ProviderContext<'_>,
    ) -> Result<BucketOptions, InitializeError> {
        let options = Options::read(section)?;
        let credentials = Credentials::find(options.service_account_file.as_deref())
            .map_err(|error| InitializeError::new(error.to_string()))?;
        let http = context.http()?.with_crc32c_of_uploads();
        let store = store(&options, &credentials, &http).map_err(|error| {
            InitializeError::new(format!("cannot set up the client of Google Cloud Storage: {error}"))
        })?;
        let store = Arc::new(store);
        Ok(BucketOptions {
            store: Arc::<GoogleCloudStorage>::clone(&store),
            multipart: store,
            url: format!("gs://{}", options.bucket),
            put_options: options.put_options,
            retry: context.network().retry,
            transfer: context.network().transfer,
            largest_put: LARGEST_PUT,
            create: None,
        })
    }
}

fn store(
    options: &Options,
    credentials: &Credentials,
    http: &CloudHttp,
) -> object_store::Result<GoogleCloudStorage> {
    warn_if_exposed(&options.endpoint);
    GoogleCloudStorageBuilder::new()
        .with_bucket_name(&options.bucket)
        .with_base_url(options.endpoint.as_str().trim_end_matches('/'))
        .with_credentials(credentials.provider(http)?)
        .with_retry(no_retries())
        .with_http_connector(http.clone())
        .build()
}

orthanc_ffi::export_plugin!(StoragePlugin<Google>);
