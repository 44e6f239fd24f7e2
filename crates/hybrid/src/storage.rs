//! Decides where attachments are written and in which order they are read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bucket::{Cause, ObjectStorage, RetryPolicy, StorageError};
use storage_layout::Attachment;

use crate::budget::MemoryBudget;
use crate::claims::Claims;
use crate::files::FileStorage;
use crate::place::{Place, Side};

/// Bytes that all moves together may hold. A larger attachment is moved alone.
const MOVES: u64 = 64 * 1024 * 1024;

/// Attachments in a bucket and, in the hybrid modes, in files as well.
#[derive(Debug, Clone)]
pub struct HybridStorage {
    objects: ObjectStorage,
    files: Option<FileStorage>,
    first: Side,
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
            claims: Claims::default(),
            budget: MemoryBudget::new(MOVES),
            reads_from_second: Arc::default(),
        }
    }

    /// Attachments in both places. New ones are written to `first`, which is also read first.
    pub fn new(objects: ObjectStorage, files: FileStorage, first: Side) -> Self {
        Self { files: Some(files), first, ..Self::objects_only(objects) }
    }

    /// The same attachments with another retry policy for the bucket.
    #[must_use]
    pub fn with_retry(self, retry: RetryPolicy) -> Self {
        Self { objects: self.objects.with_retry(retry), ..self }
    }

    /// The place on one side; the bucket if there is only the bucket.
    pub fn place(&self, side: Side) -> Place {
        match (side, &self.files) {
            (Side::FileSystem, Some(files)) => {
                Place::FileSystem { files: files.clone(), naming: self.objects.file_naming() }
            }
            _ => Place::ObjectStorage(self.objects.clone()),
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
        let second = self.files.is_some().then(|| self.place(self.first.other()));
        std::iter::once(self.first_place()).chain(second)
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

    /// Calls `read` with the first place, and with the second if the first does not have the attachment or
    /// fails.
    ///
    /// # Errors
    ///
    /// [`Cause::NotFound`] if neither place has the attachment; otherwise the error of the place that failed.
    pub fn read<T>(
        &self,
        attachment: &Attachment,
        mut read: impl FnMut(Place) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let error = match read(self.first_place()) {
            Err(error) if self.files.is_some() && error.cause != Cause::OutOfRange => error,
            result => return result,
        };
        let missing = error.cause == Cause::NotFound;
        let second = self.place(self.first.other());
        let name = second.name(attachment);
        if missing {
            tracing::info!("{} does not exist; trying {name}", self.first_place().name(attachment));
        } else {
            tracing::warn!("{error}; trying {name}");
        }
        match read(second) {
            Ok(value) => {
                self.reads_from_second.fetch_add(1, Ordering::Relaxed);
                Ok(value)
            }
            // A move may have reached the first place in the meantime.
            Err(second) if missing && second.cause == Cause::NotFound => read(self.first_place()),
            Err(second) if second.cause == Cause::NotFound => Err(error),
            Err(second) if missing => Err(second),
            Err(second) => {
                tracing::warn!("{second}");
                Err(error)
            }
        }
    }

    /// Deletes an attachment from both places, after the move in progress, if any, has ended.
    ///
    /// # Errors
    ///
    /// If the attachment may still be in one of them. The other is cleared nevertheless.
    pub async fn remove(&self, attachment: &Attachment) -> Result<(), StorageError> {
        if self.files.is_none() {
            return self.objects.remove(attachment).await;
        }
        let claim = Arc::new(self.claims.for_removal(attachment.uuid).await);
        let from_files = self.place(Side::FileSystem).remove(attachment, Arc::clone(&claim)).await;
        let from_objects = self.objects.remove(attachment).await;
        both(from_files, from_objects)
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
