//! A bucket in memory behind a simulated line.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bucket::{Bucket, BucketOptions, Payload, ReadRange};
use bytes::Bytes;
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

pub(crate) const NAME: &str = "object";
pub(crate) const MEBIBYTE: usize = 1024 * 1024;
/// A mammogram.
pub(crate) const SIZE: usize = 100 * MEBIBYTE;
const CHUNK: usize = MEBIBYTE / 4;
/// The bytes of a connection after which TCP, or a shaper, lets it have its full rate.
const BEGINNING: usize = 4 * MEBIBYTE;
pub(crate) const LATENCY: Duration = Duration::from_millis(20);
/// Longer than the time for which anything is remembered.
pub(crate) const LATER: Duration = Duration::from_secs(1000);

/// A bucket in memory behind a line.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) memory: InMemory,
    pub(crate) line: Mutex<Line>,
}

/// Rates are in bytes per second.
#[derive(Debug)]
pub(crate) struct Line {
    /// What one connection carries.
    pub(crate) each: f64,
    /// What all carry together.
    pub(crate) all: f64,
    /// Until the server answers, and acknowledges an upload.
    pub(crate) latency: Duration,
    pub(crate) acknowledgement: Duration,
    /// Makes the rates of each MiB vary by factors from 0.6 to 1.6.
    seed: Option<u64>,
    /// The factor of the first [`BEGINNING`] of each new connection.
    pub(crate) beginning: f64,
    /// What each connection without a request has carried.
    idle: Vec<usize>,
    /// Whether requests for ranges panic.
    pub(crate) panics: bool,
    requests: usize,
    /// Requests whose bytes are on the way, and those of all time.
    pub(crate) busy: usize,
    begun: u64,
    most_busy: usize,
    /// The bytes that have arrived.
    pub(crate) received: usize,
}

impl Line {
    /// The factor of a MiB of a connection; that of the server is 0.
    fn factor(&self, connection: u64, bytes: usize) -> f64 {
        let Some(seed) = self.seed else { return 1.0 };
        // SplitMix64.
        let mut it =
            (seed << 48 ^ connection << 24 ^ (bytes / MEBIBYTE) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        it = (it ^ it >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ it >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        0.6 + ((it ^ it >> 31) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl Store {
    fn new(each: f64, all: f64) -> Arc<Self> {
        let line = Line {
            each,
            all,
            latency: LATENCY,
            acknowledgement: Duration::ZERO,
            seed: None,
            beginning: 1.0,
            idle: Vec::new(),
            panics: false,
            requests: 0,
            busy: 0,
            begun: 0,
            most_busy: 0,
            received: 0,
        };
        Arc::new(Self { memory: InMemory::new(), line: Mutex::new(line) })
    }

    pub(crate) fn set_line(&self, each: f64, all: f64) {
        let mut line = self.line.lock();
        line.each = each;
        line.all = all;
    }

    /// Makes the rates vary, each time in the same way for the same `seed`.
    pub(crate) fn fluctuate(&self, seed: u64) {
        self.line.lock().seed = Some(seed);
    }

    /// The number of requests since the last call, and of those that were sent at once.
    pub(crate) fn take_requests(&self) -> (usize, usize) {
        let mut line = self.line.lock();
        (std::mem::take(&mut line.requests), std::mem::take(&mut line.most_busy))
    }

    async fn request(&self) {
        let latency = {
            let mut line = self.line.lock();
            line.requests += 1;
            line.latency
        };
        sleep(latency).await;
    }

    async fn send(self: &Arc<Self>, payload: &PutPayload) {
        let mut connection = Connection::new(self);
        for _ in 0..payload.content_length().div_ceil(CHUNK) {
            connection.carry(CHUNK).await;
        }
        connection.is_complete = true;
        drop(connection);
        let acknowledgement = self.line.lock().acknowledgement;
        sleep(acknowledgement).await;
    }
}

/// A connection that carries bytes.
struct Connection {
    store: Arc<Store>,
    busy_until: Instant,
    number: u64,
    carried: usize,
    /// Whether it has sent all that was asked for. Otherwise, it is closed.
    is_complete: bool,
}

impl Connection {
    fn new(store: &Arc<Store>) -> Self {
        let mut line = store.line.lock();
        line.busy += 1;
        line.most_busy = line.most_busy.max(line.busy);
        line.begun += 1;
        let carried = line.idle.pop().unwrap_or(0);
        let (store, busy_until, number) = (Arc::clone(store), Instant::now(), line.begun);
        Self { store, busy_until, number, carried, is_complete: false }
    }

    async fn carry(&mut self, bytes: usize) {
        let rate = {
            let line = self.store.line.lock();
            let beginning = if self.carried < BEGINNING { line.beginning } else { 1.0 };
            let each = line.each * beginning * line.factor(self.number, self.carried);
            each.min(line.all * line.factor(0, line.received) / line.busy as f64)
        };
        self.carried += bytes;
        self.busy_until += Duration::from_secs_f64(bytes as f64 / rate);
        sleep_until(self.busy_until).await;
        self.store.line.lock().received += bytes;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut line = self.store.line.lock();
        line.busy -= 1;
        line.idle.extend(self.is_complete.then_some(self.carried));
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
        assert!(!self.0.line.lock().panics || options.range.is_none(), "a bug");
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
            connection.is_complete = bytes.is_empty();
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

pub(crate) const MB: f64 = 1e6;
/// More than is ever needed.
pub(crate) const UNLIMITED: f64 = 1e6 * MB;

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

pub(crate) struct Fixture {
    pub(crate) store: Arc<Store>,
    pub(crate) bucket: Bucket,
    pub(crate) content: Bytes,
}

impl Fixture {
    /// A bucket with an object, behind a line whose connections carry `each`, and `all` together.
    pub(crate) async fn new(each: f64, all: f64) -> Self {
        let store = Store::new(each, all);
        let client = Arc::new(Client(Arc::clone(&store)));
        let bucket = Bucket::new(BucketOptions::new(client, "memory://bucket"));
        let content = content();
        store.memory.put(&Path::from(NAME), content.clone().into()).await.unwrap();
        Self { store, bucket, content }
    }

    /// Replaces the object by its first `size` bytes.
    pub(crate) async fn shorten(&self, size: usize) {
        self.store.memory.put(&Path::from(NAME), self.content.slice(..size).into()).await.unwrap();
    }

    pub(crate) async fn upload_beginning(&self, size: usize) {
        self.bucket.put("uploaded", Payload::Owned(self.content.slice(..size))).await.unwrap();
    }

    /// Downloads the object. Returns the time that this takes.
    pub(crate) async fn download(&self) -> Duration {
        self.download_range(ReadRange::Whole).await
    }

    pub(crate) async fn download_range(&self, range: ReadRange) -> Duration {
        let start = Instant::now();
        let mut download = self.bucket.get(NAME, range).await.unwrap();
        let range = download.range();
        let mut next = usize::try_from(range.start).unwrap();
        while let Some(chunk) = download.next().await.unwrap() {
            assert!(self.content[next..].starts_with(&chunk), "wrong bytes at {next}");
            next += chunk.len();
        }
        assert_eq!(next as u64, range.end);
        start.elapsed()
    }

    pub(crate) async fn upload(&self) -> Duration {
        let start = Instant::now();
        self.bucket.put("uploaded", Payload::Owned(self.content.clone())).await.unwrap();
        let time = start.elapsed();
        let stored = self.store.memory.get(&Path::from("uploaded")).await.unwrap().bytes().await.unwrap();
        assert!(stored == self.content);
        time
    }

    /// The bandwidth of a transfer, as a multiple of one connection's.
    pub(crate) fn speedup(&self, time: Duration) -> f64 {
        SIZE as f64 / time.as_secs_f64() / self.store.line.lock().each
    }
}
