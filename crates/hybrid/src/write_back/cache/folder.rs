//! The folders of a cache, `ab/cd`.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::files::is_missing;
use crate::state::StoredName;

/// A folder `ab/cd`.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// The number that `ab` is.
    pub(super) shard: usize,
    /// `abcd`
    digits: String,
}

/// How a walk has ended.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Whether all folders have been visited.
    pub(super) complete: bool,
    /// Number of entries that are not of the cache.
    pub(super) foreign: u64,
    /// The last error. The walk goes on with the next folder.
    pub(super) error: Option<io::Error>,
}

/// The files in a folder.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) files: Vec<CachedFile>,
    /// Number of entries that are not of the cache.
    pub(super) foreign: u64,
}

#[derive(Debug)]
pub(super) struct CachedFile {
    pub(super) name: StoredName,
    pub(super) size: u64,
    pub(super) used: SystemTime,
}

impl Folder {
    /// Visits the folders below `root` until `visit` returns `false`.
    pub(super) fn walk(root: &Path, mut visit: impl FnMut(&Self) -> bool) -> Walked {
        let mut walked = Walked::default();
        for (outer, path) in walked.pairs(root) {
            let Ok(shard) = usize::from_str_radix(&outer, 16) else { continue };
            for (inner, path) in walked.pairs(&path) {
                if !visit(&Self { path, shard, digits: format!("{outer}{inner}") }) {
                    return walked;
                }
            }
        }
        walked.complete = true;
        walked
    }

    /// The files. One that vanishes in the meantime is left out.
    pub(super) fn list(&self) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for entry in read(&self.path)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Err(error) if is_missing(&error) => continue,
                metadata => metadata?,
            };
            match self.file(&entry.file_name(), &metadata)? {
                Some(file) => listing.files.push(file),
                None => listing.foreign += 1,
            }
        }
        Ok(listing)
    }

    /// `None` if it is not of the cache.
    fn file(&self, name: &OsStr, metadata: &Metadata) -> io::Result<Option<CachedFile>> {
        let name = StoredName::parse(name);
        let Some(name) = name.filter(|name| name.attachment.uuid.as_str().starts_with(&self.digits)) else {
            return Ok(None);
        };
        let file = CachedFile { name, size: metadata.len(), used: metadata.modified()? };
        Ok(metadata.is_file().then_some(file))
    }

    /// Deletes the folder, and the one above, if they are empty.
    pub(super) fn remove_if_empty(&self) {
        remove_empty(&self.path);
    }
}

/// Deletes a folder `ab/cd`, and `ab`, if they are empty.
pub(super) fn remove_empty(folder: &Path) {
    // Fails if the folder is not empty, as intended.
    let _ = [Some(folder), folder.parent()].into_iter().flatten().try_for_each(fs::remove_dir);
}

impl Walked {
    /// The folders in `folder` whose names are two hexadecimal digits.
    fn pairs(&mut self, folder: &Path) -> Vec<(String, PathBuf)> {
        self.try_pairs(folder).unwrap_or_else(|error| {
            self.error = Some(error);
            Vec::new()
        })
    }

    fn try_pairs(&mut self, folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
        let mut pairs = Vec::new();
        for entry in read(folder)? {
            let entry = entry?;
            let name = entry.file_name().into_string().unwrap_or_default();
            let is_pair =
                name.len() == 2 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            if is_pair && entry.file_type()?.is_dir() {
                pairs.push((name, entry.path()));
            } else {
                self.foreign += 1;
            }
        }
        Ok(pairs)
    }
}

/// The entries of a folder; none if it does not exist.
fn read(folder: &Path) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        entries => Some(entries?),
    };
    Ok(entries.into_iter().flatten())
}
