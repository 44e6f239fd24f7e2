//! Jobs for a million attachments, whose objects are computed when they are asked for.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;
use bucket::{Bucket, BucketOptions, ObjectStorage, RestoreArchived, RetryPolicy};
use crypto_envelope::{Format, KeyRing, MasterKey, encrypt};
use futures_util::stream::BoxStream;
use hybrid::HybridStorage;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use storage_layout::Layout;

use super::*;
use crate::area::encryption::Encryption;
use crate::config::EncryptionOptions;
use crate::jobs::tally::Form;
use crate::reencrypting::Reencryption;
use crate::restoring::Restorer;
use crate::runtime::Runtime;
use crate::stop::Stop;

/// Objects that the bucket remembers. Earlier ones are not asked for again.
const REMEMBERED: usize = 32;
/// Size of an attachment, which the fake index has.
const CONTENT: &[u8] = b"0123456789";

/// Keys 3 and 7, of which one is the current one.
fn ring(current: u32) -> KeyRing {
    let key = |id: u32| MasterKey::new(&[u8::try_from(id).unwrap(); 32]).unwrap();
    let other = 10 - current;
    KeyRing::new(current, key(current), [(other, key(other))]).unwrap()
}

/// A bucket with an envelope under key 3 for each attachment, until it is replaced.
#[derive(Debug)]
struct Computed {
    memory: InMemory,
    ring: KeyRing,
    remembered: Mutex<VecDeque<Path>>,
    requests: AtomicU64,
}

impl Computed {
    fn new() -> Arc<Self> {
        let (memory, requests) = (InMemory::new(), AtomicU64::new(0));
        Arc::new(Self { memory, ring: ring(3), remembered: Mutex::default(), requests })
    }

    /// Computes an object unless it is remembered.
    async fn remember(&self, path: &Path) -> object_store::Result<()> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let Some(uuid) = path.as_ref().strip_suffix(".dcm.enc") else { return Ok(()) };
        if self.remembered.lock().contains(path) {
            return Ok(());
        }
        let envelope = encrypt(&self.ring, Format::A2, uuid, CONTENT).unwrap();
        self.memory.put(path, envelope.into()).await?;
        let oldest = {
            let mut remembered = self.remembered.lock();
            remembered.push_back(path.clone());
            (remembered.len() > REMEMBERED).then(|| remembered.pop_front()).flatten()
        };
        if let Some(oldest) = oldest {
            self.memory.delete(&oldest).await?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Computed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Computed")
    }
}

#[async_trait]
impl ObjectStore for Computed {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.remember(path).await?;
        self.memory.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.memory.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.remember(path).await?;
        self.memory.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.memory.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.memory.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.memory.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.memory.copy_opts(from, to, options).await
    }
}

/// A client that is never asked, since all objects can be read.
#[derive(Debug)]
struct NothingArchived;

#[async_trait]
impl RestoreArchived for NothingArchived {
    fn tiers(&self) -> &'static [&'static str] {
        &["Standard"]
    }

    fn makes_copies(&self) -> bool {
        true
    }

    fn advice(&self, _: &StorageError) -> Option<&'static str> {
        None
    }

    async fn restore(&self, _: &Path, _: &str, _: Option<u32>) -> object_store::Result<()> {
        Err(object_store::Error::NotImplemented {
            operation: "restore".to_owned(),
            implementer: "test".to_owned(),
        })
    }
}

/// An archive, in the long run with a million attachments.
struct Many {
    fake: Fake,
    store: Arc<Computed>,
    storage: HybridStorage,
    runtime: Arc<Runtime>,
    instances: u64,
}

impl Many {
    fn new() -> Self {
        let is_long = std::env::var_os("ORTHANC_TESTS").is_some_and(|tests| tests == "long");
        let patients = if is_long { 100_000 } else { 200 };
        let fake = Fake::with_patients(patients, [1, 1, 10]);
        let store = Computed::new();
        let options = BucketOptions {
            store: Arc::<Computed>::clone(&store),
            restore: Some(Arc::new(NothingArchived)),
            ..BucketOptions::new(Arc::new(InMemory::new()), "memory://bucket")
        };
        let layout = Layout { encrypted: true, ..Layout::default() };
        let objects = ObjectStorage::new(Bucket::new(options), layout, false, false);
        let runtime = Arc::new(Runtime::new("test", Stop::new(), || {}, || {}).unwrap());
        let storage = HybridStorage::objects_only(objects);
        Self { fake, store, storage, runtime, instances: 10 * u64::from(patients) }
    }

    fn requests(&self) -> u64 {
        self.store.requests.load(Ordering::Relaxed)
    }

    /// Runs a job to its end, which must take `requests` for each attachment. Returns its content.
    fn finish(&self, job: &mut StorageJob, requests: u64) -> Value {
        job.step = STEP;
        let (calls, before) = (self.fake.calls(), self.requests());
        let mut quarters = Vec::new();
        let mut begin = Instant::now();
        loop {
            let step = job.step();
            while job.progress.done * 4 >= (quarters.len() as u64 + 1) * self.instances {
                quarters.push(begin.elapsed());
                begin = Instant::now();
            }
            match step {
                JobStep::Continue => {}
                ended => break assert_eq!(ended, JobStep::Success, "{}", job.content()),
            }
        }
        println!("{} attachments, in quarters: {quarters:?}", self.instances);
        assert_eq!(self.requests() - before, requests * self.instances);
        // The patients and their number; two calls for each attachment, and two for each series, study and patient.
        assert_eq!((self.fake.calls() - calls) as u64, 2 + 2 * self.instances + 2 * 3 * self.instances / 10);
        #[cfg(target_os = "linux")]
        println!("at most {} kB of memory", peak_memory() / 1000);
        #[cfg(target_os = "linux")]
        assert!(peak_memory() < 100_000_000, "{}", peak_memory());
        job.content()
    }
}

#[test]
fn memory_of_a_reencryption_is_limited() {
    let many = Many::new();
    let options = EncryptionOptions {
        ring: ring(7),
        format: Format::A2,
        read_formats: vec![Format::A2],
        memory: 1,
        read_unencrypted: false,
    };
    let encryption = Arc::new(Encryption::new(options, many.storage.objects().clone(), None, Stop::new()));
    let checked = Arc::clone(&encryption);
    many.runtime.run(async move { checked.keys.at_start(RetryPolicy::default()).await }).unwrap();
    let present = Form::new("A2", "7".to_owned());
    let host = many.fake.host.clone();
    let work =
        Reencryption::new(many.storage.clone(), Arc::clone(&many.runtime), host.clone(), encryption, present);
    let mut job = StorageJob::new(host, Arc::new(work), Scope::Everything);
    let content = many.finish(&mut job, 6);
    assert_eq!((&content["Rewritten"], &content["Failures"]), (&json!(many.instances), &json!(0)));
    assert_eq!(content["Forms"][0]["Copies"], many.instances);
}

#[test]
fn memory_of_a_restore_is_limited() {
    let many = Many::new();
    let host = many.fake.host.clone();
    let restorer =
        Restorer { storage: many.storage.clone(), runtime: Arc::clone(&many.runtime), host: host.clone() };
    let work = || restorer.saved_work(&json!({})).unwrap();
    let mut job = StorageJob::new(host.clone(), work(), Scope::Everything);
    let content = many.finish(&mut job, 1);
    assert_eq!(content["AlreadyReadable"], many.instances);
    // The second pass, in which the job waits.
    let mut saved = job.serialized().unwrap();
    for (field, value) in [("Cursor", json!([])), ("InstancesDone", json!(0)), ("Pass", json!(1))] {
        saved[field] = value;
    }
    let mut job = resume(host, work(), Scope::Everything, &saved);
    let content = many.finish(&mut job, 1);
    assert_eq!(content["ReadableNow"], many.instances);
}
