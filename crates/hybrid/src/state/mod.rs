//! The plugin's own folder on a local disk (`StateDirectory`): what has been acknowledged and is still to be
//! done in the bucket.
//!
//! ```text
//! StateDirectory/0/
//!   lock           held while Orthanc runs
//!   tmp/           files that are being made; emptied at the start
//!   bucket         the bucket that the work below is for
//!   deleting/ab/   deleted in Orthanc, not yet in the bucket: {uuid}.{type}, empty files
//!   uploads/       uploads in parts that have begun
//! ```
//!
//! Each running Orthanc has a numbered folder of its own: the first one that is not locked. A folder that
//! nobody holds belongs to an Orthanc that has ended, whose work is taken over by any other one for the same
//! bucket.

mod markers;
mod uploads;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use bucket::{Operation, StorageError, UploadJournal};

pub use self::markers::DeletionMarkers;
pub(crate) use self::markers::Marker;
pub(crate) use self::uploads::Uploads;
use crate::files::file_error;

const LOCK: &str = "lock";
const BUCKET: &str = "bucket";
const TEMPORARY: &str = "tmp";
const DELETING: &str = "deleting";
const UPLOADS: &str = "uploads";

/// Maximum number of folders, one for each Orthanc that shares the directory.
const MOST_FOLDERS: u32 = 1000;

/// A numbered folder of the state directory, locked for this process.
#[derive(Debug)]
pub struct StateDirectory {
    root: PathBuf,
    number: u32,
    bucket: String,
    markers: DeletionMarkers,
    uploads: Uploads,
    // Declared last, so that the lock is released last.
    _lock: File,
}

impl StateDirectory {
    /// Locks the first free folder below `root` whose work is for `bucket` (the bucket's URL with the root
    /// path).
    ///
    /// # Errors
    ///
    /// If the directory cannot be written to, or its file system has no locks.
    pub fn open(root: &Path, bucket: &str) -> Result<Self, StorageError> {
        Self::try_open(root, bucket).map_err(|error| file_error(Operation::Check, root, &error))
    }

    fn try_open(root: &Path, bucket: &str) -> io::Result<Self> {
        for number in 0..MOST_FOLDERS {
            let folder = root.join(number.to_string());
            fs::create_dir_all(&folder)?;
            let Some(lock) = lock(&folder)? else { continue };
            if !is_for(&folder, bucket)? {
                continue;
            }
            let temporary = folder.join(TEMPORARY);
            if temporary.exists() {
                fs::remove_dir_all(&temporary)?;
            }
            return Ok(Self {
                root: root.to_owned(),
                number,
                bucket: bucket.to_owned(),
                markers: DeletionMarkers::open(folder.join(DELETING), temporary)?,
                uploads: Uploads::open(folder.join(UPLOADS))?,
                _lock: lock,
            });
        }
        Err(io::Error::other(format!("all of its {MOST_FOLDERS} folders are in use")))
    }

    /// The locked folder.
    pub fn folder(&self) -> PathBuf {
        self.root.join(self.number.to_string())
    }

    /// The deletions to be done.
    pub fn markers(&self) -> &DeletionMarkers {
        &self.markers
    }

    pub(crate) fn uploads(&self) -> &Uploads {
        &self.uploads
    }

    /// Takes over the work of Orthancs that have ended.
    pub(crate) fn adopt(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let folder = entry?.path();
            let number = folder.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
            if number.is_none_or(|number| number == self.number) {
                continue;
            }
            let Some(_lock) = lock(&folder)? else { continue };
            if is_for(&folder, &self.bucket)? {
                self.markers.take_over(&folder.join(DELETING))?;
                self.uploads.take_over(&folder.join(UPLOADS))?;
            }
        }
        Ok(())
    }
}

/// The uploads in parts of this process; those of an earlier one are aborted by the worker of deletions.
impl UploadJournal for StateDirectory {
    fn began(&self, name: &str, upload_id: &str) -> io::Result<()> {
        self.uploads.began(name, upload_id)
    }

    fn ended(&self, name: &str, upload_id: &str) -> io::Result<()> {
        self.uploads.ended(name, upload_id)
    }
}

/// Locks a folder; `None` if another process holds it.
fn lock(folder: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether the work in a locked folder is for `bucket`. An unused folder becomes one for `bucket`.
fn is_for(folder: &Path, bucket: &str) -> io::Result<bool> {
    let path = folder.join(BUCKET);
    match fs::read(&path) {
        Ok(known) if !known.is_empty() => Ok(known == bucket.as_bytes()),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        // A process that was killed can leave an empty file.
        _ => {
            File::create(path)?.write_all(bucket.as_bytes())?;
            Ok(true)
        }
    }
}

#[cfg(test)]
mod tests;
