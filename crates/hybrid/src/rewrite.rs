//! Stores an attachment again, in the form and under the key of new attachments: after encryption was switched on, or
//! the master key or the format was changed.
//!
//! The attachment can be read at each moment, whatever is interrupted. An object or file is replaced with one request or
//! `rename`. If the new object has another name, the old one is deleted after the bucket has confirmed the new one. If
//! that is interrupted, both exist: reads find the new one first, and the next rewrite compares both and deletes the old
//! one.

use std::sync::Arc;

use bucket::{Cause, Naming, ObjectStorage, Operation, ReadRange, StorageError, blocking, found};
use bytes::Bytes;
use storage_layout::Attachment;

use crate::claims::Claim;
use crate::locate::open_start;
use crate::moves::{FormError, Md5, MoveOutcome, StoredForm};
use crate::place::{Place, Side};
use crate::source::{Source, StoredContent};
use crate::storage::HybridStorage;
use crate::write_back::Upload;

/// Bytes that are read to see the form of a copy. Headers of envelopes are shorter, unless the name of a key is very long.
const START: u64 = 1024;
/// How many times to store an object that has arrived damaged. It may have replaced the only copy.
const ATTEMPTS: usize = 5;

/// The result of a rewrite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RewriteOutcome {
    /// All copies already had the form and the key of new attachments.
    AlreadyCurrent,
    /// All copies have them now.
    Rewritten {
        /// Bytes that were stored; 0 if a superfluous copy was deleted.
        bytes: u64,
    },
    /// The attachment is in no place.
    Missing,
    /// Orthanc is deleting the attachment.
    Removed,
}

/// What a rewrite has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// What was done.
    pub outcome: RewriteOutcome,
    /// The stored size of each copy in the bucket and the file system, in bytes. All have the form of new attachments.
    pub sizes: Vec<u64>,
}

impl From<RewriteOutcome> for Rewritten {
    fn from(outcome: RewriteOutcome) -> Self {
        Self { outcome, sizes: Vec::new() }
    }
}

/// One rewrite in progress.
struct Rewrite {
    storage: HybridStorage,
    attachment: Attachment,
    md5: Option<Md5>,
    form: Arc<dyn StoredForm>,
}

/// A copy in the bucket or the file system.
struct Copy {
    /// The object's name in the bucket, or the file's path.
    name: String,
    size: u64,
    is_current: bool,
}

/// The copies of an attachment.
struct Copies {
    /// The first is the one that is read.
    objects: Vec<Copy>,
    file: Option<Copy>,
}

/// What became of the copies on one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    /// Nothing: there is no copy, or the copy of this size is current.
    Nothing(Option<u64>),
    /// The copy has this size now.
    Stored(u64),
    /// Superfluous copies were deleted. The other one, of this size, is current.
    Deleted(u64),
    /// Orthanc is deleting the attachment.
    Removed,
}

impl HybridStorage {
    /// Brings each stored copy of an attachment into the form and under the key of new attachments. What is pending is
    /// uploaded before. `size` is the attachment's approximate size in bytes, which limits the memory of all moves and
    /// rewrites together. `md5`, if it is known, is that of the content that Orthanc stored; other content is not
    /// rewritten.
    ///
    /// # Errors
    ///
    /// The step that failed. The attachment can still be read. If the error is about the deletion of an object, the new
    /// one is in place.
    pub async fn rewrite(
        &self,
        attachment: &Attachment,
        size: u64,
        md5: Option<Md5>,
        form: &Arc<dyn StoredForm>,
    ) -> Result<Rewritten, StorageError> {
        if self.upload_pending(attachment, size, form).await? == Some(MoveOutcome::Removed) {
            return Ok(RewriteOutcome::Removed.into());
        }
        let rewrite = Rewrite { storage: self.clone(), attachment: *attachment, md5, form: Arc::clone(form) };
        let copies = rewrite.look().await?;
        if copies.are_current() {
            rewrite.refresh_cache(None).await;
            let sizes = copies.objects.iter().chain(&copies.file).map(|copy| copy.size).collect();
            return Ok(Rewritten { outcome: RewriteOutcome::AlreadyCurrent, sizes });
        }
        // The old bytes, the plaintext, the new bytes, and what is decrypted of these to compare it. Never acquired under a
        // claim, which those who hold memory may wait for.
        let _memory = self.budget.acquire(size.saturating_mul(4)).await;
        let claim = Arc::new(self.claims.for_move(attachment.uuid).await);
        rewrite.run(&claim).await
    }

    /// Uploads an attachment that is pending; `None` if it is not.
    async fn upload_pending(
        &self,
        attachment: &Attachment,
        size: u64,
        form: &Arc<dyn StoredForm>,
    ) -> Result<Option<MoveOutcome>, StorageError> {
        let Some(local) = self.local().filter(|local| local.may_be_pending(attachment)) else {
            return Ok(None);
        };
        let _memory = self.budget.acquire(size.saturating_mul(2)).await;
        Upload::new(self.clone(), Arc::clone(local), Arc::clone(form)).run_now(attachment).await
    }
}

impl Copies {
    fn are_current(&self) -> bool {
        let file = self.file.iter();
        let mut all = self.objects.iter().chain(file);
        self.objects.len() <= 1 && !self.is_empty() && all.all(|copy| copy.is_current)
    }

    fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.file.is_none()
    }
}

impl Rewrite {
    async fn run(&self, claim: &Arc<Claim>) -> Result<Rewritten, StorageError> {
        if claim.is_removed() {
            return Ok(RewriteOutcome::Removed.into());
        }
        // Once more, since a move or another rewrite may have had its turn before.
        let Copies { objects, file } = self.look().await?;
        if objects.is_empty() && file.is_none() {
            return Ok(RewriteOutcome::Missing.into());
        }
        let in_bucket = self.rewrite_objects(&objects, claim).await;
        let on_disk = match &file {
            Some(copy) if !copy.is_current => self.rewrite_file(claim).await,
            file => Ok(Done::Nothing(file.as_ref().map(|copy| copy.size))),
        };
        if claim.is_removed() {
            // The deletion may have stopped waiting for the claim.
            self.storage.remove_claimed(&self.attachment, claim).await?;
            return Ok(RewriteOutcome::Removed.into());
        }
        let (in_bucket, on_disk) = (in_bucket?, on_disk?);
        let outcome = match (in_bucket, on_disk) {
            (Done::Removed, _) | (_, Done::Removed) => RewriteOutcome::Removed,
            (Done::Nothing(_), Done::Nothing(_)) => RewriteOutcome::AlreadyCurrent,
            (objects, file) => RewriteOutcome::Rewritten { bytes: objects.stored() + file.stored() },
        };
        Ok(Rewritten { outcome, sizes: [in_bucket, on_disk].into_iter().filter_map(Done::size).collect() })
    }

    /// Finds all copies in the bucket and the file system.
    async fn look(&self) -> Result<Copies, StorageError> {
        let copies = self.look_once().await?;
        // A move may have taken it from the file system to the bucket in between.
        if copies.is_empty() { self.look_once().await } else { Ok(copies) }
    }

    async fn look_once(&self) -> Result<Copies, StorageError> {
        let mut objects = Vec::new();
        for found in self.objects().read_each(&self.attachment, START).await? {
            objects.push(self.copy(Side::ObjectStorage, Source::object(found)).await?);
        }
        let file = match self.storage.files() {
            Some(_) => open_start(&self.place(Side::FileSystem), &self.attachment, START).await?,
            None => None,
        };
        let file = match file {
            Some(source) => Some(self.copy(Side::FileSystem, source).await?),
            None => None,
        };
        Ok(Copies { objects, file })
    }

    /// The copy whose first bytes `source` has.
    async fn copy(&self, side: Side, source: Source) -> Result<Copy, StorageError> {
        let head = source.head().clone();
        let start = source.into_content().await?;
        let is_current = self.is_current(side, &head.name, start).await?;
        Ok(Copy { name: head.name, size: head.size, is_current })
    }

    /// Whether a copy, which begins with `start`, is to be left as it is. A header that is longer than `start` is decided
    /// about when all bytes are there.
    async fn is_current(&self, side: Side, name: &str, start: StoredContent) -> Result<bool, StorageError> {
        // The options that find such names are to become superfluous.
        if side == Side::ObjectStorage && self.objects().is_key_vault_name(&self.attachment, name) {
            return Ok(false);
        }
        let form = Arc::clone(&self.form);
        let attachment = self.attachment;
        let is_current = blocking(move || form.is_current(&attachment, &start)).await;
        is_current.map_err(|error| self.refused(side, name, error))
    }

    /// Rewrites the first of the objects, which is the one that is read, and deletes the others.
    async fn rewrite_objects(&self, objects: &[Copy], claim: &Arc<Claim>) -> Result<Done, StorageError> {
        let Some((first, others)) = objects.split_first() else { return Ok(Done::Nothing(None)) };
        let mut done = Done::Nothing(Some(first.size));
        let mut kept = None;
        if !first.is_current {
            let content = self.read(&first.name).await?;
            if !self.is_current(Side::ObjectStorage, &first.name, content.clone()).await? {
                let stored = self.convert(Side::ObjectStorage, &first.name, content).await?;
                if claim.is_removed() {
                    return Ok(Done::Removed);
                }
                self.store(&stored, claim).await?;
                done = Done::Stored(stored.len() as u64);
                if claim.is_removed() {
                    return Ok(Done::Removed);
                }
                self.refresh_cache(Some(stored.clone())).await;
                if first.name != self.objects().object_name(&self.attachment) {
                    self.remove(&first.name).await?;
                }
                let naming = self.objects().naming();
                kept = Some(StoredContent { naming, sidecar: None, bytes: stored });
            }
        }
        if others.is_empty() {
            return Ok(done);
        }
        let kept = match kept {
            Some(kept) => kept,
            None => self.read(&first.name).await?,
        };
        for other in others {
            if !self.remove_same(&kept, &other.name, claim).await? {
                return Ok(Done::Removed);
            }
        }
        Ok(if let Done::Nothing(_) = done { Done::Deleted(first.size) } else { done })
    }

    /// Deletes the object `name` if it is the same attachment as `kept`. Returns `false` if Orthanc deletes the attachment.
    async fn remove_same(
        &self,
        kept: &StoredContent,
        name: &str,
        claim: &Claim,
    ) -> Result<bool, StorageError> {
        let Some(other) = found(self.read(name).await)? else { return Ok(true) };
        let form = Arc::clone(&self.form);
        let attachment = self.attachment;
        let kept = kept.clone();
        let is_same = blocking(move || {
            kept.naming == other.naming && kept.bytes == other.bytes
                || form.is_same(&attachment, &kept, &other)
        });
        if !is_same.await {
            return Err(self.error(Side::ObjectStorage, name, Cause::ObjectsDiffer));
        }
        if claim.is_removed() {
            return Ok(false);
        }
        self.remove(name).await?;
        Ok(true)
    }

    async fn remove(&self, name: &str) -> Result<(), StorageError> {
        self.objects().remove_named(&self.attachment, name).await
    }

    /// The whole object `name`.
    async fn read(&self, name: &str) -> Result<StoredContent, StorageError> {
        let found = self.objects().read_named(&self.attachment, name).await?;
        let content = Source::object(found).into_content().await?;
        // The tags of envelopes show whether they are what was stored.
        let may_be_clear = matches!(content.naming, Naming::Clear | Naming::Either);
        if self.md5.is_none() && may_be_clear && !self.objects().has_named(name, &content.bytes).await? {
            let problem = "the bytes that were read are not those that the bucket has".to_owned();
            return Err(self.error(Side::ObjectStorage, name, Cause::Damaged(problem)));
        }
        Ok(content)
    }

    /// Stores the object under its regular name. A server that checks no checksums may store bytes that a connection has
    /// damaged; these must not be the only copy.
    async fn store(&self, stored: &Bytes, claim: &Claim) -> Result<(), StorageError> {
        let objects = self.objects();
        // Before: a read that is copied to the cache may have the old bytes or the new ones.
        claim.note_replaced();
        let mut attempt = 1;
        loop {
            let result = objects.create_confirmed(&self.attachment, objects.encrypts(), stored.clone()).await;
            match result {
                Err(error) if error.cause == Cause::CopyDamaged && attempt < ATTEMPTS => {
                    tracing::warn!("{error}; storing it again");
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn rewrite_file(&self, claim: &Arc<Claim>) -> Result<Done, StorageError> {
        let place = self.place(Side::FileSystem);
        let name = place.name(&self.attachment);
        let opened = found(place.open(&self.attachment, ReadRange::Whole).await)?;
        let (Some(source), Some(files)) = (opened, self.storage.files()) else {
            return Ok(Done::Nothing(None));
        };
        let content = source.into_content().await?;
        if self.is_current(Side::FileSystem, &name, content.clone()).await? {
            return Ok(Done::Nothing(Some(content.bytes.len() as u64)));
        }
        let stored = self.convert(Side::FileSystem, &name, content).await?;
        if claim.is_removed() {
            return Ok(Done::Removed);
        }
        let bytes = stored.len() as u64;
        let files = files.clone();
        let uuid = self.attachment.uuid;
        let claim = Arc::clone(claim);
        blocking(move || {
            let _claim = claim;
            files.replace_durably(&uuid, &stored)
        })
        .await?;
        Ok(Done::Stored(bytes))
    }

    /// The bytes to store for `content`.
    async fn convert(&self, side: Side, name: &str, content: StoredContent) -> Result<Bytes, StorageError> {
        let form = Arc::clone(&self.form);
        let (attachment, md5) = (self.attachment, self.md5);
        let converted = blocking(move || form.convert(&attachment, content, md5)).await;
        converted.map_err(|error| self.refused(side, name, error))
    }

    /// Deletes cached copies that are not in the present form. `stored` is the new object, which takes their place.
    async fn refresh_cache(&self, stored: Option<Bytes>) {
        let Some(local) = self.storage.local().filter(|local| local.has_cache()).cloned() else { return };
        let form = Arc::clone(&self.form);
        let attachment = self.attachment;
        let encrypted = self.objects().encrypts();
        blocking(move || {
            let cached = local.peek_cached(&attachment, START);
            // What cannot be decided is found out by the next read.
            let is_current = |copy| form.is_current(&attachment, copy).unwrap_or(true);
            if stored.is_none() && cached.iter().all(is_current) || cached.is_empty() {
                return;
            }
            local.drop_cached(&attachment);
            if let Some(stored) = stored
                && let Err(reason) = local.keep_whole(&attachment, encrypted, &stored)
            {
                tracing::info!("attachment {} is no longer in the cache: {reason}", attachment.uuid);
            }
        })
        .await;
    }

    fn place(&self, side: Side) -> Place {
        self.storage.place(side)
    }

    fn objects(&self) -> &ObjectStorage {
        self.storage.objects()
    }

    fn refused(&self, side: Side, name: &str, FormError { reason, transient }: FormError) -> StorageError {
        StorageError { transient, ..self.error(side, name, Cause::NotAcceptable(reason)) }
    }

    /// An error about the object or file `name`.
    fn error(&self, side: Side, name: &str, cause: Cause) -> StorageError {
        let object = match side {
            Side::ObjectStorage => format!("{}/{name}", self.objects().url()),
            Side::FileSystem | Side::Pending | Side::Cache => name.to_owned(),
        };
        StorageError::new(Operation::Rewrite, object, cause)
    }
}

impl Done {
    /// Bytes that were stored.
    fn stored(self) -> u64 {
        if let Self::Stored(bytes) = self { bytes } else { 0 }
    }

    /// The size of the copy that is left, if there is one.
    fn size(self) -> Option<u64> {
        match self {
            Self::Stored(size) | Self::Deleted(size) => Some(size),
            Self::Nothing(size) => size,
            Self::Removed => None,
        }
    }
}

#[cfg(test)]
mod tests;
