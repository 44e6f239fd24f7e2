//! Files of attachments that are in the bucket too: `cache/ab/cd/{name}` in the state directory.
//!
//! Everything here can be deleted at any time without loss, so the errors of the cache never fail a store or a
//! read: they are logged, and the cache does without the file.
//!
//! Files appear under their names by `rename`, complete and synced. The folder is what counts; the index knows
//! sizes and last uses, and is built from the folder while everything else already works.
//! The least recently used files go first: to the second while the process lives, and by their modification
//! time, which a use updates at most once an hour, after a restart.

mod evict;
mod folder;
mod writer;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use bucket::Cause;
use parking_lot::Mutex;
use storage_layout::Attachment;

use self::folder::{Folder, Walked, remove_empty};
pub(crate) use self::writer::CacheWriter;
use super::index::{Folders, Index, Key, footprint};
use crate::files::{Disk, FileReader, TemporaryFolder, is_missing};
use crate::state::StoredName;

/// A use updates the file's modification time at most this often.
const PRECISION: Duration = Duration::from_secs(60 * 60);
/// Errors are logged at most this often: a full disk has thousands.
const SILENCE: Duration = Duration::from_secs(60);

/// How much the cache may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheOptions {
    /// The space for all files, in bytes (`MaxCacheMB`). 0: there is no cache.
    pub(crate) max_bytes: u64,
    /// The free space of the disk below which the cache shrinks, in bytes (`KeepFreeMB`).
    pub(crate) keep_free: u64,
}

/// The cache of one Orthanc.
#[derive(Debug, Clone)]
pub(crate) struct Cache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    options: CacheOptions,
    temporary: TemporaryFolder,
    disk: Disk,
    index: Index,
    /// Whether the index knows all files.
    complete: AtomicBool,
    /// Held by the thread that keeps the limits.
    evicting: Mutex<()>,
    stopping: AtomicBool,
    reported: Mutex<Option<Instant>>,
    hits: AtomicU64,
    misses: AtomicU64,
    evicted: AtomicU64,
    discarded: AtomicU64,
}

/// What the cache has, and what it has done since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheTotals {
    /// Number of files.
    pub files: u64,
    /// The space of the files, in whole blocks of 4 KiB.
    pub bytes: u64,
    /// Whether all files have been counted.
    pub complete: bool,
    /// Number of times an attachment was found.
    pub hits: u64,
    /// Number of times it was not.
    pub misses: u64,
    /// Number of files that made room for others.
    pub evicted: u64,
    /// Number of damaged files.
    pub discarded: u64,
}

impl Cache {
    /// The cache in the folder `root`, which is created if it is missing. Files are made in `temporary`, on the
    /// same disk.
    pub(crate) fn new(root: PathBuf, temporary: PathBuf, options: CacheOptions) -> Self {
        let cache = Self(Arc::new(Inner {
            root,
            options,
            temporary: TemporaryFolder::at(temporary),
            disk: Disk::default(),
            index: Index::new(),
            complete: AtomicBool::new(false),
            evicting: Mutex::default(),
            stopping: AtomicBool::new(false),
            reported: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            discarded: AtomicU64::new(0),
        }));
        if let Err(error) = fs::create_dir_all(&cache.0.root) {
            cache.report("create its folder", &error);
        }
        cache
    }

    /// Builds the index from the folder, until `stop` returns `true`. Without a cache, empties the folder.
    /// Blocks, for a minute with millions of files; everything else works in the meantime.
    pub(crate) fn scan(&self, stop: &dyn Fn() -> bool) {
        if self.0.options.max_bytes == 0 {
            return self.clear(stop);
        }
        let start = Instant::now();
        let mut foreign = 0;
        let walked = self.walk(|folder| {
            foreign += self.scan_folder(folder);
            !stop()
        });
        if !walked.complete {
            return;
        }
        foreign += walked.foreign;
        self.0.complete.store(true, Relaxed);
        let files = self.0.index.files();
        let megabytes = self.0.index.bytes() / 1_000_000;
        tracing::info!(
            "the cache has {files} files, {megabytes} MB; counted in {:.1} s",
            start.elapsed().as_secs_f32()
        );
        if foreign > 0 {
            // Their names may say anything, for instance a patient's name.
            tracing::warn!(
                "{} has {foreign} files that are not of the cache; they are left alone",
                self.0.root.display()
            );
        }
        self.shrink();
    }

    /// Returns the number of foreign files.
    fn scan_folder(&self, folder: &Folder) -> u64 {
        // A file that is deleted after it was listed must not be added.
        let folders = self.0.index.lock_folders(folder.shard);
        match folder.list() {
            Ok(listing) => {
                let now = now();
                for file in &listing.files {
                    // What is known already is newer. A clock that was wrong must not keep a file for years.
                    if let Some(key) = Key::new(&file.name)
                        && self.0.index.size(&key).is_none()
                    {
                        folders.insert(key, file.size, seconds(file.used).min(now));
                    }
                }
                if listing.files.is_empty() {
                    folder.remove_if_empty();
                }
                listing.foreign
            }
            Err(error) => {
                self.report("list its files", &error);
                0
            }
        }
    }

    /// Opens an attachment's file, first the encrypted one or first the one in clear, and notes the use. `None` if
    /// there is none.
    pub(crate) fn open(
        &self,
        attachment: &Attachment,
        encrypted_first: bool,
    ) -> Option<(FileReader, StoredName)> {
        let found = [encrypted_first, !encrypted_first].into_iter().find_map(|encrypted| {
            let name = StoredName { attachment: *attachment, encrypted };
            Some((self.open_file(&name)?, name))
        });
        let count = if found.is_some() { &self.0.hits } else { &self.0.misses };
        count.fetch_add(1, Relaxed);
        found
    }

    fn open_file(&self, name: &StoredName) -> Option<FileReader> {
        let key = Key::new(name)?;
        let file = match FileReader::open(&self.path(name)) {
            Ok(file) => file,
            Err(error) => {
                match error.cause {
                    Cause::NotFound if self.0.index.size(&key).is_none() => {}
                    Cause::NotFound => self.check(&key, name),
                    _ => self.report("open a file", &error),
                }
                return None;
            }
        };
        if self.0.index.note_use(&key, now()).is_some_and(|size| size != file.size()) {
            self.check(&key, name);
            return None;
        }
        file.mark_as_used(PRECISION);
        Some(file)
    }

    /// Compares a file with the index, and discards it if it has another size.
    fn check(&self, key: &Key, name: &StoredName) {
        // Another thread may be creating or deleting the file; then the next use will check it.
        let Some(folders) = self.0.index.try_lock_folders(key.shard()) else { return };
        let Some(known) = self.0.index.size(key) else { return };
        match fs::metadata(self.path(name)) {
            Ok(metadata) if metadata.len() == known => {}
            Ok(metadata) => {
                let path = self.path(name);
                tracing::warn!(
                    "{} has {} bytes instead of {known}: discarded; the bucket has the attachment",
                    path.display(),
                    metadata.len()
                );
                self.0.discarded.fetch_add(1, Relaxed);
                if let Err(error) = self.delete_locked(&folders, key, &path) {
                    self.report("delete a damaged file", &error);
                }
            }
            // Somebody deleted the file, as anyone may.
            Err(error) if is_missing(&error) => drop(folders.remove(key)),
            Err(error) => self.report("check a file", &error),
        }
    }

    /// Takes a file, for instance of `pending/`, into the cache. Deletes it if it is not worth it, or if the cache
    /// does not work.
    ///
    /// # Errors
    ///
    /// `from` does not exist, or still exists.
    pub(crate) fn adopt(&self, from: &Path, name: &StoredName) -> io::Result<()> {
        let size = fs::metadata(from)?.len();
        if let Some(key) = self.worth(name, size) {
            match self.publish(&key, name, size, |path| fs::rename(from, path)) {
                Ok(()) => {
                    self.keep_max();
                    return Ok(());
                }
                Err(error) => self.report("take a file", &error),
            }
        }
        fs::remove_file(from)
    }

    /// Begins a file for an attachment that is being read from the bucket. `None` if it is not worth it: the file exists, would be too large, or the disk is nearly full.
    pub(crate) fn begin(&self, name: &StoredName, size: u64) -> Option<CacheWriter> {
        let key = self.worth(name, size)?;
        let needed = self.0.options.keep_free.saturating_add(footprint(size));
        let is_known = self.0.index.size(&key).is_some();
        if is_known || fs4::available_space(&self.0.root).is_ok_and(|free| free < needed) {
            return None;
        }
        match self.0.temporary.create() {
            Ok(file) => Some(CacheWriter::new(self.clone(), key, *name, size, file)),
            Err(error) => {
                self.report("create a file", &error);
                None
            }
        }
    }

    /// `None` for a file that the cache does not take.
    fn worth(&self, name: &StoredName, size: u64) -> Option<Key> {
        Key::new(name).filter(|_| footprint(size) <= self.0.options.max_bytes)
    }

    /// Gives a file its name in the cache, and counts it.
    fn publish(
        &self,
        key: &Key,
        name: &StoredName,
        size: u64,
        rename: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let path = self.path(name);
        let folders = self.0.index.lock_folders(key.shard());
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        rename(&path)?;
        folders.insert(*key, size, now());
        Ok(())
    }

    /// Discards the damaged files of an attachment.
    pub(crate) fn discard(&self, attachment: &Attachment) {
        match self.delete_attachment(attachment) {
            Ok(files) => {
                self.0.discarded.fetch_add(files, Relaxed);
            }
            Err(error) => self.report("delete a damaged file", &error),
        }
    }

    /// Deletes the files of an attachment whose object is stored in another form now.
    pub(crate) fn drop_files(&self, attachment: &Attachment) {
        if let Err(error) = self.delete_attachment(attachment) {
            self.report("delete a file", &error);
        }
    }

    /// Deletes the files of an attachment that was deleted in Orthanc.
    ///
    /// # Errors
    ///
    /// If a file still exists.
    pub(crate) fn remove(&self, attachment: &Attachment) -> io::Result<()> {
        self.delete_attachment(attachment).map(drop)
    }

    /// Returns the number of files.
    fn delete_attachment(&self, attachment: &Attachment) -> io::Result<u64> {
        let mut files = 0;
        for encrypted in [false, true] {
            let name = StoredName { attachment: *attachment, encrypted };
            let Some(key) = Key::new(&name) else { continue };
            let folders = self.0.index.lock_folders(key.shard());
            files += u64::from(self.delete_locked(&folders, &key, &self.path(&name))?);
        }
        Ok(files)
    }

    /// Deletes a file while its folders are locked. Returns whether it existed.
    fn delete_locked(&self, folders: &Folders<'_>, key: &Key, path: &Path) -> io::Result<bool> {
        let existed = match fs::remove_file(path) {
            Err(error) if is_missing(&error) => false,
            deleted => deleted.map(|()| true)?,
        };
        folders.remove(key);
        if existed {
            path.parent().map(remove_empty);
        }
        Ok(existed)
    }

    fn walk(&self, visit: impl FnMut(&Folder) -> bool) -> Walked {
        let walked = Folder::walk(&self.0.root, visit);
        if let Some(error) = &walked.error {
            self.report("list its folders", error);
        }
        walked
    }

    /// Takes the files of the cache of an Orthanc that has ended, in the folder `other`, until `stop` returns `true`. What
    /// cannot be taken is deleted.
    pub(crate) fn take_over(&self, other: &Path, stop: &dyn Fn() -> bool) {
        let walked = Folder::walk(other, |folder| {
            if let Err(error) = self.take_over_folder(folder) {
                self.report("take the files of an Orthanc that has ended", &error);
            }
            !stop()
        });
        if let Some(error) = &walked.error {
            self.report("list the files of an Orthanc that has ended", error);
        }
        self.keep_max();
    }

    fn take_over_folder(&self, folder: &Folder) -> io::Result<()> {
        for file in folder.list()?.files {
            let from = folder.path.join(file.name.file_name());
            let taken = self.worth(&file.name, file.size).is_some_and(|key| {
                let path = self.path(&file.name);
                let folders = self.0.index.lock_folders(key.shard());
                let renamed =
                    path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::rename(&from, path));
                if renamed.is_ok() {
                    folders.insert(key, file.size, seconds(file.used).min(now()));
                }
                renamed.is_ok()
            });
            if !taken {
                fs::remove_file(&from)?;
            }
        }
        folder.remove_if_empty();
        Ok(())
    }

    /// Ends evictions in progress, or allows them again.
    pub(crate) fn stop(&self, stop: bool) {
        self.0.stopping.store(stop, Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.0.stopping.load(Relaxed)
    }

    pub(crate) fn totals(&self) -> CacheTotals {
        let inner = &*self.0;
        CacheTotals {
            files: inner.index.files(),
            bytes: inner.index.bytes(),
            complete: inner.complete.load(Relaxed),
            hits: inner.hits.load(Relaxed),
            misses: inner.misses.load(Relaxed),
            evicted: inner.evicted.load(Relaxed),
            discarded: inner.discarded.load(Relaxed),
        }
    }

    pub(crate) fn path(&self, name: &StoredName) -> PathBuf {
        self.0.root.join(name.deep())
    }

    /// Logs an error.
    fn report(&self, what: &str, error: &dyn std::fmt::Display) {
        let mut reported = self.0.reported.lock();
        if reported.is_none_or(|last| last.elapsed() >= SILENCE) {
            *reported = Some(Instant::now());
            tracing::warn!("the cache in {} cannot {what}, and does without: {error}", self.0.root.display());
        }
    }
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> u32 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

fn now() -> u32 {
    seconds(SystemTime::now())
}

#[cfg(test)]
mod tests;
