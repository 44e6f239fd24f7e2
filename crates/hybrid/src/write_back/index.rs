//! The sizes and last uses of the files in the cache, in memory: at most 64 bytes a file.
//!
//! There are many shards, each with its own locks, so that no lock is held for long.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};
use storage_layout::{Attachment, ContentType};

use crate::state::StoredName;

/// Number of shards, one for each first byte of a UUID.
pub(super) const SHARDS: usize = 256;
/// The unit in which most file systems allocate space. Folders are not counted.
const BLOCK: u64 = 4096;

/// The space that a file takes on the disk. An empty file counts too, so that their number is bounded.
pub(super) fn footprint(size: u64) -> u64 {
    size.max(1).checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX)
}

/// A name in 19 bytes: the UUID, then the content type and whether the content is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key([u8; 19]);

impl Key {
    /// `None` for names that are not cached: UUIDs with capital letters, and types above 65,535, which Orthanc
    /// does not make.
    pub(super) fn new(name: &StoredName) -> Option<Self> {
        let uuid = name.attachment.uuid.as_str();
        if uuid.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        let digits = u128::from_str_radix(&uuid.replace('-', ""), 16).ok()?;
        let content_type = u16::try_from(name.attachment.content_type.0).ok()?;
        let mut key = [0; 19];
        key[..16].copy_from_slice(&digits.to_be_bytes());
        key[16..18].copy_from_slice(&content_type.to_be_bytes());
        key[18] = u8::from(name.encrypted);
        Some(Self(key))
    }

    pub(super) fn name(&self) -> Option<StoredName> {
        let [.., high, low, encrypted] = self.0;
        let uuid = self.0.first_chunk()?;
        let digits = format!("{:032x}", u128::from_be_bytes(*uuid));
        let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
        let content_type = ContentType(u16::from_be_bytes([high, low]).into());
        let attachment = Attachment::new(&groups.join("-"), content_type).ok()?;
        Some(StoredName { attachment, encrypted: encrypted == 1 })
    }

    /// The shard of the file.
    pub(super) fn shard(&self) -> usize {
        usize::from(self.0[0])
    }
}

/// A file. It has no alignment above 4, so that it takes 12 bytes.
#[derive(Debug, Clone, Copy)]
struct Entry {
    size: [u8; 8],
    /// Seconds since 1970.
    used: u32,
}

impl Entry {
    fn size(&self) -> u64 {
        u64::from_ne_bytes(self.size)
    }
}

/// The files in the cache, as far as they are known.
#[derive(Debug)]
pub(super) struct Index {
    shards: Vec<Shard>,
    files: AtomicU64,
    /// The space of all files.
    bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    folders: Mutex<()>,
    /// A `HashMap` would double its memory when it grows.
    entries: Mutex<BTreeMap<Key, Entry>>,
}

/// The locked folders of a shard. Whoever creates or deletes a file holds this until the index agrees with the
/// folder. Reads do not, so they never wait for the disk.
#[derive(Debug)]
pub(super) struct Folders<'a> {
    index: &'a Index,
    shard: &'a Shard,
    _locked: MutexGuard<'a, ()>,
}

impl Folders<'_> {
    /// Adds a file, or replaces what is known about it.
    pub(super) fn insert(&self, key: Key, size: u64, used: u32) {
        let entry = Entry { size: size.to_ne_bytes(), used };
        let mut entries = self.shard.entries.lock();
        match entries.insert(key, entry) {
            Some(old) => self.index.subtract(old.size()),
            None => {
                self.index.files.fetch_add(1, Relaxed);
            }
        }
        self.index.bytes.fetch_add(footprint(size), Relaxed);
    }

    /// Returns the file's size.
    pub(super) fn remove(&self, key: &Key) -> Option<u64> {
        let mut entries = self.shard.entries.lock();
        let size = entries.remove(key)?.size();
        self.index.files.fetch_sub(1, Relaxed);
        self.index.subtract(size);
        Some(size)
    }
}

impl Index {
    pub(super) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        Self { shards, files: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// Locks the folders of a shard.
    pub(super) fn lock_folders(&self, shard: usize) -> Folders<'_> {
        Folders { index: self, shard: &self.shards[shard], _locked: self.shards[shard].folders.lock() }
    }

    /// As [`lock_folders`](Self::lock_folders), without waiting.
    pub(super) fn try_lock_folders(&self, shard: usize) -> Option<Folders<'_>> {
        let locked = self.shards[shard].folders.try_lock()?;
        Some(Folders { index: self, shard: &self.shards[shard], _locked: locked })
    }

    fn subtract(&self, size: u64) {
        self.bytes.fetch_sub(footprint(size), Relaxed);
    }

    /// Returns the file's size.
    pub(super) fn size(&self, key: &Key) -> Option<u64> {
        self.shards[key.shard()].entries.lock().get(key).map(Entry::size)
    }

    pub(super) fn last_use(&self, key: &Key) -> Option<u32> {
        self.shards[key.shard()].entries.lock().get(key).map(|entry| entry.used)
    }

    /// Notes that a file was used, and returns its size.
    pub(super) fn note_use(&self, key: &Key, used: u32) -> Option<u64> {
        let mut entries = self.shards[key.shard()].entries.lock();
        let entry = entries.get_mut(key)?;
        entry.used = used;
        Some(entry.size())
    }

    pub(super) fn files(&self) -> u64 {
        self.files.load(Relaxed)
    }

    /// The space of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// The second of the last use up to which all files must go to free `bytes`; `None` if there is no file.
    ///
    /// Two histograms, of the upper and lower half of the seconds, take little memory whatever the ages.
    pub(super) fn last_use_to_free(&self, bytes: u64) -> Option<u32> {
        let days = self.histogram(|used| Some(used >> 16));
        let (high, before) = reach(&days, bytes)?;
        let seconds = self.histogram(|used| (used >> 16 == high).then_some(used & 0xffff));
        // The files of that day may have been used or deleted since.
        let low = reach(&seconds, bytes.saturating_sub(before)).map_or(0xffff, |(low, _)| low);
        Some(high << 16 | low)
    }

    /// The space of the files in each class.
    fn histogram(&self, class: impl Fn(u32) -> Option<u32>) -> Vec<u64> {
        let mut histogram = vec![0; 1 << 16];
        for shard in &self.shards {
            for entry in shard.entries.lock().values() {
                if let Some(class) = class(entry.used) {
                    histogram[class as usize] += footprint(entry.size());
                }
            }
        }
        histogram
    }

    /// The files of a shard that were last used in `seconds`.
    pub(super) fn used_within(&self, shard: usize, seconds: &RangeInclusive<u32>) -> Vec<Key> {
        let entries = self.shards[shard].entries.lock();
        entries.iter().filter(|(_, entry)| seconds.contains(&entry.used)).map(|(key, _)| *key).collect()
    }
}

/// The class that, together with those before it, has `bytes`, or the last one that is not empty; and how many
/// bytes are before it.
fn reach(histogram: &[u64], bytes: u64) -> Option<(u32, u64)> {
    let mut reached = None;
    let mut sum = 0;
    for (class, space) in (0..).zip(histogram) {
        if *space > 0 {
            reached = Some((class, sum));
            sum += space;
            if sum >= bytes {
                break;
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests;
