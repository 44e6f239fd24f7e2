//! Lists the files of attachments in `StorageDirectory`, folder by folder.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use bucket::{ListedObject, Operation, StorageError};
use storage_layout::{AttachmentUuid, FilePath};

use super::{FileStorage, entries_in, file_error, is_missing};
use crate::orphans::Orphan;

/// The files of attachments, of which those of one folder are in memory.
#[derive(Debug)]
pub struct FileListing {
    root: PathBuf,
    left: Vec<(PathBuf, Depth)>,
}

/// How far a folder is below `StorageDirectory`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    Root,
    Outer,
    Inner,
}

impl FileStorage {
    /// The files of all attachments.
    pub fn list(&self) -> FileListing {
        let root = self.root().to_owned();
        FileListing { left: vec![(root.clone(), Depth::Root)], root }
    }

    /// What a list says about the file of an attachment now; `None` if it cannot be found.
    pub(crate) fn listed(&self, uuid: &AttachmentUuid) -> Option<ListedObject> {
        let path = self.path(uuid);
        listed(path.file(), &fs::metadata(path.file()).ok()?).ok()
    }
}

impl FileListing {
    /// Returns the attachments' files in the next folder, which may be none; `None` at the end.
    ///
    /// # Errors
    ///
    /// If a folder cannot be read.
    pub fn next_folder(&mut self) -> Result<Option<Vec<Orphan>>, StorageError> {
        let Some((folder, depth)) = self.left.pop() else { return Ok(None) };
        let files = self.read(&folder, depth);
        files.map(Some).map_err(|error| file_error(Operation::Check, &folder, &error))
    }

    fn read(&mut self, folder: &Path, depth: Depth) -> io::Result<Vec<Orphan>> {
        let mut files = Vec::new();
        for entry in entries_in(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let below = match depth {
                Depth::Root => Depth::Outer,
                Depth::Outer => Depth::Inner,
                Depth::Inner => {
                    files.extend(self.attachment(name, &entry.path())?);
                    continue;
                }
            };
            let is_pair = name.len() == 2 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_pair && entry.file_type()?.is_dir() {
                self.left.push((entry.path(), below));
            }
        }
        Ok(files)
    }

    /// The file of an attachment; `None` for other files.
    fn attachment(&self, name: &str, path: &Path) -> io::Result<Option<Orphan>> {
        let uuid = AttachmentUuid::new(name).ok();
        let Some(uuid) = uuid.filter(|uuid| FilePath::new(&self.root, uuid).file() == path) else {
            return Ok(None);
        };
        match fs::symlink_metadata(path) {
            Err(error) if is_missing(&error) => Ok(None),
            Ok(metadata) if metadata.is_file() => Ok(Some(Orphan { uuid, object: listed(path, &metadata)? })),
            Ok(_) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn listed(path: &Path, metadata: &Metadata) -> io::Result<ListedObject> {
    Ok(ListedObject {
        name: path.display().to_string(),
        size: metadata.len(),
        modified: metadata.modified()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::FileStorageOptions;

    #[test]
    fn only_files_of_attachments_are_listed() {
        let root = tempfile::tempdir().unwrap();
        let files = FileStorage::new(root.path(), FileStorageOptions { sync: false });
        let uuids = ["fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11", "fb4c5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11"]
            .map(|uuid| AttachmentUuid::new(uuid).unwrap());
        for uuid in &uuids {
            files.create(uuid, b"DICM").unwrap();
        }
        for other in ["fb/4b/fb4c5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11", "fb/x", "index", "fb/4c/readme"] {
            fs::write(root.path().join(other), "x").unwrap();
        }
        fs::create_dir_all(root.path().join(".orthanc-object-storage/0")).unwrap();
        let mut listing = files.list();
        let mut found = Vec::new();
        while let Some(files) = listing.next_folder().unwrap() {
            found.extend(files);
        }
        found.sort_by_key(|file| file.uuid);
        assert_eq!(found.iter().map(|file| file.uuid).collect::<Vec<_>>(), uuids);
        assert_eq!(found[0].object, files.listed(&uuids[0]).unwrap());
        assert_eq!(found[0].object.size, 4);
    }
}
