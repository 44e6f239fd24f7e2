//! The places, with the same operations for all.

use std::fmt;
use std::sync::Arc;

use bucket::{Cause, Naming, ObjectStorage, Operation, ReadRange, StorageError, blocking};
use bytes::Bytes;
use storage_layout::Attachment;

use crate::files::{FileReader, FileStorage};
use crate::source::Source;
use crate::write_back::WriteBack;

/// Names a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The bucket.
    ObjectStorage,
    /// The files under `StorageDirectory`.
    FileSystem,
    /// The files in the state directory that are on their way to the bucket.
    Pending,
    /// The files in the state directory that are also in the bucket.
    Cache,
}

impl Side {
    /// The opposite side of a move. What is pending or cached is on the bucket's side.
    pub fn other(self) -> Self {
        match self {
            Self::ObjectStorage | Self::Pending | Self::Cache => Self::FileSystem,
            Self::FileSystem => Self::ObjectStorage,
        }
    }

    /// The side's name in requests and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ObjectStorage => "object-storage",
            Self::FileSystem => "file-system",
            Self::Pending => "pending",
            Self::Cache => "cached",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A place that attachments are stored in.
///
/// The methods are for asynchronous tasks: they run file operations on threads that may block. A thread that
/// may block itself, such as Orthanc's, uses the [`FileStorage`] directly.
#[derive(Debug, Clone)]
pub enum Place {
    /// The bucket.
    ObjectStorage(ObjectStorage),
    /// The file system.
    FileSystem {
        /// The files.
        files: FileStorage,
        /// What is known about their content, since their names say nothing.
        naming: Naming,
    },
    /// The pending files in the state directory.
    Pending {
        /// The files.
        files: Arc<WriteBack>,
        /// What the name of a new file says about its content.
        naming: Naming,
    },
    /// The cache in the state directory.
    Cache {
        /// The files.
        files: Arc<WriteBack>,
        /// What is known about the content that may be served.
        naming: Naming,
    },
}

impl Place {
    /// Which place this is.
    pub fn side(&self) -> Side {
        match self {
            Self::ObjectStorage(_) => Side::ObjectStorage,
            Self::FileSystem { .. } => Side::FileSystem,
            Self::Pending { .. } => Side::Pending,
            Self::Cache { .. } => Side::Cache,
        }
    }

    /// What the name of a new object or file says about its content.
    pub fn naming(&self) -> Naming {
        match self {
            Self::ObjectStorage(objects) => objects.naming(),
            Self::FileSystem { naming, .. } | Self::Pending { naming, .. } | Self::Cache { naming, .. } => {
                *naming
            }
        }
    }

    /// The name of an attachment's object or file in messages.
    pub fn name(&self, attachment: &Attachment) -> String {
        match self {
            Self::ObjectStorage(objects) => objects.object_url(attachment),
            Self::FileSystem { files, .. } => files.name(&attachment.uuid),
            Self::Pending { files, .. } => files.path(attachment, false),
            Self::Cache { files, .. } => files.path(attachment, true),
        }
    }

    /// Opens an attachment, or a range of it.
    ///
    /// # Errors
    ///
    /// [`NotFound`](bucket::Cause::NotFound) if the attachment is not in this place.
    pub async fn open(&self, attachment: &Attachment, range: ReadRange) -> Result<Source, StorageError> {
        match self {
            Self::ObjectStorage(objects) => objects.read(attachment, range).await.map(Source::object),
            Self::FileSystem { .. } | Self::Pending { .. } | Self::Cache { .. } => {
                let place = self.clone();
                let attachment = *attachment;
                blocking(move || {
                    let (file, naming) = place.open_file(&attachment)?;
                    Source::file(file, naming, &range)
                })
                .await
            }
        }
    }

    /// Opens an attachment's file, on a thread that may block. Fails for the bucket, which has no files.
    ///
    /// # Errors
    ///
    /// [`NotFound`](bucket::Cause::NotFound) if the attachment is not in this place.
    pub fn open_file(&self, attachment: &Attachment) -> Result<(FileReader, Naming), StorageError> {
        let found = match self {
            Self::ObjectStorage(_) => None,
            Self::FileSystem { files, naming } => Some((files.open(&attachment.uuid)?, *naming)),
            Self::Pending { files, .. } => files.open_pending(attachment)?,
            Self::Cache { files, naming } => files.open_cached(attachment, *naming),
        };
        found.ok_or_else(|| StorageError::new(Operation::Read, self.name(attachment), Cause::NotFound))
    }

    /// Stores an attachment, so that it survives a power failure. `guard` is held until no thread works on the
    /// file any more, even if the future is dropped.
    pub(crate) async fn create(
        &self,
        attachment: &Attachment,
        content: Bytes,
        guard: Arc<impl Send + Sync + 'static>,
    ) -> Result<(), StorageError> {
        match self {
            Self::ObjectStorage(objects) => {
                objects.create_confirmed(attachment, objects.encrypts(), content).await
            }
            Self::FileSystem { files, .. } => {
                let files = files.clone();
                let uuid = attachment.uuid;
                blocking(move || {
                    let _guard = guard;
                    files.create_durably(&uuid, &content)
                })
                .await
            }
            Self::Pending { .. } | Self::Cache { .. } => {
                Err(self.not_a_target(Operation::Create, attachment))
            }
        }
    }

    /// Makes an attachment that may have been written without a sync survive a power failure.
    pub(crate) async fn make_durable(&self, attachment: &Attachment) -> Result<(), StorageError> {
        match self {
            Self::ObjectStorage(_) | Self::Pending { .. } | Self::Cache { .. } => Ok(()),
            Self::FileSystem { files, .. } => {
                let files = files.clone();
                let uuid = attachment.uuid;
                blocking(move || files.make_durable(&uuid)).await
            }
        }
    }

    /// Deletes an attachment; succeeds if it is not here. `guard` is held as in [`create`](Self::create).
    pub(crate) async fn remove(
        &self,
        attachment: &Attachment,
        guard: Arc<impl Send + Sync + 'static>,
    ) -> Result<(), StorageError> {
        match self {
            Self::ObjectStorage(objects) => objects.remove(attachment).await,
            Self::FileSystem { files, .. } => {
                let files = files.clone();
                let uuid = attachment.uuid;
                blocking(move || {
                    let _guard = guard;
                    files.remove(&uuid).map(|_| ())
                })
                .await
            }
            Self::Pending { .. } | Self::Cache { .. } => {
                Err(self.not_a_target(Operation::Remove, attachment))
            }
        }
    }

    /// Moves have the bucket and the files under `StorageDirectory` as their sides.
    fn not_a_target(&self, operation: Operation, attachment: &Attachment) -> StorageError {
        let cause = Cause::Other("the state directory is no side of a move".to_owned());
        StorageError::new(operation, self.name(attachment), cause)
    }
}
