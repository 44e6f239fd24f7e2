//! The plugin's own objects in the bucket, which belong to no attachment: notes, and the object of the check at start.

use bytes::Bytes;
use object_store::{PutMode, PutOptions};

use crate::bucket::{Bucket, BucketCheck};
use crate::error::{Cause, Operation, StorageError};
use crate::object_storage::ObjectStorage;
use crate::retry::RetryPolicy;

/// The folder of the plugin's own objects, below the root path.
pub const OWN_FOLDER: &str = ".orthanc-object-storage";
/// The object that the check at start asks for, in the root path. It need not exist.
const READ_PROBE: &str = "orthanc-object-storage-check";
/// The object that the check at start writes and deletes.
const PROBE: &str = "write-check";
/// The content of [`PROBE`].
const PROBE_CONTENT: &str =
    "This object can be deleted. The Orthanc plugin writes it at start and deletes it at once.\n";
/// Maximum size of a note, in bytes. A larger object with its name is not a note.
const LONGEST_NOTE: usize = 4096;

/// The result of [`ObjectStorage::check_write`].
#[derive(Debug)]
pub enum WriteCheck {
    /// Objects can be written and deleted.
    Done,
    /// An object was written, and could not be deleted.
    NotDeleted(StorageError),
    /// The object of an earlier check is still there and could not be replaced, so that nothing is known about new
    /// objects.
    NotReplaced(StorageError),
}

impl ObjectStorage {
    /// Checks that the bucket can be read; see [`Bucket::check`].
    ///
    /// # Errors
    ///
    /// As [`Bucket::check`].
    pub async fn check(&self, policy: RetryPolicy) -> Result<BucketCheck, StorageError> {
        // Proxies often refuse names that begin with a dot, and reads of attachments must not depend on that.
        self.bucket.check(&self.layout.root.join(READ_PROBE), policy).await
    }

    /// Checks that attachments can be written and deleted: writes a small object, with the same headers as an attachment,
    /// since permissions may depend on them, and deletes it.
    ///
    /// # Errors
    ///
    /// If the bucket does not confirm the object.
    pub async fn check_write(&self, policy: RetryPolicy) -> Result<WriteCheck, StorageError> {
        let bucket = &self.bucket;
        let name = self.own_name(PROBE);
        let options = bucket.options.put_options.clone();
        if let Err(error) = bucket.put_once(&name, PROBE_CONTENT.into(), options, policy).await {
            if error.transient {
                return Err(error);
            }
            // Without a refusal, the answer is not that of an upload: only the object shows what it was.
            if error.answer.is_some() {
                // A retention policy keeps the object of an earlier check.
                let is_there = bucket.clone().with_retry(policy).head(&name).await.is_ok();
                return if is_there { Ok(WriteCheck::NotReplaced(error)) } else { Err(error) };
            }
            match self.read_note(PROBE, policy).await? {
                Some(content) if content == PROBE_CONTENT => {}
                Some(_) => return Err(StorageError { cause: Cause::Foreign, transient: true, ..error }),
                None => return Err(error),
            }
        }
        let path = bucket.path(Operation::Remove, &name)?;
        let deleted = bucket.delete_path(&path, policy).await;
        Ok(deleted.map_or_else(WriteCheck::NotDeleted, |()| WriteCheck::Done))
    }

    /// Returns the content of a note; `None` if there is no such note.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or refuses; [`Cause::Damaged`] if the object is too large for a note.
    pub async fn read_note(&self, note: &str, policy: RetryPolicy) -> Result<Option<Bytes>, StorageError> {
        let bucket = self.bucket.clone().with_retry(policy);
        bucket.get_small(&self.own_name(note), LONGEST_NOTE).await
    }

    /// Whether the server has something under each name, so that it is no storage server.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or refuses.
    pub async fn has_everything(&self, policy: RetryPolicy) -> Result<bool, StorageError> {
        let absent = format!("absent-{:032x}", rand::random::<u128>());
        match self.read_note(&absent, policy).await {
            Ok(content) => Ok(content.is_some()),
            Err(error) if matches!(error.cause, Cause::Damaged(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Writes a note, unless there is one. Returns the content that the note has now: another client may have written
    /// it first. Notes have neither the storage class nor the tags of attachments: they must not be archived.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or refuses.
    pub async fn create_note(
        &self,
        note: &str,
        content: Bytes,
        policy: RetryPolicy,
    ) -> Result<Option<Bytes>, StorageError> {
        let name = self.own_name(note);
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.bucket.put_once(&name, content.clone(), create, policy).await {
            Ok(()) => {}
            Err(error) if error.transient || error.cause == Cause::Denied => return Err(error),
            // Either the note exists by now, or the server does not know conditional requests.
            Err(_) => {
                if let Some(existing) = self.read_note(note, policy).await? {
                    return Ok(Some(existing));
                }
                self.bucket.put_once(&name, content, PutOptions::default(), policy).await?;
            }
        }
        // Some servers ignore conditions.
        self.read_note(note, policy).await
    }

    /// The name of a note in messages.
    pub fn note_url(&self, note: &str) -> String {
        self.bucket.object_url(&self.own_name(note))
    }

    pub(crate) fn own_name(&self, name: &str) -> String {
        self.layout.root.join(&format!("{OWN_FOLDER}/{name}"))
    }
}

impl Bucket {
    /// Stores a small object with these options, in one request.
    pub(crate) async fn put_once(
        &self,
        name: &str,
        content: Bytes,
        options: PutOptions,
        policy: RetryPolicy,
    ) -> Result<(), StorageError> {
        let path = self.path(Operation::Create, name)?;
        let mut attempts = self.attempts_within(policy, Operation::Create, name);
        attempts.run(|| self.store().put_opts(&path, content.clone().into(), options.clone())).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use storage_layout::{Layout, RootPath};

    use super::*;
    use crate::content::Payload;
    use crate::options::BucketOptions;

    fn objects() -> ObjectStorage {
        let bucket = Bucket::new(BucketOptions::new(Arc::new(InMemory::new()), "memory://bucket"));
        let layout = Layout { root: RootPath::new("a/b").unwrap(), ..Layout::default() };
        ObjectStorage::new(bucket, layout, false, false)
    }

    #[tokio::test]
    async fn existing_note_is_not_overwritten() {
        let objects = objects();
        let policy = RetryPolicy::default();
        assert_eq!(objects.read_note("note", policy).await.unwrap(), None);
        for content in ["first", "second"] {
            let note = objects.create_note("note", content.into(), policy).await.unwrap();
            assert_eq!(note.as_deref(), Some(&b"first"[..]));
        }
        assert_eq!(objects.note_url("note"), "memory://bucket/a/b/.orthanc-object-storage/note");
    }

    #[tokio::test]
    async fn something_large_is_no_note() {
        let objects = objects();
        let name = objects.own_name("note");
        objects.bucket.put(&name, Payload::Owned(vec![7; 5_000_000].into())).await.unwrap();
        let error = objects.read_note("note", RetryPolicy::default()).await.unwrap_err();
        assert!(matches!(error.cause, Cause::Damaged(_)), "{error}");
    }

    #[tokio::test]
    async fn write_check_leaves_nothing() {
        let objects = objects();
        let policy = RetryPolicy::default();
        assert!(matches!(objects.check_write(policy).await, Ok(WriteCheck::Done)));
        assert!(objects.bucket.head(&objects.own_name(PROBE)).await.is_err());
    }
}
