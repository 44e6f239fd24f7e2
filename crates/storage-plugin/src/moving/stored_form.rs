//! What the configuration says of how attachments lie in a storage, for those that move.

use bucket::Naming;
use bytes::Bytes;
use crypto_envelope::{decrypt, identify};
use hybrid::StoredForm;
use storage_layout::Attachment;

use crate::area::encryption::Encryption;

/// Without client-side encryption: as they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AsItIs;

impl StoredForm for AsItIs {
    fn to_store(&self, _: &Attachment, _: Naming, content: Bytes) -> Result<Bytes, String> {
        Ok(content)
    }

    fn is_same(&self, _: &Attachment, _: (Naming, &[u8]), _: (Naming, &[u8])) -> bool {
        false
    }
}

/// With encryption: what is encrypted stays as it is, whatever its format and key, and what is not is encrypted.
impl StoredForm for Encryption {
    fn to_store(&self, attachment: &Attachment, naming: Naming, content: Bytes) -> Result<Bytes, String> {
        match (naming, identify(&content)) {
            (Naming::Envelope, Some(_)) => Ok(content),
            // What merely begins like an envelope must not go to the bucket as one.
            (Naming::Either, Some(_)) => match decrypt(self.ring(), attachment.uuid.as_str(), &content) {
                Ok(_) => Ok(content),
                Err(error) => Err(format!("it seems to be encrypted, and cannot be decrypted: {error}")),
            },
            (Naming::Clear, _) | (Naming::Either, None) => {
                self.seal(attachment, &content).map_err(|error| error.to_string())
            }
            (Naming::Envelope, None) => Err("it is not encrypted, and ReadUnencrypted is off".to_owned()),
        }
    }

    fn is_same(&self, attachment: &Attachment, one: (Naming, &[u8]), other: (Naming, &[u8])) -> bool {
        let plaintext = |(naming, content)| self.plaintext(attachment, naming, content);
        plaintext(one).is_some_and(|one| plaintext(other) == Some(one))
    }
}

impl Encryption {
    /// `None` where the content cannot be decrypted or must not be clear.
    fn plaintext(&self, attachment: &Attachment, naming: Naming, content: &[u8]) -> Option<Vec<u8>> {
        match (naming, identify(content)) {
            (Naming::Envelope | Naming::Either, Some(_)) => {
                decrypt(self.ring(), attachment.uuid.as_str(), content).ok()
            }
            (Naming::Clear, _) | (Naming::Either, None) => Some(content.to_vec()),
            (Naming::Envelope, None) => None,
        }
    }
}
