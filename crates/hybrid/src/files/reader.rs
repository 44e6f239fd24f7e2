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
    pub(crate) fn open(path: &Path) -> Result<Self, StorageError> {
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

    /// Size of the whole file, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
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
        let version = Version::File(self.modified);
        Ok(Head { name, naming, size: self.size, range, sidecar: None, version })
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
        let length = self.left().min(limit);
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(length)
            .map_err(|_| self.error(Cause::Other(format!("no memory for its {length} bytes"))))?;
        bytes.resize(length, 0);
        self.read_into(&mut bytes)?;
        Ok(Some(bytes.into()))
    }

    /// Reads the next bytes into `buffer`, all of it. This saves the copy that [`next`](Self::next) needs.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, has become shorter, or fewer bytes are [left](Self::left).
    pub fn read_into(&mut self, buffer: &mut [u8]) -> Result<(), StorageError> {
        if buffer.len() > self.left() {
            return Err(self.error(Cause::OutOfRange));
        }
        self.file.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.error(Cause::Damaged("the file became shorter".to_owned())),
            _ => self.io_error(&error),
        })?;
        self.left -= buffer.len() as u64;
        Ok(())
    }

    /// Number of bytes that have not been read.
    pub fn left(&self) -> usize {
        usize::try_from(self.left).unwrap_or(usize::MAX)
    }

    /// Whether all bytes have been read.
    pub fn is_at_end(&self) -> bool {
        self.left == 0
    }

    /// Sets the modification time to now, unless it is less than `precision` ago.
    pub(crate) fn mark_as_used(&self, precision: Duration) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_is_filled_from_the_range() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"0123456789").unwrap();
        let mut file = FileReader::open(&path).unwrap();
        file.seek(&ReadRange::Range(2..8), Naming::Clear).unwrap();
        let mut buffer = [0; 4];
        file.read_into(&mut buffer).unwrap();
        assert_eq!((&buffer, file.left()), (b"2345", 2));
        // More than the range has, although the file has it.
        assert_eq!(file.read_into(&mut buffer[..3]).unwrap_err().cause, Cause::OutOfRange);
        file.read_into(&mut buffer[..2]).unwrap();
        assert_eq!((&buffer, file.is_at_end()), (b"6745", true));
        file.read_into(&mut []).unwrap();
    }

    #[test]
    fn file_that_became_shorter_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"0123456789").unwrap();
        let mut file = FileReader::open(&path).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(5).unwrap();
        let error = file.read_into(&mut [0; 10]).unwrap_err();
        assert_eq!(error.cause, Cause::Damaged("the file became shorter".to_owned()));
    }
}
