//! The bytes of an attachment, from either place.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bucket::{
    ArchiveState, Cause, Comparison, Download, Found, Naming, Operation, ReadRange, StorageError, blocking,
};
use bytes::Bytes;

use crate::files::FileReader;

/// Bytes of a file that are read at a time.
const STEP: usize = 1024 * 1024;

/// What is known about an attachment's object or file before its first byte is read.
#[derive(Debug, Clone)]
pub struct Head {
    /// The object's name in the bucket, or the file's path.
    pub name: String,
    /// What the name says about the content.
    pub naming: Naming,
    /// Size of the whole object or file, in bytes.
    pub size: u64,
    /// The range that is read.
    pub range: Range<u64>,
    /// With [`Naming::KeyVault`], of an object that is read: its sidecar.
    pub sidecar: Option<Bytes>,
    /// Identifies the object or file among those that have had or will have this name.
    pub version: Version,
}

/// The version of an object or file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// An object's ETag, if the server sent one.
    Object(Option<Arc<str>>),
    /// A file's modification time.
    File(SystemTime),
}

impl Head {
    /// Whether both describe the same bytes.
    pub fn is_same(&self, other: &Self) -> bool {
        self.version == other.version && self.size == other.size
    }

    /// Whether [`is_same`](Self::is_same) can tell versions of the same size apart.
    pub fn has_version(&self) -> bool {
        self.version != Version::Object(None)
    }

    /// Bytes to be read.
    pub fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Content as it is stored, in clear or encrypted.
#[derive(Debug, Clone)]
pub struct StoredContent {
    /// What the name of the object or file says about the content.
    pub naming: Naming,
    /// With [`Naming::KeyVault`]: the sidecar.
    pub sidecar: Option<Bytes>,
    /// The bytes.
    pub bytes: Bytes,
}

/// An open attachment, or a range of one.
#[derive(Debug)]
pub struct Source {
    head: Head,
    bytes: Origin,
}

#[derive(Debug)]
enum Origin {
    Object(Box<Download>),
    /// `None` while a thread reads from the file, and for good if the caller stops waiting for it.
    File(Option<FileReader>),
}

impl Source {
    /// An object in the bucket.
    pub(crate) fn object(found: Found) -> Self {
        let Found { download, naming, name, sidecar } = found;
        let head = Head {
            name,
            naming,
            size: download.object_size(),
            range: download.range(),
            sidecar,
            version: Version::Object(download.version().map(Arc::from)),
        };
        Self { head, bytes: Origin::Object(Box::new(download)) }
    }

    /// The bytes `range` of a file.
    pub(crate) fn file(
        mut file: FileReader,
        naming: Naming,
        range: &ReadRange,
    ) -> Result<Self, StorageError> {
        let head = file.seek(range, naming)?;
        Ok(Self { head, bytes: Origin::File(Some(file)) })
    }

    /// Whether the bytes are those of an archived object's copy.
    pub(crate) fn archive(&self) -> ArchiveState {
        match &self.bytes {
            Origin::Object(download) => download.archive(),
            Origin::File(_) => ArchiveState::Online,
        }
    }

    /// What is known before the first byte.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The next bytes; `None` after the last ones.
    ///
    /// # Errors
    ///
    /// If the source cannot be read to its end. Discard the bytes returned before.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        match &mut self.bytes {
            Origin::Object(download) => download.next().await,
            Origin::File(slot) => {
                let cancelled = || StorageError::new(Operation::Read, &self.head.name, Cause::Cancelled);
                let mut file = slot.take().ok_or_else(cancelled)?;
                let (file, bytes) = blocking(move || {
                    let bytes = file.next(STEP);
                    (file, bytes)
                })
                .await;
                *slot = Some(file);
                bytes
            }
        }
    }

    /// Takes the comparison with the object's checksum out of the source; `None` for a file. See
    /// [`Download::take_comparison`].
    pub fn take_comparison(&mut self) -> Option<Comparison> {
        match &mut self.bytes {
            Origin::Object(download) => Some(download.take_comparison()),
            Origin::File(_) => None,
        }
    }

    /// The download, if this is an object.
    pub fn into_download(self) -> Option<Box<Download>> {
        match self.bytes {
            Origin::Object(download) => Some(download),
            Origin::File(_) => None,
        }
    }

    /// All bytes, with what is known of them.
    pub(crate) async fn into_content(self) -> Result<StoredContent, StorageError> {
        let (naming, sidecar) = (self.head.naming, self.head.sidecar.clone());
        Ok(StoredContent { naming, sidecar, bytes: self.read_to_end().await? })
    }

    /// All bytes, in one piece.
    pub(crate) async fn read_to_end(mut self) -> Result<Bytes, StorageError> {
        if let Origin::File(Some(mut file)) = self.bytes {
            return Ok(blocking(move || file.next(usize::MAX)).await?.unwrap_or_default());
        }
        let mut bytes = Vec::new();
        // A size that the server invents must not abort the process.
        let size = usize::try_from(self.head.len()).unwrap_or(usize::MAX);
        bytes.try_reserve_exact(size).map_err(|_| {
            let cause = Cause::Other(format!("no memory for its {size} bytes"));
            StorageError::new(Operation::Read, &self.head.name, cause)
        })?;
        while let Some(chunk) = self.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.into())
    }

    /// Whether the source has exactly the bytes `expected`.
    pub(crate) async fn equals(mut self, expected: &Bytes) -> Result<bool, StorageError> {
        if self.head.len() != expected.len() as u64 {
            return Ok(false);
        }
        let mut left = expected.clone();
        if let Origin::File(Some(mut file)) = self.bytes {
            return blocking(move || {
                while let Some(chunk) = file.next(STEP)? {
                    if !starts_with(&mut left, &chunk) {
                        return Ok(false);
                    }
                }
                Ok(left.is_empty())
            })
            .await;
        }
        while let Some(chunk) = self.next().await? {
            if !starts_with(&mut left, &chunk) {
                return Ok(false);
            }
        }
        Ok(left.is_empty())
    }
}

/// Whether `left` starts with `chunk`, which is removed from it.
fn starts_with(left: &mut Bytes, chunk: &Bytes) -> bool {
    left.split_to(chunk.len().min(left.len())) == *chunk
}

#[cfg(test)]
mod tests {
    use bucket::{Bucket, BucketOptions};
    use object_store::memory::InMemory;
    use object_store::{ObjectStoreExt, path::Path};

    use super::*;

    #[tokio::test]
    async fn absurd_size_is_an_error() {
        let store = Arc::new(InMemory::new());
        store.put(&Path::from("name"), "content".into()).await.unwrap();
        let bucket = Bucket::new(BucketOptions::new(store, "memory://bucket"));
        for size in [7, 1 << 62, u64::MAX] {
            let download = bucket.get("name", ReadRange::Whole).await.unwrap();
            let name = "name".to_owned();
            let found = Found { download, naming: Naming::Clear, name, sidecar: None };
            let mut source = Source::object(found);
            source.head.range = 0..size;
            let read = source.read_to_end().await;
            match size {
                7 => assert_eq!(read.unwrap(), "content"),
                _ => assert!(matches!(read.unwrap_err().cause, Cause::Other(_)), "{size}"),
            }
        }
    }
}
