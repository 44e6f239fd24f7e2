//! Ranges of content in clear.
//!
//! In the legacy structure and in files, the names of envelopes and of content in clear are the same. An envelope
//! must not be served as if it were the file, so its beginning is looked at, once for each attachment. With encryption,
//! the beginning of each attachment is looked at (`range.rs`), twice if its name says nothing.

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

/// How often the beginning of content whose name says nothing is looked at with encryption, before it is no longer looked
/// at: the beginning of an envelope that was damaged on the way looks like content in clear.
const LOOKS: u8 = 2;

/// Attachments that were found to be in clear.
#[derive(Debug)]
pub(crate) struct KnownClear(Mutex<LruCache<Attachment, Found>>);

/// An object or file that was found to be in clear.
#[derive(Debug)]
struct Found {
    head: Arc<Head>,
    /// How many reads have looked at its beginning.
    looks: u8,
}

impl Default for KnownClear {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl KnownClear {
    /// Notes that a read has found this object or file to be in clear, and has succeeded.
    fn note(&self, attachment: Attachment, head: Arc<Head>) {
        let mut known = self.0.lock();
        let before =
            known.pop(&attachment).filter(|found| found.head.is_same(&head)).map_or(0, |found| found.looks);
        let looks = if head.naming == Naming::Clear { LOOKS } else { before.saturating_add(1) };
        known.put(attachment, Found { head, looks });
    }

    /// Forgets what was found, which may have been due to damage.
    pub(super) fn forget(&self, attachment: &Attachment) {
        self.0.lock().pop(attachment);
    }

    /// How many reads have looked at the beginning of the attachment.
    fn looks(&self, attachment: &Attachment) -> u8 {
        self.0.lock().get(attachment).map_or(0, |found| found.looks)
    }

    fn has(&self, attachment: &Attachment, head: &Head) -> bool {
        self.0.lock().get(attachment).is_some_and(|found| found.head.is_same(head))
    }
}

impl Reading<'_> {
    pub(super) fn clear_range(&self, range: Range<u64>, target: &mut Target<'_>) -> Result<u64, ReadError> {
        let wanted = ReadRange::Range(range.clone());
        let has_beginning = range.start == 0 && range.end >= RECOGNIZE_LEN as u64;
        let names_say_nothing = self.storage.objects().naming() == Naming::Either;
        let mut found = None;
        if names_say_nothing && !has_beginning && self.clear.looks(&self.attachment) == 0 {
            found = Some(self.look_at_beginning()?);
        }
        let (mut incoming, mut first) = self.download(&wanted)?;
        let is_found =
            |found: &Option<Arc<Head>>, head: &Head| found.as_ref().is_some_and(|found| found.is_same(head));
        if first.head.naming == Naming::Either
            && !self.clear.has(&self.attachment, &first.head)
            && !is_found(&found, &first.head)
        {
            if has_beginning {
                self.form(&first)?;
                found = Some(Arc::clone(&first.head));
            } else {
                // A download that waits for another one must not hold a connection.
                drop(incoming);
                let beginning = self.look_at_beginning()?;
                (incoming, first) = self.download(&wanted)?;
                self.expect_same(&beginning, &first.head)?;
                found = Some(beginning);
            }
        }
        if first.head.naming == Naming::KeyVault {
            self.form(&first)?;
        }
        self.size.set(Some(first.head.size));
        let bytes = self.fill(target, first, incoming)?;
        if let Some(found) = found {
            self.clear.note(self.attachment, found);
        }
        Ok(bytes)
    }

    /// A range of an attachment that was found to be in clear although encryption is on; `None` if it was not, or was
    /// replaced since.
    pub(super) fn known_clear_range(
        &self,
        range: Range<u64>,
        target: &mut Target<'_>,
    ) -> Result<Option<u64>, ReadError> {
        if self.clear.looks(&self.attachment) < LOOKS {
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
        self.clear.forget(&self.attachment);
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
        let bytes = if range.start >= beginning.range.start && range.end <= beginning.range.end {
            self.fill_part(target, first, incoming, &range)?
        } else {
            drop(incoming);
            let (incoming, again) = self.download(&ReadRange::Range(range))?;
            // The bytes returned must be of the object found to be in clear, not of an envelope that has replaced it.
            self.expect_same(&beginning, &again.head)?;
            self.fill(target, again, incoming)?
        };
        self.clear.note(self.attachment, beginning);
        Ok(bytes)
    }

    /// Whether this is content in clear, by its name or since its beginning was looked at.
    fn is_clear(&self, head: &Head) -> bool {
        head.naming == Naming::Clear
            || (head.naming == Naming::Either && self.clear.has(&self.attachment, head))
    }

    /// Returns the beginning of the attachment. Fails if it is an envelope.
    fn look_at_beginning(&self) -> Result<Arc<Head>, ReadError> {
        let (_incoming, beginning) = self.download(&ReadRange::UpTo(0..RECOGNIZE_LEN as u64))?;
        self.form(&beginning)?;
        Ok(beginning.head)
    }
}
