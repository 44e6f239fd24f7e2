//! Finds the copies of an attachment.

use std::sync::Arc;

use bucket::{ArchiveState, Cause, Described, ReadRange, StorageError, found};
use bytes::Bytes;
use storage_layout::Attachment;

use crate::budget::MemoryPermit;
use crate::place::{Place, Side};
use crate::source::{Head, Source, StoredContent, Version};
use crate::storage::HybridStorage;

/// One copy of an attachment.
#[derive(Debug, Clone)]
pub struct StoredCopy {
    /// The place of the copy.
    pub side: Side,
    /// Its name, size and version.
    pub head: Head,
    /// Its first bytes; none if it cannot be read before it is restored.
    pub start: Bytes,
    /// Its state in archive tiers.
    pub archive: ArchiveState,
}

impl StoredCopy {
    /// Whether it must be restored from an archive tier before it can be read.
    pub fn is_archived(&self) -> bool {
        !self.archive.is_readable()
    }
}

/// One copy of an attachment that has been read.
#[derive(Debug)]
pub struct WholeCopy {
    /// The content as it is stored.
    pub content: StoredContent,
    /// The memory of the content, and as much again for its plaintext.
    pub memory: MemoryPermit,
}

impl HybridStorage {
    /// Reads the copy of an attachment on one side; `None` if there is none. `size` is its approximate size in bytes,
    /// which limits the memory of all copies that are read or moved together.
    ///
    /// # Errors
    ///
    /// If the copy cannot be read to its end.
    pub async fn read_copy(
        &self,
        attachment: &Attachment,
        side: Side,
        size: u64,
    ) -> Result<Option<WholeCopy>, StorageError> {
        let memory = self.budget.acquire(size.saturating_mul(2)).await;
        let Some(source) = found(self.place(side).open(attachment, ReadRange::Whole).await)? else {
            return Ok(None);
        };
        Ok(Some(WholeCopy { content: source.into_content().await?, memory }))
    }

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
            let copy = match open_start(&place, attachment, length).await {
                Err(error) if error.cause == Cause::Archived => archived(&place, attachment).await?,
                opened => start(place.side(), opened?).await?,
            };
            copies.extend(copy);
        }
        Ok(copies)
    }
}

/// The copy with its first bytes.
async fn start(side: Side, source: Option<Source>) -> Result<Option<StoredCopy>, StorageError> {
    let Some(mut source) = source else { return Ok(None) };
    let start = source.next().await?.unwrap_or_default();
    let archive = source.archive();
    Ok(Some(StoredCopy { side, head: source.head().clone(), start, archive }))
}

/// The copy in the bucket, without its bytes.
async fn archived(place: &Place, attachment: &Attachment) -> Result<Option<StoredCopy>, StorageError> {
    let Place::ObjectStorage(objects) = place else { return Ok(None) };
    let copy = objects.describe(attachment).await?.map(|described| {
        let Described { name, naming, size, version, archive, .. } = described;
        // Some servers say so only when an object is read.
        let unreadable = ArchiveState::Archived { makes_copy: true };
        let archive = if archive.is_readable() { unreadable } else { archive };
        let version = Version::Object(version.map(Arc::from));
        let head = Head { name, naming, size, range: 0..0, sidecar: None, version };
        StoredCopy { side: place.side(), head, start: Bytes::new(), archive }
    });
    Ok(copy)
}

/// Opens the first `length` bytes of an attachment; `None` if it is not in `place`.
pub(crate) async fn open_start(
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
