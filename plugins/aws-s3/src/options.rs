//! The options in the section `AwsS3Storage` that are specific to S3.

use std::sync::Arc;

use cloud_http::CloudHttp;
use object_store::aws::{AwsCredential, AwsCredentialProvider};
use object_store::{Attribute, PutOptions, StaticCredentialProvider, TagSet};
use storage_plugin::{ConfigError, Reloading, Secret, Section, bucket_name};

use crate::credentials::CredentialChain;
use crate::dialect::Protection;
use crate::endpoint::Endpoint;

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
const CHECKSUMS: &[&str] = &["auto", "crc64nvme", "sha256", "md5", "none"];
/// Maximum number of tags that S3 accepts for one object.
const MAX_TAGS: usize = 10;

/// The credentials that sign requests.
#[derive(Debug)]
pub(crate) enum Credentials {
    /// `AccessKey`, `SecretKey`, `SessionToken`.
    Static { access_key: Secret, secret_key: Secret, session_token: Option<Secret> },
    /// The credentials that the AWS command line would use.
    DefaultChain,
}

impl Credentials {
    /// Returns where the credentials come from.
    pub(crate) fn source(&self) -> String {
        match self {
            Self::Static { .. } => "AccessKey in the section".to_owned(),
            Self::DefaultChain => CredentialChain::source(),
        }
    }

    /// Returns the credentials for requests in `region`, and a client that keeps them out of messages and loads them again
    /// when the server refuses them with one of `refusals`.
    pub(crate) fn apply(
        &self,
        region: &str,
        http: CloudHttp,
        refusals: &'static [&'static str],
    ) -> (CloudHttp, AwsCredentialProvider) {
        match self {
            Self::Static { access_key, secret_key, session_token } => {
                let secrets = [Some(access_key), Some(secret_key), session_token.as_ref()];
                let secrets = secrets.into_iter().flatten().map(|secret| secret.expose().to_owned());
                let credential = AwsCredential {
                    key_id: access_key.expose().to_owned(),
                    secret_key: secret_key.expose().to_owned(),
                    token: session_token.as_ref().map(|token| token.expose().to_owned()),
                };
                (http.with_secrets(secrets), Arc::new(StaticCredentialProvider::new(credential)))
            }
            Self::DefaultChain => {
                let chain = CredentialChain::reloading(region, http.client().clone());
                let credentials = Arc::<Reloading<AwsCredential>>::clone(&chain);
                (http.with_renewal(chain, refusals), credentials)
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) bucket: String,
    pub(crate) region: String,
    pub(crate) credentials: Credentials,
    pub(crate) endpoint: Endpoint,
    /// How uploads are protected, `None` for the best way that the server understands.
    pub(crate) protection: Option<Protection>,
    /// Whether everything above `TransferBufferSize` is uploaded in parts.
    pub(crate) always_in_parts: bool,
    pub(crate) put_options: PutOptions,
    pub(crate) server_side_encryption: Option<&'static str>,
    pub(crate) kms_key_id: Option<String>,
}

impl Options {
    pub(crate) fn read(section: &mut Section<'_>) -> Result<Self, ConfigError> {
        let bucket = bucket_name(section, "BucketName")?;
        let region = section.required("Region")?.trim().to_owned();
        let endpoint = Endpoint::read(section, &bucket, &region)?;
        let (server_side_encryption, kms_key_id) = server_side_encryption(section)?;
        Ok(Self {
            bucket,
            region,
            credentials: credentials(section)?,
            endpoint,
            protection: protection(section)?,
            always_in_parts: section.flag("UseTransferManager", false)?,
            put_options: put_options(section)?,
            server_side_encryption,
            kms_key_id,
        })
    }
}

pub(crate) fn credentials(section: &mut Section<'_>) -> Result<Credentials, ConfigError> {
    let access_key = key(section, "AccessKey")?;
    let secret_key = key(section, "SecretKey")?;
    let session_token = section.secret("SessionToken")?;
    match (access_key, secret_key) {
        (Some(access_key), Some(secret_key)) => {
            Ok(Credentials::Static { access_key, secret_key, session_token })
        }
        (None, None) if session_token.is_none() => Ok(Credentials::DefaultChain),
        (None, None) => Err(section.error("SessionToken", "requires AccessKey and SecretKey")),
        (None, Some(_)) => Err(section.missing("AccessKey", "it must be set together with SecretKey")),
        (Some(_), None) => Err(section.missing("SecretKey", "it must be set together with AccessKey")),
    }
}

/// Returns a key. An empty one must not mean the default chain, which can belong to another account.
fn key(section: &mut Section<'_>, option: &'static str) -> Result<Option<Secret>, ConfigError> {
    let key = section.secret(option)?;
    if key.is_none() && section.has(option) {
        return Err(section.error(
            option,
            "must not be empty; a value \"${NAME}\" is empty if Orthanc's environment has no variable NAME; for the AWS \
             default credential chain, remove AccessKey and SecretKey",
        ));
    }
    Ok(key)
}

fn protection(section: &mut Section<'_>) -> Result<Option<Protection>, ConfigError> {
    Ok(match section.choice("Checksum", CHECKSUMS)? {
        Some("crc64nvme") => Some(Protection::Crc64Nvme),
        Some("sha256") => Some(Protection::Sha256),
        Some("md5") => Some(Protection::Md5),
        Some("none") => Some(Protection::None),
        _ => None,
    })
}

/// Reads the options that are sent with each upload.
fn put_options(section: &mut Section<'_>) -> Result<PutOptions, ConfigError> {
    let mut options = PutOptions::default();
    if let Some(class) = section.choice("StorageClass", STORAGE_CLASSES)? {
        options.attributes.insert(Attribute::StorageClass, class.into());
    }
    let tags = section.strings("Tags")?;
    if tags.len() > MAX_TAGS {
        let problem = format!("must have at most {MAX_TAGS} tags, got {}", tags.len());
        return Err(section.error("Tags", problem));
    }
    let mut set = TagSet::default();
    for (key, value) in &tags {
        // S3 limits the characters, not the bytes.
        if key.is_empty() || key.chars().count() > 128 || value.chars().count() > 256 {
            let problem =
                format!("must have keys of 1 to 128 and values of up to 256 characters, got the key {key:?}");
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
    let key = section.string("KmsKeyId")?;
    if key.is_some() && !algorithm.is_some_and(|algorithm| algorithm.starts_with("aws:kms")) {
        let problem = "requires \"ServerSideEncryption\": \"aws:kms\" or \"aws:kms:dsse\"";
        return Err(section.error("KmsKeyId", problem));
    }
    Ok((algorithm, key))
}
