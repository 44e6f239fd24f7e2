//! The worker that deletes what is marked, without Orthanc.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bucket::{
    Bucket, BucketOptions, BulkDelete, Cause, Deletion, ObjectStorage, Payload, ReadRange, RetryPolicy,
};
use bytes::Bytes;
use cloud_http::TransportError;
use hybrid::{DeletionWorker, FileStorage, FileStorageOptions, HybridStorage, Purpose, Side, StateDirectory};
use object_store::memory::InMemory;
use object_store::path::Path;
use storage_layout::{Attachment, ContentType, Layout, Structure};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// A server that does not answer.
struct Silence;

#[async_trait]
impl BulkDelete for Silence {
    fn limit(&self) -> usize {
        1000
    }

    async fn delete_many(&self, _: &[Path]) -> object_store::Result<Vec<Deletion>> {
        let source = Box::new(TransportError::Stalled { limit: Duration::from_secs(30) });
        Err(object_store::Error::Generic { store: "test", source })
    }
}

struct Fixture {
    store: Arc<InMemory>,
    storage: HybridStorage,
    files: FileStorage,
    state: Arc<StateDirectory>,
    root: tempfile::TempDir,
}

/// The objects in `store`, named by `layout`.
fn objects(store: &Arc<InMemory>, layout: Layout, bulk_delete: Option<Arc<dyn BulkDelete>>) -> ObjectStorage {
    let bucket = Bucket::new(BucketOptions {
        retry: RetryPolicy { max_retries: 0, ..RetryPolicy::default() },
        bulk_delete,
        ..BucketOptions::new(Arc::<InMemory>::clone(store), "memory://bucket")
    });
    ObjectStorage::new(bucket, layout, false, false)
}

fn state(root: &std::path::Path) -> Arc<StateDirectory> {
    let purpose = Purpose { bucket: "memory://bucket".to_owned(), settings: String::new() };
    Arc::new(StateDirectory::open(&root.join("state"), &purpose).unwrap())
}

fn has_file(files: &FileStorage, attachment: &Attachment) -> bool {
    files.open(&attachment.uuid).is_ok()
}

impl Fixture {
    fn new(bulk_delete: Option<Arc<dyn BulkDelete>>) -> Self {
        let store = Arc::new(InMemory::new());
        let root = tempfile::tempdir().unwrap();
        let options = FileStorageOptions { sync: false };
        let files = FileStorage::new(root.path().join("files"), options);
        files.check_writable().unwrap();
        let objects = objects(&store, Layout::default(), bulk_delete);
        let storage = HybridStorage::new(objects, files.clone(), Side::FileSystem);
        Self { store, storage, files, state: state(root.path()), root }
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
        let file = has_file(&self.files, attachment);
        let object = self.storage.objects().read(attachment, ReadRange::Whole).await;
        assert!(object.as_ref().err().is_none_or(|error| error.cause == Cause::NotFound), "{object:?}");
        (file, object.is_ok())
    }

    /// Works until `count` markers are left.
    async fn work_until(&self, count: u64, delay: Duration) {
        let worker =
            DeletionWorker::new(self.storage.clone(), self.files.clone(), Arc::clone(&self.state), delay);
        let left = async {
            while self.state.markers().pending() > count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = Box::pin(worker.run()) => {}
            () = left => {}
            () = tokio::time::sleep(Duration::from_secs(30)) => panic!("{:?}", self.state.markers()),
        }
    }
}

#[tokio::test]
async fn marked_attachment_is_deleted_from_both_places() {
    let fixture = Fixture::new(None);
    // More than one batch.
    let mut attachments = Vec::new();
    for number in 0..1500 {
        attachments.push(fixture.store_and_delete(number).await);
    }
    Box::pin(fixture.work_until(0, Duration::ZERO)).await;
    for attachment in &attachments {
        assert_eq!(fixture.places(attachment).await, (false, false));
    }
    assert_eq!(fixture.state.markers().oldest(), None);
}

#[tokio::test]
async fn attachment_is_kept_for_the_delay() {
    let fixture = Fixture::new(None);
    let old = fixture.store_and_delete(1).await;
    let recent = fixture.store_and_delete(2).await;
    let marker = fixture.root.path().join(format!("state/0/deleting/00/{}.1", old.uuid));
    let yesterday = SystemTime::now() - 24 * HOUR;
    // Markers of the same second are links to one file.
    fs::remove_file(&marker).unwrap();
    File::create(&marker).unwrap().set_modified(yesterday).unwrap();
    Box::pin(fixture.work_until(1, 23 * HOUR)).await;
    assert_eq!(fixture.places(&old).await, (false, false));
    assert_eq!(fixture.places(&recent).await, (true, true));
    assert!(fixture.state.markers().oldest().unwrap() > yesterday + 23 * HOUR);
}

#[tokio::test]
async fn files_are_deleted_while_the_bucket_is_silent() {
    let fixture = Fixture::new(Some(Arc::new(Silence)));
    // More than one batch.
    let mut attachments = Vec::new();
    for number in 0..2500 {
        attachments.push(fixture.store_and_delete(number).await);
    }
    let worker = DeletionWorker::new(
        fixture.storage.clone(),
        fixture.files.clone(),
        Arc::clone(&fixture.state),
        Duration::ZERO,
    );
    let files_are_gone = async {
        while attachments.iter().any(|attachment| has_file(&fixture.files, attachment)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = worker.run() => {}
        () = files_are_gone => {}
        () = tokio::time::sleep(Duration::from_secs(30)) => panic!("files are left"),
    }
    assert_eq!(fixture.state.markers().pending(), 2500);
    assert_eq!(fixture.places(&attachments[0]).await, (false, true));
}

#[tokio::test]
async fn deletion_survives_a_change_of_the_configuration() {
    let mut fixture = Fixture::new(None);
    let attachment = fixture.store_and_delete(1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    // The next start has another structure, encryption, and no hybrid storage.
    drop(std::mem::replace(&mut fixture.state, state(&fixture.root.path().join("elsewhere"))));
    fixture.state = state(fixture.root.path());
    let layout = Layout { structure: Structure::Legacy, encrypted: true, ..Layout::default() };
    let before = fixture.storage.clone();
    fixture.storage = HybridStorage::objects_only(objects(&fixture.store, layout, None));
    Box::pin(fixture.work_until(0, Duration::ZERO)).await;
    fixture.storage = before;
    assert_eq!(fixture.places(&attachment).await, (false, false));
}
