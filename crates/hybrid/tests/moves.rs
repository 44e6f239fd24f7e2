//! Moving attachments between a bucket and files, without Orthanc.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use bucket::{
    Bucket, BucketOptions, Cause, Naming, ObjectStorage, Payload, ReadRange, RetryPolicy, StorageError,
    TransferOptions,
};
use bytes::Bytes;
use hybrid::{FileStorage, FileStorageOptions, HybridStorage, MoveOutcome, Side, StoredForm};
use object_store::PutOptions;
use object_store::memory::InMemory;
use storage_layout::{Attachment, ContentType, Layout};

/// Stored as it is; two contents are the same where they differ in case alone.
#[derive(Debug)]
struct Form;

impl StoredForm for Form {
    fn to_store(&self, _: &Attachment, _: Naming, content: Bytes) -> Result<Bytes, String> {
        if content == "refused" { Err("it must not be stored".to_owned()) } else { Ok(content) }
    }

    fn is_same(&self, _: &Attachment, one: (Naming, &[u8]), other: (Naming, &[u8])) -> bool {
        one.1.eq_ignore_ascii_case(other.1)
    }
}

struct Fixture {
    storage: HybridStorage,
    attachment: Attachment,
    form: Arc<dyn StoredForm>,
    _folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let store = Arc::new(InMemory::new());
        let objects = Bucket::new(BucketOptions {
            store: Arc::<InMemory>::clone(&store),
            multipart: store,
            url: "memory://bucket".to_owned(),
            put_options: PutOptions::default(),
            retry: RetryPolicy::default(),
            transfer: TransferOptions::default(),
            largest_put: u64::MAX,
            create: None,
        });
        let objects = ObjectStorage::new(objects, Layout::default(), false, false);
        let folder = tempfile::tempdir().unwrap();
        let files = FileStorage::new(folder.path(), FileStorageOptions { sync: false, note_use: None });
        let attachment = Attachment::new("fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11", ContentType::DICOM).unwrap();
        let storage = HybridStorage::new(objects, files, Side::FileSystem);
        Self { storage, attachment, form: Arc::new(Form), _folder: folder }
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
        Some(file.read_to_end().unwrap())
    }

    async fn object(&self) -> Option<Bytes> {
        let mut found = self.storage.objects().read(&self.attachment, ReadRange::Whole).await.ok()?;
        Some(found.download.next().await.unwrap().unwrap_or_default())
    }

    async fn relocate(&self, target: Side) -> Result<MoveOutcome, StorageError> {
        self.storage.relocate(&self.attachment, target, 10, &self.form).await
    }
}

#[tokio::test]
async fn an_attachment_moves_there_and_back_and_is_on_one_side_alone() {
    let fixture = Fixture::new();
    for content in [b"content".as_slice(), b""] {
        fixture.put_file(content);
        let moved = MoveOutcome::Moved { bytes: content.len() as u64 };
        assert_eq!(fixture.relocate(Side::ObjectStorage).await.unwrap(), moved);
        assert_eq!((fixture.file(), fixture.object().await.as_deref()), (None, Some(content)));
        // Of an empty object the store in memory gives no range in the way that servers do.
        if !content.is_empty() {
            assert_eq!(fixture.relocate(Side::ObjectStorage).await.unwrap(), MoveOutcome::AlreadyThere);
        }
        assert_eq!(fixture.relocate(Side::FileSystem).await.unwrap(), moved);
        assert_eq!((fixture.file().as_deref(), fixture.object().await), (Some(content), None));
    }
}

#[tokio::test]
async fn a_move_that_was_broken_off_is_finished_and_the_copy_not_written_again() {
    let fixture = Fixture::new();
    fixture.put_file(b"content");
    fixture.put_object(b"content").await;
    assert_eq!(fixture.relocate(Side::ObjectStorage).await.unwrap(), MoveOutcome::Moved { bytes: 7 });
    assert_eq!((fixture.file(), fixture.object().await.as_deref()), (None, Some(b"content".as_slice())));
    // The same attachment in two forms, as a clear file and its encrypted copy are.
    fixture.put_file(b"CONTENT");
    assert_eq!(fixture.relocate(Side::ObjectStorage).await.unwrap(), MoveOutcome::Moved { bytes: 7 });
    assert_eq!((fixture.file(), fixture.object().await.as_deref()), (None, Some(b"content".as_slice())));
}

#[tokio::test]
async fn copies_that_differ_are_both_kept() {
    let fixture = Fixture::new();
    for target in [Side::ObjectStorage, Side::FileSystem] {
        fixture.put_file(b"one");
        fixture.put_object(b"another").await;
        assert_eq!(fixture.relocate(target).await.unwrap_err().cause, Cause::CopiesDiffer);
        assert_eq!(fixture.file().as_deref(), Some(b"one".as_slice()));
        assert_eq!(fixture.object().await.as_deref(), Some(b"another".as_slice()));
    }
}

#[tokio::test]
async fn what_must_not_be_stored_stays_where_it_is() {
    let fixture = Fixture::new();
    fixture.put_file(b"refused");
    let error = fixture.relocate(Side::ObjectStorage).await.unwrap_err();
    assert_eq!(error.cause, Cause::NotAcceptable("it must not be stored".to_owned()));
    assert_eq!((fixture.file().as_deref(), fixture.object().await), (Some(b"refused".as_slice()), None));
}

#[tokio::test]
async fn what_is_nowhere_is_missing() {
    assert_eq!(Fixture::new().relocate(Side::ObjectStorage).await.unwrap(), MoveOutcome::Missing);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_moves_and_a_removal_at_once_leave_nothing_and_lose_nothing() {
    for round in 0..100_u64 {
        let fixture = Arc::new(Fixture::new());
        fixture.put_file(b"content");
        let moves = [Side::ObjectStorage, Side::FileSystem].map(|target| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move { fixture.relocate(target).await })
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
async fn reads_look_at_the_first_storage_once_more_where_a_move_may_have_overtaken_them() {
    let fixture = Fixture::new();
    let mut asked = Vec::new();
    let missing = |side| StorageError { object: format!("{side}"), ..not_found(&fixture) };
    let read = fixture.storage.read(&fixture.attachment, |side| {
        asked.push(side);
        if asked.len() == 3 { Ok(()) } else { Err(missing(side)) }
    });
    read.unwrap();
    assert_eq!(asked, [Side::FileSystem, Side::ObjectStorage, Side::FileSystem]);
}

fn not_found(fixture: &Fixture) -> StorageError {
    fixture.storage.files().unwrap().open(&fixture.attachment.uuid).unwrap_err()
}
