//! The worker that deletes what is marked, without Orthanc.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bucket::{Bucket, BucketOptions, Cause, ObjectStorage, Payload, ReadRange, RetryPolicy, TransferOptions};
use bytes::Bytes;
use hybrid::{DeletionWorker, FileStorage, FileStorageOptions, HybridStorage, Side, StateDirectory};
use object_store::PutOptions;
use object_store::memory::InMemory;
use storage_layout::{Attachment, ContentType, Layout};

const HOUR: Duration = Duration::from_secs(60 * 60);

struct Fixture {
    storage: HybridStorage,
    state: Arc<StateDirectory>,
    root: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let store = Arc::new(InMemory::new());
        let bucket = Bucket::new(BucketOptions {
            store: Arc::<InMemory>::clone(&store),
            multipart: store,
            url: "memory://bucket".to_owned(),
            put_options: PutOptions::default(),
            retry: RetryPolicy::default(),
            transfer: TransferOptions::default(),
            largest_put: u64::MAX,
            create: None,
            bulk_delete: None,
        });
        let objects = ObjectStorage::new(bucket, Layout::default(), false, false);
        let root = tempfile::tempdir().unwrap();
        let options = FileStorageOptions { sync: false, note_use: None };
        let files = FileStorage::new(root.path().join("files"), options);
        files.check_writable().unwrap();
        let storage = HybridStorage::new(objects, files, Side::FileSystem);
        let state = StateDirectory::open(&root.path().join("state"), "memory://bucket/").unwrap();
        Self { storage, state: Arc::new(state), root }
    }

    /// Stores an attachment in both places and marks it as deleted.
    async fn store_and_delete(&self, number: usize) -> Attachment {
        let uuid = format!("00000000-0000-4000-8000-{number:012x}");
        let attachment = Attachment::new(&uuid, ContentType::DICOM).unwrap();
        self.storage.files().unwrap().create(&attachment.uuid, b"content").unwrap();
        let content = Payload::Owned(Bytes::from_static(b"content"));
        self.storage.objects().create(&attachment, content).await.unwrap();
        self.state.markers().add(&attachment).unwrap();
        attachment
    }

    /// Whether an attachment is in the file system and in the bucket.
    async fn places(&self, attachment: &Attachment) -> (bool, bool) {
        let file = self.storage.files().unwrap().info(&attachment.uuid).unwrap().is_some();
        let object = self.storage.objects().read(attachment, ReadRange::Whole).await;
        assert!(object.as_ref().err().is_none_or(|error| error.cause == Cause::NotFound), "{object:?}");
        (file, object.is_ok())
    }

    /// Works until `count` markers are left.
    async fn work_until(&self, count: u64, delay: Duration) {
        let worker = DeletionWorker::new(self.storage.clone(), Arc::clone(&self.state), delay);
        let left = async {
            while self.state.markers().pending() > count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = worker.run() => {}
            () = left => {}
            () = tokio::time::sleep(Duration::from_secs(30)) => panic!("{:?}", self.state.markers()),
        }
    }
}

#[tokio::test]
async fn marked_attachment_is_deleted_from_both_places() {
    let fixture = Fixture::new();
    // More than one batch.
    let mut attachments = Vec::new();
    for number in 0..1500 {
        attachments.push(fixture.store_and_delete(number).await);
    }
    fixture.work_until(0, Duration::ZERO).await;
    for attachment in &attachments {
        assert_eq!(fixture.places(attachment).await, (false, false));
    }
    assert_eq!(fixture.state.markers().oldest(), None);
}

#[tokio::test]
async fn attachment_is_kept_for_the_delay() {
    let fixture = Fixture::new();
    let old = fixture.store_and_delete(1).await;
    let recent = fixture.store_and_delete(2).await;
    let marker = fixture.root.path().join(format!("state/0/deleting/00/{}.1", old.uuid));
    let yesterday = SystemTime::now() - 24 * HOUR;
    // Markers of the same second are links to one file.
    fs::remove_file(&marker).unwrap();
    File::create(&marker).unwrap().set_modified(yesterday).unwrap();
    fixture.work_until(1, 23 * HOUR).await;
    assert_eq!(fixture.places(&old).await, (false, false));
    assert_eq!(fixture.places(&recent).await, (true, true));
    assert!(fixture.state.markers().oldest().unwrap() > yesterday + 23 * HOUR);
}
