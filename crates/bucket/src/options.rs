//! The parts and policies of a bucket.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::multipart::MultipartStore;
use object_store::{ObjectStore, PutOptions};

use crate::bulk::BulkDelete;
use crate::dialect::Dialect;
use crate::listing::{ListObjects, PAGE};
use crate::restore::RestoreArchived;
use crate::retry::RetryPolicy;
use crate::throughput::TransferOptions;

/// The parts of a [`Bucket`](crate::Bucket).
pub struct BucketOptions {
    /// The bucket's protocol.
    pub store: Arc<dyn ObjectStore>,
    /// The same bucket's protocol for multipart uploads.
    pub multipart: Arc<dyn MultipartStore>,
    /// The bucket's name in messages: `s3://bucket`.
    pub url: String,
    /// Host and path of the server or account, which tell buckets of the same name apart.
    pub server: String,
    /// Sent with each upload: tags, storage class.
    pub put_options: PutOptions,
    /// When failed requests are retried.
    pub retry: RetryPolicy,
    /// How large objects are split.
    pub transfer: TransferOptions,
    /// Size of the largest object that the cloud accepts in one request, in bytes.
    pub largest_put: u64,
    /// Whether objects that are read are compared with the server's checksums.
    pub verify_checksums: bool,
    /// Whether the server has checksums that it does not send with ranges, but when asked for the object's
    /// attributes.
    pub checksums_on_request: bool,
    /// Whether objects may have names with backslashes in place of slashes; `None` if no release has stored such.
    pub backslash_names: Option<bool>,
    /// Creates the bucket if it is missing; `None` if a missing bucket is an error.
    pub create: Option<Arc<dyn CreateBucket>>,
    /// Deletes several objects with one request; `None` if each object takes a request of its own.
    pub bulk_delete: Option<Arc<dyn BulkDelete>>,
    /// Lists objects; `None` for a store in memory, which lists them itself.
    pub list: Option<Arc<dyn ListObjects>>,
    /// Maximum number of objects in one page of a list.
    pub list_page: usize,
    /// Restores objects from archive tiers; `None` if the cloud's objects can all be read at once.
    pub restore: Option<Arc<dyn RestoreArchived>>,
    /// What the client learns about the server; `None` if it need not learn anything.
    pub dialect: Option<Arc<dyn Dialect>>,
}

/// A client that can create its bucket.
#[async_trait]
pub trait CreateBucket: Send + Sync {
    /// Creates the bucket with access for its owner only. Leaves an existing bucket as it is.
    async fn create_bucket(&self) -> object_store::Result<()>;
}

impl BucketOptions {
    /// The bucket `url` behind `store`, with default policies. It is not created, and objects are stored and deleted
    /// with one request each.
    pub fn new<S: ObjectStore + MultipartStore>(store: Arc<S>, url: impl Into<String>) -> Self {
        Self {
            store: Arc::<S>::clone(&store),
            multipart: store,
            url: url.into(),
            server: String::new(),
            put_options: PutOptions::default(),
            retry: RetryPolicy::default(),
            transfer: TransferOptions::default(),
            largest_put: u64::MAX,
            verify_checksums: true,
            checksums_on_request: false,
            backslash_names: None,
            create: None,
            bulk_delete: None,
            list: None,
            list_page: PAGE,
            restore: None,
            dialect: None,
        }
    }
}

impl fmt::Debug for BucketOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketOptions").field("url", &self.url).finish_non_exhaustive()
    }
}
