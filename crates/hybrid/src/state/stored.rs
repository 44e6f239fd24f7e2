//! Lists the files of attachments in the state directory, folder by folder.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bucket::{Operation, StorageError};
use storage_layout::AttachmentUuid;

use super::{CACHE, DELETING, PENDING, Purpose, QUARANTINE, StateDirectory, StoredName};
use crate::files::{entries_in, file_error, is_missing};

/// What a file in the state directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredKind {
    /// Acknowledged, and not yet in the bucket.
    Pending,
    /// A copy of an object.
    Cached,
    /// A pending file found damaged.
    Quarantined,
    /// The marker of a deletion.
    Deleting,
}

/// A file of an attachment in the state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// What it is.
    pub kind: StoredKind,
    /// The attachment.
    pub uuid: AttachmentUuid,
    /// Its path.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last changed, or used if it is cached.
    pub modified: SystemTime,
}

/// The files of some kinds, of which those of one folder are in memory.
#[derive(Debug)]
pub struct StoredFiles {
    left: Vec<(StoredKind, PathBuf)>,
}

impl StateDirectory {
    /// The files of these kinds, those of other Orthancs that share the directory and the bucket included.
    ///
    /// # Errors
    ///
    /// If the directory cannot be read.
    pub fn stored_files(&self, kinds: &[StoredKind]) -> Result<StoredFiles, StorageError> {
        let read = |error| file_error(Operation::Check, &self.root, &error);
        let mut left = Vec::new();
        for folder in super::folders_in(&self.root).map_err(read)? {
            let is_own = folder == self.folder();
            let of_same_bucket = |purpose: Purpose| purpose.bucket == self.purpose.bucket;
            if !is_own && !Purpose::read(&folder).map_err(read)?.is_some_and(of_same_bucket) {
                continue;
            }
            left.extend(kinds.iter().map(|kind| (*kind, folder.join(kind.folder()))));
        }
        Ok(StoredFiles { left })
    }
}

impl StoredKind {
    fn folder(self) -> &'static str {
        match self {
            Self::Pending => PENDING,
            Self::Cached => CACHE,
            Self::Quarantined => QUARANTINE,
            Self::Deleting => DELETING,
        }
    }
}

impl StoredFiles {
    /// Returns the files of the next folder, which may be none; `None` at the end.
    ///
    /// # Errors
    ///
    /// If a folder cannot be read.
    pub fn next_folder(&mut self) -> Result<Option<Vec<StoredFile>>, StorageError> {
        let Some((kind, folder)) = self.left.pop() else { return Ok(None) };
        let files = self.read(kind, &folder);
        files.map(Some).map_err(|error| file_error(Operation::Check, &folder, &error))
    }

    fn read(&mut self, kind: StoredKind, folder: &Path) -> io::Result<Vec<StoredFile>> {
        let mut files = Vec::new();
        for entry in entries_in(folder)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                // Uploaded, evicted or deleted meanwhile.
                Err(error) if is_missing(&error) => continue,
                metadata => metadata?,
            };
            if metadata.is_dir() {
                self.left.push((kind, entry.path()));
            } else {
                files.extend(stored_file(kind, &entry.file_name(), entry.path(), &metadata)?);
            }
        }
        Ok(files)
    }
}

fn stored_file(
    kind: StoredKind,
    name: &OsStr,
    path: PathBuf,
    metadata: &Metadata,
) -> io::Result<Option<StoredFile>> {
    let Some(name) = StoredName::parse(name) else { return Ok(None) };
    let modified = metadata.modified()?;
    Ok(Some(StoredFile { kind, uuid: name.attachment.uuid, path, size: metadata.len(), modified }))
}
