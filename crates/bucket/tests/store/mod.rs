//! A bucket in memory, which has no checksums and whose requests can fail or take long.

#![allow(dead_code, reason = "not every test uses everything")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use bucket::{Bucket, ReadRange};
use bytes::Bytes;
use cloud_http::TransportError;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

pub(crate) const NAME: &str = "object";
pub(crate) const PART: usize = 5 * 1024 * 1024;
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// What happens to the requests of an upload.
#[derive(Debug, Default)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Each request that stores an object is carried out, and never answered.
    NoAnswer,
    /// As `NoAnswer`, and then another object of the same size has the name.
    NoAnswerAndReplaced,
    /// Each request that stores an object is answered, and then another object of the same size has the name.
    Replaced,
    /// The connection breaks after an object was stored, which can only be looked up, not read.
    NoAnswerToReads,
    /// Nothing is stored, and there is no answer.
    Stalled,
    /// The connection breaks while an object is being sent, and parts are stalled.
    Breaking,
    /// Each upload blocks its thread until the test sends.
    Blocking(Mutex<mpsc::Receiver<()>>),
    /// The server refuses completions, and also aborts if told so.
    Refusing { aborts: bool },
    /// Each request with content fails once after it was sent.
    FailingOnce(Mutex<HashSet<usize>>),
    /// Requests with content take a second each.
    Slow,
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    memory: InMemory,
    pub(crate) fault: Fault,
    pub(crate) events: Arc<Mutex<Vec<String>>>,
    /// The content of each request: number of the part, and bytes.
    pub(crate) sent: Mutex<Vec<(usize, Bytes)>>,
    pub(crate) heads: AtomicUsize,
    pub(crate) reads: AtomicUsize,
}

impl Store {
    pub(crate) fn with(fault: Fault) -> Arc<Self> {
        Arc::new(Self { fault, ..Self::default() })
    }

    fn event(&self, event: impl Into<String>) {
        self.events.lock().push(event.into());
    }

    /// Called before a request for an upload is carried out.
    async fn before(&self, index: usize, content: &PutPayload) -> Result<()> {
        self.sent.lock().push((index, content.clone().into()));
        match &self.fault {
            Fault::FailingOnce(failed) if failed.lock().insert(index) => return Err(broken()),
            Fault::Slow => tokio::time::sleep(SECOND).await,
            Fault::Stalled | Fault::Breaking => std::future::pending().await,
            Fault::Blocking(receiver) => {
                receiver.lock().recv_timeout(Duration::from_secs(20)).expect("no other task has run");
            }
            _ => {}
        }
        Ok(())
    }

    async fn replace(&self, path: &Path) -> Result<()> {
        let size = self.memory.head(path).await?.size;
        let other = vec![7; usize::try_from(size).unwrap()];
        self.memory.put(path, other.into()).await.map(drop)
    }

    /// Called after an object was stored.
    async fn after(&self, path: &Path) -> Result<()> {
        match &self.fault {
            Fault::NoAnswer => std::future::pending().await,
            Fault::NoAnswerToReads => Err(broken()),
            Fault::Replaced => self.replace(path).await,
            Fault::NoAnswerAndReplaced => {
                self.replace(path).await?;
                std::future::pending().await
            }
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("test")
    }
}

fn refused() -> object_store::Error {
    object_store::Error::NotSupported { source: "refused".into() }
}

fn broken() -> object_store::Error {
    let source = Box::new(TransportError::Interrupted { reason: "test".to_owned() });
    object_store::Error::Generic { store: "test", source }
}

#[async_trait]
impl ObjectStore for Store {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if let Fault::Breaking = self.fault {
            tokio::time::sleep(SECOND * 2 / 5).await;
            return Err(broken());
        }
        self.before(0, &payload).await?;
        let result = self.memory.put_opts(path, payload, options).await?;
        self.after(path).await?;
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.memory.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.heads.fetch_add(usize::from(options.head), Ordering::Relaxed);
        self.reads.fetch_add(usize::from(!options.head), Ordering::Relaxed);
        if matches!(self.fault, Fault::NoAnswerToReads) && !options.head {
            std::future::pending::<()>().await;
        }
        self.memory.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.memory.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.memory.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.memory.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.memory.copy_opts(from, to, options).await
    }
}

#[async_trait]
impl MultipartStore for Store {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        self.event("create");
        self.memory.create_multipart(path).await
    }

    async fn put_part(
        &self,
        path: &Path,
        id: &MultipartId,
        index: usize,
        data: PutPayload,
    ) -> Result<PartId> {
        self.before(index, &data).await?;
        self.event("part");
        self.memory.put_part(path, id, index, data).await
    }

    async fn complete_multipart(
        &self,
        path: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        self.event("complete");
        if matches!(self.fault, Fault::Refusing { .. }) {
            return Err(refused());
        }
        let result = self.memory.complete_multipart(path, id, parts).await?;
        self.after(path).await?;
        Ok(result)
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        self.event("abort");
        match self.fault {
            Fault::Refusing { aborts: true } => Err(refused()),
            _ => self.memory.abort_multipart(path, id).await,
        }
    }
}

pub(crate) fn bytes(size: usize) -> Bytes {
    (0..size).map(|index| index.to_le_bytes()[index % 2]).collect::<Vec<_>>().into()
}

pub(crate) async fn stored(bucket: &Bucket) -> Bytes {
    let mut download = bucket.get(NAME, ReadRange::Whole).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = download.next().await.unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    bytes.into()
}
