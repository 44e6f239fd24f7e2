//! Deletes what was not used for longest, so that the cache keeps its limits.

use std::fs;
use std::io;
use std::sync::atomic::Ordering::Relaxed;

use super::folder::Folder;
use super::{Cache, now};
use crate::write_back::index::{Key, SHARDS, footprint};

/// The part of the cache that an eviction frees in addition, so that not each new file is followed by one.
const RESERVE: u64 = 50;
/// How many files that cannot be deleted an eviction passes over.
const UNDELETABLE: usize = 16;
/// The least that is freed if the disk is full and the cache is large, in bytes.
const LEAST_ROOM: u64 = 256 * 1024 * 1024;

impl Cache {
    /// Frees at least `bytes` if the cache has as many, and returns how many: the disk is full. Does not wait for the
    /// thread that keeps the limits, which may have a million files to delete.
    pub(crate) fn make_room(&self, bytes: u64) -> u64 {
        // Not each store is to search the index for the oldest files.
        let wanted = bytes.max(LEAST_ROOM.min(self.0.index.bytes() / RESERVE));
        let mut freed = self.evict(wanted);
        if freed < bytes && !self.0.complete.load(Relaxed) {
            self.walk(|folder| {
                freed += self.empty(folder, bytes - freed);
                freed < bytes
            });
        }
        freed
    }

    /// Keeps the limits. To be called every few seconds, since others use the disk too.
    pub(crate) fn shrink(&self) {
        self.keep_max();
        let Some(_evicting) = self.0.evicting.try_lock() else { return };
        let wanted = self.0.options.keep_free;
        // Some file systems take seconds to free space, so this does not look again after the eviction.
        if let Ok(free) = fs4::available_space(&self.0.root)
            && free < wanted
        {
            self.evict((wanted - free).saturating_add(self.0.index.bytes() / RESERVE));
        }
    }

    /// Keeps `MaxCacheMB`.
    pub(super) fn keep_max(&self) {
        let max = self.0.options.max_bytes;
        while self.0.index.bytes() > max {
            // The thread that evicts files already goes on until the limit is kept.
            let Some(_evicting) = self.0.evicting.try_lock() else { return };
            let wanted = self.0.index.bytes().saturating_sub(max - max / RESERVE);
            if self.evict(wanted) == 0 {
                return;
            }
        }
    }

    /// Deletes files that were not used for longest until `bytes` are free, and returns how many are.
    fn evict(&self, bytes: u64) -> u64 {
        let mut freed = 0;
        let mut undeletable = 0;
        while freed < bytes {
            let Some(last) = self.0.index.last_use_to_free(bytes - freed) else { break };
            let before = self.0.index.files();
            // Only some of those that were used in the last second have to go.
            for seconds in [last.checked_sub(1).map(|end| 0..=end), Some(last..=last)].into_iter().flatten() {
                for shard in 0..SHARDS {
                    for key in self.0.index.used_within(shard, &seconds) {
                        if freed >= bytes || self.is_stopping() {
                            return freed;
                        }
                        match self.evict_file(&key, *seconds.end()) {
                            Ok(space) => freed += space,
                            Err(error) => {
                                self.report("delete a file", &error);
                                // Its turn comes again after all others.
                                self.0.index.note_use(&key, now());
                                undeletable += 1;
                            }
                        }
                        if undeletable > UNDELETABLE {
                            return freed;
                        }
                    }
                }
            }
            // Files that were deleted by hand free nothing, but leave the index.
            if self.0.index.files() >= before || self.is_stopping() {
                break;
            }
        }
        freed
    }

    /// Deletes a file unless it was used after the second `last`. Returns the space that it took.
    fn evict_file(&self, key: &Key, last: u32) -> io::Result<u64> {
        let Some(name) = key.name() else { return Ok(0) };
        let folders = self.0.index.lock_folders(key.shard());
        let Some(size) = self.0.index.size(key) else { return Ok(0) };
        if self.0.index.last_use(key).is_some_and(|used| used > last) {
            return Ok(0);
        }
        if !self.delete_locked(&folders, key, &self.path(&name))? {
            return Ok(0);
        }
        self.0.evicted.fetch_add(1, Relaxed);
        Ok(footprint(size))
    }

    /// Empties the folder: the mode is not `WriteBack`.
    pub(crate) fn clear(&self, stop: &dyn Fn() -> bool) {
        let walked = self.walk(|folder| {
            self.empty(folder, u64::MAX);
            !stop()
        });
        self.0.complete.store(walked.complete, Relaxed);
    }

    /// Deletes files of a folder, known or not, until `bytes` are free, and returns how many are.
    fn empty(&self, folder: &Folder, bytes: u64) -> u64 {
        let folders = self.0.index.lock_folders(folder.shard);
        let listing = folder.list().inspect_err(|error| self.report("list its files", error));
        let mut freed = 0;
        for file in listing.into_iter().flat_map(|listing| listing.files) {
            if freed >= bytes {
                break;
            }
            let path = self.path(&file.name);
            let deleted = match Key::new(&file.name) {
                Some(key) => self.delete_locked(&folders, &key, &path).map(drop),
                None => fs::remove_file(&path),
            };
            match deleted {
                Ok(()) => {
                    freed = freed.saturating_add(footprint(file.size));
                    self.0.evicted.fetch_add(1, Relaxed);
                }
                Err(error) => self.report("delete a file", &error),
            }
        }
        folder.remove_if_empty();
        freed
    }
}
