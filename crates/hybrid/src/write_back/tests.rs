//! Pending attachments, without Orthanc.

use std::fs;
use std::path::PathBuf;

use bucket::{Bucket, BucketOptions, ObjectStorage, ReadRange};
use bytes::Bytes;
use object_store::memory::InMemory;
use storage_layout::{ContentType, Layout};
use tempfile::TempDir;

use super::*;
use crate::files::Observed;
use crate::state::Purpose;
use crate::{FileStorage, FileStorageOptions, HybridStorage, MoveOutcome, Side, StoredContent, StoredForm};

/// Encrypts by writing a letter in front of the content.
#[derive(Debug, Clone, Copy, Default)]
struct Form {
    encrypts: bool,
    waits: bool,
}

impl StoredForm for Form {
    fn to_store(&self, _: &Attachment, content: StoredContent) -> Result<Bytes, String> {
        Ok(content.bytes)
    }

    fn is_same(&self, _: &Attachment, _: &StoredContent, _: &StoredContent) -> bool {
        false
    }

    fn may_upload(&self) -> Result<(), String> {
        if self.waits { Err("REASON".to_owned()) } else { Ok(()) }
    }

    fn verify(&self, _: &Attachment, envelope: &[u8]) -> Result<(), String> {
        if envelope.starts_with(b"E") { Ok(()) } else { Err("WRONG TAG".to_owned()) }
    }

    fn seal(&self, _: &Attachment, content: &[u8]) -> Result<Option<Bytes>, String> {
        Ok(self.encrypts.then(|| [b"E", content].concat().into()))
    }
}

struct Fixture {
    root: TempDir,
    store: Arc<InMemory>,
    form: Form,
}

/// One process.
struct Process {
    storage: HybridStorage,
    local: Arc<WriteBack>,
    form: Form,
}

fn attachment(number: usize) -> Attachment {
    let uuid = format!("fb4b5a2e-8b2d-4c5f-9d62-{number:012x}");
    Attachment::new(&uuid, ContentType::DICOM).unwrap()
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self { root, store: Arc::default(), form: Form::default() }
    }

    fn start(&self) -> Process {
        self.start_with(Some(WriteBackOptions::default()))
    }

    fn start_with(&self, options: Option<WriteBackOptions>) -> Process {
        let purpose = Purpose { bucket: "bucket".to_owned(), settings: String::new() };
        let state = Arc::new(StateDirectory::open(self.root.path(), &purpose).unwrap());
        let local = WriteBack::open(state, options).unwrap();
        let bucket = Bucket::new(BucketOptions::new(Arc::clone(&self.store), "memory://bucket"));
        let layout = Layout { encrypted: self.form.encrypts, ..Layout::default() };
        let objects = ObjectStorage::new(bucket, layout, false, false);
        let files = FileStorage::new(self.root.path().join("files"), FileStorageOptions { sync: true });
        let storage = HybridStorage::new(objects, files, Side::ObjectStorage).with_local(Arc::clone(&local));
        Process { storage, local, form: self.form }
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.root.path().join("0").join(name)
    }

    fn pending(&self, number: usize, ending: &str) -> PathBuf {
        self.folder("pending/fb").join(format!("{}.1{ending}", attachment(number).uuid))
    }

    fn cached(&self, number: usize, ending: &str) -> PathBuf {
        self.folder("cache/fb/4b").join(format!("{}.1{ending}", attachment(number).uuid))
    }
}

impl Process {
    fn create(&self, number: usize, content: &str) {
        self.local.create(&attachment(number), self.form.encrypts, content.as_bytes()).unwrap();
    }

    /// Runs the worker until nothing is pending, or everything that is pending has failed.
    async fn work(&self) -> Result<u64, NotFlushed> {
        let worker = UploadWorker::new(self.storage.clone(), Arc::clone(&self.local), Arc::new(self.form));
        tokio::select! {
            result = self.local.flush() => result,
            () = worker.run() => unreachable!("the worker never ends"),
        }
    }

    async fn object(&self, number: usize) -> Option<Bytes> {
        let found = self.storage.objects().read(&attachment(number), ReadRange::Whole).await;
        Some(found.ok()?.download.next().await.unwrap().unwrap_or_default())
    }

    /// What a read returns, and where from.
    fn read(&self, number: usize) -> Result<(Bytes, Side), StorageError> {
        self.storage.read(&attachment(number), |place| {
            let side = place.side();
            let (mut file, _) = place.open_file(&attachment(number))?;
            Ok((file.next(1000)?.unwrap_or_default(), side))
        })
    }
}

#[tokio::test]
async fn attachment_is_pending_then_cached() {
    let fixture = Fixture::new();
    let process = fixture.start();
    process.create(1, "content");
    assert_eq!(process.read(1).unwrap(), (Bytes::from("content"), Side::Pending));
    assert_eq!(fs::read(fixture.pending(1, "")).unwrap(), b"content");
    assert_eq!(process.object(1).await, None);

    process.work().await.unwrap();
    assert_eq!(process.object(1).await.unwrap(), "content");
    assert_eq!(process.read(1).unwrap(), (Bytes::from("content"), Side::Cache));
    assert!(fixture.cached(1, "").exists() && !fixture.pending(1, "").exists());
    assert_eq!(process.local.totals().pending, 0);
}

#[test]
fn file_and_folder_are_synced_before_an_attachment_counts_as_stored() {
    let fixture = Fixture::new();
    let process = fixture.start();
    let file = fixture.pending(1, "");
    let folder = fixture.folder("pending/fb");
    *process.local.disk().observed.lock() = Observed::default();
    process.create(1, "content");
    assert_eq!(process.local.disk().observed.lock().synced, [file.clone(), folder.clone()]);

    for broken in [fixture.pending(2, ""), folder] {
        *process.local.disk().observed.lock() = Observed { synced: Vec::new(), broken: Some(broken) };
        let refused = process.local.create(&attachment(2), false, b"content").unwrap_err();
        assert!(matches!(refused, NotPending::Disk(_)), "{refused:?}");
        assert!(!fixture.pending(2, "").exists());
    }
    assert!(file.exists());
    assert_eq!((process.local.totals().pending, process.local.totals().direct), (1, 2));
}

#[tokio::test]
async fn removal_is_synced_before_it_counts() {
    let fixture = Fixture::new();
    let process = fixture.start();
    process.create(1, "content");
    process.work().await.unwrap();
    *process.local.disk().observed.lock() = Observed::default();
    process.local.remove(&attachment(1)).unwrap();
    // Otherwise the file could be in `pending/` again after a power failure, and be uploaded.
    assert_eq!(process.local.disk().observed.lock().synced, [fixture.folder("pending/fb")]);
    assert!(!fixture.cached(1, "").exists());
    process.local.remove(&attachment(2)).unwrap();
    assert_eq!(process.local.disk().observed.lock().synced.len(), 1, "nothing has changed since");
}

#[tokio::test]
async fn files_of_an_earlier_process_are_read_and_uploaded_in_every_mode() {
    for mode in [Some(WriteBackOptions::default()), None] {
        let fixture = Fixture::new();
        fixture.start().create(1, "content");
        let process = fixture.start_with(mode.clone());
        assert_eq!(process.read(1).unwrap(), (Bytes::from("content"), Side::Pending));
        process.work().await.unwrap();
        assert_eq!(process.object(1).await.unwrap(), "content");
        assert_eq!(fixture.cached(1, "").exists(), mode.is_some());
        assert!(!fixture.pending(1, "").exists());
    }
}

#[tokio::test]
async fn content_in_clear_is_encrypted_if_encryption_has_been_switched_on() {
    let mut fixture = Fixture::new();
    fixture.start().create(1, "content");
    fixture.form.encrypts = true;
    let process = fixture.start();
    // The flush waits for the encrypted file, which has taken the place of the one it knew.
    process.work().await.unwrap();
    assert_eq!(process.object(1).await.unwrap(), "Econtent");
    assert!(fixture.cached(1, ".enc").exists() && !fixture.cached(1, "").exists());
    assert!(!fixture.pending(1, "").exists() && !fixture.pending(1, ".enc").exists());
}

#[tokio::test]
async fn content_that_has_been_encrypted_is_not_encrypted_again() {
    let mut fixture = Fixture::new();
    fixture.start().create(1, "content");
    // The process was killed before it deleted the file in clear.
    fs::write(fixture.pending(1, ".enc"), "Eother").unwrap();
    fixture.form.encrypts = true;
    let process = fixture.start();
    process.work().await.unwrap();
    assert_eq!(process.object(1).await.unwrap(), "Eother");
    assert!(!fixture.pending(1, "").exists() && !fixture.pending(1, ".enc").exists());
}

#[tokio::test]
async fn damaged_file_goes_to_the_quarantine() {
    let mut fixture = Fixture::new();
    fixture.form.encrypts = true;
    let process = fixture.start();
    for number in 0..3 {
        process.create(number, "Econtent");
    }
    // In this process, by checksum and size; in the next one, by the tags.
    fs::write(fixture.pending(0, ".enc"), "Econtenx").unwrap();
    fs::write(fixture.pending(1, ".enc"), "Econten").unwrap();
    assert_eq!(process.work().await, Err(NotFlushed::Damaged { files: 2 }));
    assert_eq!(process.local.totals().quarantined, 2);
    drop(process);
    let process = fixture.start();
    process.create(3, "Xcontent");
    drop(process);
    let process = fixture.start();
    // The attachment may have been found damaged before the flush began.
    let _ = process.work().await;
    assert_eq!(process.local.totals().quarantined, 3);
    assert_eq!(fs::read_dir(fixture.folder("quarantine")).unwrap().count(), 3);
    for number in [0, 1, 3] {
        assert_eq!(process.object(number).await, None, "{number}");
    }
    assert_eq!(process.object(2).await.unwrap(), "Econtent");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_uploaded_before_the_keys_are_known() {
    let mut fixture = Fixture::new();
    fixture.form.waits = true;
    let process = fixture.start();
    process.create(1, "content");
    let error = process.work().await.unwrap_err();
    assert!(matches!(&error, NotFlushed::Pending { files: 1, error } if error.contains("REASON")), "{error}");
    assert!(fixture.pending(1, "").exists());
}

#[tokio::test]
async fn work_of_an_orthanc_that_has_ended_is_taken_over() {
    let fixture = Fixture::new();
    let first = fixture.start();
    let second = fixture.start();
    second.create(1, "content");
    assert!(first.read(1).is_err());
    drop(second);
    first.local.state.adopt(|folder| first.local.take_over(folder)).unwrap();
    assert_eq!(first.read(1).unwrap(), (Bytes::from("content"), Side::Pending));
    first.work().await.unwrap();
    assert_eq!(first.object(1).await.unwrap(), "content");
}

#[tokio::test]
async fn deleted_attachment_is_not_uploaded() {
    let fixture = Fixture::new();
    let process = fixture.start();
    process.create(1, "content");
    process.create(2, "content");
    process.storage.remove(&attachment(1)).await.unwrap();
    process.work().await.unwrap();
    assert_eq!(process.object(1).await, None);
    assert_eq!(process.object(2).await.unwrap(), "content");
}

#[tokio::test]
async fn move_to_the_bucket_uploads_at_once() {
    let fixture = Fixture::new();
    let options = WriteBackOptions { upload_delay: Duration::from_secs(3600), ..WriteBackOptions::default() };
    let process = fixture.start_with(Some(options));
    process.create(1, "content");
    let form: Arc<dyn StoredForm> = Arc::new(process.form);
    let moved = process.storage.move_to(&attachment(1), Side::ObjectStorage, 7, &form).await.unwrap();
    assert_eq!(moved, MoveOutcome::Moved { bytes: 7 });
    assert_eq!(process.object(1).await.unwrap(), "content");
    let again = process.storage.move_to(&attachment(1), Side::ObjectStorage, 7, &form).await.unwrap();
    assert_eq!(again, MoveOutcome::AlreadyThere);
}

#[tokio::test]
async fn move_to_the_file_system_fills_the_cache() {
    let fixture = Fixture::new();
    let process = fixture.start();
    process.create(1, "content");
    process.work().await.unwrap();
    process.local.discard_cached(&attachment(1));
    let form: Arc<dyn StoredForm> = Arc::new(process.form);
    let prefetch =
        async || process.storage.move_to(&attachment(1), Side::FileSystem, 7, &form).await.unwrap();
    assert_eq!(prefetch().await, MoveOutcome::Moved { bytes: 7 });
    assert_eq!(process.read(1).unwrap(), (Bytes::from("content"), Side::Cache));
    assert_eq!(prefetch().await, MoveOutcome::AlreadyThere);
    assert_eq!(process.object(1).await.unwrap(), "content");
    let missing = process.storage.move_to(&attachment(2), Side::FileSystem, 7, &form).await.unwrap();
    assert_eq!(missing, MoveOutcome::Missing);
}

#[test]
fn limit_of_pending_bytes_sends_attachments_to_the_bucket() {
    let fixture = Fixture::new();
    let options = WriteBackOptions { max_pending: 10, ..WriteBackOptions::default() };
    let process = fixture.start_with(Some(options));
    process.create(1, "content");
    assert!(matches!(process.local.create(&attachment(2), false, b"content"), Err(NotPending::Limit)));
    process.create(3, "xyz");
}

#[tokio::test]
async fn read_does_not_bring_a_deleted_attachment_back() {
    let fixture = Fixture::new();
    let process = fixture.start();
    let keep = || {
        let mut keeping = process.storage.keeper(&attachment(1)).unwrap().begin(false, 7).unwrap();
        keeping.write(b"content");
        keeping
    };
    let deleted = keep();
    process.storage.remove(&attachment(1)).await.unwrap();
    deleted.commit().await;
    assert!(!fixture.cached(1, "").exists());
    keep().commit().await;
    assert!(fixture.cached(1, "").exists());
}

#[tokio::test]
async fn broken_cache_of_an_orthanc_that_has_ended_does_not_hold_back_its_pending_files() {
    let fixture = Fixture::new();
    let first = fixture.start();
    let second = fixture.start();
    second.create(1, "content");
    drop(second);
    // No folder can be created where the cache of the first one wants to put the file.
    let other = fixture.root.path().join("1/cache/fb/4b").join(fixture.cached(2, "").file_name().unwrap());
    fs::create_dir_all(other.parent().unwrap()).unwrap();
    fs::write(&other, "cached").unwrap();
    fs::remove_dir_all(fixture.folder("cache")).unwrap();
    fs::write(fixture.folder("cache"), "a file").unwrap();
    first.local.state.adopt(|folder| first.local.take_over(folder)).unwrap();
    assert_eq!(first.read(1).unwrap(), (Bytes::from("content"), Side::Pending));
    assert!(!other.exists());
}

#[tokio::test]
async fn search_that_was_interrupted_is_repeated() {
    let fixture = Fixture::new();
    fixture.start().create(1, "content");
    let process = fixture.start();
    process.local.stop(true);
    process.local.find_pending().unwrap_err();
    assert!(process.local.totals().is_counting);
    assert!(matches!(process.local.flush().await, Err(NotFlushed::Unknown { .. })));
    assert_eq!(process.read(1).unwrap(), (Bytes::from("content"), Side::Pending));
    process.local.stop(false);
    process.local.find_pending().unwrap();
    process.work().await.unwrap();
    assert_eq!(process.object(1).await.unwrap(), "content");
}

#[tokio::test]
async fn deletion_removes_files_that_are_not_in_the_queue() {
    let fixture = Fixture::new();
    let process = fixture.start();
    process.create(1, "content");
    process.work().await.unwrap();
    // Left by a store that failed on the way.
    fs::write(fixture.pending(1, ""), "content").unwrap();
    let quarantined = fixture.folder("quarantine").join(fixture.pending(1, "").file_name().unwrap());
    fs::create_dir_all(quarantined.parent().unwrap()).unwrap();
    fs::write(&quarantined, "content").unwrap();
    process.local.remove(&attachment(1)).unwrap();
    assert!(!fixture.pending(1, "").exists() && !quarantined.exists());
}

#[tokio::test]
async fn file_in_clear_is_kept_until_its_envelope_is_known_to_be_right() {
    for (envelope, expected) in [("Eenvelope", "Eenvelope"), ("Xdamaged", "Econtent")] {
        let mut fixture = Fixture::new();
        fixture.start().create(1, "content");
        // The process ended before it deleted the file in clear.
        fs::write(fixture.pending(1, ".enc"), envelope).unwrap();
        fixture.form.encrypts = true;
        let process = fixture.start();
        process.work().await.unwrap();
        assert_eq!(process.object(1).await.unwrap(), expected);
        assert!(!fixture.pending(1, "").exists() && !fixture.pending(1, ".enc").exists());
        assert_eq!(process.local.totals().quarantined, 0);
    }
}

#[tokio::test]
async fn flush_reports_an_attachment_that_has_vanished() {
    let fixture = Fixture::new();
    let process = fixture.start();
    process.create(1, "content");
    fs::remove_file(fixture.pending(1, "")).unwrap();
    assert_eq!(process.work().await, Err(NotFlushed::Damaged { files: 1 }));
}
