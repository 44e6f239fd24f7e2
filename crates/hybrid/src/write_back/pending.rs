//! The attachments that are acknowledged and not yet in the bucket: `pending/ab/{name}`.
//!
//! A file appears in `pending/` once its bytes are on the disk, and counts once its name is too.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bucket::{Operation, StorageError};
use parking_lot::Mutex;
use storage_layout::Attachment;

use crate::files::{Disk, FileReader, TemporaryFolder, file_error, is_missing};
use crate::state::{PENDING, QUARANTINE, StoredName, TEMPORARY, files_in, folders_in, relative_folders};

/// The folders of pending and damaged files.
#[derive(Debug)]
pub(crate) struct Pending {
    state: PathBuf,
    folder: PathBuf,
    quarantine: PathBuf,
    temporary: TemporaryFolder,
    disk: Disk,
    /// Folders from which files have gone since they were synced. After a power failure, these files may be back.
    unsynced: Mutex<BTreeSet<PathBuf>>,
}

/// A file that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FoundFile {
    pub(crate) name: StoredName,
    pub(crate) size: u64,
    pub(crate) since: SystemTime,
}

impl Pending {
    /// The folders below `state`. Creates and syncs them if files are to be stored there (`prepare`).
    pub(crate) fn open(state: &Path, prepare: bool) -> io::Result<Self> {
        let pending = Self {
            state: state.to_owned(),
            folder: state.join(PENDING),
            quarantine: state.join(QUARANTINE),
            temporary: TemporaryFolder::at(state.join(TEMPORARY)),
            disk: Disk::default(),
            unsynced: Mutex::default(),
        };
        if prepare {
            pending.prepare()?;
        }
        // An earlier process may have been killed before it synced them.
        pending.unsynced.lock().extend(folders_in(&pending.folder)?);
        Ok(pending)
    }

    /// Creates the folders, and makes them survive a power failure.
    fn prepare(&self) -> io::Result<()> {
        relative_folders(&self.folder).try_for_each(fs::create_dir_all)?;
        self.disk.sync_folder(&self.folder)?;
        self.disk.sync_folder(&self.state)
    }

    fn create_quarantine(&self) -> io::Result<()> {
        fs::create_dir_all(&self.quarantine)?;
        self.disk.sync_folder(&self.state)
    }

    /// Stores a file, so that it survives a power failure.
    ///
    /// # Errors
    ///
    /// [`DiskFull`](bucket::Cause::DiskFull) and other errors of the file system. Nothing is stored then; if the file
    /// cannot be removed either, it is uploaded and does no harm.
    pub(crate) fn create(&self, name: &StoredName, content: &[u8]) -> Result<(), StorageError> {
        let path = self.path(name);
        self.try_create(&path, content).map_err(|error| file_error(Operation::Create, &path, &error))
    }

    fn try_create(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = self.temporary.create()?;
        file.write(content)?;
        self.disk.sync_file(file.file(), path)?;
        let parent = path.parent().unwrap_or(&self.folder);
        if let Err(error) = file.rename_to(path) {
            if error.kind() != ErrorKind::NotFound {
                return Err(error);
            }
            // The folder is that of a UUID with upper-case letters, or someone has removed it.
            fs::create_dir_all(parent)?;
            self.disk.sync_folder(&self.folder)?;
            file.rename_to(path)?;
        }
        self.disk.sync_folder(parent).inspect_err(|_| {
            // The caller is told that the attachment was not stored.
            let _ = fs::remove_file(path);
            self.unsynced.lock().insert(parent.to_owned());
        })
    }

    /// Opens the file of an attachment; `None` if it is not pending.
    pub(crate) fn open_file(
        &self,
        attachment: &Attachment,
    ) -> Result<Option<(FileReader, StoredName)>, StorageError> {
        for name in both(attachment) {
            match FileReader::open(&self.path(&name)) {
                Ok(file) => return Ok(Some((file, name))),
                Err(error) if error.cause == bucket::Cause::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    pub(crate) fn path(&self, name: &StoredName) -> PathBuf {
        self.folder.join(name.relative())
    }

    /// Takes a file out of its folder with `leave`, and notes that the folder has not been synced since.
    pub(crate) fn take_out(
        &self,
        name: &StoredName,
        leave: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let path = self.path(name);
        leave(&path)?;
        self.unsynced.lock().extend(path.parent().map(Path::to_owned));
        Ok(())
    }

    /// Deletes a file. Succeeds if it does not exist.
    pub(crate) fn remove(&self, name: &StoredName) -> Result<(), StorageError> {
        match self.take_out(name, |path| fs::remove_file(path)) {
            Err(error) if !is_missing(&error) => Err(file_error(Operation::Remove, &self.path(name), &error)),
            _ => Ok(()),
        }
    }

    /// Makes sure that a power failure does not bring back the file of an attachment that is no longer pending.
    pub(crate) fn sync_removal(&self, attachment: &Attachment) -> Result<(), StorageError> {
        let path = self.path(&StoredName { attachment: *attachment, encrypted: false });
        let folder = path.parent().unwrap_or(&self.folder);
        // Held during the sync: nobody else may take it for done before it is.
        let mut unsynced = self.unsynced.lock();
        if unsynced.contains(folder) {
            let failed = |error| file_error(Operation::Remove, folder, &error);
            self.disk.sync_folder(folder).map_err(failed)?;
            unsynced.remove(folder);
        }
        Ok(())
    }

    /// Makes the name of a file survive a power failure.
    pub(crate) fn sync_name(&self, name: &StoredName) -> Result<(), StorageError> {
        let path = self.path(name);
        let folder = path.parent().unwrap_or(&self.folder);
        self.disk.sync_folder(folder).map_err(|error| file_error(Operation::Create, folder, &error))
    }

    /// Moves a damaged file to the quarantine. Returns where it is.
    pub(crate) fn quarantine(&self, name: &StoredName) -> io::Result<PathBuf> {
        self.create_quarantine()?;
        let path = self.quarantine.join(name.file_name());
        self.take_out(name, |from| fs::rename(from, &path))?;
        Ok(path)
    }

    /// The file of an attachment in the quarantine; `None` if there is none.
    pub(crate) fn quarantined_file(&self, attachment: &Attachment) -> Option<PathBuf> {
        both(attachment)
            .map(|name| self.quarantine.join(name.file_name()))
            .into_iter()
            .find(|path| path.exists())
    }

    /// Number of files in the quarantine.
    pub(crate) fn quarantined(&self) -> u64 {
        files_in(&self.quarantine)
    }

    /// Deletes a damaged file. Succeeds if it does not exist.
    pub(crate) fn remove_quarantined(&self, name: &StoredName) -> Result<(), StorageError> {
        let path = self.quarantine.join(name.file_name());
        match fs::remove_file(&path) {
            Err(error) if !is_missing(&error) => Err(file_error(Operation::Remove, &path, &error)),
            _ => Ok(()),
        }
    }

    /// The files of an earlier process, the oldest first, until `stop` returns `true`. An error does not keep the others
    /// from being found.
    pub(crate) fn scan(&self, stop: &dyn Fn() -> bool) -> Scan {
        let mut scan = Scan { files: Vec::new(), result: Ok(()) };
        let folders = folders_in(&self.folder).unwrap_or_else(|error| {
            scan.result = Err(error);
            Vec::new()
        });
        for folder in folders {
            if stop() {
                scan.result = Err(ErrorKind::Interrupted.into());
                break;
            }
            if let Err(error) = scan_folder(&folder, &mut scan.files) {
                scan.result = Err(error);
            }
        }
        scan.files.sort_unstable_by_key(|file| file.since);
        scan
    }

    /// Moves the pending files of an Orthanc that has ended here, and those in its quarantine, until `stop` returns
    /// `true`.
    ///
    /// # Errors
    ///
    /// The last error. It does not keep the other files from being moved.
    pub(crate) fn take_over(&self, state: &Path, stop: &dyn Fn() -> bool) -> io::Result<()> {
        self.prepare()?;
        let mut result = Ok(());
        for folder in folders_in(&state.join(PENDING))? {
            if stop() {
                return Err(ErrorKind::Interrupted.into());
            }
            if let Err(error) = self.take_over_folder(&folder) {
                result = Err(error);
            }
        }
        self.take_over_quarantine(&state.join(QUARANTINE)).and(result)
    }

    fn take_over_folder(&self, folder: &Path) -> io::Result<()> {
        let mut result = Ok(());
        let mut parents = BTreeSet::new();
        for entry in fs::read_dir(folder)? {
            let moved = entry.and_then(|entry| {
                let Some(name) = StoredName::parse(&entry.file_name()) else { return Ok(()) };
                let to = self.path(&name);
                let parent = to.parent().unwrap_or(&self.folder);
                fs::create_dir_all(parent)?;
                fs::rename(entry.path(), &to)?;
                parents.insert(parent.to_owned());
                Ok(())
            });
            result = moved.and(result);
        }
        for parent in &parents {
            self.disk.sync_folder(parent)?;
        }
        if !parents.is_empty() {
            // Otherwise a power failure could bring back files whose attachments are deleted soon.
            self.disk.sync_folder(folder)?;
        }
        result
    }

    fn take_over_quarantine(&self, other: &Path) -> io::Result<()> {
        let files = match fs::read_dir(other) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            files => files?,
        };
        for file in files {
            let file = file?;
            self.create_quarantine()?;
            fs::rename(file.path(), self.quarantine.join(file.file_name()))?;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }
}

/// What [`Pending::scan`] has found.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) files: Vec<FoundFile>,
    /// Whether these are all.
    pub(crate) result: io::Result<()>,
}

fn scan_folder(folder: &Path, found: &mut Vec<FoundFile>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Some(name) = StoredName::parse(&entry.file_name()) else { continue };
        match entry.metadata().and_then(|metadata| Ok((metadata.len(), metadata.modified()?))) {
            Ok((size, since)) => found.push(FoundFile { name, size, since }),
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the folder of an Orthanc has, or may have, pending or damaged files.
pub(crate) fn has_files(state: &Path) -> bool {
    let Ok(pending) = folders_in(&state.join(PENDING)) else { return true };
    let mut all = pending.into_iter().chain([state.join(QUARANTINE)]);
    all.any(|folder| match fs::read_dir(folder) {
        Ok(mut files) => files.next().is_some(),
        Err(error) => !is_missing(&error),
    })
}

/// The names that an attachment's file may have.
pub(crate) fn both(attachment: &Attachment) -> [StoredName; 2] {
    [true, false].map(|encrypted| StoredName { attachment: *attachment, encrypted })
}
