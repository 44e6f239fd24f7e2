//! Transfers of large objects over simulated lines, in simulated time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bucket::{Bucket, BucketOptions, Payload, ReadRange};
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartId, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

const NAME: &str = "object";
const MEBIBYTE: usize = 1024 * 1024;
/// A mammogram.
const SIZE: usize = 100 * MEBIBYTE;
const CHUNK: usize = MEBIBYTE / 4;
const LATENCY: Duration = Duration::from_millis(20);
/// Longer than the time for which anything is remembered.
const LATER: Duration = Duration::from_secs(1000);

/// A bucket in memory behind a line.
#[derive(Debug)]
struct Store {
    memory: InMemory,
    line: Mutex<Line>,
}

/// Rates are in bytes per second.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// What one connection carries.
    each: f64,
    /// What all carry together.
    all: f64,
    requests: usize,
    /// Requests whose bytes are on the way.
    busy: usize,
    most_busy: usize,
    /// The bytes that have arrived.
    received: usize,
}

impl Store {
    fn new(each: f64, all: f64) -> Arc<Self> {
        let line = Line { each, all, requests: 0, busy: 0, most_busy: 0, received: 0 };
        Arc::new(Self { memory: InMemory::new(), line: Mutex::new(line) })
    }

    fn set_line(&self, each: f64, all: f64) {
        let mut line = self.line.lock();
        line.each = each;
        line.all = all;
    }

    /// The number of requests since the last call, and of those that were sent at once.
    fn take_requests(&self) -> (usize, usize) {
        let mut line = self.line.lock();
        (std::mem::take(&mut line.requests), std::mem::take(&mut line.most_busy))
    }

    async fn request(&self) {
        self.line.lock().requests += 1;
        sleep(LATENCY).await;
    }

    async fn send(self: &Arc<Self>, payload: &PutPayload) {
        let mut connection = Connection::new(self);
        for _ in 0..payload.content_length().div_ceil(CHUNK) {
            connection.carry(CHUNK).await;
        }
    }
}

/// A connection that carries bytes.
struct Connection {
    store: Arc<Store>,
    busy_until: Instant,
}

impl Connection {
    fn new(store: &Arc<Store>) -> Self {
        let mut line = store.line.lock();
        line.busy += 1;
        line.most_busy = line.most_busy.max(line.busy);
        Self { store: Arc::clone(store), busy_until: Instant::now() }
    }

    async fn carry(&mut self, bytes: usize) {
        let rate = {
            let line = self.store.line.lock();
            line.each.min(line.all / line.busy as f64)
        };
        self.busy_until += Duration::from_secs_f64(bytes as f64 / rate);
        sleep_until(self.busy_until).await;
        self.store.line.lock().received += bytes;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.store.line.lock().busy -= 1;
    }
}

/// The bucket's protocol.
#[derive(Debug)]
struct Client(Arc<Store>);

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("test")
    }
}

#[async_trait]
impl ObjectStore for Client {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.request().await;
        self.0.send(&payload).await;
        self.0.memory.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.memory.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.request().await;
        let answer = self.0.memory.get_opts(path, options).await?;
        let (meta, range) = (answer.meta.clone(), answer.range.clone());
        let attributes = answer.attributes.clone();
        let extensions = answer.extensions.clone();
        let bytes = answer.bytes().await?;
        let state = (Connection::new(&self.0), bytes);
        let chunks = stream::unfold(state, |(mut connection, mut bytes)| async move {
            let chunk = bytes.split_to(CHUNK.min(bytes.len()));
            if chunk.is_empty() {
                return None;
            }
            connection.carry(chunk.len()).await;
            Some((Ok(chunk), (connection, bytes)))
        });
        let payload = GetResultPayload::Stream(chunks.boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.memory.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.memory.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.memory.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.memory.copy_opts(from, to, options).await
    }
}

#[async_trait]
impl MultipartStore for Client {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        self.0.request().await;
        self.0.memory.create_multipart(path).await
    }

    async fn put_part(
        &self,
        path: &Path,
        id: &MultipartId,
        index: usize,
        data: PutPayload,
    ) -> Result<PartId> {
        self.0.request().await;
        self.0.send(&data).await;
        self.0.memory.put_part(path, id, index, data).await
    }

    async fn complete_multipart(
        &self,
        path: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        self.0.request().await;
        self.0.memory.complete_multipart(path, id, parts).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        self.0.memory.abort_multipart(path, id).await
    }
}

const MB: f64 = 1e6;
/// More than is ever needed.
const UNLIMITED: f64 = 1e6 * MB;

/// Content in which each MiB is different.
fn content() -> Bytes {
    static CONTENT: OnceLock<Bytes> = OnceLock::new();
    let of_mebibyte = |index: usize| [&index.to_le_bytes()[..1], &[7; 30][..]].concat();
    let make = || {
        let pieces = (0..SIZE / MEBIBYTE).map(|index| of_mebibyte(index).repeat(MEBIBYTE / 31 + 1));
        pieces.map(|piece| Bytes::from(piece).slice(..MEBIBYTE)).collect::<Vec<_>>().concat().into()
    };
    CONTENT.get_or_init(make).clone()
}

struct Fixture {
    store: Arc<Store>,
    bucket: Bucket,
    content: Bytes,
}

impl Fixture {
    /// A bucket with an object, behind a line whose connections carry `each`, and `all` together.
    async fn new(each: f64, all: f64) -> Self {
        let store = Store::new(each, all);
        let client = Arc::new(Client(Arc::clone(&store)));
        let bucket = Bucket::new(BucketOptions::new(client, "memory://bucket"));
        let content = content();
        store.memory.put(&Path::from(NAME), content.clone().into()).await.unwrap();
        Self { store, bucket, content }
    }

    /// Downloads the object. Returns the time that this takes.
    async fn download(&self) -> Duration {
        let start = Instant::now();
        let mut download = self.bucket.get(NAME, ReadRange::Whole).await.unwrap();
        let mut next = 0;
        while let Some(chunk) = download.next().await.unwrap() {
            assert!(self.content[next..].starts_with(&chunk), "wrong bytes at {next}");
            next += chunk.len();
        }
        assert_eq!(next, SIZE);
        start.elapsed()
    }

    async fn upload(&self) -> Duration {
        let start = Instant::now();
        self.bucket.put("uploaded", Payload::Owned(self.content.clone())).await.unwrap();
        let time = start.elapsed();
        let stored = self.store.memory.get(&Path::from("uploaded")).await.unwrap().bytes().await.unwrap();
        assert!(stored == self.content);
        time
    }

    /// The bandwidth of a transfer, as a multiple of one connection's.
    fn speedup(&self, time: Duration) -> f64 {
        SIZE as f64 / time.as_secs_f64() / self.store.line.lock().each
    }
}

#[tokio::test(start_paused = true)]
async fn busy_server_gets_one_request_for_each_download() {
    let it = Fixture::new(60.0 * MB, 60.0 * MB).await;
    let first = it.download().await;
    assert_eq!(it.store.take_requests(), (2, 2), "the second connection is tried once");
    for _ in 0..5 {
        let time = it.download().await;
        assert_eq!(it.store.take_requests(), (1, 1));
        assert!(first < time + LATENCY * 2, "{first:?} instead of {time:?}");
    }
    sleep(LATER).await;
    it.download().await;
    assert_eq!(it.store.take_requests(), (2, 2), "the second connection is tried again");
}

#[tokio::test(start_paused = true)]
async fn fast_connection_is_never_split() {
    let it = Fixture::new(200.0 * MB, UNLIMITED).await;
    for _ in 0..3 {
        it.download().await;
        assert_eq!(it.store.take_requests(), (1, 1));
        it.upload().await;
        assert_eq!(it.store.take_requests(), (1, 1));
        sleep(LATER).await;
    }
}

#[tokio::test(start_paused = true)]
async fn slow_connections_are_all_used() {
    for (each, wanted) in [(20.0, 7.0), (80.0, 5.0)] {
        let it = Fixture::new(each * MB, UNLIMITED).await;
        let first = it.download().await;
        it.store.take_requests();
        let second = it.download().await;
        let speedup = [first, second].map(|time| it.speedup(time));
        assert!(speedup[0] > 2.0 && speedup[1] > wanted, "{each} MB/s: {speedup:?}");
        let (requests, most) = it.store.take_requests();
        assert!(requests <= 52 && most <= 10, "{requests} requests, {most} at once");
    }
}

#[tokio::test(start_paused = true)]
async fn line_of_three_connections_is_filled() {
    let it = Fixture::new(20.0 * MB, 60.0 * MB).await;
    it.download().await;
    it.store.take_requests();
    let speedup = it.speedup(it.download().await);
    assert!(speedup > 2.6, "{speedup}");
    let (requests, most) = it.store.take_requests();
    assert!(requests < 30 && most <= 4, "{requests} requests, {most} at once");
}

#[tokio::test(start_paused = true)]
async fn changes_of_the_line_are_noticed() {
    let it = Fixture::new(20.0 * MB, UNLIMITED).await;
    it.download().await;
    it.upload().await;
    it.upload().await;
    it.store.set_line(20.0 * MB, 20.0 * MB);
    // A split transfer that is not faster ends the splitting.
    it.download().await;
    it.upload().await;
    it.store.take_requests();
    it.download().await;
    it.upload().await;
    assert_eq!(it.store.take_requests(), (2, 1));
    it.store.set_line(20.0 * MB, UNLIMITED);
    sleep(LATER).await;
    it.download().await;
    it.upload().await;
    it.upload().await;
    let speedup = [it.download().await, it.upload().await].map(|time| it.speedup(time));
    assert!(speedup.iter().all(|speedup| *speedup > 5.0), "{speedup:?}");
}

#[tokio::test(start_paused = true)]
async fn simultaneous_transfers_share_the_connections() {
    let it = Fixture::new(20.0 * MB, UNLIMITED).await;
    it.download().await;
    it.upload().await;
    it.upload().await;
    it.store.take_requests();
    join_all((0..10).map(|_| it.download())).await;
    let (requests, most) = it.store.take_requests();
    assert!(most <= 20 && requests <= 30, "{requests} downloads, {most} at once");
    join_all((0..10).map(|_| it.upload())).await;
    let (requests, most) = it.store.take_requests();
    assert!(most <= 20, "{requests} uploads, {most} at once");
}

#[tokio::test(start_paused = true)]
async fn slow_reader_holds_little_memory() {
    let it = Fixture::new(20.0 * MB, UNLIMITED).await;
    for _ in 0..2 {
        it.store.line.lock().received = 0;
        let mut download = it.bucket.get(NAME, ReadRange::Whole).await.unwrap();
        let mut returned = 0;
        while let Some(chunk) = download.next().await.unwrap() {
            returned += chunk.len();
            let held = it.store.line.lock().received.saturating_sub(returned);
            assert!(held <= 24 * MEBIBYTE, "{held} bytes");
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(returned, SIZE);
    }
}

#[tokio::test(start_paused = true)]
async fn uploads_are_split_while_that_is_faster() {
    let it = Fixture::new(20.0 * MB, UNLIMITED).await;
    it.upload().await;
    assert_eq!(it.store.take_requests(), (1, 1), "nothing is known of the line");
    it.upload().await;
    let (requests, most) = it.store.take_requests();
    assert_eq!((requests, most), (22, 8));
    let speedup = it.speedup(it.upload().await);
    assert!(speedup > 5.0, "{speedup}");
    assert_eq!(it.store.take_requests(), (22, 10));
}

#[tokio::test(start_paused = true)]
async fn busy_server_gets_one_request_for_each_upload() {
    let it = Fixture::new(60.0 * MB, 60.0 * MB).await;
    it.upload().await;
    it.upload().await;
    assert_eq!(it.store.take_requests().1, 2, "two connections are tried");
    for _ in 0..5 {
        it.upload().await;
        assert_eq!(it.store.take_requests(), (1, 1));
    }
}
