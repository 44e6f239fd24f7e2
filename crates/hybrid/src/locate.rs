//! Where an attachment is.

use bytes::Bytes;
use storage_layout::Attachment;

use crate::hybrid::{HybridStorage, Side, blocking};
use bucket::Naming;
use bucket::ReadRange;
use bucket::{Cause, Operation, StorageError};

/// One copy of an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCopy {
    /// The storage that it is on.
    pub side: Side,
    /// The object's name in the bucket, or the file's path.
    pub name: String,
    /// Its size there, in bytes.
    pub size: u64,
    /// What its name says of its content.
    pub naming: Naming,
    /// Its first bytes.
    pub start: Bytes,
}

impl HybridStorage {
    /// All copies of an attachment, the one that is read first, each with its first bytes.
    ///
    /// # Errors
    ///
    /// When a storage does not tell.
    pub async fn locate(&self, attachment: &Attachment, start: u64) -> Result<Vec<StoredCopy>, StorageError> {
        let mut copies = Vec::new();
        for side in [self.first(), self.first().other()] {
            let found = match side {
                Side::ObjectStorage => self.object(attachment, start).await?,
                Side::FileSystem => self.file(attachment, start).await?,
            };
            copies.extend(found);
        }
        Ok(copies)
    }

    async fn object(&self, attachment: &Attachment, start: u64) -> Result<Option<StoredCopy>, StorageError> {
        let found = match self.objects().read(attachment, ReadRange::UpTo(0..start)).await {
            // An empty object has no range; asked for as a whole, it is as quick.
            Err(error) if error.cause == Cause::OutOfRange => {
                self.objects().read(attachment, ReadRange::Whole).await
            }
            found => found,
        };
        let mut found = match found {
            Ok(found) => found,
            Err(error) if error.cause == Cause::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let start = found.download.next().await?.unwrap_or_default();
        Ok(Some(StoredCopy {
            side: Side::ObjectStorage,
            size: found.download.object_size(),
            name: found.name,
            naming: found.naming,
            start,
        }))
    }

    async fn file(&self, attachment: &Attachment, start: u64) -> Result<Option<StoredCopy>, StorageError> {
        let Some(files) = self.files().cloned() else { return Ok(None) };
        let (uuid, naming) = (attachment.uuid, self.objects().file_naming());
        let (side, name) = (Side::FileSystem, files.name(&uuid));
        let read = blocking(name.clone(), Operation::Read, move || {
            let mut file = files.open(&uuid)?;
            let size = file.size();
            let start = file.next(usize::try_from(start).unwrap_or(usize::MAX))?.unwrap_or_default();
            Ok(StoredCopy { side, name, size, naming, start })
        });
        match read.await {
            Ok(copy) => Ok(Some(copy)),
            Err(error) if error.cause == Cause::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
