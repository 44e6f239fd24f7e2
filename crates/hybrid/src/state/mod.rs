//! The plugin's own folder on a local disk (`StateDirectory`): what has been acknowledged and is still to be
//! done in the bucket.
//!
//! ```text
//! StateDirectory/0/
//!   lock           held while Orthanc runs
//!   tmp/           files that are being made; emptied at the start
//!   bucket         what the work below depends on: the bucket, delays, folders
//!   deleting/ab/   deleted in Orthanc, not yet in the bucket: {uuid}.{type}, empty files
//!   uploads/       uploads in parts that have begun
//! ```
//!
//! Each running Orthanc has a numbered folder of its own: the first one that is not locked. A folder that
//! nobody holds belongs to an Orthanc that has ended, whose work is taken over by any other one for the same
//! bucket.

mod markers;
mod uploads;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bucket::{Operation, StorageError, UploadJournal};
use parking_lot::Mutex;

pub use self::markers::DeletionMarkers;
pub(crate) use self::markers::Marker;
pub(crate) use self::uploads::Uploads;
use crate::files::{file_error, sync_folder};

const LOCK: &str = "lock";
const BUCKET: &str = "bucket";
const TEMPORARY: &str = "tmp";
const DELETING: &str = "deleting";
const UPLOADS: &str = "uploads";

/// By how much the times of files may be behind the clock.
const COARSE: Duration = Duration::from_millis(100);
/// Maximum number of folders, one for each Orthanc that shares the directory.
const MOST_FOLDERS: u32 = 1000;

/// What the work in a folder depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purpose {
    /// Tells the bucket and root path apart from all others. Must be one line.
    pub bucket: String,
    /// Everything else that the work of another Orthanc must agree with to be taken over: delays, folders. Must
    /// be one line.
    pub settings: String,
}

/// A numbered folder of the state directory, locked for this process.
#[derive(Debug)]
pub struct StateDirectory {
    root: PathBuf,
    number: u32,
    purpose: Purpose,
    opened: SystemTime,
    markers: DeletionMarkers,
    uploads: Uploads,
    /// Folders whose work this Orthanc cannot do.
    warned: Mutex<BTreeSet<PathBuf>>,
    // Declared last, so that the lock is released last.
    _lock: File,
}

impl StateDirectory {
    /// Locks the first free folder below `root` whose work is for the same bucket.
    ///
    /// # Errors
    ///
    /// If the directory cannot be written to, or its file system has no locks.
    pub fn open(root: &Path, purpose: &Purpose) -> Result<Self, StorageError> {
        Self::try_open(root, purpose).map_err(|error| file_error(Operation::Check, root, &error))
    }

    fn try_open(root: &Path, purpose: &Purpose) -> io::Result<Self> {
        let opened = SystemTime::now();
        fs::create_dir_all(root)?;
        for number in 0..MOST_FOLDERS {
            let folder = root.join(number.to_string());
            fs::create_dir_all(&folder)?;
            let Some(lock) = lock(&folder)? else { continue };
            match Purpose::read(&folder)? {
                Some(other) if other.bucket != purpose.bucket => continue,
                known if known.as_ref() == Some(purpose) => {}
                _ => purpose.write(&folder, root)?,
            }
            let temporary = folder.join(TEMPORARY);
            if temporary.exists() {
                fs::remove_dir_all(&temporary)?;
            }
            let state = Self {
                root: root.to_owned(),
                number,
                purpose: purpose.clone(),
                opened,
                markers: DeletionMarkers::open(folder.join(DELETING), temporary)?,
                uploads: Uploads::open(folder.join(UPLOADS))?,
                warned: Mutex::default(),
                _lock: lock,
            };
            sync_folder(&folder)?;
            return Ok(state);
        }
        Err(io::Error::other(format!("all of its {MOST_FOLDERS} folders are in use")))
    }

    /// The locked folder.
    pub fn folder(&self) -> PathBuf {
        self.root.join(self.number.to_string())
    }

    /// Whether a marker is older than this process, so that the names of its objects may have been others.
    pub(crate) fn is_inherited(&self, marker: &Marker) -> bool {
        let found = self.markers.newest_found();
        marker.since + COARSE < self.opened || found.is_some_and(|newest| marker.since <= newest)
    }

    /// The deletions to be done.
    pub fn markers(&self) -> &DeletionMarkers {
        &self.markers
    }

    pub(crate) fn uploads(&self) -> &Uploads {
        &self.uploads
    }

    /// Takes over the work of Orthancs that have ended and had the same purpose.
    pub(crate) fn adopt(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let folder = entry?.path();
            let number = folder.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
            if number.is_none_or(|number| number == self.number) {
                continue;
            }
            if let Err(error) = self.adopt_folder(&folder) {
                tracing::info!("cannot take over the work in {}: {error}", folder.display());
            }
        }
        Ok(())
    }

    fn adopt_folder(&self, folder: &Path) -> io::Result<()> {
        let Some(_lock) = lock(folder)? else { return Ok(()) };
        match Purpose::read(folder)? {
            Some(purpose) if purpose == self.purpose => {
                self.markers.take_over(&folder.join(DELETING))?;
                self.uploads.take_over(&folder.join(UPLOADS))
            }
            Some(Purpose { bucket, settings })
                if has_entries(&folder.join(DELETING)) && self.warned.lock().insert(folder.to_owned()) =>
            {
                tracing::warn!(
                    "{} has deletions of an Orthanc with another configuration, which wait for it: {bucket}, {settings}",
                    folder.display()
                );
                Ok(())
            }
            _ => Ok(()),
        }
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

/// Locks a folder; `None` if another process holds it, or it belongs to another user.
fn lock(folder: &Path) -> io::Result<Option<File>> {
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(LOCK));
    let file = match opened {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(None),
        opened => opened?,
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Purpose {
    /// The purpose of a locked folder; `None` for one that has not been used yet.
    fn read(folder: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read(folder.join(BUCKET)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => String::from_utf8(text?).unwrap_or_default(),
        };
        if text.is_empty() {
            return Ok(None);
        }
        let (bucket, settings) = text.split_once('\n').unwrap_or((&text, ""));
        Ok(Some(Self { bucket: bucket.to_owned(), settings: settings.to_owned() }))
    }

    /// Writes the purpose of a folder, so that it is complete or missing after a power failure.
    fn write(&self, folder: &Path, root: &Path) -> io::Result<()> {
        let temporary = folder.join("bucket.tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(format!("{}\n{}", self.bucket, self.settings).as_bytes())?;
        file.sync_all()?;
        fs::rename(temporary, folder.join(BUCKET))?;
        [folder, root].into_iter().chain(root.parent()).try_for_each(sync_folder)
    }
}

fn has_entries(folder: &Path) -> bool {
    let folders = fs::read_dir(folder).into_iter().flatten().flatten();
    folders.flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten()).next().is_some()
}

#[cfg(test)]
mod tests;
