//! Attachments on the local disk on their way to the bucket, and a cache of those that are there (`WriteBack`).
//!
//! ```text
//! StateDirectory/0/
//!   pending/ab/    acknowledged, not yet in the bucket
//!   cache/ab/cd/   in the bucket, size and checksum compared
//!   quarantine/    pending files found damaged
//! ```
//!
//! The folder that a file is in says what is true about it at each moment, also after a crash. Only the bucket's
//! confirmation moves a file from `pending/` to `cache/`, and whatever is in `cache/` can be deleted.

mod age;
mod cache;
mod finding;
mod index;
mod keeping;
mod moves;
mod pending;
mod queue;
mod uploader;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bucket::{Cause, Naming, Operation, StorageError};
use crc_fast::CrcAlgorithm;
use parking_lot::Mutex;
use storage_layout::Attachment;

pub use self::cache::CacheTotals;
use self::cache::{Cache, CacheOptions};
pub use self::keeping::{Keeper, Keeping};
use self::pending::{Pending, both};
use self::queue::{Job, Progress, Queue};
pub(crate) use self::uploader::Upload;
pub use self::uploader::UploadWorker;
use crate::files::{FileReader, file_error};
use crate::source::StoredContent;
use crate::state::{Abandoned, CACHE, StateDirectory, StoredName, TEMPORARY};

/// How much more than an attachment is evicted from the cache if the disk is full, in bytes.
const SPARE: u64 = 1024 * 1024;
/// How often `flush` checks what is left.
const LOOK: Duration = Duration::from_millis(200);

/// The section `WriteBack`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteBackOptions {
    /// What the cache may take on the disk, in bytes (`MaxCacheMB`); 0: no cache.
    pub max_cache: u64,
    /// The disk's free space below which the cache shrinks, in bytes (`KeepFreeMB`).
    pub keep_free: u64,
    /// The size of all pending files above which attachments go directly to the bucket, in bytes
    /// (`MaxPendingMB`); 0: no limit but the disk.
    pub max_pending: u64,
    /// How long an attachment is pending before its upload begins (`UploadDelay`).
    pub upload_delay: Duration,
    /// Uploads at once (`Uploads`).
    pub uploads: usize,
    /// Whether whole attachments that are read from the bucket are kept in the cache (`CacheReads`).
    pub cache_reads: bool,
}

impl Default for WriteBackOptions {
    fn default() -> Self {
        Self {
            max_cache: 10240 << 20,
            keep_free: 1024 << 20,
            max_pending: 0,
            upload_delay: Duration::ZERO,
            uploads: 8,
            cache_reads: true,
        }
    }
}

/// The pending and cached attachments of one Orthanc.
///
/// Exists in all modes, since attachments may be pending when the mode is changed. Unless the mode is `WriteBack`,
/// no attachment becomes pending, and there is no cache.
#[derive(Debug)]
pub struct WriteBack {
    state: Arc<StateDirectory>,
    options: WriteBackOptions,
    is_mode: bool,
    pending: Pending,
    pub(crate) cache: Cache,
    pub(crate) queue: Queue,
    /// Whether all pending files are in the queue.
    is_complete: AtomicBool,
    /// Held while files are searched for or taken over.
    finding: Mutex<()>,
    /// Why they cannot be found.
    scan_error: Mutex<Option<String>>,
    /// Number of files found damaged or missing since the start.
    damaged: AtomicU64,
    direct: AtomicU64,
}

/// Why an attachment cannot become pending. It must go directly to the bucket.
#[derive(Debug)]
pub enum NotPending {
    /// `MaxPendingMB` is exceeded.
    Limit,
    /// The disk is full, or fails.
    Disk(StorageError),
}

/// Why the pending attachments are not in the bucket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFlushed {
    /// The bucket does not work, or each attachment that is left has failed once more.
    #[error("attachments still pending: {files}; the last error: {error}")]
    Pending {
        /// Number of attachments that are still pending.
        files: u64,
        /// The reason of the last failure.
        error: String,
    },
    /// The folder of pending attachments cannot be read.
    #[error("cannot look for pending attachments: {error}")]
    Unknown {
        /// The reason.
        error: String,
    },
    /// Files were found damaged or missing in the meantime. They are not in the bucket; damaged ones are in quarantine.
    #[error(
        "attachments found damaged or missing, which are not in the bucket: {files}; the log names them, and damaged \
         ones are in quarantine"
    )]
    Damaged {
        /// Their number.
        files: u64,
    },
}

/// Figures about pending and cached attachments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteBackTotals {
    /// Attachments that are not yet in the bucket.
    pub pending: u64,
    /// Their size, in bytes.
    pub pending_bytes: u64,
    /// When the oldest of them was stored.
    pub oldest: Option<SystemTime>,
    /// Uploads in progress.
    pub uploading: u64,
    /// Whether the bucket does not work, so that one attachment at a time is tried.
    pub is_outage: bool,
    /// Why the last upload failed, until the bucket works again.
    pub last_error: Option<String>,
    /// Whether files that an earlier process left are still being counted.
    pub is_counting: bool,
    /// Damaged files in the quarantine.
    pub quarantined: u64,
    /// Attachments that were stored directly in the bucket, since the start.
    pub direct: u64,
    /// Attachments of Orthancs that have ended, for another bucket.
    pub abandoned: Vec<Abandoned>,
    /// Free space on the disk, in bytes, if it is known.
    pub free: Option<u64>,
    /// The cache.
    pub cache: CacheTotals,
}

impl WriteBack {
    /// The attachments in a state directory. `options` are those of the mode `WriteBack`; `None` in other modes.
    ///
    /// # Errors
    ///
    /// If the folders cannot be created.
    pub fn open(
        state: Arc<StateDirectory>,
        options: Option<WriteBackOptions>,
    ) -> Result<Arc<Self>, StorageError> {
        let is_mode = options.is_some();
        let options = options.unwrap_or(WriteBackOptions { max_cache: 0, ..WriteBackOptions::default() });
        let folder = state.folder();
        let pending =
            Pending::open(&folder, is_mode).map_err(|error| file_error(Operation::Check, &folder, &error))?;
        let limits = CacheOptions { max_bytes: options.max_cache, keep_free: options.keep_free };
        let cache = Cache::new(folder.join(CACHE), folder.join(TEMPORARY), limits);
        // Without pending files, reads need not look for them from the beginning.
        let is_complete = AtomicBool::new(!pending::has_files(&folder));
        let damaged = AtomicU64::default();
        let queue = Queue::default();
        let direct = AtomicU64::default();
        Ok(Arc::new(Self {
            state,
            options,
            is_mode,
            pending,
            cache,
            queue,
            is_complete,
            finding: Mutex::default(),
            scan_error: Mutex::default(),
            damaged,
            direct,
        }))
    }

    /// Whether the mode is `WriteBack`.
    pub fn is_mode(&self) -> bool {
        self.is_mode
    }

    /// The options of the mode.
    pub fn options(&self) -> &WriteBackOptions {
        &self.options
    }

    /// Whether there is a cache.
    pub fn has_cache(&self) -> bool {
        self.options.max_cache > 0
    }

    /// Whether attachments that are read from the bucket are kept in the cache.
    pub fn keeps_reads(&self) -> bool {
        self.has_cache() && self.options.cache_reads
    }

    /// The folder of this Orthanc in the state directory.
    pub fn folder(&self) -> PathBuf {
        self.state.folder()
    }

    /// Stores an attachment on the disk, so that it survives a power failure, and queues it for upload. `content` is
    /// an envelope if `encrypted`. Blocks.
    ///
    /// # Errors
    ///
    /// The attachment is not stored then, and must go directly to the bucket.
    pub fn create(&self, attachment: &Attachment, encrypted: bool, content: &[u8]) -> Result<(), NotPending> {
        let size = content.len() as u64;
        let limit = self.options.max_pending;
        if limit > 0 && self.queue.bytes().saturating_add(size) > limit {
            self.direct.fetch_add(1, Ordering::Relaxed);
            return Err(NotPending::Limit);
        }
        let name = StoredName { attachment: *attachment, encrypted };
        if let Err(error) = self.create_file(&name, content) {
            self.direct.fetch_add(1, Ordering::Relaxed);
            return Err(NotPending::Disk(error));
        }
        let checksum = Some(checksum(content));
        let job = Job { name, size, checksum, since: SystemTime::now(), repeated: false };
        self.queue.add(job, self.options.upload_delay);
        Ok(())
    }

    /// Creates a pending file, for which the cache makes room if the disk is full. Add it to the queue then.
    fn create_file(&self, name: &StoredName, content: &[u8]) -> Result<(), StorageError> {
        self.queue.announce(*name);
        let mut created = self.pending.create(name, content);
        if let Err(error) = &created
            && error.cause == Cause::DiskFull
            && self.make_room(content.len() as u64) > 0
        {
            created = self.pending.create(name, content);
        }
        created.inspect_err(|_| self.queue.withdraw(name))
    }

    /// Whether an attachment may be pending. Quick.
    pub(crate) fn may_be_pending(&self, attachment: &Attachment) -> bool {
        !self.is_complete.load(Ordering::Acquire)
            || both(attachment).iter().any(|name| self.queue.contains(name))
    }

    /// Opens the file of a pending attachment.
    pub(crate) fn open_pending(
        &self,
        attachment: &Attachment,
    ) -> Result<Option<(FileReader, Naming)>, StorageError> {
        let Some((file, name)) = self.pending.open_file(attachment)? else { return Ok(None) };
        match self.queue.size(&name) {
            Some(stored) if stored != file.size() => {
                let size = file.size();
                let cause = Cause::Damaged(format!(
                    "it has {size} bytes instead of {stored}; this file is the only copy"
                ));
                Err(StorageError::new(Operation::Read, self.path(attachment, false), cause))
            }
            _ => Ok(Some((file, naming(&name)))),
        }
    }

    /// Opens the file of a cached attachment. `accepted` says which content may be served.
    pub(crate) fn open_cached(
        &self,
        attachment: &Attachment,
        accepted: Naming,
    ) -> Option<(FileReader, Naming)> {
        if !self.has_cache() {
            return None;
        }
        let encrypted_first = accepted == Naming::Envelope;
        let found = self.cache.open(attachment, encrypted_first).map(|(file, name)| (file, naming(&name)));
        // It was stored before encryption was switched on.
        found.filter(|(_, naming)| !(encrypted_first && *naming == Naming::Clear))
    }

    /// The path of an attachment's file, for messages.
    pub(crate) fn path(&self, attachment: &Attachment, cached: bool) -> String {
        let [encrypted, clear] = both(attachment).map(|name| match cached {
            true => self.cache.path(&name),
            false => self.pending.path(&name),
        });
        (if encrypted.exists() { encrypted } else { clear }).display().to_string()
    }

    /// Deletes the files of an attachment.
    ///
    /// # Errors
    ///
    /// If one of them may still exist, or return after a power failure.
    pub(crate) fn remove(&self, attachment: &Attachment) -> Result<(), StorageError> {
        let mut result = Ok(());
        for name in both(attachment) {
            // Also a file that is not in the queue: it would be uploaded after the next start.
            let removed = self.pending.remove(&name).and(self.pending.remove_quarantined(&name));
            result = removed.and(result);
            self.queue.forget(&name);
        }
        let cached = self.cache.remove(attachment).map_err(|error| {
            let path = self.cache.path(&StoredName { attachment: *attachment, encrypted: false });
            file_error(Operation::Remove, &path, &error)
        });
        result.and(cached).and(self.pending.sync_removal(attachment))
    }

    /// Evicts about `bytes` from the cache, because the disk is full. Returns how many bytes were freed.
    pub fn make_room(&self, bytes: u64) -> u64 {
        self.cache.make_room(bytes.saturating_add(SPARE))
    }

    /// Fails if the cache has no room for an attachment of `size` bytes.
    pub(crate) fn expect_room(&self, size: u64) -> Result<(), Cause> {
        if size > self.options.max_cache {
            return Err(Cause::NotAcceptable(
                "the attachment is larger than the cache (MaxCacheMB)".to_owned(),
            ));
        }
        let free = fs4::available_space(self.state.folder()).unwrap_or(u64::MAX);
        if free < self.options.keep_free.saturating_add(size) { Err(Cause::DiskFull) } else { Ok(()) }
    }

    /// Adds an attachment that is in the bucket to the cache. Blocks.
    ///
    /// # Errors
    ///
    /// Why it is not in the cache.
    pub(crate) fn keep_whole(
        &self,
        attachment: &Attachment,
        encrypted: bool,
        content: &[u8],
    ) -> Result<(), String> {
        let name = StoredName { attachment: *attachment, encrypted };
        let writer = self.cache.begin(&name, content.len() as u64);
        let mut writer = writer.ok_or("the cache does not take the attachment")?;
        writer.write(content);
        if writer.commit() { Ok(()) } else { Err("the cache cannot be written to".to_owned()) }
    }

    /// The cached files of an attachment, with their first `length` bytes. Does not count as a use. Blocks.
    pub(crate) fn peek_cached(&self, attachment: &Attachment, length: u64) -> Vec<StoredContent> {
        let limit = usize::try_from(length).unwrap_or(usize::MAX);
        let peek = |name: &StoredName| {
            let mut file = FileReader::open(&self.cache.path(name)).ok()?;
            let bytes = file.next(limit).ok()?.unwrap_or_default();
            Some(StoredContent { naming: naming(name), sidecar: None, bytes })
        };
        both(attachment).iter().filter_map(peek).collect()
    }

    /// Deletes the cached files of an attachment, which are not in the present form. Blocks.
    pub(crate) fn drop_cached(&self, attachment: &Attachment) {
        self.cache.drop_files(attachment);
    }

    /// Deletes the file of a cached attachment, which is damaged.
    pub fn discard_cached(&self, attachment: &Attachment) {
        self.cache.discard(attachment);
    }

    /// Ends work of threads that cannot be cancelled, since the lock of the folder lives as long as they do.
    fn stop(&self, stop: bool) {
        self.cache.stop(stop);
    }

    fn is_stopping(&self) -> bool {
        self.cache.is_stopping()
    }

    /// Uploads everything that is pending without delay, and returns when it is in the bucket or deleted. Returns how
    /// many attachments were pending.
    ///
    /// # Errors
    ///
    /// If the bucket does not work, each attachment that is left has failed once more, or one was found damaged.
    pub async fn flush(&self) -> Result<u64, NotFlushed> {
        self.all_found().await.map_err(|error| NotFlushed::Unknown { error })?;
        let damaged = || self.damaged.load(Ordering::Relaxed);
        let before = damaged();
        let snapshot = self.queue.hurry();
        loop {
            let looked = Instant::now();
            match self.queue.progress(snapshot) {
                Progress::Done if damaged() > before => {
                    return Err(NotFlushed::Damaged { files: damaged() - before });
                }
                Progress::Done => return Ok(snapshot.files),
                Progress::Failed { files, error } => return Err(NotFlushed::Pending { files, error }),
                // It takes time in proportion to what is pending, while stores wait for the queue.
                Progress::Working => tokio::time::sleep(LOOK.max(looked.elapsed() * 50)).await,
            }
        }
    }

    /// The file of an attachment that was pending and found damaged; `None` if there is none. Blocks for a moment.
    pub fn quarantined_file(&self, attachment: &Attachment) -> Option<PathBuf> {
        self.pending.quarantined_file(attachment)
    }

    /// Figures for `status` and metrics. Blocks for a moment.
    pub fn totals(&self) -> WriteBackTotals {
        let queue::Totals { files, bytes, uploading, oldest, is_outage, last_error } = self.queue.totals();
        WriteBackTotals {
            pending: files,
            pending_bytes: bytes,
            oldest,
            uploading,
            is_outage,
            last_error,
            is_counting: !self.is_complete.load(Ordering::Acquire),
            quarantined: self.pending.quarantined(),
            direct: self.direct.load(Ordering::Relaxed),
            abandoned: self.state.abandoned(),
            free: fs4::available_space(self.state.folder()).ok(),
            cache: self.cache.totals(),
        }
    }

    #[cfg(test)]
    pub(crate) fn disk(&self) -> &crate::files::Disk {
        self.pending.disk()
    }
}

/// What the name of a file says about its content.
fn naming(name: &StoredName) -> Naming {
    if name.encrypted { Naming::Envelope } else { Naming::Clear }
}

fn checksum(content: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, content)
}

#[cfg(test)]
mod tests;
