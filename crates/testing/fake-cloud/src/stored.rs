//! The buckets of a server as tests see them.

use std::collections::BTreeMap;

use bytes::Bytes;

/// An object in a bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredObject {
    /// The object's bytes.
    pub bytes: Bytes,
    /// `x-amz-storage-class`, `x-goog-storage-class` or `x-ms-access-tier`, if the client sent one.
    pub storage_class: Option<String>,
    /// `x-amz-tagging`.
    pub tags: BTreeMap<String, String>,
    /// `x-amz-server-side-encryption`, if the client sent one.
    pub server_side_encryption: Option<String>,
    /// `x-amz-server-side-encryption-aws-kms-key-id`.
    pub kms_key_id: Option<String>,
    /// CRC-64/NVME of the bytes in base64, whether or not the client sent one. Empty on Azure.
    pub checksum_crc64nvme: String,
}

/// Direct access to the buckets, without a request.
///
/// Tests call these methods, which may block.
pub(crate) trait Buckets {
    /// Returns the keys of a bucket in order.
    fn keys(&self, bucket: &str) -> Vec<String>;

    /// Returns one object.
    fn object(&self, bucket: &str, key: &str) -> Option<StoredObject>;

    /// Puts an object; creates the bucket if necessary.
    fn insert(&self, bucket: &str, key: &str, content: Bytes);

    /// Removes an object and returns it.
    fn remove(&self, bucket: &str, key: &str) -> Option<StoredObject>;

    /// Refuses the deletion of an object from now on.
    fn protect(&self, bucket: &str, key: &str);

    /// Moves an object to an archive tier, where it cannot be read.
    fn archive(&self, bucket: &str, key: &str);

    /// Returns the keys of objects that are being restored.
    fn restoring(&self, bucket: &str) -> Vec<String>;

    /// Ends the restore of an object, which can be read from now on.
    fn end_restore(&self, bucket: &str, key: &str);

    /// Returns the keys of multipart uploads that were neither completed nor aborted.
    fn unfinished_uploads(&self, bucket: &str) -> Vec<String>;

    /// Empties all buckets, unfinished uploads included.
    fn clear(&self);
}
