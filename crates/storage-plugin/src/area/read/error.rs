//! Why an attachment could not be read.

use bucket::{Cause, StorageError};
use crypto_envelope::DecryptError;
use orthanc_ffi::{ErrorCode, TargetOverflow};

/// A failed read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The object or file could not be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The read failed after its first bytes.
    #[error(transparent)]
    Interrupted(StorageError),
    /// The content could be read, but not decrypted.
    #[error("cannot read {object}: {cause}")]
    Envelope { object: String, cause: DecryptError },
    /// The content is in clear, which is not accepted.
    #[error("cannot read {object}: the content is not encrypted, and ReadUnencrypted is false")]
    Unencrypted { object: String },
    /// There is more content than Orthanc's buffer holds.
    #[error("cannot read {object}: {cause}")]
    Overflow { object: String, cause: TargetOverflow },
    /// Orthanc could not allocate memory.
    #[error("cannot read an attachment of {0} bytes: Orthanc is out of memory")]
    NoMemory(u64, ErrorCode),
}

impl ReadError {
    /// Whether a move may have taken the attachment to the other place during the read.
    pub(crate) fn may_be_due_to_a_move(&self) -> bool {
        matches!(self, Self::Interrupted(error) if matches!(error.cause, Cause::NotFound | Cause::Changed))
    }
}
