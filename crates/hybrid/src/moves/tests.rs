//! Moving attachments between a bucket and files, without Orthanc.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bucket::{Bucket, BucketOptions, Cause, ObjectStorage, Operation, Payload, ReadRange, StorageError};
use bytes::Bytes;
use object_store::memory::InMemory;
use storage_layout::{Attachment, ContentType, Layout};

use crate::files::Observed;
use crate::{FileStorage, FileStorageOptions, HybridStorage, MoveOutcome, Side, StoredContent, StoredForm};

/// Stores content unchanged. Two contents are the same if they differ only in case.
#[derive(Debug)]
struct Form;

impl StoredForm for Form {
    fn to_store(&self, _: &Attachment, content: StoredContent) -> Result<Bytes, String> {
        if content.bytes == "refused" { Err("REASON".to_owned()) } else { Ok(content.bytes) }
    }

    fn is_same(&self, _: &Attachment, one: &StoredContent, other: &StoredContent) -> bool {
        one.bytes.eq_ignore_ascii_case(&other.bytes)
    }
}

struct Fixture {
    storage: HybridStorage,
    attachment: Attachment,
    form: Arc<dyn StoredForm>,
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self::with(true)
    }

    /// A fixture whose files are synced when they are stored, or not (`SyncStorageArea`).
    fn with(sync: bool) -> Self {
        let bucket = Bucket::new(BucketOptions::new(Arc::new(InMemory::new()), "memory://bucket"));
        let objects = ObjectStorage::new(bucket, Layout::default(), false, false);
        let folder = tempfile::tempdir().unwrap();
        let files = FileStorage::new(folder.path(), FileStorageOptions { sync });
        let attachment = Attachment::new("fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11", ContentType::DICOM).unwrap();
        let storage = HybridStorage::new(objects, files, Side::FileSystem);
        Self { storage, attachment, form: Arc::new(Form), folder }
    }

    fn put_file(&self, content: &[u8]) {
        self.storage.files().unwrap().create(&self.attachment.uuid, content).unwrap();
    }

    async fn put_object(&self, content: &'static [u8]) {
        let content = Payload::Owned(Bytes::from_static(content));
        self.storage.objects().create(&self.attachment, content).await.unwrap();
    }

    fn file(&self) -> Option<Bytes> {
        let mut file = self.storage.files().unwrap().open(&self.attachment.uuid).ok()?;
        Some(file.next(usize::MAX).unwrap().unwrap_or_default())
    }

    async fn object(&self) -> Option<Bytes> {
        let mut found = self.storage.objects().read(&self.attachment, ReadRange::Whole).await.ok()?;
        Some(found.download.next().await.unwrap().unwrap_or_default())
    }

    /// Forgets what was synced so far. From now on, `broken` cannot be synced.
    fn watch_disk(&self, broken: Option<PathBuf>) {
        *self.storage.files().unwrap().disk().observed.lock() = Observed { synced: Vec::new(), broken };
    }

    fn synced(&self) -> Vec<PathBuf> {
        self.storage.files().unwrap().disk().observed.lock().synced.clone()
    }

    /// The attachment's file and the folders above it, which must all be synced.
    fn path_to_the_file(&self) -> [PathBuf; 4] {
        let root = self.folder.path();
        let inner = root.join("fb/4b");
        [inner.join(self.attachment.uuid.as_str()), inner, root.join("fb"), root.to_owned()]
    }

    async fn move_to(&self, target: Side) -> Result<MoveOutcome, StorageError> {
        self.storage.move_to(&self.attachment, target, 10, &self.form).await
    }
}

#[tokio::test]
async fn moved_attachment_is_in_one_place_only() {
    let fixture = Fixture::new();
    for content in [b"content".as_slice(), b""] {
        fixture.put_file(content);
        let moved = MoveOutcome::Moved { bytes: content.len() as u64 };
        assert_eq!(fixture.move_to(Side::ObjectStorage).await.unwrap(), moved);
        assert_eq!((fixture.file(), fixture.object().await.as_deref()), (None, Some(content)));
        // For a range of an empty object, the in-memory store answers differently from servers.
        if !content.is_empty() {
            assert_eq!(fixture.move_to(Side::ObjectStorage).await.unwrap(), MoveOutcome::AlreadyThere);
        }
        assert_eq!(fixture.move_to(Side::FileSystem).await.unwrap(), moved);
        assert_eq!((fixture.file().as_deref(), fixture.object().await), (Some(content), None));
    }
}

#[tokio::test]
async fn interrupted_move_is_completed() {
    let fixture = Fixture::new();
    fixture.put_file(b"content");
    fixture.put_object(b"content").await;
    assert_eq!(fixture.move_to(Side::ObjectStorage).await.unwrap(), MoveOutcome::Moved { bytes: 7 });
    assert_eq!((fixture.file(), fixture.object().await.as_deref()), (None, Some(b"content".as_slice())));
    // The same attachment in two forms, like a file in clear and its encrypted copy.
    fixture.put_file(b"CONTENT");
    assert_eq!(fixture.move_to(Side::ObjectStorage).await.unwrap(), MoveOutcome::Moved { bytes: 7 });
    assert_eq!((fixture.file(), fixture.object().await.as_deref()), (None, Some(b"content".as_slice())));
}

#[tokio::test]
async fn moved_file_is_always_synced() {
    for sync in [true, false] {
        for copy_exists in [false, true] {
            let fixture = Fixture::with(sync);
            fixture.put_object(b"content").await;
            if copy_exists {
                fixture.put_file(b"content");
            }
            fixture.watch_disk(None);
            fixture.move_to(Side::FileSystem).await.unwrap();
            assert_eq!(fixture.synced(), fixture.path_to_the_file(), "{sync} {copy_exists}");
        }
    }
}

#[tokio::test]
async fn source_stays_if_the_file_cannot_be_synced() {
    for copy_exists in [false, true] {
        for broken in 0..4 {
            let fixture = Fixture::with(false);
            fixture.put_object(b"content").await;
            if copy_exists {
                fixture.put_file(b"content");
            }
            fixture.watch_disk(Some(fixture.path_to_the_file()[broken].clone()));
            let error = fixture.move_to(Side::FileSystem).await.unwrap_err();
            assert!(error.to_string().contains("the disk is broken"), "{error}");
            assert_eq!(fixture.object().await.as_deref(), Some(b"content".as_slice()), "{broken}");
            assert_eq!(fixture.file().is_some(), copy_exists, "a failed write leaves no file");
        }
    }
}

#[tokio::test]
async fn stores_sync_only_what_the_option_says() {
    for sync in [true, false] {
        let fixture = Fixture::with(sync);
        fixture.put_file(b"content");
        assert_eq!(fixture.synced(), if sync { fixture.path_to_the_file().to_vec() } else { Vec::new() });
        fixture.watch_disk(None);
        fixture.put_file(b"content");
        assert_eq!(
            fixture.synced(),
            if sync { fixture.path_to_the_file()[..2].to_vec() } else { Vec::new() }
        );
    }
}

#[tokio::test]
async fn differing_copies_are_both_kept() {
    let fixture = Fixture::new();
    for target in [Side::ObjectStorage, Side::FileSystem] {
        fixture.put_file(b"one");
        fixture.put_object(b"another").await;
        assert_eq!(fixture.move_to(target).await.unwrap_err().cause, Cause::CopiesDiffer);
        assert_eq!(fixture.file().as_deref(), Some(b"one".as_slice()));
        assert_eq!(fixture.object().await.as_deref(), Some(b"another".as_slice()));
    }
}

#[tokio::test]
async fn unacceptable_content_stays_in_the_source() {
    let fixture = Fixture::new();
    fixture.put_file(b"refused");
    let error = fixture.move_to(Side::ObjectStorage).await.unwrap_err();
    assert_eq!(error.cause, Cause::NotAcceptable("REASON".to_owned()));
    assert_eq!((fixture.file().as_deref(), fixture.object().await), (Some(b"refused".as_slice()), None));
}

#[tokio::test]
async fn attachment_in_neither_place_is_missing() {
    assert_eq!(Fixture::new().move_to(Side::ObjectStorage).await.unwrap(), MoveOutcome::Missing);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_moves_and_removal_are_consistent() {
    for round in 0..100_u64 {
        let fixture = Arc::new(Fixture::new());
        fixture.put_file(b"content");
        let moves = [Side::ObjectStorage, Side::FileSystem].map(|target| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move { fixture.move_to(target).await })
        });
        tokio::time::sleep(Duration::from_micros(round * 17 % 900)).await;
        if round % 2 == 0 {
            fixture.storage.remove(&fixture.attachment).await.unwrap();
        }
        for one in moves {
            one.await.unwrap().unwrap();
        }
        let copies = usize::from(fixture.file().is_some()) + usize::from(fixture.object().await.is_some());
        assert_eq!(copies, usize::from(round % 2 == 1), "round {round}");
    }
}

#[tokio::test]
async fn read_retries_the_first_place_after_a_move() {
    let fixture = Fixture::new();
    let mut asked = Vec::new();
    let read = fixture.storage.read(&fixture.attachment, |place| {
        asked.push(place.side());
        let missing = || StorageError::new(Operation::Read, place.name(&fixture.attachment), Cause::NotFound);
        if asked.len() == 3 { Ok(()) } else { Err(missing()) }
    });
    read.unwrap();
    assert_eq!(asked, [Side::FileSystem, Side::ObjectStorage, Side::FileSystem]);
}
