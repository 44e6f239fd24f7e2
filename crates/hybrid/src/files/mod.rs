//! Attachments as files, where Orthanc itself would put them.
//!
//! A file appears under its name whole or not at all: it is written under another name, flushed to the disk and renamed.
//! These functions block; they are for Orthanc's own threads, or for threads that may wait.

mod reader;
mod temporary;

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use storage_layout::{AttachmentUuid, FilePath};

pub use self::reader::FileReader;
use self::temporary::{Temporary, TemporaryFolder};
use bucket::{Cause, Operation, StorageError};

/// Folders may be removed by others while a file is on its way into them. So often that is made good.
const ATTEMPTS: usize = 16;
/// One lock for each first pair of digits: folders of one pair are made and removed one at a time.
const STRIPES: usize = 256;

/// How files are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStorageOptions {
    /// A stored file has reached the disk (`SyncStorageArea`).
    pub sync: bool,
    /// Reads are noted in the file's time of modification, so precisely; `None`: they are not.
    pub note_use: Option<Duration>,
}

/// The attachments under Orthanc's `StorageDirectory`.
#[derive(Debug, Clone)]
pub struct FileStorage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    options: FileStorageOptions,
    temporary: TemporaryFolder,
    folders: Vec<Mutex<()>>,
}

/// A file that holds an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileInfo {
    /// Its size, in bytes.
    pub size: u64,
    /// When it was last written or marked as used.
    pub last_used: SystemTime,
}

impl FileStorage {
    /// The files under `root`.
    pub fn new(root: impl Into<PathBuf>, options: FileStorageOptions) -> Self {
        let root = root.into();
        let temporary = TemporaryFolder::new(&root);
        let folders = (0..STRIPES).map(|_| Mutex::default()).collect();
        Self(Arc::new(Inner { root, options, temporary, folders }))
    }

    /// Clears away what writers left that were killed.
    pub fn clear_up(&self) {
        self.0.temporary.clear_up();
    }

    /// Makes `StorageDirectory` where it is missing, and sees whether files can be written there.
    ///
    /// # Errors
    ///
    /// [`Cause::FileDenied`], [`Cause::DiskFull`], …
    pub fn check_writable(&self) -> Result<(), StorageError> {
        let Inner { root, temporary, .. } = &*self.0;
        let written = fs::create_dir_all(root).and_then(|()| temporary.create());
        written.map(drop).map_err(|error| file_error(Operation::Check, root, &error))
    }

    /// `StorageDirectory`.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// How messages name the file of an attachment.
    pub fn name(&self, uuid: &AttachmentUuid) -> String {
        self.path(uuid).file().display().to_string()
    }

    /// Stores an attachment, encrypted already where it is to be. On return it is there whole, and, where files are
    /// synced, stays there whatever happens to the machine.
    ///
    /// # Errors
    ///
    /// [`Cause::DiskFull`], [`Cause::FileDenied`], …: then there is no such file, nor a part of it.
    pub fn create(&self, uuid: &AttachmentUuid, content: &[u8]) -> Result<(), StorageError> {
        let path = self.path(uuid);
        self.write(&path, content).map_err(|error| file_error(Operation::Create, path.file(), &error))
    }

    fn write(&self, path: &FilePath, content: &[u8]) -> io::Result<()> {
        for _ in 0..ATTEMPTS {
            let mut file = self.0.temporary.create()?;
            file.handle().write_all(content)?;
            if self.0.options.sync {
                file.handle().sync_all()?;
            }
            match self.publish(file, path) {
                // Somebody removed a folder that had become empty, or another process our file.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                done => return done,
            }
        }
        Err(io::Error::new(ErrorKind::NotFound, "its folder is removed again and again"))
    }

    /// Gives a whole file its name.
    fn publish(&self, file: Temporary, path: &FilePath) -> io::Result<()> {
        let [inner, outer] = path.folders();
        let _folder = self.stripe(path).lock();
        let made_outer = make_folder(outer)?;
        let made_inner = make_folder(inner)?;
        file.rename_to(path.file())?;
        if !self.0.options.sync {
            return Ok(());
        }
        // A name is an entry of its folder, which has to reach the disk as well.
        let mut changed = vec![inner];
        changed.extend(made_inner.then_some(outer));
        changed.extend(made_outer.then_some(self.root()));
        let synced = changed.into_iter().try_for_each(sync_folder);
        if synced.is_err() {
            // Orthanc is told that it is not stored.
            let _ = fs::remove_file(path.file());
        }
        synced
    }

    /// Opens an attachment's file for Orthanc, which is a use of it.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_for_use(&self, uuid: &AttachmentUuid) -> Result<FileReader, StorageError> {
        let file = self.open(uuid)?;
        if let Some(precision) = self.0.options.note_use {
            file.mark_as_used(precision);
        }
        Ok(file)
    }

    /// Opens an attachment's file.
    ///
    /// # Errors
    ///
    /// [`Cause::NotFound`] where there is none.
    pub fn open(&self, uuid: &AttachmentUuid) -> Result<FileReader, StorageError> {
        let path = self.path(uuid);
        FileReader::open(path.file())
    }

    /// Size and age of an attachment's file; `None` where there is none.
    ///
    /// # Errors
    ///
    /// When the file system does not tell.
    pub fn info(&self, uuid: &AttachmentUuid) -> Result<Option<FileInfo>, StorageError> {
        let path = self.path(uuid);
        let info = fs::metadata(path.file())
            .and_then(|metadata| Ok(FileInfo { size: metadata.len(), last_used: metadata.modified()? }));
        match info {
            Ok(info) => Ok(Some(info)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(file_error(Operation::Read, path.file(), &error)),
        }
    }

    /// Deletes an attachment's file, and the two folders above it if they are empty then. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// When the file is still there.
    pub fn remove(&self, uuid: &AttachmentUuid) -> Result<bool, StorageError> {
        let path = self.path(uuid);
        let was_there = match fs::remove_file(path.file()) {
            Ok(()) => true,
            Err(error) if is_missing(&error) => false,
            Err(error) => return Err(file_error(Operation::Remove, path.file(), &error)),
        };
        self.remove_empty_folders(uuid);
        Ok(was_there)
    }

    /// Deletes the two folders above an attachment's file if they are empty: whoever deleted the file may have been
    /// killed before the folders' turn.
    pub fn remove_empty_folders(&self, uuid: &AttachmentUuid) {
        let path = self.path(uuid);
        let _folder = self.stripe(&path).lock();
        for folder in path.folders() {
            // It fails where the folder is not empty, as it should.
            if fs::remove_dir(folder).is_err_and(|error| !is_missing(&error)) {
                break;
            }
        }
    }

    fn path(&self, uuid: &AttachmentUuid) -> FilePath {
        FilePath::new(&self.0.root, uuid)
    }

    fn stripe(&self, path: &FilePath) -> &Mutex<()> {
        let [_, outer] = path.folders();
        let digits = outer.file_name().and_then(|name| name.to_str());
        let number = digits.and_then(|digits| usize::from_str_radix(digits, 16).ok()).unwrap_or_default();
        &self.0.folders[number % STRIPES]
    }
}

/// Whether the folder had to be made.
fn make_folder(folder: &Path) -> io::Result<bool> {
    match fs::create_dir(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

/// Windows has no such call; its journal keeps names.
#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// An error about a file. Its name is the folder's and a UUID: no patient data.
pub(crate) fn file_error(operation: Operation, path: &Path, error: &io::Error) -> StorageError {
    let cause = match error.kind() {
        _ if operation == Operation::Read && is_missing(error) => Cause::NotFound,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Cause::DiskFull,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Cause::FileDenied,
        _ => Cause::Other(error.to_string()),
    };
    StorageError {
        operation,
        object: path.display().to_string(),
        cause,
        transient: false,
        answer: None,
        attempts: 1,
    }
}
