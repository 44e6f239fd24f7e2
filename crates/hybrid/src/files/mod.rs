//! Attachments as files, in the folders where Orthanc itself would put them.
//!
//! A file appears under its name completely or not at all: it is written under a temporary name, synced and
//! renamed. The functions block, so they are for Orthanc's threads and for tasks that may block.

mod disk;
mod listing;
mod reader;
mod temporary;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bucket::{Cause, Operation, StorageError};
use parking_lot::Mutex;
use storage_layout::{AttachmentUuid, FilePath};

#[cfg(test)]
pub(crate) use self::disk::Observed;
pub(crate) use self::disk::{Disk, sync_folder};
pub use self::listing::FileListing;
pub use self::reader::FileReader;
pub(crate) use self::temporary::{Temporary, TemporaryFolder};

/// How many times to write a file whose folder is removed concurrently.
const ATTEMPTS: usize = 16;
/// Number of locks, one for each first pair of digits: folders below one pair are created and removed one at
/// a time.
const STRIPES: usize = 256;

/// How files are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStorageOptions {
    /// Whether files are synced to the disk before they count as stored (`SyncStorageArea`).
    pub sync: bool,
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
    disk: Disk,
}

/// What a write has synced when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    /// Nothing.
    Nothing,
    /// The file, and the folders that the write changed.
    Changes,
    /// The file, and every folder above it: the folders may exist without having been synced.
    Everything,
}

impl FileStorage {
    /// The files under `root`.
    pub fn new(root: impl Into<PathBuf>, options: FileStorageOptions) -> Self {
        let root = root.into();
        let temporary = TemporaryFolder::new(&root);
        let folders = (0..STRIPES).map(|_| Mutex::default()).collect();
        Self(Arc::new(Inner { root, options, temporary, folders, disk: Disk::default() }))
    }

    /// Deletes temporary files whose writer was killed.
    pub fn clear_up(&self) {
        self.0.temporary.clear_up();
    }

    /// Creates `StorageDirectory` if it is missing, and checks that files can be written there.
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

    /// The path of an attachment's file, for messages.
    pub fn name(&self, uuid: &AttachmentUuid) -> String {
        self.path(uuid).file().display().to_string()
    }

    /// Stores an attachment; `content` is already encrypted if it is to be. On return the file is complete
    /// and, if files are synced, survives a power failure.
    ///
    /// # Errors
    ///
    /// [`Cause::DiskFull`], [`Cause::FileDenied`], …; no file, complete or partial, is left under the
    /// attachment's name.
    pub fn create(&self, uuid: &AttachmentUuid, content: &[u8]) -> Result<(), StorageError> {
        self.write(uuid, content, if self.0.options.sync { Sync::Changes } else { Sync::Nothing })
    }

    /// Stores an attachment as [`create`](Self::create) does, so that it survives a power failure even if
    /// files are not synced otherwise.
    pub(crate) fn create_durably(&self, uuid: &AttachmentUuid, content: &[u8]) -> Result<(), StorageError> {
        self.write(uuid, content, Sync::Everything)
    }

    /// Makes a file that was written without a sync, for instance by Orthanc, survive a power failure.
    pub(crate) fn make_durable(&self, uuid: &AttachmentUuid) -> Result<(), StorageError> {
        let path = self.path(uuid);
        // Windows syncs only files that are open for writing.
        let opened = fs::File::options().read(true).write(cfg!(windows)).open(path.file());
        let synced = opened
            .and_then(|file| self.0.disk.sync_file(&file, path.file()))
            .and_then(|()| self.sync_folders(&self.folders_above(&path)));
        synced.map_err(|error| file_error(Operation::Create, path.file(), &error))
    }

    /// Replaces an attachment's file, so that the new content survives a power failure. At each moment the file has the
    /// old or the new content.
    ///
    /// # Errors
    ///
    /// [`Cause::NotFound`] if there is no file any more, [`Cause::DiskFull`], …
    pub(crate) fn replace_durably(&self, uuid: &AttachmentUuid, content: &[u8]) -> Result<(), StorageError> {
        let path = self.path(uuid);
        self.try_to_replace(&path, content).map_err(|error| match is_missing(&error) {
            true => StorageError::new(Operation::Rewrite, self.name(uuid), Cause::NotFound),
            false => file_error(Operation::Rewrite, path.file(), &error),
        })
    }

    fn try_to_replace(&self, path: &FilePath, content: &[u8]) -> io::Result<()> {
        let mut file = self.0.temporary.create()?;
        file.write(content)?;
        self.0.disk.sync_file(file.file(), path.file())?;
        if !file.has(content)? {
            return Err(io::Error::other("the new file, read back, differs from what was written"));
        }
        let _folder = self.stripe(path).lock();
        // A file that another process has deleted must not return.
        fs::metadata(path.file())?;
        file.rename_to(path.file())?;
        // If this fails, a power failure can bring back the old file, which is as good.
        self.sync_folders(&self.folders_above(path)[..1])
    }

    fn write(&self, uuid: &AttachmentUuid, content: &[u8], sync: Sync) -> Result<(), StorageError> {
        let path = self.path(uuid);
        self.try_to_write(&path, content, sync)
            .map_err(|error| file_error(Operation::Create, path.file(), &error))
    }

    fn try_to_write(&self, path: &FilePath, content: &[u8], sync: Sync) -> io::Result<()> {
        for _ in 0..ATTEMPTS {
            let mut file = self.0.temporary.create()?;
            file.write(content)?;
            if sync != Sync::Nothing {
                self.0.disk.sync_file(file.file(), path.file())?;
            }
            match self.publish(file, path, sync) {
                // A folder that had become empty was removed, or another process deleted the temporary file.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                done => return done,
            }
        }
        Err(io::Error::new(ErrorKind::NotFound, "its folder was removed repeatedly"))
    }

    /// Gives a complete file its final name.
    fn publish(&self, mut file: Temporary, path: &FilePath, sync: Sync) -> io::Result<()> {
        let [inner, outer] = path.folders();
        let _folder = self.stripe(path).lock();
        let created_outer = create_folder(outer)?;
        let created_inner = create_folder(inner)?;
        file.rename_to(path.file())?;
        // The name is an entry of the folder, which must reach the disk too.
        let above = self.folders_above(path);
        let changed = match sync {
            Sync::Nothing => 0,
            Sync::Everything => above.len(),
            Sync::Changes if created_outer => 3,
            Sync::Changes if created_inner => 2,
            Sync::Changes => 1,
        };
        let synced = self.sync_folders(&above[..changed]);
        if synced.is_err() {
            // The caller is told that the attachment was not stored.
            let _ = fs::remove_file(path.file());
        }
        synced
    }

    /// The folders whose entries lead to a file, from the inside.
    fn folders_above<'a>(&'a self, path: &'a FilePath) -> [&'a Path; 3] {
        let [inner, outer] = path.folders();
        [inner, outer, self.root()]
    }

    fn sync_folders(&self, folders: &[&Path]) -> io::Result<()> {
        folders.iter().try_for_each(|folder| self.0.disk.sync_folder(folder))
    }

    /// Opens an attachment's file.
    ///
    /// # Errors
    ///
    /// [`Cause::NotFound`] if there is none.
    pub fn open(&self, uuid: &AttachmentUuid) -> Result<FileReader, StorageError> {
        let path = self.path(uuid);
        FileReader::open(path.file())
    }

    /// Deletes an attachment's file, and the two folders above it if they become empty. Returns whether the
    /// file existed.
    ///
    /// # Errors
    ///
    /// If the file still exists.
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

    /// Deletes the two folders above an attachment's file if they are empty. A process that was killed
    /// between deleting the file and its folders leaves them behind.
    pub fn remove_empty_folders(&self, uuid: &AttachmentUuid) {
        let path = self.path(uuid);
        let _folder = self.stripe(&path).lock();
        for folder in path.folders() {
            // Fails if the folder is not empty, as intended.
            if fs::remove_dir(folder).is_err_and(|error| !is_missing(&error)) {
                break;
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn disk(&self) -> &Disk {
        &self.0.disk
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

/// Creates `folder` and returns `true`, or `false` if it already exists.
fn create_folder(folder: &Path) -> io::Result<bool> {
    match fs::create_dir(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// The entries of a folder; none if it does not exist, since empty folders are removed.
pub(crate) fn entries_in(folder: &Path) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if is_missing(&error) => None,
        entries => Some(entries?),
    };
    Ok(entries.into_iter().flatten())
}

pub(crate) fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The error for a failed operation on a file. A path consists of folders and a UUID, so it holds no patient
/// data.
pub(crate) fn file_error(operation: Operation, path: &Path, error: &io::Error) -> StorageError {
    let cause = match error.kind() {
        _ if operation == Operation::Read && is_missing(error) => Cause::NotFound,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Cause::DiskFull,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Cause::FileDenied,
        _ => Cause::Other(error.to_string()),
    };
    StorageError::new(operation, path.display().to_string(), cause)
}
