//! The plugin's own folder on a local disk (`StateDirectory`): what has been acknowledged and is still to be
//! done in the bucket.
//!
//! ```text
//! StateDirectory/0/
//!   lock           held while Orthanc runs
//!   tmp/           files that are being made; emptied at the start
//!   bucket         what the work below depends on: the bucket, delays, folders
//!   pending/ab/    acknowledged, not yet in the bucket (see `write_back`)
//!   cache/ab/cd/   in the bucket too
//!   quarantine/    pending files found damaged
//!   deleting/ab/   deleted in Orthanc, not yet in the bucket: {uuid}.{type}, empty files
//!   uploads/       uploads in parts that have begun
//!   key-{id}       written by the caller: what the bucket said about a master key
//! ```
//!
//! Each running Orthanc has a numbered folder of its own: the first one that is not locked. A folder that
//! nobody holds belongs to an Orthanc that has ended, whose work is taken over by any other one for the same
//! bucket.

mod markers;
mod name;
mod stored;
mod uploads;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bucket::{Operation, StorageError, UploadJournal};
use parking_lot::Mutex;

pub use self::markers::DeletionMarkers;
pub(crate) use self::markers::Marker;
pub(crate) use self::name::{StoredName, relative_folders};
pub use self::stored::{StoredFile, StoredFiles, StoredKind};
pub(crate) use self::uploads::Uploads;
use crate::files::{file_error, is_missing, sync_folder};

const LOCK: &str = "lock";
const BUCKET: &str = "bucket";
pub(crate) const TEMPORARY: &str = "tmp";
pub(crate) const CACHE: &str = "cache";
pub(crate) const PENDING: &str = "pending";
pub(crate) const QUARANTINE: &str = "quarantine";
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

/// A folder of an Orthanc that has ended, with attachments that are in no bucket and that only an Orthanc with that
/// configuration can upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abandoned {
    /// The folder.
    pub folder: PathBuf,
    /// The bucket and root path that the attachments are for.
    pub bucket: String,
    /// Number of pending and damaged attachments.
    pub attachments: u64,
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
    /// Folders whose work this Orthanc cannot do. It has been logged.
    abandoned: Mutex<BTreeMap<PathBuf, Abandoned>>,
    /// Folders whose work could not be taken over. It has been logged.
    failed: Mutex<BTreeSet<PathBuf>>,
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
            let Locked::Here(lock) = lock(&folder)? else { continue };
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
                abandoned: Mutex::default(),
                failed: Mutex::default(),
                _lock: lock,
            };
            sync_folder(&folder)?;
            return Ok(state);
        }
        Err(io::Error::other(format!("all of its {MOST_FOLDERS} folders are in use")))
    }

    /// Whether an Orthanc has left attachments below `root` that are in no bucket, or may have.
    pub fn may_have_pending(root: &Path) -> bool {
        let folders = fs::read_dir(root).into_iter().flatten().flatten();
        folders.map(|folder| folder.path().join(PENDING)).any(|pending| match fs::read_dir(pending) {
            Ok(parts) => parts.flatten().any(|part| files_in(&part.path()) > 0),
            Err(error) => !is_missing(&error),
        })
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

    /// Attachments of Orthancs that have ended which this Orthanc cannot upload, since they are for another bucket.
    pub(crate) fn abandoned(&self) -> Vec<Abandoned> {
        self.abandoned.lock().values().filter(|found| found.attachments > 0).cloned().collect()
    }

    /// Takes over the work of Orthancs that have ended and had the same purpose. Calls `pending` with the folder of each
    /// that had the same bucket, while it is locked, to take over its pending files.
    pub(crate) fn adopt(&self, pending: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
        self.abandoned.lock().retain(|folder, _| folder.exists());
        for entry in fs::read_dir(&self.root)? {
            let folder = entry?.path();
            let number = folder.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
            if number.is_none_or(|number| number == self.number) {
                continue;
            }
            match self.adopt_folder(&folder, &pending) {
                Ok(()) => drop(self.failed.lock().remove(&folder)),
                Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
                Err(error) => self.report_failure(&folder, &error),
            }
        }
        Ok(())
    }

    fn adopt_folder(&self, folder: &Path, pending: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
        let _lock = match lock(folder)? {
            Locked::Here(lock) => lock,
            Locked::Elsewhere => {
                self.abandoned.lock().remove(folder);
                return Ok(());
            }
            Locked::Denied(error) => return Err(error),
        };
        let Some(purpose) = Purpose::read(folder)? else {
            // Perhaps restored from a backup that is not complete.
            let bucket = format!("unknown, since the file {BUCKET:?} is missing");
            self.report(folder, Purpose { bucket, settings: String::new() });
            return Ok(());
        };
        if purpose.bucket == self.purpose.bucket {
            // Before the deletions: what has been deleted must not become pending after that.
            pending(folder)?;
        }
        if purpose == self.purpose {
            self.markers.take_over(&folder.join(DELETING))?;
            return self.uploads.take_over(&folder.join(UPLOADS));
        }
        self.report(folder, purpose);
        Ok(())
    }

    /// Logs once that the work in a folder waits.
    fn report_failure(&self, folder: &Path, error: &io::Error) {
        let shown = folder.display();
        if self.failed.lock().insert(folder.to_owned()) {
            tracing::error!(
                "cannot take over the work in {shown}: {error}; attachments that are pending there are neither read nor \
                 uploaded until this has been mended; check that the user of Orthanc owns the folder and all files in it"
            );
        } else {
            tracing::info!("cannot take over the work in {shown}: {error}");
        }
    }

    /// Logs once what is left in the folder of an Orthanc with another purpose.
    fn report(&self, folder: &Path, Purpose { bucket, settings }: Purpose) {
        let mut abandoned = self.abandoned.lock();
        if abandoned.contains_key(folder) {
            return;
        }
        let shown = folder.display();
        if files_below(&folder.join(DELETING)) > 0 {
            tracing::warn!(
                "{shown} has deletions of an Orthanc with another configuration, which wait for it: {bucket}, {settings}"
            );
        }
        let attachments = files_below(&folder.join(PENDING)) + files_in(&folder.join(QUARANTINE));
        if attachments > 0 {
            tracing::error!(
                "{shown} has pending attachments, which are in no bucket: {attachments}, of an Orthanc with another \
                 configuration ({bucket}); start an Orthanc with that configuration and this StateDirectory, which \
                 uploads them"
            );
        }
        abandoned.insert(folder.to_owned(), Abandoned { folder: folder.to_owned(), bucket, attachments });
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

/// The lock of a folder.
enum Locked {
    /// This process holds it.
    Here(File),
    /// Another process holds it.
    Elsewhere,
    /// The folder belongs to another user.
    Denied(io::Error),
}

/// Locks a folder.
fn lock(folder: &Path) -> io::Result<Locked> {
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(LOCK));
    let file = match opened {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(Locked::Denied(error)),
        opened => opened?,
    };
    match file.try_lock() {
        Ok(()) => Ok(Locked::Here(file)),
        Err(TryLockError::WouldBlock) => Ok(Locked::Elsewhere),
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

/// The folders in `folder`; none if it does not exist.
pub(crate) fn folders_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        entries => {
            let paths = entries?.map(|entry| Ok(entry?.path()));
            paths
                .filter(|path: &io::Result<PathBuf>| path.as_ref().map_or(true, |path| path.is_dir()))
                .collect()
        }
    }
}

/// Number of files in the folders of `folder`.
fn files_below(folder: &Path) -> u64 {
    let folders = fs::read_dir(folder).into_iter().flatten().flatten();
    folders.map(|folder| files_in(&folder.path())).sum()
}

/// Number of files in `folder`; none if it does not exist.
pub(crate) fn files_in(folder: &Path) -> u64 {
    fs::read_dir(folder).map_or(0, |files| files.count() as u64)
}

#[cfg(test)]
mod tests;
