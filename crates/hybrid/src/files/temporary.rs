//! Files that are being written, under temporary names.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The folder in `StorageDirectory` for files that are being written. It is on the same file system, as
/// `rename` requires, its name cannot be an attachment's, and it exists only while it is needed.
const FOLDER: &str = ".orthanc-object-storage";
/// On a file system without locks, a temporary file that has not been written to for this long is abandoned.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes in each call of `write`. For a larger call, Linux takes large blocks of memory; those of a virtual machine
/// may have to come from its host first, at a tenth of the speed (docs/performance.md).
const PIECE: usize = 32 * 1024;

#[derive(Debug)]
pub(crate) struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    /// The folder in `StorageDirectory`.
    pub(crate) fn new(root: &Path) -> Self {
        Self::at(root.join(FOLDER))
    }

    /// Another folder.
    pub(crate) fn at(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Creates a file and locks it: a process that can lock the file knows that its writer has ended.
    pub(crate) fn create(&self) -> io::Result<Temporary> {
        let path = self.0.join(format!("{:032x}", rand::random::<u128>()));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        let file = match options.open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(&self.0)?;
                options.open(&path)?
            }
            opened => opened?,
        };
        let temporary = Temporary { file, path, named: false };
        // Fails on a file system without locks.
        let _ = temporary.file.lock();
        Ok(temporary)
    }

    /// Deletes the files of writers that have ended, and the folder if it becomes empty.
    pub(crate) fn clear_up(&self) {
        let Ok(entries) = fs::read_dir(&self.0) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            if !is_abandoned(&path).unwrap_or(false) {
                continue;
            }
            match fs::remove_file(&path) {
                Ok(()) => tracing::info!("deleted the unfinished file {}", path.display()),
                Err(error) => tracing::warn!("cannot delete the unfinished file {}: {error}", path.display()),
            }
        }
        self.remove_if_empty();
    }

    fn remove_if_empty(&self) {
        // Fails if the folder is not empty, as intended.
        let _ = fs::remove_dir(&self.0);
    }
}

fn is_abandoned(path: &Path) -> io::Result<bool> {
    let file = OpenOptions::new().write(true).open(path)?;
    Ok(match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(_)) => {
            file.metadata()?.modified()?.elapsed().is_ok_and(|age| age > ABANDONED)
        }
    })
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        self.remove_if_empty();
    }
}

/// A file without its final name. Deleted when dropped.
#[derive(Debug)]
pub(crate) struct Temporary {
    file: File,
    path: PathBuf,
    named: bool,
}

impl Temporary {
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Appends bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        bytes.chunks(PIECE).try_for_each(|piece| self.file.write_all(piece))
    }

    /// Whether the file, read back, has exactly this content.
    pub(crate) fn has(&self, content: &[u8]) -> io::Result<bool> {
        let mut file = File::open(&self.path)?;
        let mut piece = vec![0; PIECE];
        let mut left = content;
        loop {
            let length = file.read(&mut piece)?;
            match left.strip_prefix(&piece[..length]) {
                Some(rest) if length > 0 => left = rest,
                rest => return Ok(rest.is_some() && left.is_empty()),
            }
        }
    }

    /// Replaces `path` atomically.
    pub(crate) fn rename_to(&mut self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        self.named = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.named {
            // A file that cannot be deleted now is deleted at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}
