//! What differs between the clouds: how requests are read, carried out and refused, and where objects are kept.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use s3s::StdError;

use crate::body::Upload;
use crate::operation::Target;
use crate::stored::{StoredObject, UnfinishedUpload};

/// The body of an answer before faults.
pub(crate) type AnswerBody = UnsyncBoxBody<Bytes, StdError>;

/// A refusal that a test asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// As S3 calls it; the dialect may have its own word.
    pub(crate) code: String,
}

/// The protocol of one cloud, on buckets of its own.
///
/// The methods that look into the buckets are called by tests and may block; the others are called by the server.
#[async_trait::async_trait]
pub(crate) trait Dialect: fmt::Debug + Send + Sync {
    /// What a request asks for.
    fn target(&self, head: &Parts) -> Target;

    /// Carries out a request.
    async fn call(&self, request: Request<Upload>) -> Response<AnswerBody>;

    /// The answer in place of carrying it out, in this cloud's words.
    fn refuse(&self, head: &Parts, refusal: &Refusal) -> Response<AnswerBody>;

    /// Replaces an object, unless there is no such bucket.
    async fn replace(&self, target: &Target, content: Bytes);

    /// The keys of a bucket in order.
    fn keys(&self, bucket: &str) -> Vec<String>;

    /// One object.
    fn object(&self, bucket: &str, key: &str) -> Option<StoredObject>;

    /// All objects of a bucket.
    fn objects(&self, bucket: &str) -> BTreeMap<String, StoredObject> {
        let keys = self.keys(bucket).into_iter();
        keys.filter_map(|key| self.object(bucket, &key).map(|object| (key, object))).collect()
    }

    /// Puts an object; creates the bucket if need be.
    fn insert(&self, bucket: &str, key: &str, content: Bytes);

    /// Removes an object, and returns it.
    fn remove(&self, bucket: &str, key: &str) -> Option<StoredObject>;

    /// Uploads in parts that were not completed.
    fn unfinished_uploads(&self, bucket: &str) -> Vec<UnfinishedUpload>;

    /// Empties all buckets.
    fn clear(&self);
}
