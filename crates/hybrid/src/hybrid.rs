//! Two storages, and the order in which they are used.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use storage_layout::Attachment;

use crate::budget::Budget;
use crate::claims::Claims;
use crate::files::{FileStorage, file_error};
use bucket::ObjectStorage;
use bucket::{Cause, Operation, StorageError};

/// Where attachments can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// In the bucket.
    ObjectStorage,
    /// Under `StorageDirectory`.
    FileSystem,
}

impl Side {
    /// The opposite one.
    pub fn other(self) -> Self {
        match self {
            Self::ObjectStorage => Self::FileSystem,
            Self::FileSystem => Self::ObjectStorage,
        }
    }

    /// Its name in requests and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ObjectStorage => "object-storage",
            Self::FileSystem => "file-system",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Attachments in a bucket and, in the hybrid modes, in files beside it.
#[derive(Debug, Clone)]
pub struct HybridStorage {
    objects: ObjectStorage,
    /// The files, and which of the two storages comes first.
    files: Option<(FileStorage, Side)>,
    pub(crate) claims: Claims,
    pub(crate) budget: Budget,
    second: Arc<AtomicU64>,
}

impl HybridStorage {
    /// Attachments in the bucket alone.
    pub fn objects_only(objects: ObjectStorage) -> Self {
        Self {
            objects,
            files: None,
            claims: Claims::default(),
            budget: Budget::default(),
            second: Arc::default(),
        }
    }

    /// Attachments on both: `first` is where they are written, and looked for first.
    pub fn new(objects: ObjectStorage, files: FileStorage, first: Side) -> Self {
        Self { files: Some((files, first)), ..Self::objects_only(objects) }
    }

    /// The bucket's side.
    pub fn objects(&self) -> &ObjectStorage {
        &self.objects
    }

    /// The files' side; `None` where there is the bucket alone.
    pub fn files(&self) -> Option<&FileStorage> {
        self.files.as_ref().map(|(files, _)| files)
    }

    /// Where attachments are written, and looked for first.
    pub fn first(&self) -> Side {
        self.files.as_ref().map_or(Side::ObjectStorage, |(_, first)| *first)
    }

    /// Reads that found their attachment on the second storage.
    pub fn reads_from_second(&self) -> u64 {
        self.second.load(Ordering::Relaxed)
    }

    /// How messages name what an attachment is on one side.
    pub fn name(&self, attachment: &Attachment, side: Side) -> String {
        match (side, self.files()) {
            (Side::FileSystem, Some(files)) => files.name(&attachment.uuid),
            _ => self.objects.object_url(attachment),
        }
    }

    /// Reads by `read` from the first storage, and from the second where the first does not have the attachment.
    ///
    /// # Errors
    ///
    /// [`Cause::NotFound`] where neither has it; else that of the storage that could not be asked.
    pub fn read<T>(
        &self,
        attachment: &Attachment,
        mut read: impl FnMut(Side) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let first = self.first();
        let error = match read(first) {
            Err(error) if self.files.is_some() && error.cause != Cause::OutOfRange => error,
            result => return result,
        };
        let missing = error.cause == Cause::NotFound;
        let (name, second) = (self.name(attachment, first), self.name(attachment, first.other()));
        if missing {
            tracing::info!("{name} does not exist, trying {second}");
        } else {
            tracing::warn!("{error}; trying {second}");
        }
        match read(first.other()) {
            Ok(value) => {
                self.second.fetch_add(1, Ordering::Relaxed);
                Ok(value)
            }
            // It may have been moved to the first in between.
            Err(second) if missing && second.cause == Cause::NotFound => read(first),
            Err(second) if second.cause == Cause::NotFound => Err(error),
            Err(second) if missing => Err(second),
            Err(second) => {
                tracing::warn!("{second}");
                Err(error)
            }
        }
    }

    /// Deletes an attachment from both storages, when no move works on it any more.
    ///
    /// # Errors
    ///
    /// When it may still be on one of them; the other is cleared nevertheless.
    pub async fn remove(&self, attachment: &Attachment) -> Result<(), StorageError> {
        let Some(files) = self.files().cloned() else { return self.objects.remove(attachment).await };
        let claim = Arc::new(self.claims.for_removal(attachment.uuid).await);
        let (uuid, held) = (attachment.uuid, Arc::clone(&claim));
        let from_files = blocking(self.name(attachment, Side::FileSystem), Operation::Remove, move || {
            let _held = held;
            files.remove(&uuid).map(|_| ())
        });
        let (from_files, from_objects) = (from_files.await, self.objects.remove(attachment).await);
        match (from_files, from_objects) {
            (Err(files), Err(objects)) => {
                tracing::error!("{files}");
                Err(objects)
            }
            (files, objects) => files.and(objects),
        }
    }

    /// Stores an attachment on one side. `claim` is held until nothing works on it any more, this future's end or not.
    pub(crate) async fn store(
        &self,
        attachment: &Attachment,
        side: Side,
        content: Bytes,
        claim: Arc<impl Send + Sync + 'static>,
    ) -> Result<(), StorageError> {
        match (side, self.files().cloned()) {
            (Side::FileSystem, Some(files)) => {
                let uuid = attachment.uuid;
                blocking(self.name(attachment, side), Operation::Create, move || {
                    let _claim = claim;
                    files.create(&uuid, &content)
                })
                .await
            }
            _ => self.objects.create(attachment, bucket::Payload::Owned(content)).await,
        }
    }
}

/// Runs what waits for the disk where it disturbs nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    name: String,
    operation: Operation,
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let lost = || file_error(operation, name.as_ref(), &std::io::Error::other("a task ended unexpectedly"));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(lost()))
}
