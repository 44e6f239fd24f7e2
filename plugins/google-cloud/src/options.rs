//! The options in the section `GoogleCloudStorage` that are specific to Google.

use object_store::{Attribute, PutOptions};
use storage_plugin::{ConfigError, Section, bucket_name};
use url::Url;

use crate::credentials::ServiceAccountFile;
use crate::endpoint;

const STORAGE_CLASSES: &[&str] = &[
    "STANDARD",
    "NEARLINE",
    "COLDLINE",
    "ARCHIVE",
    "MULTI_REGIONAL",
    "REGIONAL",
    "DURABLE_REDUCED_AVAILABILITY",
];

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) bucket: String,
    pub(crate) service_account_file: Option<ServiceAccountFile>,
    pub(crate) endpoint: Url,
    pub(crate) put_options: PutOptions,
}

impl Options {
    pub(crate) fn read(section: &mut Section<'_>) -> Result<Self, ConfigError> {
        let mut put_options = PutOptions::default();
        if let Some(class) = section.choice("StorageClass", STORAGE_CLASSES)? {
            put_options.attributes.insert(Attribute::StorageClass, class.into());
        }
        Ok(Self {
            bucket: bucket_name(section, "BucketName")?,
            service_account_file: ServiceAccountFile::read(section)?,
            endpoint: endpoint::read(section, endpoint::STORAGE)?,
            put_options,
        })
    }
}
