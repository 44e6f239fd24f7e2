//! Stores and deletes attachments in the mode `WriteBack`, with a bucket in memory.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, fs};

use anyhow::{Context as _, Result, anyhow};
use async_trait::async_trait;
use bucket::{Bucket, BucketOptions, ObjectStorage};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::stream::{BoxStream, StreamExt as _};
use hybrid::{
    DeletionWorker, FileStorage, FileStorageOptions, HybridStorage, NotFlushed, Side, StateDirectory,
    StoredContent, StoredForm, UploadWorker, WriteBack, WriteBackOptions,
};
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as Name;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result as StoreResult,
};
use power_failure::{attachment, content, event, past_events, purpose};
use storage_layout::{Attachment, Layout};

/// One Orthanc.
struct Orthanc {
    state: Arc<StateDirectory>,
    local: Arc<WriteBack>,
    files: FileStorage,
    storage: HybridStorage,
}

impl Orthanc {
    /// An Orthanc whose mode is `WriteBack` if `is_mode`.
    fn start(tree: &Path, is_mode: bool) -> Result<Self> {
        let state = Arc::new(StateDirectory::open(&tree.join("state"), &purpose())?);
        let options = WriteBackOptions { keep_free: 0, ..WriteBackOptions::default() };
        let local = WriteBack::open(Arc::clone(&state), is_mode.then_some(options))?;
        let files = FileStorage::new(tree.join("files"), FileStorageOptions { sync: true });
        files.check_writable()?;
        let bucket = Bucket::new(BucketOptions::new(Arc::new(RecordedStore::open()?), "memory://bucket"));
        let objects = ObjectStorage::new(bucket, Layout::default(), false, false);
        let storage = HybridStorage::new(objects, files.clone(), Side::FileSystem);
        Ok(Self { storage: storage.with_local(Arc::clone(&local)), state, local, files })
    }

    async fn upload(&self) {
        UploadWorker::new(self.storage.clone(), Arc::clone(&self.local), Arc::new(Unchanged)).run().await;
    }

    async fn delete(&self) {
        let Self { storage, files, state, .. } = self;
        DeletionWorker::new(storage.clone(), files.clone(), Arc::clone(state), Duration::ZERO).run().await;
    }

    fn store(&self, number: usize) -> Result<()> {
        let attachment = attachment(number)?;
        let stored = self.local.create(&attachment, false, &content(attachment.uuid.as_str()));
        stored.map_err(|error| anyhow!("{error:?}"))?;
        event(&format!("stored {}", attachment.uuid))
    }

    /// Stores an attachment, and damages its file.
    fn store_damaged(&self, number: usize) -> Result<()> {
        self.store(number)?;
        let uuid = attachment(number)?.uuid;
        event(&format!("damaged {uuid}"))?;
        let path = self.state.folder().join(format!("pending/{}/{uuid}.1", &uuid.as_str()[..2]));
        Ok(fs::write(path, "damaged")?)
    }

    async fn store_and_upload(&self) -> Result<()> {
        (0..6).try_for_each(|number| self.store(number))?;
        self.flush().await?;
        // One of them is read from the bucket into the cache.
        self.local.discard_cached(&attachment(1)?);
        let form: Arc<dyn StoredForm> = Arc::new(Unchanged);
        self.storage.move_to(&attachment(1)?, Side::FileSystem, 0, &form).await?;
        (6..13).try_for_each(|number| self.store(number))
    }

    /// Uploads everything except the damaged file.
    async fn flush(&self) -> Result<()> {
        match self.local.flush().await {
            Ok(_) | Err(NotFlushed::Damaged { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes every third attachment, and uploads the others.
    async fn remove_and_flush(&self) -> Result<()> {
        for number in (0..13).step_by(3) {
            let attachment = attachment(number)?;
            event(&format!("deleting {}", attachment.uuid))?;
            self.state.markers().add(&attachment)?;
            self.state.markers().sync()?;
            event(&format!("deleted {}", attachment.uuid))?;
        }
        while self.state.markers().pending() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.flush().await?;
        Ok(())
    }
}

fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(work)
}

/// Stores 14 attachments, of which the file of one is damaged, and deletes every third, before or after it was
/// uploaded. `resumed`: some of them have been stored by a process that was killed.
pub(crate) fn run(tree: &Path, resumed: bool) -> Result<()> {
    let orthanc = Orthanc::start(tree, true)?;
    if !resumed {
        orthanc.store_damaged(13)?;
    }
    block_on(async {
        let work = async {
            if !resumed {
                orthanc.store_and_upload().await?;
            }
            orthanc.remove_and_flush().await
        };
        tokio::select! {
            () = orthanc.upload() => Err(anyhow!("the uploads have ended")),
            () = orthanc.delete() => Err(anyhow!("the deletions have ended")),
            result = work => result,
        }
    })
}

/// Stores attachments, which another Orthanc takes over. It has had another mode so far.
pub(crate) fn take_over(tree: &Path) -> Result<()> {
    let heir = Orthanc::start(tree, false)?;
    let other = Orthanc::start(tree, true)?;
    (0..4).try_for_each(|number| other.store(number))?;
    drop(other);
    block_on(async {
        let taken = async {
            while heir.local.totals().pending < 4 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = heir.delete() => Err(anyhow!("the deletions have ended")),
            () = taken => Ok(()),
        }
    })
}

/// Content is stored as it is.
#[derive(Debug)]
struct Unchanged;

impl StoredForm for Unchanged {
    fn to_store(&self, _: &Attachment, content: StoredContent) -> Result<Bytes, String> {
        Ok(content.bytes)
    }

    fn is_same(&self, _: &Attachment, one: &StoredContent, other: &StoredContent) -> bool {
        one.bytes == other.bytes
    }
}

/// A bucket that records when each change begins and ends.
#[derive(Debug)]
struct RecordedStore(InMemory);

impl RecordedStore {
    /// The bucket as an earlier process has left it.
    fn open() -> Result<Self> {
        let store = InMemory::new();
        let mut objects = BTreeSet::new();
        for event in past_events()? {
            match event.split_once(' ') {
                Some(("put-ends", name)) => objects.insert(name.to_owned()),
                Some(("delete-begins", name)) => objects.remove(name),
                _ => false,
            };
        }
        for name in objects {
            let object = Name::from(name.as_str());
            let put = store.put(&object, content(&name[..36]).into());
            put.now_or_never().context("memory does not wait")??;
        }
        Ok(Self(store))
    }
}

fn record(what: &str, name: &Name) -> StoreResult<()> {
    let failed = |error: anyhow::Error| StoreError::Generic { store: "test", source: error.into() };
    event(&format!("{what} {name}")).map_err(failed)
}

fn no_parts() -> StoreError {
    StoreError::NotSupported { source: "parts".into() }
}

impl fmt::Display for RecordedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for RecordedStore {
    async fn put_opts(
        &self,
        name: &Name,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        record("put-begins", name)?;
        let result = self.0.put_opts(name, payload, options).await?;
        record("put-ends", name)?;
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        _: &Name,
        _: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        Err(no_parts())
    }

    async fn get_opts(&self, name: &Name, options: GetOptions) -> StoreResult<GetResult> {
        self.0.get_opts(name, options).await
    }

    fn delete_stream(
        &self,
        names: BoxStream<'static, StoreResult<Name>>,
    ) -> BoxStream<'static, StoreResult<Name>> {
        let names = names.map(|name| name.and_then(|name| record("delete-begins", &name).map(|()| name)));
        let deleted = self.0.delete_stream(names.boxed());
        deleted.map(|name| name.and_then(|name| record("delete-ends", &name).map(|()| name))).boxed()
    }

    fn list(&self, prefix: Option<&Name>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Name>) -> StoreResult<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Name, to: &Name, options: CopyOptions) -> StoreResult<()> {
        self.0.copy_opts(from, to, options).await
    }
}

/// No attachment is large enough for parts.
#[async_trait]
impl MultipartStore for RecordedStore {
    async fn create_multipart(&self, _: &Name) -> StoreResult<MultipartId> {
        Err(no_parts())
    }

    async fn put_part(&self, _: &Name, _: &MultipartId, _: usize, _: PutPayload) -> StoreResult<PartId> {
        Err(no_parts())
    }

    async fn complete_multipart(&self, _: &Name, _: &MultipartId, _: Vec<PartId>) -> StoreResult<PutResult> {
        Err(no_parts())
    }

    async fn abort_multipart(&self, _: &Name, _: &MultipartId) -> StoreResult<()> {
        Err(no_parts())
    }
}
