//! Reads an attachment's file.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bucket::{Cause, Naming, Operation, ReadRange, StorageError};
use bytes::Bytes;

use super::file_error;
use crate::source::{Head, Version};

/// An open file. It stays readable when the file is deleted.
#[derive(Debug)]
pub struct FileReader {
    file: File,
    path: PathBuf,
    size: u64,
    modified: SystemTime,
    left: u64,
}

impl FileReader {
    pub(super) fn open(path: &Path) -> Result<Self, StorageError> {
        let opened = File::open(path).and_then(|file| {
            let metadata = file.metadata()?;
            Ok(Self {
                size: metadata.len(),
                modified: metadata.modified()?,
                left: metadata.len(),
                path: path.to_owned(),
                file,
            })
        });
        opened.map_err(|error| file_error(Operation::Read, path, &error))
    }

    /// Moves to `range`, which is all that is read from now on. `naming` is what is known about the file's
    /// content.
    ///
    /// # Errors
    ///
    /// [`Cause::OutOfRange`] if the file does not have the range.
    pub fn seek(&mut self, range: &ReadRange, naming: Naming) -> Result<Head, StorageError> {
        let range = match range {
            ReadRange::Whole => 0..self.size,
            ReadRange::Range(range) if range.end <= self.size => range.clone(),
            ReadRange::UpTo(range) if range.start < self.size => range.start..range.end.min(self.size),
            _ => return Err(self.error(Cause::OutOfRange)),
        };
        self.file.seek(SeekFrom::Start(range.start)).map_err(|error| self.io_error(&error))?;
        self.left = range.end - range.start;
        let name = self.path.display().to_string();
        Ok(Head { name, naming, size: self.size, range, version: Version::File(self.modified) })
    }

    /// The next bytes, at most `limit`; `None` after the last ones.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or has become shorter.
    pub fn next(&mut self, limit: usize) -> Result<Option<Bytes>, StorageError> {
        if self.left == 0 {
            return Ok(None);
        }
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(limit);
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(length)
            .map_err(|_| self.error(Cause::Other(format!("no memory for its {length} bytes"))))?;
        bytes.resize(length, 0);
        self.file.read_exact(&mut bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.error(Cause::Damaged("the file became shorter".to_owned())),
            _ => self.io_error(&error),
        })?;
        self.left -= length as u64;
        Ok(Some(bytes.into()))
    }

    /// Whether all bytes have been read.
    pub fn is_at_end(&self) -> bool {
        self.left == 0
    }

    /// Sets the modification time to now, unless it is less than `precision` ago.
    pub(super) fn mark_as_used(&self, precision: Duration) {
        let now = SystemTime::now();
        if now.duration_since(self.modified).is_ok_and(|age| age >= precision) {
            // For a read-only file, the time of writing remains the time of last use.
            let _ = self.set_modified(now);
        }
    }

    #[cfg(not(windows))]
    fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        self.file.set_modified(time)
    }

    /// In Windows, a file that is open for reading only cannot be changed in any way.
    #[cfg(windows)]
    fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        use std::os::windows::fs::OpenOptionsExt as _;
        const FILE_WRITE_ATTRIBUTES: u32 = 0x100;
        let file = std::fs::OpenOptions::new().access_mode(FILE_WRITE_ATTRIBUTES).open(&self.path)?;
        file.set_modified(time)
    }

    fn io_error(&self, error: &io::Error) -> StorageError {
        file_error(Operation::Read, &self.path, error)
    }

    fn error(&self, cause: Cause) -> StorageError {
        StorageError::new(Operation::Read, self.path.display().to_string(), cause)
    }
}
