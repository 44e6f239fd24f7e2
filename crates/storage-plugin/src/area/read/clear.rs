//! Ranges of content in clear while encryption is off.
//!
//! In the legacy structure and in files, the names of envelopes and of content in clear are the same. An envelope
//! must not be served as if it were the file, so its beginning is looked at, once for each attachment.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use bucket::{Naming, ReadRange};
use crypto_envelope::RECOGNIZE_LEN;
use hybrid::Head;
use lru::LruCache;
use orthanc_ffi::Target;
use parking_lot::Mutex;
use storage_layout::Attachment;

use super::incoming::Batch;
use super::{ReadError, Reading};

/// Number of remembered attachments, a few hundred bytes each.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Attachments that were found to be in clear, with the version of the object or file.
#[derive(Debug)]
pub(crate) struct KnownClear(Mutex<LruCache<Attachment, Arc<Head>>>);

impl Default for KnownClear {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl Reading<'_> {
    pub(super) fn clear_range(&self, range: Range<u64>, target: &mut Target<'_>) -> Result<u64, ReadError> {
        let (incoming, first) = self.download(&ReadRange::Range(range))?;
        if first.head.naming == Naming::Either && !self.is_known_clear(&first) {
            self.expect_clear(&first)?;
            self.clear.0.lock().put(self.attachment, Arc::clone(&first.head));
        }
        self.size.set(Some(first.head.size));
        self.fill(target, first, incoming)
    }

    fn is_known_clear(&self, first: &Batch) -> bool {
        self.clear.0.lock().get(&self.attachment).is_some_and(|known| known.is_same(&first.head))
    }

    /// Fails if the object or file of `first` is an envelope. Takes another download if `first` does not have
    /// its beginning.
    fn expect_clear(&self, first: &Batch) -> Result<(), ReadError> {
        let Range { start, end } = first.head.range;
        if start == 0 && (end >= RECOGNIZE_LEN as u64 || end == first.head.size) {
            return self.form(first).map(drop);
        }
        let (_incoming, beginning) = self.download(&ReadRange::UpTo(0..RECOGNIZE_LEN as u64))?;
        self.expect_same(&first.head, &beginning.head)?;
        self.form(&beginning).map(drop)
    }
}
