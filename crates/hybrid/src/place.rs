//! The two places, with the same operations for both.

use std::fmt;
use std::sync::Arc;

use bucket::{Naming, ObjectStorage, Payload, ReadRange, StorageError, blocking};
use bytes::Bytes;
use storage_layout::Attachment;

use crate::files::FileStorage;
use crate::source::Source;

/// Names one of the two places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The bucket.
    ObjectStorage,
    /// The files under `StorageDirectory`.
    FileSystem,
}

impl Side {
    /// The opposite side.
    pub fn other(self) -> Self {
        match self {
            Self::ObjectStorage => Self::FileSystem,
            Self::FileSystem => Self::ObjectStorage,
        }
    }

    /// The side's name in requests and answers.
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
}

impl Place {
    /// Which of the two places this is.
    pub fn side(&self) -> Side {
        match self {
            Self::ObjectStorage(_) => Side::ObjectStorage,
            Self::FileSystem { .. } => Side::FileSystem,
        }
    }

    /// What the name of a new object or file says about its content.
    pub fn naming(&self) -> Naming {
        match self {
            Self::ObjectStorage(objects) => objects.naming(),
            Self::FileSystem { naming, .. } => *naming,
        }
    }

    /// The name of an attachment's object or file in messages.
    pub fn name(&self, attachment: &Attachment) -> String {
        match self {
            Self::ObjectStorage(objects) => objects.object_url(attachment),
            Self::FileSystem { files, .. } => files.name(&attachment.uuid),
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
            Self::FileSystem { files, naming } => {
                let files = files.clone();
                let uuid = attachment.uuid;
                let naming = *naming;
                blocking(move || Source::file(files.open(&uuid)?, naming, &range)).await
            }
        }
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
            Self::ObjectStorage(objects) => objects.create(attachment, Payload::Owned(content)).await,
            Self::FileSystem { files, .. } => {
                let files = files.clone();
                let uuid = attachment.uuid;
                blocking(move || {
                    let _guard = guard;
                    files.create_durably(&uuid, &content)
                })
                .await
            }
        }
    }

    /// Makes an attachment that may have been written without a sync survive a power failure.
    pub(crate) async fn make_durable(&self, attachment: &Attachment) -> Result<(), StorageError> {
        match self {
            Self::ObjectStorage(_) => Ok(()),
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
        }
    }
}
