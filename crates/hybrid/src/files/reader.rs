//! Reading an attachment's file.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};

use super::file_error;
use bucket::ReadRange;
use bucket::{Cause, Operation, StorageError};

/// An open file. It stays readable when its name is taken away.
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

    /// How messages name the file.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// The size of the file, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// When it was last written or marked as used, as of its opening.
    pub fn last_written(&self) -> SystemTime {
        self.modified
    }

    /// Reads this part from now on. Returns the bytes that it has.
    ///
    /// # Errors
    ///
    /// [`Cause::OutOfRange`] where the file has no such part.
    pub fn seek(&mut self, part: &ReadRange) -> Result<Range<u64>, StorageError> {
        let range = match part {
            ReadRange::Whole => 0..self.size,
            ReadRange::Range(range) if range.end <= self.size => range.clone(),
            ReadRange::UpTo(range) if range.start < self.size => range.start..range.end.min(self.size),
            _ => return Err(self.error(Cause::OutOfRange)),
        };
        self.file.seek(SeekFrom::Start(range.start)).map_err(|error| self.io(&error))?;
        self.left = range.end - range.start;
        Ok(range)
    }

    /// The next bytes, `most` at most; `None` after the last ones.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or is shorter than it was.
    pub fn next(&mut self, most: usize) -> Result<Option<Bytes>, StorageError> {
        if self.left == 0 {
            return Ok(None);
        }
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(most);
        let mut bytes = BytesMut::zeroed(length);
        self.file.read_exact(&mut bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                self.error(Cause::Damaged("it is shorter than it was".to_owned()))
            }
            _ => self.io(&error),
        })?;
        self.left -= length as u64;
        Ok(Some(bytes.freeze()))
    }

    /// All bytes that are left.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub fn read_to_end(&mut self) -> Result<Bytes, StorageError> {
        Ok(self.next(usize::MAX)?.unwrap_or_default())
    }

    /// Notes that the attachment is in use, unless that was noted within `precision`.
    pub(super) fn mark_as_used(&self, precision: Duration) {
        let now = SystemTime::now();
        if now.duration_since(self.modified).is_ok_and(|age| age >= precision) {
            // Of a file that may not be changed, the time of its writing counts.
            let _ = self.file.set_modified(now);
        }
    }

    fn io(&self, error: &io::Error) -> StorageError {
        file_error(Operation::Read, &self.path, error)
    }

    fn error(&self, cause: Cause) -> StorageError {
        StorageError { cause, ..self.io(&io::Error::other("")) }
    }
}
