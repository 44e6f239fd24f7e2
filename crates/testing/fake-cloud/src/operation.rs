//! The operation that a request asks for, which counters, faults and holds need to know first.

use http::request::Parts;
use percent_encoding::percent_decode_str;

/// An operation under its name in S3. The other clouds have equivalents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `PUT` of an object (Azure: Put Blob).
    PutObject,
    /// `GET` of an object without a `Range` header.
    GetObject,
    /// `GET` of an object with a `Range` header.
    GetObjectRange,
    /// `HEAD` of an object.
    HeadObject,
    /// `DELETE` of one object.
    DeleteObject,
    /// `POST ?delete` (Azure and Google: a batch).
    DeleteObjects,
    /// `GET ?list-type=2` (Azure: List Blobs).
    ListObjects,
    /// `POST ?uploads` (no equivalent in Azure).
    CreateMultipartUpload,
    /// `PUT ?partNumber=…&uploadId=…` (Azure: Put Block).
    UploadPart,
    /// `POST ?uploadId=…` (Azure: Put Block List).
    CompleteMultipartUpload,
    /// `DELETE ?uploadId=…` (no equivalent in Azure).
    AbortMultipartUpload,
    /// `POST ?restore` (Azure: Set Blob Tier).
    RestoreObject,
    /// Create Container, counted for Azure only.
    CreateBucket,
    /// Request for a token at Google's OAuth endpoint or metadata server.
    Token,
    /// Encryption of a file key by a key service.
    WrapKey,
    /// Decryption of a file key by a key service.
    UnwrapKey,
    /// Anything else.
    Other,
}

/// The bucket, key and operation of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) operation: Operation,
}

/// Returns the decoded path of a request without its leading slash.
pub(crate) fn decoded_path(head: &Parts) -> String {
    let path = percent_decode_str(head.uri.path()).decode_utf8_lossy();
    path.strip_prefix('/').unwrap_or(&path).to_owned()
}

/// Returns the value of a query parameter as sent, empty if it has none.
pub(crate) fn query_value<'a>(head: &'a Parts, name: &str) -> Option<&'a str> {
    let mut pairs = head.uri.query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}
