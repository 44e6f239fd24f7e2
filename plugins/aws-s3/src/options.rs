//! The options of the section `AwsS3Storage` that are S3's own.

use object_store::{Attribute, PutOptions, TagSet};
use storage_plugin::{ConfigError, Secret, Section};

const STORAGE_CLASSES: &[&str] = &[
    "STANDARD",
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER",
    "DEEP_ARCHIVE",
    "OUTPOSTS",
    "GLACIER_IR",
    "SNOW",
];
const SERVER_SIDE_ENCRYPTIONS: &[&str] = &["AES256", "aws:kms", "aws:kms:dsse"];
/// What S3 allows for one object.
const MOST_TAGS: usize = 10;

/// How requests are signed.
#[derive(Debug)]
pub(crate) enum Credentials {
    /// `AccessKey`, `SecretKey`, `SessionToken`.
    Static { access_key: Secret, secret_key: Secret, session_token: Option<Secret> },
    /// Whatever the AWS command line would use.
    DefaultChain,
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) bucket: String,
    pub(crate) region: String,
    pub(crate) credentials: Credentials,
    /// Empty for AWS itself.
    pub(crate) endpoint: String,
    pub(crate) virtual_addressing: bool,
    pub(crate) put_options: PutOptions,
    pub(crate) server_side_encryption: Option<&'static str>,
    pub(crate) kms_key_id: Option<String>,
}

impl Options {
    pub(crate) fn read(section: &mut Section<'_>) -> Result<Self, ConfigError> {
        // Of the C++ plugin. Whether several connections are used is not asked: they are where that is faster.
        section.flag("UseTransferManager", false)?;
        let (server_side_encryption, kms_key_id) = server_side_encryption(section)?;
        Ok(Self {
            bucket: section.required_text("BucketName")?,
            region: section.required_text("Region")?,
            credentials: credentials(section)?,
            endpoint: section.text("Endpoint")?.unwrap_or_default(),
            virtual_addressing: section.flag("VirtualAddressing", true)?,
            put_options: put_options(section)?,
            server_side_encryption,
            kms_key_id,
        })
    }
}

fn credentials(section: &mut Section<'_>) -> Result<Credentials, ConfigError> {
    // Empty ones are none: templates leave them so.
    let given = |secret: &Secret| !secret.expose().is_empty();
    let access_key = section.secret("AccessKey")?.filter(given);
    let secret_key = section.secret("SecretKey")?.filter(given);
    let session_token = section.secret("SessionToken")?.filter(given);
    match (access_key, secret_key) {
        (Some(access_key), Some(secret_key)) => {
            Ok(Credentials::Static { access_key, secret_key, session_token })
        }
        (None, None) if session_token.is_none() => Ok(Credentials::DefaultChain),
        (None, _) => {
            Err(section.error("AccessKey", "is missing: it goes together with SecretKey and SessionToken"))
        }
        (Some(_), None) => Err(section.error("SecretKey", "is missing: it goes together with AccessKey")),
    }
}

/// What is sent with each upload.
fn put_options(section: &mut Section<'_>) -> Result<PutOptions, ConfigError> {
    let mut options = PutOptions::default();
    if let Some(class) = section.choice("StorageClass", STORAGE_CLASSES)? {
        options.attributes.insert(Attribute::StorageClass, class.into());
    }
    let tags = section.texts("Tags")?;
    if tags.len() > MOST_TAGS {
        return Err(
            section.error("Tags", format!("has {} tags: at most {MOST_TAGS} are allowed", tags.len()))
        );
    }
    let mut set = TagSet::default();
    for (key, value) in &tags {
        // The limits of S3, in characters.
        if key.is_empty() || key.chars().count() > 128 || value.chars().count() > 256 {
            let problem = format!(
                "has the tag {key:?}: a key of 1 to 128 and a value of up to 256 characters is needed"
            );
            return Err(section.error("Tags", problem));
        }
        set.push(key, value);
    }
    options.tags = set;
    Ok(options)
}

fn server_side_encryption(
    section: &mut Section<'_>,
) -> Result<(Option<&'static str>, Option<String>), ConfigError> {
    let algorithm = section.choice("ServerSideEncryption", SERVER_SIDE_ENCRYPTIONS)?;
    let key = section.text("KmsKeyId")?;
    if key.is_some() && !algorithm.is_some_and(|algorithm| algorithm.starts_with("aws:kms")) {
        return Err(section.error(
            "KmsKeyId",
            "is given: \"ServerSideEncryption\": \"aws:kms\" or \"aws:kms:dsse\" is needed too",
        ));
    }
    Ok((algorithm, key))
}
