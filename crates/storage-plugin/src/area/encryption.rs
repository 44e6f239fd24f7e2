//! Encrypts attachments, decides which form of content is accepted, and remembers the headers of envelopes that
//! were read.

use bucket::{Naming, ObjectStorage};
use bytes::Bytes;
use crypto_envelope::{
    A2Opener, DecryptError, EncryptError, EnvelopeHeader, Format, KeyRing, encrypt, identify, recognize,
};
use hybrid::{MemoryBudget, MemoryPermit};
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::sync::Arc;
use storage_layout::Attachment;

use super::keys::KeyCheck;
use crate::config::EncryptionOptions;
use crate::runtime::Runtime;

/// Number of remembered headers, a few hundred bytes each. A range of a known object then takes one request.
const OPENERS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Keys, formats and memory budgets for encryption and decryption.
#[derive(Debug)]
pub(crate) struct Encryption {
    /// The comparison of the keys with the bucket.
    pub(crate) keys: Arc<KeyCheck>,
    ring: KeyRing,
    format: Format,
    read_formats: Vec<Format>,
    /// Held by an upload until it has ended.
    uploads: MemoryBudget,
    /// Held while bytes are decrypted, never while waiting for the network.
    decryption: MemoryBudget,
    openers: Mutex<LruCache<Attachment, KnownEnvelope>>,
}

/// An A2 envelope whose header has been read.
#[derive(Debug, Clone)]
pub(crate) struct KnownEnvelope {
    pub(crate) opener: Arc<A2Opener>,
    /// Size of the object, in bytes.
    pub(crate) size: u64,
}

/// The form of stored content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Clear,
    Envelope(Format),
}

/// Why content must not be used, although it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnacceptableForm {
    /// An envelope served as if it were the file would look like a damaged file.
    #[error(
        "the content is an {} envelope under master key {}, and client-side encryption is off; set StorageEncryption \
         with this key",
        .0.format, .0.key_id
    )]
    Encrypted(EnvelopeHeader),
    #[error("the content is an {0} envelope, and ReadFormats does not contain {0}")]
    Format(Format),
    #[error("the content is not encrypted, and ReadUnencrypted is false")]
    Unencrypted,
}

/// Returns the form of content that begins with `start`, at least [`RECOGNIZE_LEN`](crypto_envelope::RECOGNIZE_LEN)
/// bytes or all. Its name decides, or its first bytes if the name does not say.
pub(crate) fn form(
    encryption: Option<&Encryption>,
    naming: Naming,
    start: &[u8],
) -> Result<Form, UnacceptableForm> {
    let header = match naming {
        Naming::Clear => None,
        Naming::Either => recognize(start, encryption.map(Encryption::ring)),
        Naming::Envelope => Some(identify(start).ok_or(UnacceptableForm::Unencrypted)?),
    };
    match (header, encryption) {
        (None, _) => Ok(Form::Clear),
        (Some(header), None) => Err(UnacceptableForm::Encrypted(header)),
        (Some(header), Some(encryption)) if encryption.read_formats.contains(&header.format) => {
            Ok(Form::Envelope(header.format))
        }
        (Some(header), Some(_)) => Err(UnacceptableForm::Format(header.format)),
    }
}

impl Encryption {
    /// Encryption of the attachments in `objects`, with whose keys those of `options` are to be compared.
    pub(crate) fn new(options: EncryptionOptions, objects: ObjectStorage) -> Self {
        let EncryptionOptions { ring, format, read_formats, memory, read_unencrypted: _ } = options;
        Self {
            keys: Arc::new(KeyCheck::new(objects, ring.clone())),
            ring,
            format,
            read_formats,
            uploads: MemoryBudget::new(memory),
            decryption: MemoryBudget::new(memory),
            openers: Mutex::new(LruCache::new(OPENERS)),
        }
    }

    pub(crate) fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// Encrypts an attachment into a new buffer. The caller limits the memory.
    pub(crate) fn seal(&self, attachment: &Attachment, content: &[u8]) -> Result<Bytes, EncryptError> {
        encrypt(&self.ring, self.format, attachment.uuid.as_str(), content).map(Bytes::from)
    }

    /// Blocks until an upload of `bytes` may have its encrypted copy in memory; `None` if Orthanc stops meanwhile.
    /// The permit is to be held until the upload has ended. Decryption has a budget of its own: downloads that
    /// hold all connections while they wait for memory, and uploads that hold all memory while they wait for
    /// connections, would block each other.
    pub(crate) fn reserve_upload(&self, runtime: &Runtime, bytes: u64) -> Option<MemoryPermit> {
        let uploads = self.uploads.clone();
        let wait = || runtime.run_with_grace(async move { uploads.acquire(bytes).await });
        self.uploads.try_acquire(bytes).or_else(wait)
    }

    /// Runs `decrypt` on `bytes` bytes under the memory budget. `decrypt` must not block on the network.
    pub(crate) fn within_budget(
        &self,
        runtime: &Runtime,
        bytes: u64,
        decrypt: impl FnOnce() -> Result<(), DecryptError>,
    ) -> Result<(), DecryptError> {
        let budget = self.decryption.clone();
        let wait = || runtime.run(async move { budget.acquire(bytes).await });
        let _permit = self.decryption.try_acquire(bytes).unwrap_or_else(wait);
        decrypt()
    }

    pub(crate) fn known(&self, attachment: &Attachment) -> Option<KnownEnvelope> {
        self.openers.lock().get(attachment).cloned()
    }

    pub(crate) fn remember(&self, attachment: &Attachment, opener: &Arc<A2Opener>, size: u64) {
        let known = KnownEnvelope { opener: Arc::clone(opener), size };
        self.openers.lock().put(*attachment, known);
    }

    pub(crate) fn forget(&self, attachment: &Attachment) {
        self.openers.lock().pop(attachment);
    }
}
