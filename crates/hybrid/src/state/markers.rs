//! Deletions that Orthanc was told are done, as empty files.
//!
//! A marker is created in Orthanc's database transaction, so this must not wait for the disk: markers
//! survive the end of the process at once, and a power failure after [`DeletionMarkers::sync`].

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use bucket::{Operation, StorageError};
use parking_lot::Mutex;
use storage_layout::Attachment;
use tokio::sync::watch;

use super::folders_in;
use super::name::{StoredName, relative_folders};
use crate::files::{file_error, is_missing, sync_folder};

/// How long markers are links to one empty file, whose time is theirs: a link takes microseconds, whereas some
/// file systems need a millisecond for a new file.
const SHARED: Duration = Duration::from_secs(1);

/// The attachments to be deleted.
#[derive(Debug)]
pub struct DeletionMarkers {
    folder: PathBuf,
    /// Where the file is created that new markers are links to.
    temporary: PathBuf,
    shared: Mutex<Option<Shared>>,
    state: Mutex<State>,
    /// Held during a sync: another caller must not take the markers for synced before it ends.
    syncing: Mutex<()>,
    /// Number of markers added since the start.
    added: watch::Sender<u64>,
}

/// The file that new markers are links to.
#[derive(Debug)]
struct Shared {
    path: PathBuf,
    created: Instant,
}

#[derive(Debug, Default)]
struct State {
    pending: u64,
    oldest: Option<SystemTime>,
    /// When the newest marker of another process was created.
    newest_found: Option<SystemTime>,
    /// Folders with markers that a power failure would lose.
    unsynced: BTreeSet<PathBuf>,
}

/// A marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) attachment: Attachment,
    /// When Orthanc deleted the attachment.
    pub(crate) since: SystemTime,
}

impl DeletionMarkers {
    pub(super) fn open(folder: PathBuf, temporary: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        // A full disk has no space for folders, but for links in them. What fails now is tried again with each marker.
        for part in relative_folders(&folder) {
            let _ = fs::create_dir(part);
        }
        let markers = Self {
            folder,
            temporary,
            shared: Mutex::default(),
            state: Mutex::default(),
            syncing: Mutex::default(),
            added: watch::Sender::new(0),
        };
        for part in markers.folders()? {
            let found = markers.read(&part)?;
            if found.is_empty() {
                continue;
            }
            found.iter().for_each(|marker| markers.count(marker.since));
            let mut state = markers.state.lock();
            state.newest_found = state.newest_found.max(found.iter().map(|marker| marker.since).max());
            // The process that created them may have been killed before it synced them.
            state.unsynced.insert(part);
        }
        markers.state.lock().unsynced.insert(markers.folder.clone());
        Ok(markers)
    }

    /// Marks an attachment as deleted, in microseconds.
    ///
    /// # Errors
    ///
    /// [`DiskFull`](bucket::Cause::DiskFull) and other errors of the file system. The attachment is then not
    /// marked.
    pub fn add(&self, attachment: &Attachment) -> Result<(), StorageError> {
        let path = self.path(attachment);
        // Counted first, since the worker may find the marker at once.
        self.count(SystemTime::now());
        let created = self.create(&path).map_err(|error| file_error(Operation::Remove, &path, &error));
        if !created.as_ref().is_ok_and(|created| *created) {
            self.uncount();
        }
        created?;
        self.added.send_modify(|added| *added += 1);
        Ok(())
    }

    /// Returns `false` if the marker already exists.
    fn create(&self, path: &Path) -> io::Result<bool> {
        let parent = path.parent().unwrap_or(&self.folder);
        let created = match self.link(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(parent)?;
                self.state.lock().unsynced.insert(self.folder.clone());
                self.link(path)
            }
            created => created,
        };
        match created {
            Ok(()) => {
                self.state.lock().unsynced.insert(parent.to_owned());
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Creates an empty file.
    fn link(&self, path: &Path) -> io::Result<()> {
        let mut shared = self.shared.lock();
        if shared.as_ref().is_none_or(|shared| shared.created.elapsed() >= SHARED) {
            *shared = Shared::create(&self.temporary).ok();
        }
        match shared.as_ref().map(|shared| fs::hard_link(&shared.path, path)) {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) if error.kind() == ErrorKind::AlreadyExists => Err(error),
            Some(Err(error)) if path.parent().is_some_and(|parent| !parent.exists()) => Err(error),
            _ => {
                // The file has too many links, or the file system has none.
                *shared = None;
                File::create_new(path).map(drop)
            }
        }
    }

    /// Removes the marker of an attachment that has been deleted everywhere.
    pub(crate) fn remove(&self, attachment: &Attachment) -> io::Result<()> {
        match fs::remove_file(self.path(attachment)) {
            Err(error) if !is_missing(&error) => return Err(error),
            _ => {}
        }
        self.uncount();
        Ok(())
    }

    fn uncount(&self) {
        let mut state = self.state.lock();
        state.pending = state.pending.saturating_sub(1);
        if state.pending == 0 {
            state.oldest = None;
        }
    }

    /// Syncs the new markers to the disk.
    ///
    /// # Errors
    ///
    /// If the disk does not confirm. The next call tries again.
    pub fn sync(&self) -> Result<(), StorageError> {
        let _turn = self.syncing.lock();
        let unsynced = std::mem::take(&mut self.state.lock().unsynced);
        let mut result = Ok(());
        for folder in unsynced {
            if let Err(error) = sync_folder(&folder) {
                result = Err(file_error(Operation::Remove, &folder, &error));
                self.state.lock().unsynced.insert(folder);
            }
        }
        result
    }

    /// When the newest marker of another process was created.
    pub(super) fn newest_found(&self) -> Option<SystemTime> {
        self.state.lock().newest_found
    }

    /// Number of deletions to be done.
    pub fn pending(&self) -> u64 {
        self.state.lock().pending
    }

    /// When the oldest deletion to be done was requested; `None` if there is none. May be older by the
    /// duration of one pass of the worker.
    pub fn oldest(&self) -> Option<SystemTime> {
        self.state.lock().oldest
    }

    pub(crate) fn set_oldest(&self, oldest: Option<SystemTime>) {
        let mut state = self.state.lock();
        state.oldest = oldest.filter(|_| state.pending > 0);
    }

    /// Signals new markers.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.added.subscribe()
    }

    /// The folders that may contain markers.
    pub(crate) fn folders(&self) -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.folder)?.map(|entry| Ok(entry?.path()));
        entries.filter(|path| path.as_ref().map_or(true, |path: &PathBuf| path.is_dir())).collect()
    }

    /// The markers in one of the [`folders`](Self::folders), in no particular order.
    pub(crate) fn read(&self, folder: &Path) -> io::Result<Vec<Marker>> {
        let mut markers = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let Some(attachment) = parse(&entry.file_name()) else { continue };
            match entry.metadata().and_then(|metadata| metadata.modified()) {
                Ok(since) => markers.push(Marker { attachment, since }),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(markers)
    }

    /// Moves the markers of an Orthanc that has ended to this folder.
    pub(super) fn take_over(&self, folder: &Path) -> io::Result<()> {
        for part in folders_in(folder)? {
            for Marker { attachment, since } in self.read(&part)? {
                let to = self.path(&attachment);
                let parent = to.parent().unwrap_or(&self.folder);
                fs::create_dir_all(parent)?;
                let is_new = !to.exists();
                fs::rename(folder.join(relative(&attachment)), &to)?;
                if is_new {
                    self.count(since);
                }
                let mut state = self.state.lock();
                state.newest_found = state.newest_found.max(Some(since));
                state.unsynced.extend([parent.to_owned(), self.folder.clone()]);
                drop(state);
                self.added.send_modify(|added| *added += 1);
            }
        }
        Ok(())
    }

    fn count(&self, since: SystemTime) {
        let mut state = self.state.lock();
        state.pending += 1;
        state.oldest = Some(state.oldest.map_or(since, |oldest| oldest.min(since)));
    }

    fn path(&self, attachment: &Attachment) -> PathBuf {
        self.folder.join(relative(attachment))
    }
}

impl Shared {
    fn create(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let path = folder.join(format!("{:032x}", rand::random::<u128>()));
        File::create_new(&path)?;
        Ok(Self { path, created: Instant::now() })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A file that cannot be deleted now is deleted at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

/// `ab/{uuid}.{type}`
fn relative(attachment: &Attachment) -> PathBuf {
    StoredName { attachment: *attachment, encrypted: false }.relative()
}

/// The attachment of a marker; `None` for other files.
fn parse(name: &OsStr) -> Option<Attachment> {
    StoredName::parse(name).filter(|name| !name.encrypted).map(|name| name.attachment)
}
