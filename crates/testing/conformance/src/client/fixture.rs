//! A bucket as the engine sees it, made as the plugin makes it.

use std::marker::PhantomData;

use anyhow::{Context, Result};
use bucket::{Bucket, Download, Payload, ReadRange, RetryPolicy, StorageError, TransferOptions};
use bytes::Bytes;
use fake_cloud::BucketServer;
use serde_json::{Value, json};
use storage_plugin::{Provider, ProviderContext, Section};
use tokio::runtime::{Builder, Runtime};

use crate::Cloud;
use crate::fixture::{configuration, section};

/// One bucket, its engine and its server.
pub(crate) struct Client<C> {
    pub(crate) storage: Bucket,
    pub(crate) runtime: Runtime,
    pub(crate) server: BucketServer,
    cloud: PhantomData<C>,
}

impl<C: Cloud> Client<C> {
    /// An empty one.
    pub(crate) fn start() -> Result<Self> {
        Self::with(&json!({}))
    }

    /// With changes of the section.
    pub(crate) fn with(changes: &Value) -> Result<Self> {
        Self::of(C::server()?, changes)
    }

    /// Of this server, with changes of the section.
    pub(crate) fn of(server: BucketServer, changes: &Value) -> Result<Self> {
        Self::connect(server, changes, None)
    }

    /// With transfers in parts.
    pub(crate) fn in_parts(transfer: TransferOptions) -> Result<Self> {
        Self::connect(C::server()?, &json!({}), Some(transfer))
    }

    fn connect(server: BucketServer, changes: &Value, transfer: Option<TransferOptions>) -> Result<Self> {
        let configuration = configuration::<C>(section::<C>(&server, changes));
        let configuration = configuration.as_object().context("the configuration is an object")?;
        let mut section = Section::find(configuration, C::SECTION)?.context("there is no section")?;
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let provider = ProviderContext::read::<C::Provider>(&mut section, configuration, runtime.handle())?;
        let mut options = C::Provider::connect(&mut section, &provider)?;
        options.transfer = transfer.unwrap_or(options.transfer);
        let storage = Bucket::new(options);
        // Credentials may take requests of their own, which the tests do not count. What is wrong shows again later.
        let _ = runtime.block_on(storage.check("", RetryPolicy::default()));
        server.reset_counts();
        Ok(Self { storage, runtime, server, cloud: PhantomData })
    }

    pub(crate) fn put(&self, name: &str, content: impl Into<Bytes>) -> Result<(), StorageError> {
        self.runtime.block_on(self.storage.put(name, Payload::Owned(content.into())))
    }

    pub(crate) fn get(&self, name: &str, part: ReadRange) -> Result<Vec<u8>, StorageError> {
        self.runtime.block_on(async { all(self.storage.get(name, part).await?).await })
    }

    pub(crate) fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.runtime.block_on(self.storage.delete(name))
    }

    /// The bytes that the server has.
    #[track_caller]
    pub(crate) fn assert_stored(&self, name: &str, content: &[u8]) {
        let stored = self.server.object(C::BUCKET, name);
        assert!(stored.is_some(), "{name:?} is not among {:?}", self.keys());
        assert!(stored.is_some_and(|stored| stored.bytes == content), "the bytes of {name:?} differ");
    }

    /// The names that the server has, in order.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.server.keys(C::BUCKET)
    }

    /// Requests since the start or the last call of this.
    pub(crate) fn requests(&self) -> u64 {
        let total = self.server.requests().total;
        self.server.reset_counts();
        total
    }
}

/// A download to its end.
pub(crate) async fn all(mut download: Download) -> Result<Vec<u8>, StorageError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = download.next().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
