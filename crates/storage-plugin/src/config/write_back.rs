//! `WriteBack`: attachments on the disk on their way to the bucket, and the cache.

use std::time::Duration;

use hybrid::WriteBackOptions;

use super::{ConfigError, Section};

/// The section, and the value of `HybridMode` that it belongs to.
pub(crate) const WRITE_BACK: &str = "WriteBack";

const MEGABYTE: u64 = 1024 * 1024;
/// A million terabytes.
const MAX_MEGABYTES: u64 = 1 << 40;
/// A day, in seconds.
const LONGEST_DELAY: u64 = 24 * 60 * 60;
const MAX_UPLOADS: u64 = 64;

/// Reads the section; all options have defaults. `None` if there is no section.
pub(super) fn read(section: &mut Section<'_>) -> Result<Option<WriteBackOptions>, ConfigError> {
    section.subsection(WRITE_BACK, |section| {
        let WriteBackOptions { max_cache, keep_free, max_pending, upload_delay, uploads, cache_reads } =
            WriteBackOptions::default();
        let mut megabytes = |option, default: u64| {
            Ok(section.number(option, default / MEGABYTE, 0..=MAX_MEGABYTES)? * MEGABYTE)
        };
        let max_cache = megabytes("MaxCacheMB", max_cache)?;
        let keep_free = megabytes("KeepFreeMB", keep_free)?;
        let max_pending = megabytes("MaxPendingMB", max_pending)?;
        let delay = section.number("UploadDelay", upload_delay.as_secs(), 0..=LONGEST_DELAY)?;
        let at_once = section.number("Uploads", uploads as u64, 1..=MAX_UPLOADS)?;
        Ok(WriteBackOptions {
            max_cache,
            keep_free,
            max_pending,
            upload_delay: Duration::from_secs(delay),
            uploads: usize::try_from(at_once).unwrap_or(uploads),
            cache_reads: section.flag("CacheReads", cache_reads)?,
        })
    })
}
