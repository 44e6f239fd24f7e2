//! What a test sees of the objects in a bucket.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;

/// An object as the bucket holds it, for inspection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// The content.
    pub bytes: Bytes,
    /// Without quotation marks. No MD5 of the content: see the crate's documentation.
    pub etag: String,
    /// When it was put.
    pub last_modified: SystemTime,
    /// `x-amz-storage-class`, `x-goog-storage-class` or `x-ms-access-tier`, where one was given.
    pub storage_class: Option<String>,
    /// `x-amz-tagging` or `x-ms-tags`.
    pub tags: BTreeMap<String, String>,
    /// `x-amz-server-side-encryption`, where one was asked for.
    pub server_side_encryption: Option<String>,
    /// `x-amz-server-side-encryption-aws-kms-key-id`.
    pub kms_key_id: Option<String>,
    /// CRC64NVME of the content in base64, whether or not the client sent one.
    pub checksum_crc64nvme: String,
    /// CRC32C of the content in base64, as Google keeps it; none elsewhere.
    pub checksum_crc32c: Option<String>,
    /// MD5 of the content in base64, where the server keeps one: Azure for blobs put or committed with one, Google for
    /// objects put in one piece.
    pub checksum_md5: Option<String>,
    /// `Content-Type`, where one was given.
    pub content_type: Option<String>,
    /// `x-amz-meta-*`, `x-goog-meta-*` or `x-ms-meta-*`, without the prefix.
    pub metadata: BTreeMap<String, String>,
    /// The number of parts, where it came in parts.
    pub parts: Option<usize>,
}

/// A multipart upload that was neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedUpload {
    /// The identifier that the client got; empty on Azure, which has none.
    pub upload_id: String,
    /// The key it is meant for.
    pub key: String,
    /// Part numbers with the bytes of each; Azure's blocks have none, and are counted in no particular order.
    pub parts: BTreeMap<i32, usize>,
}
