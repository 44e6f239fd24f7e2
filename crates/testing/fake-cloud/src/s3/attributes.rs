//! What S3 allows a client to say about an object: storage classes, tags, encryption.

use std::collections::BTreeMap;

use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use crate::s3::object::Attributes;

/// What S3 knows.
pub(crate) const STORAGE_CLASSES: [&str; 11] = [
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
    "EXPRESS_ONEZONE",
];

/// Objects of these classes cannot be read before they are restored.
const ARCHIVED: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

/// The headers of a put or of the beginning of a multipart upload, as `s3s` hands them over.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) content_type: Option<String>,
    pub(crate) storage_class: Option<s3s::dto::StorageClass>,
    pub(crate) tagging: Option<String>,
    pub(crate) server_side_encryption: Option<s3s::dto::ServerSideEncryption>,
    pub(crate) kms_key_id: Option<String>,
    pub(crate) metadata: Option<s3s::dto::Metadata>,
}

impl Said {
    /// Refuses what S3 refuses.
    pub(crate) fn check(self, storage_classes: &[&str]) -> S3Result<Attributes> {
        let storage_class = self.storage_class.map(|class| class.as_str().to_owned());
        if storage_class.as_deref().is_some_and(|class| !storage_classes.contains(&class)) {
            return Err(s3_error!(InvalidStorageClass, "The storage class you specified is not valid"));
        }
        let encryption = self.server_side_encryption.map(|encryption| encryption.as_str().to_owned());
        match (encryption.as_deref(), &self.kms_key_id) {
            (None | Some("AES256"), Some(_)) => {
                return Err(s3_error!(
                    InvalidArgument,
                    "A KMS key needs server-side encryption with aws:kms"
                ));
            }
            (None | Some("AES256" | "aws:kms" | "aws:kms:dsse"), _) => {}
            _ => return Err(s3_error!(InvalidArgument, "The encryption method specified is not supported")),
        }
        Ok(Attributes {
            content_type: self.content_type,
            storage_class,
            tags: self.tagging.map_or_else(|| Ok(BTreeMap::new()), |tagging| parse_tags(&tagging))?,
            server_side_encryption: encryption,
            kms_key_id: self.kms_key_id,
            metadata: self.metadata.into_iter().flatten().collect(),
        })
    }
}

/// Refuses to read an archived object.
pub(crate) fn check_readable(attributes: &Attributes) -> S3Result<()> {
    if attributes.storage_class.as_deref().is_some_and(|class| ARCHIVED.contains(&class)) {
        return Err(s3_error!(
            InvalidObjectState,
            "The operation is not valid for the object's storage class"
        ));
    }
    Ok(())
}

/// The tags of an `x-amz-tagging` header, which are written like a query.
fn parse_tags(header: &str) -> S3Result<BTreeMap<String, String>> {
    let pairs = url::form_urlencoded::parse(header.as_bytes());
    check_tags(pairs.map(|(key, value)| (key.into_owned(), value.into_owned())))
}

/// At most 10 tags, keys of 1 to 128 characters, values of up to 256, no key twice.
pub(crate) fn check_tags(
    pairs: impl Iterator<Item = (String, String)>,
) -> S3Result<BTreeMap<String, String>> {
    let invalid = |message: &'static str| S3Error::with_message(S3ErrorCode::InvalidTag, message);
    let mut tags = BTreeMap::new();
    for (key, value) in pairs {
        if !(1..=128).contains(&key.chars().count()) {
            return Err(invalid("The TagKey you have provided is invalid"));
        }
        if value.chars().count() > 256 {
            return Err(invalid("The TagValue you have provided is invalid"));
        }
        if tags.insert(key, value).is_some() {
            return Err(invalid("Cannot provide multiple Tags with the same key"));
        }
    }
    if tags.len() > 10 {
        return Err(invalid("Object tags cannot be greater than 10"));
    }
    Ok(tags)
}
