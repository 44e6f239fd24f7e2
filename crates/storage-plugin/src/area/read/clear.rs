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
        let wanted = ReadRange::Range(range.clone());
        let has_beginning = range.start == 0 && range.end >= RECOGNIZE_LEN as u64;
        let names_say_nothing = self.storage.objects().naming() == Naming::Either;
        if names_say_nothing && !has_beginning && !self.clear.0.lock().contains(&self.attachment) {
            self.look_at_beginning()?;
        }
        let (mut incoming, mut first) = self.download(&wanted)?;
        if first.head.naming == Naming::Either && !self.is_known_clear(&first.head) {
            if has_beginning {
                self.expect_clear(&first)?;
            } else {
                // A download that waits for another one must not hold a connection.
                drop(incoming);
                let beginning = self.look_at_beginning()?;
                (incoming, first) = self.download(&wanted)?;
                self.expect_same(&beginning, &first.head)?;
            }
        }
        if first.head.naming == Naming::KeyVault {
            self.form(&first)?;
        }
        self.size.set(Some(first.head.size));
        self.fill(target, first, incoming)
    }

    fn is_known_clear(&self, head: &Head) -> bool {
        self.clear.0.lock().get(&self.attachment).is_some_and(|known| known.is_same(head))
    }

    /// Fails if the attachment is an envelope.
    fn look_at_beginning(&self) -> Result<Arc<Head>, ReadError> {
        let (_incoming, beginning) = self.download(&ReadRange::UpTo(0..RECOGNIZE_LEN as u64))?;
        self.expect_clear(&beginning)?;
        Ok(beginning.head)
    }

    /// Fails if `first`, the beginning of the attachment, is that of an envelope. Remembers that it is not.
    fn expect_clear(&self, first: &Batch) -> Result<(), ReadError> {
        self.form(first)?;
        self.clear.0.lock().put(self.attachment, Arc::clone(&first.head));
        Ok(())
    }
}
