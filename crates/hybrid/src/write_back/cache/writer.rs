//! A file of the cache that is being filled during a read from the bucket.

use std::io;

use super::Cache;
use crate::files::Temporary;
use crate::state::StoredName;
use crate::write_back::index::Key;

/// A file in `tmp/`. Deleted when dropped, unless it was committed.
#[derive(Debug)]
pub(crate) struct CacheWriter {
    cache: Cache,
    key: Key,
    name: StoredName,
    size: u64,
    written: u64,
    /// `None` after an error.
    file: Option<Temporary>,
}

impl CacheWriter {
    pub(super) fn new(cache: Cache, key: Key, name: StoredName, size: u64, file: Temporary) -> Self {
        Self { cache, key, name, size, written: 0, file: Some(file) }
    }

    /// Appends bytes. After an error, which is logged, nothing more is written.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let Some(file) = &mut self.file else { return };
        self.written += bytes.len() as u64;
        if let Err(error) = file.write(bytes) {
            self.cache.report("write a file", &error);
            self.file = None;
        }
    }

    /// Takes the file into the cache, if it is complete, and returns whether it is there. Blocks until it is on the
    /// disk: a power failure must not leave other bytes under its name.
    pub(crate) fn commit(self) -> bool {
        let cache = self.cache.clone();
        match self.try_commit() {
            Ok(is_kept) => {
                cache.keep_max();
                is_kept
            }
            Err(error) => {
                cache.report("keep a file", &error);
                false
            }
        }
    }

    fn try_commit(self) -> io::Result<bool> {
        let Self { cache, key, name, size, written, file } = self;
        let Some(mut file) = file else { return Ok(false) };
        if written != size {
            let problem = format!("{written} bytes were read instead of {size}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        cache.0.disk.sync_file(file.file(), &cache.path(&name))?;
        cache.publish(&key, &name, size, |path| file.rename_to(path))?;
        Ok(true)
    }
}
