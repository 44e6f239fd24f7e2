//! Uploads in parts that have begun: those that a stop or a kill interrupts are aborted at the next start,
//! since the cloud would charge for their parts forever.

use std::collections::VecDeque;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

/// The uploads of this process, and those that an earlier one has left.
#[derive(Debug)]
pub(crate) struct Uploads {
    folder: PathBuf,
    left: Mutex<VecDeque<Upload>>,
}

/// An upload that was interrupted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upload {
    /// The object's name.
    pub(crate) name: String,
    /// The server's name for the upload.
    pub(crate) id: String,
    entry: PathBuf,
}

impl Uploads {
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let left = Mutex::new(entries(&folder)?.into());
        Ok(Self { folder, left })
    }

    pub(super) fn take_over(&self, folder: &Path) -> io::Result<()> {
        // The entries stay where they are until they are aborted. If this process ends first, the next one
        // finds them again.
        let found = entries(folder)?;
        let mut left = self.left.lock();
        for upload in found {
            if !left.contains(&upload) {
                left.push_back(upload);
            }
        }
        Ok(())
    }

    /// The next upload to be aborted.
    pub(crate) fn take_left(&self) -> Option<Upload> {
        self.left.lock().pop_front()
    }

    /// Returns an upload that could not be aborted, to be tried after the others.
    pub(crate) fn put_back(&self, upload: Upload) {
        self.left.lock().push_back(upload);
    }

    /// Records that an upload begins.
    pub(crate) fn began(&self, name: &str, id: &str) -> io::Result<()> {
        fs::write(self.path(name, id), format!("{name}\n{id}"))
    }

    /// Records that an upload has been completed or aborted.
    pub(crate) fn ended(&self, name: &str, id: &str) -> io::Result<()> {
        fs::remove_file(self.path(name, id))
    }

    fn path(&self, name: &str, id: &str) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        (name, id).hash(&mut hasher);
        self.folder.join(format!("{:016x}", hasher.finish()))
    }
}

impl Upload {
    /// Forgets an upload that has been aborted.
    pub(crate) fn forget(&self) {
        if let Err(error) = fs::remove_file(&self.entry) {
            tracing::warn!("cannot delete {}: {error}", self.entry.display());
        }
    }
}

fn entries(folder: &Path) -> io::Result<Vec<Upload>> {
    let files = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        files => files?,
    };
    let mut uploads = Vec::new();
    for file in files {
        let entry = file?.path();
        let Ok(bytes) = fs::read(&entry) else { continue };
        let text = String::from_utf8(bytes).unwrap_or_default();
        match text.rsplit_once('\n') {
            Some((name, id)) => uploads.push(Upload { name: name.to_owned(), id: id.to_owned(), entry }),
            // Written when a power failure came: the name is not known.
            None => fs::remove_file(entry)?,
        }
    }
    Ok(uploads)
}
