//! Ranges of content in clear.
//!
//! In the legacy structure and in files, the names of envelopes and of content in clear are the same. An envelope
//! must not be served as if it were the file, so its beginning is looked at, once for each attachment. With encryption,
//! the beginning of each attachment is looked at once (`range.rs`).

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use bucket::{Cause, Naming, ReadRange};
use crypto_envelope::RECOGNIZE_LEN;
use hybrid::Head;
use lru::LruCache;
use orthanc_ffi::Target;
use parking_lot::Mutex;
use storage_layout::Attachment;

use super::incoming::{Batch, Incoming};
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

    /// A range of an attachment that was found to be in clear although encryption is on; `None` if it was not, or was
    /// replaced since.
    pub(super) fn known_clear_range(
        &self,
        range: Range<u64>,
        target: &mut Target<'_>,
    ) -> Result<Option<u64>, ReadError> {
        if !self.clear.0.lock().contains(&self.attachment) {
            return Ok(None);
        }
        match self.download(&ReadRange::Range(range)) {
            Ok((incoming, first)) if self.is_clear(&first.head) => {
                self.size.set(Some(first.head.size));
                return self.fill(target, first, incoming).map(Some);
            }
            Ok(_) => {}
            Err(error) if error.cause == Cause::OutOfRange => {}
            Err(error) => return Err(error.into()),
        }
        self.clear.0.lock().pop(&self.attachment);
        Ok(None)
    }

    /// A range of content that turned out to be in clear although encryption is on. `first` and `incoming` are a download
    /// of its beginning.
    pub(super) fn unknown_clear_range(
        &self,
        range: Range<u64>,
        target: &mut Target<'_>,
        first: Batch,
        incoming: Incoming,
    ) -> Result<u64, ReadError> {
        let beginning = Arc::clone(&first.head);
        self.size.set(Some(beginning.size));
        self.clear.0.lock().put(self.attachment, Arc::clone(&beginning));
        if range.start >= beginning.range.start && range.end <= beginning.range.end {
            return self.fill_part(target, first, incoming, &range);
        }
        drop(incoming);
        let (incoming, again) = self.download(&ReadRange::Range(range))?;
        // The bytes returned must be of the object found to be in clear, not of an envelope that has replaced it.
        self.expect_same(&beginning, &again.head)?;
        self.fill(target, again, incoming)
    }

    /// Whether this is content in clear, by its name or since its beginning was looked at.
    fn is_clear(&self, head: &Head) -> bool {
        head.naming == Naming::Clear || (head.naming == Naming::Either && self.is_known_clear(head))
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
