//! Decides where attachments are written and in which order they are read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bucket::{Cause, ObjectStorage, RetryPolicy, StorageError, blocking};
use storage_layout::Attachment;

use crate::budget::MemoryBudget;
use crate::claims::{Claim, Claims};
use crate::files::FileStorage;
use crate::place::{Place, Side};
use crate::write_back::{Keeper, WriteBack};

/// Bytes that all moves together may hold. A larger attachment is moved alone.
const MOVES: u64 = 64 * 1024 * 1024;

/// Attachments in a bucket and, in the hybrid modes, in files as well.
#[derive(Debug, Clone)]
pub struct HybridStorage {
    objects: ObjectStorage,
    files: Option<FileStorage>,
    first: Side,
    local: Option<Arc<WriteBack>>,
    pub(crate) claims: Claims,
    pub(crate) budget: MemoryBudget,
    reads_from_second: Arc<AtomicU64>,
}

impl HybridStorage {
    /// Attachments in the bucket only.
    pub fn objects_only(objects: ObjectStorage) -> Self {
        Self {
            objects,
            files: None,
            first: Side::ObjectStorage,
            local: None,
            claims: Claims::default(),
            budget: MemoryBudget::new(MOVES),
            reads_from_second: Arc::default(),
        }
    }

    /// Attachments in both places. New ones are written to `first`, which is also read first.
    pub fn new(objects: ObjectStorage, files: FileStorage, first: Side) -> Self {
        Self { files: Some(files), first, ..Self::objects_only(objects) }
    }

    /// The same attachments, with those that are pending or cached. In the mode `WriteBack`, new ones become pending.
    #[must_use]
    pub fn with_local(self, local: Arc<WriteBack>) -> Self {
        let first = if local.is_mode() { Side::Pending } else { self.first };
        Self { local: Some(local), first, ..self }
    }

    /// The same attachments with another retry policy for the bucket.
    #[must_use]
    pub fn with_retry(self, retry: RetryPolicy) -> Self {
        Self { objects: self.objects.with_retry(retry), ..self }
    }

    /// The place on one side; the bucket if there is only the bucket.
    pub fn place(&self, side: Side) -> Place {
        match (side, &self.files, &self.local) {
            (Side::FileSystem, Some(files), _) => {
                Place::FileSystem { files: files.clone(), naming: self.objects.file_naming() }
            }
            (Side::Pending, _, Some(local)) => {
                Place::Pending { files: Arc::clone(local), naming: self.objects.naming() }
            }
            (Side::Cache, _, Some(local)) => {
                Place::Cache { files: Arc::clone(local), naming: self.objects.file_naming() }
            }
            _ => Place::ObjectStorage(self.objects.clone()),
        }
    }

    /// The name of an attachment's object or file on one side, in messages.
    pub fn name(&self, side: Side, attachment: &Attachment) -> String {
        match side {
            Side::ObjectStorage => self.objects.object_url(attachment),
            Side::FileSystem | Side::Pending | Side::Cache => self.place(side).name(attachment),
        }
    }

    /// The side that new attachments are written to.
    pub fn first(&self) -> Side {
        self.first
    }

    /// The place that new attachments are written to.
    pub fn first_place(&self) -> Place {
        self.place(self.first)
    }

    /// The places that an attachment may be in, in the order in which they are read.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        let local = self.local.iter().flat_map(|_| [Side::Pending, Side::Cache]);
        let stored = [Some(self.first_stored()), self.files.is_some().then(|| self.first.other())];
        local.chain(stored.into_iter().flatten()).map(|side| self.place(side))
    }

    /// The side that is read first after the pending and cached files.
    fn first_stored(&self) -> Side {
        if self.first == Side::FileSystem { Side::FileSystem } else { Side::ObjectStorage }
    }

    /// The pending and cached attachments, if there is a state directory.
    pub fn local(&self) -> Option<&Arc<WriteBack>> {
        self.local.as_ref()
    }

    /// Prepares a copy for the cache of an attachment, before it is read from the bucket. `None` unless reads are
    /// kept.
    pub fn keeper(&self, attachment: &Attachment) -> Option<Keeper> {
        let local = self.local.as_ref().filter(|local| local.keeps_reads())?;
        Some(Keeper::new(Arc::clone(local), *attachment, self.claims.ticket(attachment.uuid)))
    }

    /// The bucket.
    pub fn objects(&self) -> &ObjectStorage {
        &self.objects
    }

    /// The files; `None` if there is only the bucket.
    pub fn files(&self) -> Option<&FileStorage> {
        self.files.as_ref()
    }

    /// Number of reads that found their attachment in the second place.
    pub fn reads_from_second(&self) -> u64 {
        self.reads_from_second.load(Ordering::Relaxed)
    }

    /// Calls `read` with one place after the other until one has the attachment.
    ///
    /// # Errors
    ///
    /// [`Cause::NotFound`] if no place has the attachment; otherwise the error of a place that failed.
    pub fn read<T>(
        &self,
        attachment: &Attachment,
        mut read: impl FnMut(Place) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let Some(local) = &self.local else { return self.read_stored(attachment, read) };
        let unreadable = match self.read_local(local, attachment, &mut read) {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        match self.read_stored(attachment, &mut read) {
            // It may have become pending in this Orthanc, which takes over the work of others, in the meantime.
            Err(error) if error.cause == Cause::NotFound => match unreadable {
                Some(unreadable) => Err(unreadable),
                None => self.read_local(local, attachment, &mut read)?.ok_or(error),
            },
            result => result,
        }
    }

    /// Calls `read` with the pending and the cached attachments; `None` if neither has the attachment.
    ///
    /// # Errors
    ///
    /// The error of a pending attachment.
    fn read_local<T>(
        &self,
        local: &WriteBack,
        attachment: &Attachment,
        read: &mut impl FnMut(Place) -> Result<T, StorageError>,
    ) -> Result<Option<T>, StorageError> {
        let mut unreadable = None;
        if local.may_be_pending(attachment) {
            match read(self.place(Side::Pending)) {
                Ok(value) => return Ok(Some(value)),
                Err(error) if error.cause == Cause::NotFound => {}
                Err(error) if error.cause == Cause::OutOfRange => return Err(error),
                Err(error) => unreadable = Some(error),
            }
        }
        if local.has_cache() {
            match read(self.place(Side::Cache)) {
                Ok(value) => return Ok(Some(value)),
                Err(error) if error.cause == Cause::NotFound => {}
                Err(error) => {
                    // A file that was cut off has too few bytes for a range that Orthanc knows to exist.
                    tracing::warn!("{error}; the file is discarded and the attachment read from the bucket");
                    local.discard_cached(attachment);
                }
            }
        }
        unreadable.map_or(Ok(None), Err)
    }

    /// Calls `read` with the first of bucket and file system, and with the second if the first does not have the
    /// attachment or fails.
    fn read_stored<T>(
        &self,
        attachment: &Attachment,
        mut read: impl FnMut(Place) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let first = || self.place(self.first_stored());
        let error = match read(first()) {
            Err(error) if self.files.is_some() && error.cause != Cause::OutOfRange => error,
            result => return result,
        };
        let missing = error.cause == Cause::NotFound;
        let second = self.place(self.first.other());
        let name = second.name(attachment);
        match error.cause {
            Cause::NotFound => tracing::info!("{} does not exist; trying {name}", first().name(attachment)),
            // If the second place does not have it, the read is repeated, which reports what it finds.
            Cause::WrongChecksum(_) | Cause::Damaged(_) | Cause::Changed => {
                tracing::info!("{error}; trying {name}");
            }
            _ => tracing::warn!("{error}; trying {name}"),
        }
        match read(second) {
            Ok(value) => {
                self.reads_from_second.fetch_add(1, Ordering::Relaxed);
                Ok(value)
            }
            // A move may have reached the first place in the meantime.
            Err(second) if missing && second.cause == Cause::NotFound => read(first()),
            Err(second) if second.cause == Cause::NotFound => Err(error),
            Err(second) if missing => Err(second),
            Err(second) => {
                tracing::warn!("{second}");
                Err(error)
            }
        }
    }

    /// Deletes an attachment from both places, after the move or rewrite in progress, if any, has ended.
    ///
    /// # Errors
    ///
    /// If the attachment may still be in one of them. The other is cleared nevertheless.
    pub async fn remove(&self, attachment: &Attachment) -> Result<(), StorageError> {
        let claim = Arc::new(self.claims.for_removal(attachment.uuid).await);
        self.remove_claimed(attachment, &claim).await
    }

    /// Deletes an attachment from both places, under its claim.
    pub(crate) async fn remove_claimed(
        &self,
        attachment: &Attachment,
        claim: &Arc<Claim>,
    ) -> Result<(), StorageError> {
        if self.files.is_none() && self.local.is_none() {
            return self.objects.remove(attachment).await;
        }
        let from_files = self.remove_files(attachment, Arc::clone(claim)).await;
        let from_objects = self.objects.remove(attachment).await;
        both(from_files, from_objects)
    }

    async fn remove_files(
        &self,
        attachment: &Attachment,
        guard: Arc<impl Send + Sync + 'static>,
    ) -> Result<(), StorageError> {
        let (local, files, attachment) = (self.local.clone(), self.files.clone(), *attachment);
        blocking(move || {
            let _guard = guard;
            let pending = local.map_or(Ok(()), |local| local.remove(&attachment));
            files.map_or(Ok(()), |files| files.remove(&attachment.uuid).map(drop)).and(pending)
        })
        .await
    }

    /// Makes the move of an attachment in progress, if any, end early, because Orthanc has deleted it.
    pub fn announce_removal(&self, attachment: &Attachment) {
        self.claims.announce_removal(&attachment.uuid);
    }
}

fn both(
    from_files: Result<(), StorageError>,
    from_objects: Result<(), StorageError>,
) -> Result<(), StorageError> {
    match (from_files, from_objects) {
        (Err(files), Err(objects)) => {
            tracing::error!("{files}");
            Err(objects)
        }
        (files, objects) => files.and(objects),
    }
}
