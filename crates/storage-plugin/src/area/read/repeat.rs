//! Downloads that are repeated because their bytes may have been damaged on the way.
//!
//! What is wrong with them is found by the server's checksum of the object, by the header and the tags of an envelope, or by
//! the padding of a blob of the earlier plugin for Azure Key Vault. Each read is repeated once, from its first byte, and
//! only if the bytes came from the bucket.

use hybrid::Side;

use super::{ReadError, Reading};

impl Reading<'_> {
    /// Whether to repeat a read that failed with `error`, which is the first such error of this read.
    pub(super) fn repeats(&self, error: &ReadError) -> bool {
        let is_from_bucket = self.side.get() == Side::ObjectStorage;
        let may_be_damaged = error.is_wrong_checksum() || (is_from_bucket && error.may_be_due_to_damage());
        if !may_be_damaged || self.is_repeated() {
            return false;
        }
        tracing::info!("{error}; it may have been damaged on the way: reading it once more");
        self.storage.objects().count_retry();
        // A damaged beginning of an envelope looks like content in clear.
        self.clear.forget(&self.attachment);
        self.repeated.replace(Some(error.to_string()));
        true
    }

    /// Whether the read was repeated, so that a second download was as wrong as the first one if it failed.
    pub(crate) fn is_repeated(&self) -> bool {
        self.repeated.borrow().is_some()
    }

    /// Reports that a repeated read has succeeded: the bytes of the first download were damaged on the way.
    pub(super) fn report_repeated(&self) {
        if let Some(error) = self.repeated.take() {
            self.storage.objects().report_damaged_answer(&error);
        }
    }
}
