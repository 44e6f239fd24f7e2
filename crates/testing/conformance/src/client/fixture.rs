//! A bucket client, configured as the plugin configures it.

use std::marker::PhantomData;

use anyhow::{Context, Result};
use bucket::{
    Bucket, BucketOptions, Download, Payload, ReadRange, RetryPolicy, StorageError, TransferOptions,
};
use bytes::Bytes;
use fake_cloud::BucketServer;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::Cloud;
use crate::fixture::{configuration, section};

/// A client of one bucket, and the server.
pub(crate) struct Client<C> {
    pub(crate) bucket: Bucket,
    pub(crate) runtime: Runtime,
    pub(crate) server: BucketServer,
    cloud: PhantomData<C>,
}

impl<C: Cloud> Client<C> {
    /// Connects to an empty bucket.
    pub(crate) fn start() -> Result<Self> {
        Self::with(&json!({}))
    }

    /// Connects with changes of the section.
    pub(crate) fn with(changes: &Value) -> Result<Self> {
        Self::of(C::server()?, changes)
    }

    /// Connects to this server with changes of the section.
    pub(crate) fn of(server: BucketServer, changes: &Value) -> Result<Self> {
        Self::connect(server, changes, |_| ())
    }

    /// Connects with transfers in parts.
    pub(crate) fn in_parts(transfer: TransferOptions) -> Result<Self> {
        Self::connect(C::server()?, &json!({}), |options| options.transfer = transfer)
    }

    /// Connects with lists in pages of `limit` objects.
    pub(crate) fn with_pages(limit: usize) -> Result<Self> {
        Self::connect(C::server()?, &json!({}), |options| options.list_page = limit)
    }

    /// Connects with `"VerifyChecksums": false`.
    pub(crate) fn ignoring_checksums() -> Result<Self> {
        Self::connect(C::server()?, &json!({}), |options| options.verify_checksums = false)
    }

    fn connect(
        server: BucketServer,
        changes: &Value,
        change: impl FnOnce(&mut BucketOptions),
    ) -> Result<Self> {
        let configuration = configuration::<C>(section::<C>(&server, changes));
        let root = configuration.as_object().context("the configuration is not an object")?;
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut options = storage_plugin::connect::<C::Provider>(root, runtime.handle())?;
        change(&mut options);
        let bucket = Bucket::new(options);
        // The tests do not count requests for credentials. An error occurs again in the test.
        let _ = runtime.block_on(bucket.check("", RetryPolicy::default()));
        server.reset_counts();
        Ok(Self { bucket, runtime, server, cloud: PhantomData })
    }

    pub(crate) fn put(&self, name: &str, content: impl Into<Bytes>) -> Result<(), StorageError> {
        self.runtime.block_on(self.bucket.put(name, Payload::Owned(content.into())))
    }

    pub(crate) fn get(&self, name: &str, range: ReadRange) -> Result<Vec<u8>, StorageError> {
        self.runtime.block_on(async { all(self.bucket.get(name, range).await?).await })
    }

    pub(crate) fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.runtime.block_on(self.bucket.delete(name))
    }

    /// Checks the bytes that the server has stored.
    #[track_caller]
    pub(crate) fn assert_stored(&self, name: &str, content: &[u8]) {
        let stored = self.server.object(C::BUCKET, name);
        assert!(stored.is_some(), "{name:?} is not among {:?}", self.keys());
        assert!(stored.is_some_and(|stored| stored.bytes == content), "the bytes of {name:?} differ");
    }

    /// Returns the names of all objects, sorted.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.server.keys(C::BUCKET)
    }

    /// Returns the number of requests since the start or the last call.
    pub(crate) fn requests(&self) -> u64 {
        let total = self.server.requests().total;
        self.server.reset_counts();
        total
    }
}

/// Reads all bytes of a download.
pub(crate) async fn all(mut download: Download) -> Result<Vec<u8>, StorageError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = download.next().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Returns the error of an operation that must fail.
pub(crate) fn failed<T>(outcome: Result<T, StorageError>) -> Result<StorageError> {
    outcome.err().context("the operation succeeded")
}
