//! Syncs files and folders to the disk. Tests see what was synced, and can make it fail.

use std::fs::File;
use std::io;
use std::path::Path;

#[derive(Debug, Default)]
pub(crate) struct Disk {
    #[cfg(test)]
    pub(crate) observed: parking_lot::Mutex<Observed>,
}

/// What tests know about the disk.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct Observed {
    /// Each synced file or folder, in order.
    pub(crate) synced: Vec<std::path::PathBuf>,
    /// A file or folder that cannot be synced.
    pub(crate) broken: Option<std::path::PathBuf>,
}

impl Disk {
    /// Syncs a file; `path` is its final path.
    pub(crate) fn sync_file(&self, file: &File, path: &Path) -> io::Result<()> {
        self.observe(path)?;
        file.sync_all()
    }

    pub(crate) fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.observe(path)?;
        sync_folder(path)
    }

    #[cfg(test)]
    fn observe(&self, path: &Path) -> io::Result<()> {
        let mut observed = self.observed.lock();
        if observed.broken.as_deref() == Some(path) {
            return Err(io::Error::other("the disk is broken"));
        }
        observed.synced.push(path.to_owned());
        Ok(())
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests have a state")]
    fn observe(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(unix)]
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Windows has no such call; its file system journal preserves names.
#[cfg(not(unix))]
pub(crate) fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}
