//! Attachments to envelopes and back, on Orthanc's threads.

use bytes::Bytes;
use crypto_envelope::{A2Opener, DecryptError, EncryptError, Format, KeyRing, encrypt};
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::sync::Arc;
use storage_layout::Attachment;

use super::memory_budget::MemoryBudget;
use crate::config::EncryptionOptions;

/// Headers that are remembered, a few hundred bytes each: a range of a known object is then one request.
const OPENERS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// What is needed to encrypt and decrypt.
#[derive(Debug)]
pub(crate) struct Encryption {
    ring: KeyRing,
    format: Format,
    budget: MemoryBudget,
    openers: Mutex<LruCache<Attachment, KnownEnvelope>>,
}

/// An A2 envelope whose header has been read.
#[derive(Debug, Clone)]
pub(crate) struct KnownEnvelope {
    pub(crate) opener: Arc<A2Opener>,
    /// The size of the object, in bytes.
    pub(crate) size: u64,
}

impl Encryption {
    pub(crate) fn new(options: EncryptionOptions) -> Self {
        let EncryptionOptions { ring, format, memory, read_unencrypted: _ } = options;
        Self { ring, format, budget: MemoryBudget::new(memory), openers: Mutex::new(LruCache::new(OPENERS)) }
    }

    pub(crate) fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// Encrypts an attachment into a buffer of its own.
    pub(crate) fn seal(&self, attachment: &Attachment, content: &[u8]) -> Result<Bytes, EncryptError> {
        let _guard = self.budget.acquire(content.len() as u64);
        encrypt(&self.ring, self.format, attachment.uuid.as_str(), content).map(Bytes::from)
    }

    /// Lets `decrypt` work on so many bytes, when its turn has come. It must not wait for anything: nobody who waits
    /// for a connection may hold what others with a connection wait for.
    pub(crate) fn within_budget(
        &self,
        bytes: u64,
        decrypt: impl FnOnce() -> Result<(), DecryptError>,
    ) -> Result<(), DecryptError> {
        let _guard = self.budget.acquire(bytes);
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
