//! Rewrites in a bucket in memory.

mod store;

use std::fs;
use std::sync::atomic::Ordering;

use bucket::{Bucket, BucketOptions};
use futures_util::StreamExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use storage_layout::{ContentType, Layout};

use self::store::{Fault, Store};
use super::*;
use crate::files::Observed;
use crate::state::{Purpose, StateDirectory};
use crate::write_back::{WriteBack, WriteBackOptions};
use crate::{FileStorage, FileStorageOptions};

const UUID: &str = "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11";
const CLEAR: &str = "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11.dcm";
const ENCRYPTED: &str = "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11.dcm.enc";
const NEW: &[u8] = b"new:content";
/// The name and content of what is to be rewritten.
const OLD: [(&str, &[u8]); 2] = [(CLEAR, b"content"), (ENCRYPTED, b"old:content")];

/// "Encrypts" by writing a word in front of the content.
#[derive(Debug)]
struct Form;

fn plaintext(content: &StoredContent) -> &[u8] {
    let bytes = &content.bytes[..];
    bytes.strip_prefix(b"old:").or_else(|| bytes.strip_prefix(b"new:")).unwrap_or(bytes)
}

impl StoredForm for Form {
    fn to_store(&self, _: &Attachment, content: StoredContent) -> Result<Bytes, String> {
        Ok(content.bytes)
    }

    fn is_current(&self, _: &Attachment, content: &StoredContent) -> Result<bool, FormError> {
        Ok(content.bytes.starts_with(b"new:"))
    }

    fn convert(&self, _: &Attachment, content: StoredContent, _: Option<Md5>) -> Result<Bytes, FormError> {
        match plaintext(&content) {
            b"unreadable" => Err(FormError::lasting("WRONG KEY")),
            plaintext => Ok([b"new:", plaintext].concat().into()),
        }
    }

    fn is_same(&self, _: &Attachment, one: &StoredContent, other: &StoredContent) -> bool {
        plaintext(one) == plaintext(other)
    }
}

struct Fixture {
    store: Arc<Store>,
    storage: HybridStorage,
    attachment: Attachment,
    form: Arc<dyn StoredForm>,
}

impl Fixture {
    /// A bucket with objects, that has a fault at one of its requests.
    async fn new(objects: &[(&str, &[u8])], fault: Fault, at: usize) -> Self {
        let memory = InMemory::new();
        for (name, content) in objects {
            memory.put(&Path::from(*name), content.to_vec().into()).await.unwrap();
        }
        Self::with(memory, fault, at)
    }

    fn with(memory: InMemory, fault: Fault, at: usize) -> Self {
        let multipart = Arc::new(memory.clone());
        let store = Arc::new(Store::new(memory, fault, at));
        let options = BucketOptions {
            store: Arc::<Store>::clone(&store),
            ..BucketOptions::new(multipart, "memory://bucket")
        };
        let layout = Layout { encrypted: true, ..Layout::default() };
        let objects = ObjectStorage::new(Bucket::new(options), layout, false, true);
        let attachment = Attachment::new(UUID, ContentType::DICOM).unwrap();
        let storage = HybridStorage::objects_only(objects);
        Self { store, storage, attachment, form: Arc::new(Form) }
    }

    /// The same objects after a restart, and without the fault.
    fn restarted(&self) -> Self {
        Self::with(self.store.memory.clone(), Fault::None, 0)
    }

    async fn rewrite(&self) -> Result<RewriteOutcome, StorageError> {
        rewrite(&self.storage, self).await
    }

    async fn objects(&self) -> Vec<(String, Bytes)> {
        let listed: Vec<_> = self.store.memory.list(None).collect().await;
        let mut objects = Vec::new();
        for object in listed {
            let path = object.unwrap().location;
            let content = self.store.memory.get(&path).await.unwrap().bytes().await.unwrap();
            objects.push((path.to_string(), content));
        }
        objects
    }

    async fn expect_current(&self) {
        assert_eq!(self.objects().await, [(ENCRYPTED.to_owned(), Bytes::from_static(NEW))]);
    }

    /// What a read returns.
    async fn read(&self) -> Vec<u8> {
        let found = self.storage.objects().read(&self.attachment, ReadRange::Whole).await.unwrap();
        plaintext(&Source::object(found).into_content().await.unwrap()).to_vec()
    }
}

/// Rewrites the attachment of a fixture. Each copy that is left must be current.
async fn rewrite(storage: &HybridStorage, fixture: &Fixture) -> Result<RewriteOutcome, StorageError> {
    let Rewritten { outcome, sizes } = storage.rewrite(&fixture.attachment, 10, None, &fixture.form).await?;
    assert!(sizes.iter().all(|size| *size == 11), "{sizes:?}");
    let copies = 1 + usize::from(storage.files().is_some());
    let is_left = matches!(outcome, RewriteOutcome::Rewritten { .. } | RewriteOutcome::AlreadyCurrent);
    assert_eq!(sizes.len(), if is_left { copies } else { 0 });
    Ok(outcome)
}

#[tokio::test]
async fn each_form_becomes_the_present_one() {
    for object in OLD {
        let fixture = Fixture::new(&[object], Fault::None, 0).await;
        assert_eq!(fixture.rewrite().await.unwrap(), RewriteOutcome::Rewritten { bytes: 11 });
        fixture.expect_current().await;
        let before = fixture.store.requests();
        assert_eq!(fixture.rewrite().await.unwrap(), RewriteOutcome::AlreadyCurrent);
        assert_eq!(fixture.store.requests() - before, 2, "one for each name");
    }
    assert_eq!(Fixture::new(&[], Fault::None, 0).await.rewrite().await.unwrap(), RewriteOutcome::Missing);
}

#[tokio::test]
async fn interrupted_rewrite_is_completed() {
    let mut interruptions = 0;
    for object in OLD {
        for fault in [Fault::Before, Fault::After] {
            for at in 0.. {
                let fixture = Fixture::new(&[object], fault, at).await;
                let result = fixture.rewrite().await;
                let restarted = fixture.restarted();
                assert_eq!(restarted.read().await, b"content", "{object:?} {fault:?} {at}");
                restarted.rewrite().await.unwrap();
                restarted.expect_current().await;
                if fixture.store.requests() <= at {
                    result.unwrap();
                    break;
                }
                interruptions += 1;
            }
        }
    }
    assert!(interruptions > 20, "{interruptions}");
}

#[tokio::test]
async fn deletion_during_a_rewrite_is_final() {
    let mut deletions = 0;
    for object in OLD {
        for fault in [Fault::Waits, Fault::WaitsAfter] {
            for at in 0.. {
                let fixture = Arc::new(Fixture::new(&[object], fault, at).await);
                let rewriting = Arc::clone(&fixture);
                let mut rewrite = tokio::spawn(async move { rewriting.rewrite().await });
                tokio::select! {
                    _ended = &mut rewrite => break,
                    () = fixture.store.reached.notified() => {}
                }
                let removing = Arc::clone(&fixture);
                let removal =
                    tokio::spawn(async move { removing.storage.remove(&removing.attachment).await });
                tokio::task::yield_now().await;
                fixture.store.go_on.notify_one();
                let outcome = rewrite.await.unwrap();
                removal.await.unwrap().unwrap();
                assert_eq!(fixture.objects().await, [], "{object:?} {fault:?} {at}: {outcome:?}");
                deletions += 1;
            }
        }
    }
    assert!(deletions > 20, "{deletions}");
}

#[tokio::test]
async fn rewrite_completes_a_deletion_that_has_given_up() {
    // The `PUT` of an object in clear: after four small reads, a whole one, and two to compare it.
    for fault in [Fault::Waits, Fault::WaitsAfter] {
        let fixture = Arc::new(Fixture::new(&OLD[..1], fault, 7).await);
        let rewriting = Arc::clone(&fixture);
        let rewrite = tokio::spawn(async move { rewriting.rewrite().await });
        fixture.store.reached.notified().await;
        assert_eq!(fixture.store.puts.load(Ordering::Relaxed), 1);
        fixture.storage.announce_removal(&fixture.attachment);
        fixture.store.go_on.notify_one();
        assert_eq!(rewrite.await.unwrap().unwrap(), RewriteOutcome::Removed);
        assert_eq!(fixture.objects().await, []);
    }
}

#[tokio::test]
async fn superfluous_object_is_deleted_only_if_it_is_the_same() {
    for (new, is_same) in [(b"new:content".as_slice(), true), (b"new:another", false)] {
        let objects = [(CLEAR, b"content".as_slice()), (ENCRYPTED, new)];
        let fixture = Fixture::new(&objects, Fault::None, 0).await;
        let result = fixture.rewrite().await;
        if is_same {
            assert_eq!(result.unwrap(), RewriteOutcome::Rewritten { bytes: 0 });
            fixture.expect_current().await;
        } else {
            let error = result.unwrap_err();
            assert_eq!((error.operation, error.cause), (Operation::Rewrite, Cause::ObjectsDiffer));
            assert_eq!(fixture.objects().await.len(), 2);
        }
    }
}

#[tokio::test]
async fn object_that_cannot_be_converted_stays() {
    let fixture = Fixture::new(&[(ENCRYPTED, b"old:unreadable")], Fault::None, 0).await;
    let error = fixture.rewrite().await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot re-encrypt memory://bucket/{ENCRYPTED}: WRONG KEY"));
    assert_eq!(fixture.objects().await[0].1, b"old:unreadable".as_slice());
    assert_eq!(fixture.store.puts.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn object_that_arrives_damaged_is_stored_again() {
    let fixture = Fixture::new(&OLD[1..], Fault::Damages { times: 2 }, usize::MAX).await;
    assert_eq!(fixture.rewrite().await.unwrap(), RewriteOutcome::Rewritten { bytes: 11 });
    assert_eq!(fixture.store.puts.load(Ordering::Relaxed), 3);
    fixture.expect_current().await;
}

#[tokio::test]
async fn object_that_cannot_be_deleted_is_reported() {
    let fixture = Fixture::new(&OLD[..1], Fault::DeniesDelete, usize::MAX).await;
    for _ in 0..2 {
        let error = fixture.rewrite().await.unwrap_err();
        assert_eq!((error.operation, error.object), (Operation::Remove, format!("memory://bucket/{CLEAR}")));
        assert_eq!((fixture.read().await, fixture.objects().await.len()), (b"content".to_vec(), 2));
    }
}

#[tokio::test]
async fn file_is_replaced_durably() {
    for broken in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let files = FileStorage::new(folder.path(), FileStorageOptions { sync: false });
        let fixture = Fixture::new(&OLD[1..], Fault::None, 0).await;
        files.create(&fixture.attachment.uuid, b"content").unwrap();
        let parent = folder.path().join("fb/4b");
        *files.disk().observed.lock() =
            Observed { synced: Vec::new(), broken: broken.then(|| parent.clone()) };
        let storage = HybridStorage::new(fixture.storage.objects().clone(), files.clone(), Side::FileSystem);
        let result = rewrite(&storage, &fixture).await;
        assert_eq!(result.ok(), (!broken).then_some(RewriteOutcome::Rewritten { bytes: 22 }));
        // A failed sync of the folder must not remove what may be the only copy.
        assert_eq!(fs::read(parent.join(UUID)).unwrap(), NEW);
        fixture.expect_current().await;
        let synced = files.disk().observed.lock().synced.clone();
        assert_eq!(synced.len(), 1 + usize::from(!broken), "the file and its folder: {synced:?}");
    }
}

#[tokio::test]
async fn file_that_another_process_deletes_does_not_return() {
    let folder = tempfile::tempdir().unwrap();
    let files = FileStorage::new(folder.path(), FileStorageOptions { sync: true });
    let attachment = Attachment::new(UUID, ContentType::DICOM).unwrap();
    let error = files.replace_durably(&attachment.uuid, b"new").unwrap_err();
    assert_eq!(error.cause, Cause::NotFound);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the folder for temporary files");
}

#[tokio::test]
async fn pending_and_cached_attachments_are_rewritten() {
    for encrypted in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let purpose = Purpose { bucket: "bucket".to_owned(), settings: String::new() };
        let state = Arc::new(StateDirectory::open(folder.path(), &purpose).unwrap());
        let local = WriteBack::open(state, Some(WriteBackOptions::default())).unwrap();
        let fixture = Fixture::new(&[], Fault::None, 0).await;
        let storage = fixture.storage.clone().with_local(Arc::clone(&local));
        let content: &[u8] = if encrypted { b"old:content" } else { b"content" };
        local.create(&fixture.attachment, encrypted, content).unwrap();
        // A read that began before.
        let mut keeping = storage.keeper(&fixture.attachment).unwrap().begin(encrypted, 11).unwrap();
        keeping.write(b"old:content");
        let outcome = rewrite(&storage, &fixture).await.unwrap();
        assert_eq!(outcome, RewriteOutcome::Rewritten { bytes: 11 });
        fixture.expect_current().await;
        let cached = || local.peek_cached(&fixture.attachment, START);
        keeping.commit().await;
        assert_eq!(cached().iter().map(|copy| &copy.bytes[..]).collect::<Vec<_>>(), [NEW]);
        // What a crash after the `PUT` leaves in the cache.
        local.drop_cached(&fixture.attachment);
        local.keep_whole(&fixture.attachment, encrypted, content).unwrap();
        let outcome = rewrite(&storage, &fixture).await.unwrap();
        assert_eq!((outcome, cached().len()), (RewriteOutcome::AlreadyCurrent, 0));
    }
}
