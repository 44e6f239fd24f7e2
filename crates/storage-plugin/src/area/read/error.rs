//! Why an attachment could not be read.

use std::ops::Range;

use bucket::{Cause, StorageError};
use crypto_envelope::DecryptError;
use orthanc_ffi::{ErrorCode, TargetOverflow};

use crate::area::encryption::{OpenError, UnacceptableForm};

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
    /// The data key could not be unwrapped by a key service.
    #[error("cannot read {object}: {cause}")]
    Key { object: String, cause: OpenError },
    /// An error about the key, of an attachment that an earlier read has downloaded twice because of such an error.
    #[error(transparent)]
    KeyAgain(Box<ReadError>),
    /// The content has a form that is not accepted.
    #[error("cannot read {object}: {cause}")]
    Form { object: String, cause: UnacceptableForm },
    /// The attachment is shorter than the requested range.
    #[error(
        "cannot read bytes {} to {} (exclusive) of {object}, which has {}; if Orthanc's index says more, it was truncated",
        range.start, range.end, match size { Some(size) => format!("{size} bytes"), None => "fewer".to_owned() },
    )]
    OutOfRange {
        object: String,
        range: Range<u64>,
        /// `None` if it could not be found out.
        size: Option<u64>,
    },
    /// There is more content than Orthanc's buffer holds.
    #[error("cannot read {object}: {cause}")]
    Overflow { object: String, cause: TargetOverflow },
    /// There is not enough memory, or the server reports an absurd size.
    #[error("cannot read an attachment of {0} bytes: Orthanc is out of memory")]
    NoMemory(u64, ErrorCode),
}

impl ReadError {
    /// Whether there is no such object or file.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Storage(error) if error.cause == Cause::NotFound)
    }

    /// Whether the content does not have the server's checksum, and was not proved to be right in another way.
    pub(crate) fn is_wrong_checksum(&self) -> bool {
        matches!(self, Self::Storage(error) | Self::Interrupted(error) if matches!(error.cause, Cause::WrongChecksum(_)))
    }

    /// Whether the object may be right, and its bytes were damaged on their way. A damaged header can look like
    /// one with another key.
    pub(crate) fn may_be_due_to_damage(&self) -> bool {
        match self {
            Self::Envelope { cause, .. } => !matches!(cause, DecryptError::Range(_)),
            Self::Storage(error) | Self::Interrupted(error) => matches!(error.cause, Cause::Damaged(_)),
            Self::Form { cause, .. } => *cause == UnacceptableForm::Unencrypted,
            Self::Key { cause, .. } => match cause {
                OpenError::Decrypt(_) | OpenError::Blob(_) => true,
                // Each repetition would ask the service again, and most refusals stay.
                OpenError::Service(_) | OpenError::Stopping => false,
            },
            Self::KeyAgain(_) | Self::OutOfRange { .. } | Self::Overflow { .. } | Self::NoMemory(..) => false,
        }
    }

    /// Whether the key is missing. Such an error stays, unless a damaged header names a wrong key.
    pub(super) fn is_about_key(&self) -> bool {
        match self {
            Self::Envelope { cause, .. } | Self::Key { cause: OpenError::Decrypt(cause), .. } => {
                matches!(cause, DecryptError::UnknownKeyId(_) | DecryptError::NotUnwrapped { .. })
            }
            _ => false,
        }
    }

    /// Why the content, once found, could not be read or does not seem to be what was stored; `None` for other errors.
    pub(crate) fn damage(&self) -> Option<String> {
        match self {
            Self::Envelope { cause, .. } => Some(cause.to_string()),
            Self::Form { cause, .. } => Some(cause.to_string()),
            Self::Interrupted(error) => match &error.cause {
                Cause::Changed => None,
                Cause::Damaged(reason) => Some(reason.clone()),
                cause => Some(cause.to_string()),
            },
            // The service does not unwrap what another key has wrapped, or was altered.
            Self::Key { cause: OpenError::Service(error), .. } if !error.is_transient() => {
                Some(error.to_string())
            }
            Self::Key { cause: OpenError::Blob(error), .. } => Some(error.to_string()),
            Self::KeyAgain(error) => error.damage(),
            Self::Storage(_)
            | Self::Key { .. }
            | Self::OutOfRange { .. }
            | Self::Overflow { .. }
            | Self::NoMemory(..) => None,
        }
    }

    /// Whether the content may be right, but not with the present keys and options, or for the wanted range.
    pub(crate) fn is_about_request(&self) -> bool {
        match self {
            Self::Envelope { cause, .. } => {
                use DecryptError::{NotUnwrapped, Range, UnknownKeyId};
                matches!(cause, UnknownKeyId(_) | NotUnwrapped { .. } | Range(_))
            }
            Self::Key { .. } | Self::KeyAgain(_) => true,
            Self::Form { cause, .. } => *cause != UnacceptableForm::Unencrypted,
            _ => false,
        }
    }

    /// Whether the object itself must be damaged, if another download of it is as wrong. The messages of other errors say
    /// what to do.
    pub(crate) fn is_damage_of_object(&self) -> bool {
        match self {
            Self::Envelope { .. } => !self.is_about_request(),
            Self::Storage(error) | Self::Interrupted(error) => matches!(error.cause, Cause::Damaged(_)),
            Self::Key { cause: OpenError::Blob(_), .. } => true,
            _ => false,
        }
    }

    /// Whether the attachment is missing or damaged, which says nothing about others.
    pub(crate) fn is_about_one(&self) -> bool {
        match self {
            Self::Storage(error) | Self::Interrupted(error) => matches!(
                error.cause,
                Cause::NotFound | Cause::OutOfRange | Cause::Damaged(_) | Cause::WrongChecksum(_)
            ),
            Self::OutOfRange { .. } | Self::Overflow { .. } => true,
            _ => self.is_damage_of_object(),
        }
    }

    /// Whether a move may have taken the attachment to the other place during the read, or a re-encryption may have replaced
    /// its object.
    pub(crate) fn may_be_due_to_a_move(&self) -> bool {
        match self {
            Self::Interrupted(error) => matches!(error.cause, Cause::NotFound | Cause::Changed),
            // A small object is read to its end before its first bytes are used.
            Self::Storage(error) => error.cause == Cause::Changed,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use bucket::Operation;
    use crypto_envelope::Service;

    use super::*;

    #[test]
    fn missing_or_damaged_attachment_says_nothing_about_others() {
        let storage = |cause| StorageError::new(Operation::Read, "object", cause);
        let envelope = |cause| ReadError::Envelope { object: "object".to_owned(), cause };
        let about_one = [
            ReadError::Storage(storage(Cause::NotFound)),
            ReadError::Storage(storage(Cause::WrongChecksum("MD5"))),
            ReadError::Interrupted(storage(Cause::Damaged("REASON".to_owned()))),
            envelope(DecryptError::A1NotAuthentic { key_id: 1 }),
            ReadError::OutOfRange { object: "object".to_owned(), range: 0..9, size: None },
        ];
        assert!(about_one.iter().all(ReadError::is_about_one), "{about_one:?}");
        let others = [
            ReadError::Storage(storage(Cause::Stopping)),
            envelope(DecryptError::NotUnwrapped { service: Service::AwsKms, key: String::new() }),
            ReadError::Form { object: "object".to_owned(), cause: UnacceptableForm::Unencrypted },
        ];
        assert!(!others.iter().any(ReadError::is_about_one), "{others:?}");
    }
}
