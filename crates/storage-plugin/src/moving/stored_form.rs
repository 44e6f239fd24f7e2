//! The form in which moves store attachments, as the configuration says.

use bucket::Naming;
use bytes::Bytes;
use crypto_envelope::{decrypt, identify};
use hybrid::{StoredContent, StoredForm};
use storage_layout::Attachment;

use crate::area::encryption::Encryption;

/// Without client-side encryption, content is stored unchanged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unchanged;

impl StoredForm for Unchanged {
    fn to_store(&self, _: &Attachment, content: StoredContent) -> Result<Bytes, String> {
        Ok(content.bytes)
    }

    fn is_same(&self, _: &Attachment, _: &StoredContent, _: &StoredContent) -> bool {
        false
    }
}

/// With encryption, envelopes are stored unchanged, whatever their format and key, and content in clear is
/// encrypted.
impl StoredForm for Encryption {
    fn to_store(&self, attachment: &Attachment, content: StoredContent) -> Result<Bytes, String> {
        let StoredContent { naming, bytes } = content;
        match (naming, identify(&bytes)) {
            (Naming::Envelope, Some(_)) => Ok(bytes),
            // Content in clear that only begins like an envelope must not be stored as one.
            (Naming::Either, Some(_)) => match decrypt(self.ring(), attachment.uuid.as_str(), &bytes) {
                Ok(_) => Ok(bytes),
                Err(error) => Err(format!("the content looks encrypted but cannot be decrypted: {error}")),
            },
            (Naming::Clear, _) | (Naming::Either, None) => {
                self.seal(attachment, &bytes).map_err(|error| error.to_string())
            }
            (Naming::Envelope, None) => {
                Err("the content is not encrypted, and ReadUnencrypted is false".to_owned())
            }
        }
    }

    fn is_same(&self, attachment: &Attachment, one: &StoredContent, other: &StoredContent) -> bool {
        self.plaintext(attachment, one).is_some_and(|one| self.plaintext(attachment, other) == Some(one))
    }
}

impl Encryption {
    /// `None` if the content cannot be decrypted, or is in clear and must not be.
    fn plaintext(&self, attachment: &Attachment, content: &StoredContent) -> Option<Vec<u8>> {
        match (content.naming, identify(&content.bytes)) {
            (Naming::Envelope | Naming::Either, Some(_)) => {
                decrypt(self.ring(), attachment.uuid.as_str(), &content.bytes).ok()
            }
            (Naming::Clear, _) | (Naming::Either, None) => Some(content.bytes.to_vec()),
            (Naming::Envelope, None) => None,
        }
    }
}
