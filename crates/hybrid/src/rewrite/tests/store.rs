//! A bucket in memory that fails, stops or damages at one of its requests.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Notify;

/// What happens at the request with the number `at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// It fails, and has no effect.
    Before,
    /// It fails, although it had its effect.
    After,
    /// It waits until it may go on, before it has an effect.
    Waits,
    /// It waits after it had an effect.
    WaitsAfter,
    /// Stores other bytes, and so do the next ones, if it is a `PUT`.
    Damages {
        times: usize,
    },
    /// It fails if it is a `DELETE`.
    DeniesDelete,
}

#[derive(Debug)]
pub(super) struct Store {
    pub(super) memory: InMemory,
    pub(super) fault: Fault,
    at: usize,
    requests: AtomicUsize,
    pub(super) puts: AtomicUsize,
    pub(super) reached: Notify,
    pub(super) go_on: Notify,
}

impl Store {
    pub(super) fn new(memory: InMemory, fault: Fault, at: usize) -> Self {
        let (requests, puts) = Default::default();
        Self { memory, fault, at, requests, puts, reached: Notify::new(), go_on: Notify::new() }
    }

    /// Number of requests.
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    async fn request<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        if self.requests.fetch_add(1, Ordering::Relaxed) != self.at {
            return request.await;
        }
        let failed = || Err(object_store::Error::NotSupported { source: "refused".into() });
        match self.fault {
            Fault::Before => return failed(),
            Fault::Waits => self.wait().await,
            _ => {}
        }
        let done = request.await;
        match self.fault {
            Fault::After => return failed(),
            Fault::WaitsAfter => self.wait().await,
            _ => {}
        }
        done
    }

    async fn wait(&self) {
        self.reached.notify_one();
        self.go_on.notified().await;
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("test")
    }
}

#[async_trait]
impl ObjectStore for Store {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let number = self.puts.fetch_add(1, Ordering::Relaxed);
        if let Fault::Damages { times } = self.fault
            && number < times
        {
            let mut damaged = bytes::Bytes::from(payload).to_vec();
            damaged[0] ^= 1;
            // The answer has nothing to compare.
            let stored = self.memory.put_opts(path, damaged.into(), options).await?;
            return Ok(PutResult { e_tag: None, ..stored });
        }
        self.request(self.memory.put_opts(path, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.memory.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.request(self.memory.get_opts(path, options)).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        // All of them are polled at once, and must not borrow the store.
        let memory = self.memory.clone();
        let is_it = self.requests.fetch_add(1, Ordering::Relaxed) == self.at;
        let fails = self.fault == Fault::DeniesDelete || is_it && self.fault == Fault::Before;
        let fails_after = is_it && self.fault == Fault::After;
        let delete = move |path: Result<Path>| {
            let memory = memory.clone();
            async move {
                let refused = || Err(object_store::Error::NotSupported { source: "refused".into() });
                let path = path?;
                if fails {
                    return refused();
                }
                memory.delete(&path).await?;
                if fails_after { refused() } else { Ok(path) }
            }
        };
        paths.then(delete).boxed()
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
