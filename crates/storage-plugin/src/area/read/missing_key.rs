//! Attachments whose key is missing.
//!
//! A damaged header can name a wrong key, so such a read is repeated (`repeat.rs`). If the second download needs the same key,
//! the header is right, and later reads of the attachment are not repeated because of their key.

use super::{ReadError, Reading};

impl Reading<'_> {
    /// Calls `attempts` with `read`. Notes whether the key of the attachment is missing.
    pub(super) fn noting_missing_key<R>(
        &self,
        mut read: R,
        attempts: impl FnOnce(&mut dyn FnMut() -> Result<u64, ReadError>) -> Result<u64, ReadError>,
    ) -> Result<u64, ReadError>
    where
        R: FnMut() -> Result<u64, ReadError>,
    {
        let Some(encryption) = self.encryption else { return attempts(&mut read) };
        let was_missing = encryption.is_without_key(&self.attachment);
        let result = attempts(&mut || {
            read().map_err(|error| match was_missing && error.is_about_key() {
                true => ReadError::KeyAgain(Box::new(error)),
                false => error,
            })
        });
        match &result {
            Ok(_) if was_missing => encryption.note_key(&self.attachment),
            Err(error) if self.is_repeated() && error.is_about_key() => {
                encryption.note_missing_key(&self.attachment);
            }
            _ => {}
        }
        result
    }
}
