//! What a request asks for.
//!
//! Counting, faults and holds need this before anything else has looked at the request.

/// An operation by its name in S3, as requests are counted and as faults are aimed. The other clouds have the same with
/// other names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// `PUT` of an object (Azure: Put Blob).
    PutObject,
    /// `GET` of a whole object, without a `Range` header.
    GetObject,
    /// `GET` of an object with a `Range` header.
    GetObjectRange,
    /// `HEAD` of an object.
    HeadObject,
    /// `DELETE` of one object.
    DeleteObject,
    /// `POST ?delete` (Azure: `comp=batch`): many objects at once.
    DeleteObjects,
    /// `GET ?list-type=2` of a bucket (Azure: `comp=list`).
    ListObjectsV2,
    /// `POST ?uploads` (Azure has none).
    CreateMultipartUpload,
    /// `PUT ?partNumber=…&uploadId=…` (Azure: Put Block).
    UploadPart,
    /// `POST ?uploadId=…` (Azure: Put Block List).
    CompleteMultipartUpload,
    /// `DELETE ?uploadId=…` (Azure has none).
    AbortMultipartUpload,
    /// `HEAD` of a bucket (Azure: `GET` or `HEAD` of a container).
    HeadBucket,
    /// `PUT` of a bucket (Azure: Create Container).
    CreateBucket,
    /// A token asked for at Google's OAuth endpoint or metadata server.
    Token,
    /// Anything else: tags, copies, bucket lists.
    Other,
}

impl Operation {
    /// Every operation, in the order of the declaration.
    pub const ALL: [Self; 15] = [
        Self::PutObject,
        Self::GetObject,
        Self::GetObjectRange,
        Self::HeadObject,
        Self::DeleteObject,
        Self::DeleteObjects,
        Self::ListObjectsV2,
        Self::CreateMultipartUpload,
        Self::UploadPart,
        Self::CompleteMultipartUpload,
        Self::AbortMultipartUpload,
        Self::HeadBucket,
        Self::CreateBucket,
        Self::Token,
        Self::Other,
    ];
}

/// The bucket, key and operation of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) operation: Operation,
}
