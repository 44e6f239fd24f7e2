//! Finds the copies of an attachment.

use bucket::{Cause, ReadRange, StorageError};
use bytes::Bytes;
use storage_layout::Attachment;

use crate::place::{Place, Side};
use crate::source::{Head, Source};
use crate::storage::HybridStorage;

/// One copy of an attachment.
#[derive(Debug, Clone)]
pub struct StoredCopy {
    /// The place of the copy.
    pub side: Side,
    /// Its name, size and version.
    pub head: Head,
    /// Its first bytes.
    pub start: Bytes,
}

impl HybridStorage {
    /// All copies of an attachment with their first `length` bytes, in the order in which they are read.
    ///
    /// # Errors
    ///
    /// If a place cannot be asked.
    pub async fn locate(
        &self,
        attachment: &Attachment,
        length: u64,
    ) -> Result<Vec<StoredCopy>, StorageError> {
        let mut copies = Vec::new();
        for place in self.places() {
            if let Some(mut source) = open_start(&place, attachment, length).await? {
                let start = source.next().await?.unwrap_or_default();
                copies.push(StoredCopy { side: place.side(), head: source.head().clone(), start });
            }
        }
        Ok(copies)
    }
}

/// Opens the first `length` bytes of an attachment; `None` if it is not in `place`.
async fn open_start(
    place: &Place,
    attachment: &Attachment,
    length: u64,
) -> Result<Option<Source>, StorageError> {
    let opened = match place.open(attachment, ReadRange::UpTo(0..length)).await {
        // An empty object has no ranges, but can be read as a whole.
        Err(error) if error.cause == Cause::OutOfRange => place.open(attachment, ReadRange::Whole).await,
        opened => opened,
    };
    found(opened)
}

/// `None` for an attachment that does not exist.
pub(crate) fn found<T>(result: Result<T, StorageError>) -> Result<Option<T>, StorageError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.cause == Cause::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
