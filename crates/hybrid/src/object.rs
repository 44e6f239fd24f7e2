//! One bucket.

use std::sync::Arc;

use bytes::Bytes;
use cloud_http::LentPayload;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutOptions};

use crate::download::{Download, Part};
use crate::error::{Cause, Operation, StorageError};
use crate::retry::{Attempts, RetryPolicy};

/// The object that is asked for to see whether a bucket can be used. It need not exist.
const PROBE: &str = "orthanc-object-storage-check";

/// What an object is made of.
#[derive(Debug, Clone)]
pub enum Content {
    /// Somebody else's memory, who waits until the upload lets go of it: not kept beyond the upload's future.
    Lent(Bytes),
    /// Memory that may be freed whenever the connection is done with it.
    Owned(Bytes),
}

/// What [`ObjectStorage`] is made of.
#[derive(Debug)]
pub struct ObjectStorageOptions {
    /// The bucket's protocol.
    pub store: Arc<dyn ObjectStore>,
    /// How messages name the bucket: `s3://bucket`.
    pub url: String,
    /// Given with each upload: tags, storage class.
    pub put_options: PutOptions,
    /// When a failed request is repeated.
    pub retry: RetryPolicy,
}

/// Objects in one bucket, by name.
#[derive(Debug, Clone)]
pub struct ObjectStorage {
    options: Arc<ObjectStorageOptions>,
}

impl ObjectStorage {
    /// The bucket behind `options.store`.
    pub fn new(options: ObjectStorageOptions) -> Self {
        Self { options: Arc::new(options) }
    }

    /// How messages name the bucket.
    pub fn url(&self) -> &str {
        &self.options.url
    }

    /// How messages name an object.
    pub fn object_url(&self, name: &str) -> String {
        format!("{}/{name}", self.options.url)
    }

    /// Whether the bucket is there and may be read: one small request, repeated and ended as `policy` says.
    ///
    /// # Errors
    ///
    /// [`Cause::BucketMissing`], [`Cause::Denied`], …; an error that is `transient` may pass by itself.
    pub async fn check(&self, root: &str, policy: RetryPolicy) -> Result<(), StorageError> {
        let path = self.path(Operation::Check, &format!("{root}{PROBE}"))?;
        let mut attempts = Attempts::new(policy, Operation::Check, self.options.url.clone());
        match attempts.run(|| self.options.store.get(&path)).await {
            Err(error) if error.cause != Cause::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Stores `content` under `name`, replacing what was there.
    ///
    /// # Errors
    ///
    /// When the server has not confirmed the object within the retries and the time of the policy.
    pub async fn put(&self, name: &str, content: Content) -> Result<(), StorageError> {
        let path = self.path(Operation::Create, name)?;
        let mut options = self.options.put_options.clone();
        let content = match content {
            Content::Owned(content) => content,
            Content::Lent(content) => {
                options.extensions.insert(LentPayload);
                content
            }
        };
        let mut attempts = self.attempts(Operation::Create, name);
        attempts
            .run(|| self.options.store.put_opts(&path, content.clone().into(), options.clone()))
            .await
            .map(|_| ())
    }

    /// Begins to read `name`, or a part of it.
    ///
    /// # Errors
    ///
    /// [`Cause::NotFound`] where there is no such object, [`Cause::OutOfRange`] where it is smaller than the range.
    pub async fn get(&self, name: &str, part: Part) -> Result<Download, StorageError> {
        let path = self.path(Operation::Read, name)?;
        let attempts = self.attempts(Operation::Read, name);
        Download::start(Arc::clone(&self.options.store), path, part, attempts).await
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
