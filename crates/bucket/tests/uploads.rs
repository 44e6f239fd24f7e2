//! Uploads to a bucket in memory, which has no checksums and whose requests can fail or take long.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use bucket::{Bucket, BucketOptions, Cause, Payload, ReadRange, RetryPolicy, TransferOptions, UploadJournal};
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
use tokio::runtime::Builder;
use tokio::time::Instant;

const NAME: &str = "object";
const PART: usize = 5 * 1024 * 1024;

/// What happens to the requests of an upload.
#[derive(Debug, Default)]
enum Fault {
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
}

#[derive(Debug, Default)]
struct Store {
    memory: InMemory,
    fault: Fault,
    events: Arc<Mutex<Vec<String>>>,
    heads: AtomicUsize,
    reads: AtomicUsize,
}

impl Store {
    fn with(fault: Fault) -> Arc<Self> {
        Arc::new(Self { fault, ..Self::default() })
    }

    fn event(&self, event: impl Into<String>) {
        self.events.lock().push(event.into());
    }

    /// Called before a request for an upload is carried out.
    async fn before(&self) {
        match &self.fault {
            Fault::Stalled | Fault::Breaking => std::future::pending().await,
            Fault::Blocking(receiver) => {
                receiver.lock().recv_timeout(Duration::from_secs(20)).expect("no other task has run");
            }
            _ => {}
        }
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
        self.before().await;
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
        self.before().await;
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

/// Returns a bucket that sends objects of more than one part in parts.
fn bucket(store: &Arc<Store>, deadline: Duration) -> Bucket {
    Bucket::new(BucketOptions {
        retry: RetryPolicy { deadline, ..RetryPolicy::default() },
        transfer: TransferOptions { connections: 2, part_size: PART as u64, always: false },
        largest_put: PART as u64,
        ..BucketOptions::new(Arc::<Store>::clone(store), "memory://bucket")
    })
}

fn content(size: usize) -> Payload {
    Payload::Owned((0..size).map(|index| index.to_le_bytes()[index % 2]).collect::<Vec<_>>().into())
}

/// An object in one request, and one in parts.
const SIZES: [usize; 2] = [1000, PART + 1];
const SECOND: Duration = Duration::from_secs(1);

async fn stored(bucket: &Bucket) -> Bytes {
    let mut download = bucket.get(NAME, ReadRange::Whole).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = download.next().await.unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    bytes.into()
}

#[tokio::test(start_paused = true)]
async fn lost_confirmation_of_a_whole_object_is_success() {
    for size in SIZES {
        let store = Store::with(Fault::NoAnswer);
        let bucket = bucket(&store, SECOND);
        bucket.put(NAME, content(size)).await.unwrap();
        assert_eq!(store.heads.load(Ordering::Relaxed), 1, "{size}");
        assert!(stored(&bucket).await == content(size).bytes(), "{size}");
    }
}

#[tokio::test(start_paused = true)]
async fn object_without_a_checksum_is_read_back() {
    for size in SIZES {
        for (fault, is_equal) in [(Fault::None, true), (Fault::NoAnswer, true), (Fault::Replaced, false)] {
            let store = Store::with(fault);
            let bucket = bucket(&store, SECOND);
            let result = bucket.put_confirmed(NAME, content(size).bytes().clone()).await;
            let requests = [&store.heads, &store.reads].map(|count| count.load(Ordering::Relaxed));
            assert_eq!(requests, [1, 1], "{size} with {:?}", store.fault);
            match result {
                Ok(()) => assert!(is_equal, "{size}"),
                Err(error) => {
                    assert!(!is_equal, "{size}: {error}");
                    assert_eq!((&error.cause, error.may_remain), (&Cause::CopyDamaged, true));
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn look_at_the_bytes_has_a_short_patience() {
    let store = Store::with(Fault::NoAnswerToReads);
    let options = BucketOptions::new(Arc::<Store>::clone(&store), "memory://bucket");
    let retry = RetryPolicy { max_retries: 0, ..options.retry };
    let start = Instant::now();
    Bucket::new(BucketOptions { retry, ..options }).put(NAME, content(1000)).await.unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn different_object_of_the_same_size_is_not_taken_for_the_upload() {
    for size in SIZES {
        let bucket = bucket(&Store::with(Fault::NoAnswerAndReplaced), SECOND);
        let error = bucket.put(NAME, content(size)).await.unwrap_err();
        assert_eq!(error.cause, Cause::TimedOut(SECOND), "{size}");
    }
}

#[tokio::test(start_paused = true)]
async fn upload_that_was_not_carried_out_fails() {
    for size in SIZES {
        let bucket = bucket(&Store::with(Fault::Stalled), SECOND);
        let error = bucket.put(NAME, content(size)).await.unwrap_err();
        assert_eq!((error.cause, error.transient), (Cause::TimedOut(SECOND), true), "{size}");
    }
}

#[tokio::test(start_paused = true)]
async fn parts_after_a_broken_upload_have_the_same_deadline() {
    let store = Store::with(Fault::Breaking);
    let options = BucketOptions::new(Arc::<Store>::clone(&store), "memory://bucket");
    let retry = RetryPolicy { deadline: SECOND, ..options.retry };
    let bucket = Bucket::new(BucketOptions { retry, ..options });
    let start = Instant::now();
    let error = bucket.put(NAME, content(PART + 1)).await.unwrap_err();
    assert_eq!(error.cause, Cause::TimedOut(SECOND));
    assert!(start.elapsed() < SECOND * 6 / 5, "{:?}", start.elapsed());
    assert_eq!(store.events.lock().first().map(String::as_str), Some("create"));
}

#[test]
fn hashing_does_not_hold_up_other_tasks() {
    for (size, uploads) in [(2 * 1024 * 1024, 1), (2 * PART, 2)] {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sender, receiver) = mpsc::channel();
        let bucket = bucket(&Store::with(Fault::Blocking(Mutex::new(receiver))), 600 * SECOND);
        let upload = runtime.spawn(async move { bucket.put(NAME, content(size)).await });
        // This task's thread is the one that the upload blocks.
        runtime.spawn(async move {
            for _ in 0..uploads {
                tokio::time::sleep(Duration::from_millis(10)).await;
                sender.send(()).unwrap();
            }
        });
        runtime.block_on(upload).unwrap().unwrap();
    }
}

/// A journal in the store's list of events.
#[derive(Debug)]
struct Journal(Arc<Mutex<Vec<String>>>);

impl UploadJournal for Journal {
    fn began(&self, name: &str, upload_id: &str) -> io::Result<()> {
        self.0.lock().push(format!("began {name} {upload_id}"));
        Err(io::Error::other("a journal that fails does not fail the upload"))
    }

    fn ended(&self, name: &str, upload_id: &str) -> io::Result<()> {
        self.0.lock().push(format!("ended {name} {upload_id}"));
        Ok(())
    }
}

/// Uploads two parts, and returns the events.
async fn journal(fault: Fault) -> Vec<String> {
    let store = Store::with(fault);
    let journal = Arc::new(Journal(Arc::clone(&store.events)));
    let bucket = bucket(&store, 600 * SECOND).with_journal(journal);
    let upload = bucket.put(NAME, content(PART + 1));
    // Dropped if it takes longer.
    let _ = tokio::time::timeout(SECOND, upload).await;
    std::mem::take(&mut *store.events.lock())
}

#[tokio::test]
async fn journal_has_the_uploads_that_have_not_ended() {
    let begin = ["create", "began object 0"];
    let send = ["part", "part", "complete"];
    let end = "ended object 0";
    assert_eq!(journal(Fault::None).await, [&begin[..], &send, &[end]].concat());
    let aborted = journal(Fault::Refusing { aborts: false }).await;
    assert_eq!(aborted, [&begin[..], &send, &["abort", end]].concat());
    let left = journal(Fault::Refusing { aborts: true }).await;
    assert_eq!(left, [&begin[..], &send, &["abort"]].concat());
    assert_eq!(journal(Fault::Stalled).await, begin, "the future was dropped");
}
