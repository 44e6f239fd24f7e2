//! The options of the section `GoogleCloudStorage` that are Google's own.

use std::path::PathBuf;

use object_store::{Attribute, PutOptions};
use storage_plugin::{ConfigError, Section, parse_endpoint};
use url::Url;

const STORAGE_CLASSES: &[&str] = &[
    "STANDARD",
    "NEARLINE",
    "COLDLINE",
    "ARCHIVE",
    "MULTI_REGIONAL",
    "REGIONAL",
    "DURABLE_REDUCED_AVAILABILITY",
];
const GOOGLE: &str = "https://storage.googleapis.com";

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) bucket: String,
    pub(crate) service_account_file: Option<PathBuf>,
    pub(crate) endpoint: Url,
    pub(crate) put_options: PutOptions,
}

impl Options {
    pub(crate) fn read(section: &mut Section<'_>) -> Result<Self, ConfigError> {
        let mut put_options = PutOptions::default();
        if let Some(class) = section.choice("StorageClass", STORAGE_CLASSES)? {
            put_options.attributes.insert(Attribute::StorageClass, class.into());
        }
        // An empty one is none: templates leave it so.
        let file = section.text("ServiceAccountFile")?.filter(|path| !path.is_empty());
        Ok(Self {
            bucket: section.required_text("BucketName")?,
            service_account_file: file.map(PathBuf::from),
            endpoint: endpoint(section)?,
            put_options,
        })
    }
}

fn endpoint(section: &mut Section<'_>) -> Result<Url, ConfigError> {
    let spelled = section.text("Endpoint")?.unwrap_or_default();
    let url = match spelled.trim() {
        "" => GOOGLE.to_owned(),
        url if url.contains("://") => url.to_owned(),
        host => format!("https://{host}"),
    };
    // Not the value: it may hold a password.
    parse_endpoint(&url)
        .ok_or_else(|| section.error("Endpoint", "is no URL: [https://]host[:port] is needed"))
}
