//! Encrypts attachments, and remembers the headers of envelopes that were read.

use bytes::Bytes;
use crypto_envelope::{A2Opener, DecryptError, EncryptError, Format, KeyRing, encrypt};
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::sync::Arc;
use storage_layout::Attachment;

use super::memory_budget::MemoryBudget;
use crate::config::EncryptionOptions;

/// Number of remembered headers, a few hundred bytes each. A range of a known object then takes one request.
const OPENERS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Keys, format and memory budget for encryption and decryption.
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
    /// Size of the object, in bytes.
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

    /// Encrypts an attachment into a new buffer.
    pub(crate) fn seal(&self, attachment: &Attachment, content: &[u8]) -> Result<Bytes, EncryptError> {
        let _guard = self.budget.acquire(content.len() as u64);
        encrypt(&self.ring, self.format, attachment.uuid.as_str(), content).map(Bytes::from)
    }

    /// Runs `decrypt` on `bytes` bytes under the memory budget. `decrypt` must not block on the network, or
    /// requests holding budget could deadlock with requests holding connections.
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
