//! One bucket.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use cloud_http::with_lent_payload;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutOptions};

use crate::download::{Download, ReadRange};
use crate::error::{Cause, Operation, StorageError};
use crate::multipart::PartedUpload;
use crate::retry::{Attempts, RetryPolicy};
use crate::throughput::{Experience, LARGE, TransferOptions};

/// The object that is asked for to see whether a bucket can be used. It need not exist.
const PROBE: &str = "orthanc-object-storage-check";

/// What an object is made of.
#[derive(Debug, Clone)]
pub enum Payload {
    /// Somebody else's memory, who waits until the upload lets go of it: not kept beyond the upload's future.
    Lent(Bytes),
    /// Memory that may be freed whenever the connection is done with it.
    Owned(Bytes),
}

/// What [`Bucket`] is made of.
pub struct BucketOptions {
    /// The bucket's protocol.
    pub store: Arc<dyn ObjectStore>,
    /// The same bucket's protocol for uploads in parts.
    pub multipart: Arc<dyn MultipartStore>,
    /// How messages name the bucket: `s3://bucket`.
    pub url: String,
    /// Given with each upload: tags, storage class.
    pub put_options: PutOptions,
    /// When a failed request is repeated.
    pub retry: RetryPolicy,
    /// How large objects are split.
    pub transfer: TransferOptions,
    /// The largest object that the cloud takes in one request, in bytes.
    pub largest_put: u64,
    /// Makes the bucket where it is missing, if that is wanted.
    pub create: Option<Arc<dyn CreateBucket>>,
}

/// A client that can make its bucket.
#[async_trait]
pub trait CreateBucket: Send + Sync {
    /// Makes the bucket, for its owner alone. One that is there already is left as it is.
    async fn create_bucket(&self) -> object_store::Result<()>;
}

/// What [`Bucket::check`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketCheck {
    /// It is there.
    Found,
    /// It was missing and was made.
    Created,
}

impl fmt::Debug for BucketOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketOptions").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Objects in one bucket, by name.
#[derive(Debug, Clone)]
pub struct Bucket {
    options: Arc<BucketOptions>,
    uploads: Arc<Experience>,
    downloads: Arc<Experience>,
}

impl Bucket {
    /// The bucket behind `options.store`.
    pub fn new(options: BucketOptions) -> Self {
        Self { options: Arc::new(options), uploads: Arc::default(), downloads: Arc::default() }
    }

    /// How messages name the bucket.
    pub fn url(&self) -> &str {
        &self.options.url
    }

    /// How messages name an object.
    pub fn object_url(&self, name: &str) -> String {
        format!("{}/{name}", self.options.url)
    }

    /// Whether the bucket is there and may be read: one small request, repeated and ended as `policy` says. A missing
    /// bucket is made, if that is wanted.
    ///
    /// # Errors
    ///
    /// [`Cause::BucketMissing`], [`Cause::Denied`], …; an error that is `transient` may pass by itself.
    pub async fn check(&self, root: &str, policy: RetryPolicy) -> Result<BucketCheck, StorageError> {
        let path = self.path(Operation::Check, &format!("{root}{PROBE}"))?;
        let attempts = |operation| Attempts::new(policy, operation, self.options.url.clone());
        let probed = attempts(Operation::Check).run(|| self.options.store.get(&path)).await;
        match (probed, &self.options.create) {
            (Err(error), Some(bucket)) if error.cause == Cause::BucketMissing => {
                attempts(Operation::CreateBucket).run(|| bucket.create_bucket()).await?;
                Ok(BucketCheck::Created)
            }
            (Err(error), _) if error.cause != Cause::NotFound => Err(error),
            _ => Ok(BucketCheck::Found),
        }
    }

    /// Stores `content` under `name`, replacing what was there.
    ///
    /// # Errors
    ///
    /// When the server has not confirmed the object within the retries and the time of the policy.
    pub async fn put(&self, name: &str, content: Payload) -> Result<(), StorageError> {
        let path = self.path(Operation::Create, name)?;
        match content {
            Payload::Owned(content) => self.upload(name, &path, content).await,
            Payload::Lent(content) => with_lent_payload(self.upload(name, &path, content)).await,
        }
    }

    async fn upload(&self, name: &str, path: &Path, content: Bytes) -> Result<(), StorageError> {
        let (start, size) = (Instant::now(), content.len() as u64);
        let options = self.options.put_options.clone();
        let split = self.options.transfer.connections > 1 && size >= LARGE && self.uploads.says_split();
        if split || size > self.options.largest_put {
            let deadline = self.attempts(Operation::Create, name);
            let attempts = || deadline.again(self.options.retry);
            let (store, transfer) = (&self.options.multipart, self.options.transfer);
            let upload = PartedUpload { store, path, options: transfer, attempts: &attempts };
            upload.run(&content, options).await?;
            self.uploads.several(size, start.elapsed());
            return Ok(());
        }
        let put = || self.options.store.put_opts(path, content.clone().into(), options.clone());
        self.attempts(Operation::Create, name).run(put).await?;
        if size >= LARGE {
            self.uploads.one(size, start.elapsed());
        }
        Ok(())
    }

    /// Begins to read `name`, or a part of it.
    ///
    /// # Errors
    ///
    /// [`Cause::NotFound`] where there is no such object, [`Cause::OutOfRange`] where it is smaller than the range.
    pub async fn get(&self, name: &str, part: ReadRange) -> Result<Download, StorageError> {
        let path = self.path(Operation::Read, name)?;
        let attempts = self.attempts(Operation::Read, name);
        let download = Download::start(Arc::clone(&self.options.store), path, part, attempts).await?;
        let BucketOptions { transfer, retry, .. } = *self.options;
        Ok(download.split_if_slow(transfer, retry, Arc::clone(&self.downloads)))
    }

    /// Whether the server has an object of this name whose size and checksum are those of `content`. A server without
    /// checksums confirms nothing.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn is_confirmed(&self, name: &str, content: &Bytes) -> Result<bool, StorageError> {
        let path = self.path(Operation::Read, name)?;
        let (object, exchange) =
            self.attempts(Operation::Read, name).run(|| self.options.store.head(&path)).await?;
        let Some(checksum) = exchange.checksum.filter(|_| object.size == content.len() as u64) else {
            return Ok(false);
        };
        // Gigabytes of it would keep the network waiting.
        let content = content.clone();
        let compare = move || {
            let mut verifier = checksum.verifier();
            verifier.update(&content);
            verifier.is_right()
        };
        Ok(tokio::task::spawn_blocking(compare).await.unwrap_or(false))
    }

    /// Deletes `name`. An object that is not there is deleted already.
    ///
    /// # Errors
    ///
    /// When the server has not confirmed it within the retries and the time of the policy.
    pub async fn delete(&self, name: &str) -> Result<(), StorageError> {
        let path = self.path(Operation::Remove, name)?;
        let mut attempts = self.attempts(Operation::Remove, name);
        match attempts.run(|| self.options.store.delete(&path)).await {
            Err(error) if error.cause != Cause::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The error about an object that is not there.
    pub(crate) fn not_found(&self, name: &str) -> StorageError {
        self.attempts(Operation::Read, name).error(Cause::NotFound, false)
    }

    fn attempts(&self, operation: Operation, name: &str) -> Attempts {
        Attempts::new(self.options.retry, operation, self.object_url(name))
    }

    /// The name as it is: `Path::from` would rewrite `#`, `%`, `~` and letters outside of ASCII.
    fn path(&self, operation: Operation, name: &str) -> Result<Path, StorageError> {
        Path::parse(name).map_err(|error| {
            let attempts = Attempts::new(self.options.retry, operation, self.object_url(name));
            attempts.error(Cause::Other(error.to_string()), false)
        })
    }
}
