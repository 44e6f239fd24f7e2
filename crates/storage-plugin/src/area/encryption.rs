//! Encrypts attachments, decides which form of content is accepted, and remembers the headers of envelopes that
//! were read.

use bucket::{Naming, ObjectStorage, Payload};
use bytes::Bytes;
use crypto_envelope::{
    A2Envelope, A2Header, A2Opener, CbcError, CbcInfo, DecryptError, EncryptError, Encryptor, EnvelopeHeader,
    Format, KeyRing, KeyServiceError, KeyWrap, Service, WrappedFileKey, decrypt, encrypt,
    encrypt_a2_with_file_key, identify, recognize,
};
use hybrid::{Head, MemoryBudget, MemoryPermit};
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use storage_layout::Attachment;
use tokio::runtime::Handle;

use super::keys::KeyCheck;
use super::sealed;
use crate::config::EncryptionOptions;
use crate::jobs;
use crate::runtime::Runtime;
use crate::stop::Stop;

/// Number of remembered attachments, a few hundred bytes each. A range of a known object takes one request.
const KNOWN: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

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
    known: Mutex<LruCache<Attachment, Known>>,
    /// Attachments whose key was missing in two downloads.
    without_key: Mutex<LruCache<Attachment, ()>>,
    /// Ends the wait for a key service.
    stop: Stop,
    /// Whether new attachments are encrypted. If not, those are read that were encrypted before.
    writes: bool,
}

/// What is known of an attachment that was read before.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    /// It is an A2 envelope.
    Segments(KnownEnvelope),
    /// It is in a form that can only be read as a whole.
    Whole,
}

/// An A2 envelope whose header has been read.
#[derive(Debug, Clone)]
pub(crate) struct KnownEnvelope {
    pub(crate) opener: Arc<A2Opener>,
    /// The object or file with this header.
    pub(crate) head: Arc<Head>,
}

impl KnownEnvelope {
    /// Whether the attachment has these bytes.
    pub(crate) fn has(&self, range: Range<u64>) -> bool {
        self.opener.layout(self.head.size).is_ok_and(|layout| layout.plan(range).is_ok())
    }
}

/// Why an attachment could not be encrypted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    #[error(transparent)]
    Encrypt(#[from] EncryptError),
    #[error(transparent)]
    Service(#[from] KeyServiceError),
    #[error("Orthanc is shutting down")]
    Stopping,
}

/// Why an envelope could not be decrypted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Decrypt(#[from] DecryptError),
    #[error(transparent)]
    Blob(#[from] CbcError),
    #[error(transparent)]
    Service(#[from] KeyServiceError),
    #[error("Orthanc is shutting down")]
    Stopping,
}

/// The form of stored content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Clear,
    Envelope(Format),
    /// A blob of the earlier plugin for Azure Key Vault.
    KeyVault,
}

/// Why content must not be used, although it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnacceptableForm {
    /// An envelope served as if it were the file would look like a damaged file.
    #[error(
        "the content is an {} envelope under {}, and client-side encryption is off; set StorageEncryption with this key",
        .0.format, master_key(.0)
    )]
    Encrypted(EnvelopeHeader),
    #[error(
        "the content was encrypted by the earlier plugin for Azure Key Vault, and client-side encryption is off; set \
         StorageEncryption, or AzureKeyVault and EncryptionEnabled"
    )]
    KeyVault,
    #[error("the content is an {0} envelope, and ReadFormats does not contain {0}")]
    Format(Format),
    #[error("the content is not encrypted, and ReadUnencrypted is false")]
    Unencrypted,
}

fn master_key(header: &EnvelopeHeader) -> String {
    let of_file = || format!("master key {}", header.key_id);
    header.service.map_or_else(of_file, |service| format!("a key in {service}"))
}

/// Returns the form of content that begins with `start`, at least [`RECOGNIZE_LEN`](crypto_envelope::RECOGNIZE_LEN)
/// bytes or all. Its name decides, or its first bytes if the name does not say.
pub(crate) fn form(
    encryption: Option<&Encryption>,
    naming: Naming,
    start: &[u8],
) -> Result<Form, UnacceptableForm> {
    let header = match naming {
        Naming::KeyVault if encryption.is_some() => return Ok(Form::KeyVault),
        Naming::KeyVault => return Err(UnacceptableForm::KeyVault),
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
    /// Encryption of the attachments in `objects`, with whose keys those of `options` are to be compared. `folder` is the
    /// one that is locked in the state directory.
    pub(crate) fn new(
        options: EncryptionOptions,
        objects: ObjectStorage,
        folder: Option<PathBuf>,
        stop: Stop,
    ) -> Self {
        let EncryptionOptions { ring, format, read_formats, memory, read_unencrypted: _ } = options;
        Self {
            keys: Arc::new(KeyCheck::new(objects, ring.clone(), folder)),
            ring,
            format,
            read_formats,
            uploads: MemoryBudget::new(memory),
            decryption: MemoryBudget::new(memory),
            known: Mutex::new(LruCache::new(KNOWN)),
            without_key: Mutex::new(LruCache::new(KNOWN)),
            stop,
            writes: true,
        }
    }

    /// The same for attachments that were encrypted before encryption was switched off.
    pub(crate) fn only_reading(self) -> Self {
        Self { writes: false, ..self }
    }

    /// Whether new attachments are encrypted.
    pub(crate) fn writes(&self) -> bool {
        self.writes
    }

    pub(crate) fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// Encrypts an attachment into a new buffer. The caller limits the memory. Blocks while a key service wraps a file
    /// key, which `handle` waits for: not for tasks.
    pub(crate) fn seal(
        &self,
        handle: &Handle,
        attachment: &Attachment,
        content: &[u8],
    ) -> Result<Bytes, SealError> {
        let uuid = attachment.uuid.as_str();
        let envelope = match self.next_file_key(handle)? {
            None => encrypt(&self.ring, self.format, uuid, content)?,
            Some(key) => encrypt_a2_with_file_key(&key.wrap(), key.file_key(), uuid, content)?,
        };
        Ok(envelope.into())
    }

    /// Encrypts an attachment for an upload. Without a copy of `content`, which the payload keeps, unless it is small or must
    /// be encrypted as a whole. The caller limits the memory. Blocks like [`seal`](Self::seal).
    pub(crate) fn payload(
        &self,
        handle: &Handle,
        attachment: &Attachment,
        content: Bytes,
    ) -> Result<Payload, SealError> {
        let uuid = attachment.uuid.as_str();
        let envelope = match self.next_file_key(handle)? {
            Some(key) => A2Envelope::with_file_key(&key.wrap(), key.file_key(), uuid, content)?,
            None if self.format == Format::A2 => A2Envelope::new(&self.ring, uuid, content)?,
            None => {
                let begin = |buffer: &mut Vec<u8>| Encryptor::new(&self.ring, self.format, uuid, buffer);
                return Ok(sealed::whole(begin, &content)?);
            }
        };
        Ok(sealed::a2(envelope)?)
    }

    /// Begins to encrypt content that arrives in pieces, and that is bound to `uuid`: appends to `envelope`. Blocks like
    /// [`seal`](Self::seal).
    pub(crate) fn encryptor(
        &self,
        handle: &Handle,
        uuid: &str,
        envelope: &mut Vec<u8>,
    ) -> Result<Encryptor, SealError> {
        Ok(match self.next_file_key(handle)? {
            None => Encryptor::new(&self.ring, self.format, uuid, envelope)?,
            Some(key) => Encryptor::with_file_key(&key.wrap(), key.file_key(), uuid, envelope)?,
        })
    }

    /// Returns a file key for a new envelope, if a key service wraps them.
    fn next_file_key(&self, handle: &Handle) -> Result<Option<Arc<WrappedFileKey>>, SealError> {
        let Some(keys) = self.ring.file_keys().filter(|_| self.ring.current_id().is_none()) else {
            return Ok(None);
        };
        let next = || {
            let keys = Arc::clone(keys);
            self.wait(handle, async move { keys.next().await }).ok_or(SealError::Stopping)
        };
        let key = match keys.try_next() {
            Some(key) => key,
            None => next()??,
        };
        if keys.wants_spare() {
            let keys = Arc::clone(keys);
            handle.spawn(async move { keys.wrap_spare().await });
        }
        Ok(Some(key))
    }

    /// Unwraps the file key of an envelope, if a key service has wrapped it. Keep it during the decryption. Blocks like
    /// [`seal`](Self::seal).
    pub(crate) fn file_key(
        &self,
        handle: &Handle,
        header: &A2Header,
    ) -> Result<Option<Arc<WrappedFileKey>>, OpenError> {
        let (Some(keys), KeyWrap::Service(wrap)) = (self.ring.file_keys(), header.wrap()) else {
            return Ok(None);
        };
        if let Some(key) = keys.known(&wrap) {
            return Ok(Some(key));
        }
        let keys = Arc::clone(keys);
        let header = header.clone();
        let unwrapped = self.wait(handle, async move {
            match header.wrap() {
                KeyWrap::Service(wrap) => keys.unwrap(&wrap).await.map(Some),
                KeyWrap::MasterKey { .. } => Ok(None),
            }
        });
        Ok(unwrapped.ok_or(OpenError::Stopping)??)
    }

    /// The format and the key of new envelopes, for the counts of jobs.
    pub(crate) fn present(&self) -> jobs::Form {
        if !self.writes {
            return jobs::Form::new(jobs::Form::CLEAR, String::new());
        }
        let service = || self.ring.file_keys().and_then(|keys| keys.writer());
        let key = self.ring.current_id().map(|id| id.to_string());
        let key = key.or_else(|| service().map(|service| service.to_string()));
        jobs::Form::new(self.format.to_string(), key.unwrap_or_default())
    }

    /// Whether an envelope, which begins with `start`, has the format and the key of new envelopes. `false` if its header is
    /// longer than `start`. Blocks like [`seal`](Self::seal).
    pub(crate) fn is_current_envelope(
        &self,
        handle: &Handle,
        format: Format,
        start: &[u8],
    ) -> Result<bool, OpenError> {
        let current = self.ring.current_id();
        let key_id = match format {
            _ if format != self.format => return Ok(false),
            Format::A1 => identify(start).map(|header| header.key_id),
            Format::A2 => {
                let Some(header) = A2Header::parse(start)? else { return Ok(false) };
                if header.service().is_some() {
                    return if current.is_none() {
                        self.is_under_current_key(handle, header)
                    } else {
                        Ok(false)
                    };
                }
                Some(header.key_id())
            }
        };
        Ok(key_id.is_some() && key_id == current)
    }

    /// Whether the key service's current key has wrapped the file key of an envelope.
    fn is_under_current_key(&self, handle: &Handle, header: A2Header) -> Result<bool, OpenError> {
        let Some(keys) = self.ring.file_keys() else { return Ok(false) };
        let keys = Arc::clone(keys);
        let is_current = self.wait(handle, async move {
            match header.wrap() {
                KeyWrap::Service(wrap) => keys.is_current(&wrap).await,
                KeyWrap::MasterKey { .. } => Ok(false),
            }
        });
        Ok(is_current.ok_or(OpenError::Stopping)??)
    }

    /// Decrypts a whole envelope. Blocks like [`seal`](Self::seal).
    pub(crate) fn open(
        &self,
        handle: &Handle,
        attachment: &Attachment,
        envelope: &[u8],
    ) -> Result<Vec<u8>, OpenError> {
        let header = A2Header::parse(envelope).ok().flatten();
        let _key = header.map(|header| self.file_key(handle, &header)).transpose()?;
        Ok(decrypt(&self.ring, attachment.uuid.as_str(), envelope)?)
    }

    /// Decrypts a blob of the earlier plugin for Azure Key Vault. Blocks like [`seal`](Self::seal).
    pub(crate) fn open_blob(
        &self,
        handle: &Handle,
        sidecar: Option<&Bytes>,
        blob: Vec<u8>,
    ) -> Result<Vec<u8>, OpenError> {
        let info = CbcInfo::parse(sidecar.map(|sidecar| &sidecar[..]).unwrap_or_default())?;
        info.check_len(blob.len() as u64)?;
        let Some(keys) = self.ring.file_keys() else {
            let key = String::new();
            return Err(KeyServiceError::NotConfigured { service: Service::AzureKeyVault, key }.into());
        };
        let keys = Arc::clone(keys);
        let unwrapped = self.wait(handle, async move {
            let key = keys.unwrap(&info.wrap()).await;
            (info, key)
        });
        let (info, key) = unwrapped.ok_or(OpenError::Stopping)?;
        let key = key?;
        Ok(info.decrypt(key.file_key(), blob)?)
    }

    /// Blocks until `work` ends; `None` when Orthanc has been stopping for a while. A task does the work, since the stacks
    /// of Orthanc's HTTP threads have only 100 kB, which a TLS handshake can exceed.
    fn wait<T: Send + 'static>(
        &self,
        handle: &Handle,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let mut task = handle.spawn(work);
        let done = handle.block_on(async {
            tokio::select! {
                biased;
                done = &mut task => Some(done),
                () = self.stop.grace_over() => None,
            }
        });
        match done {
            Some(Ok(done)) => Some(done),
            Some(Err(error)) => error.try_into_panic().map_or(None, |panic| resume_unwind(panic)),
            None => {
                task.abort();
                None
            }
        }
    }

    /// Blocks until an upload may have `bytes` of its envelope in memory; `None` if Orthanc stops meanwhile.
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

    pub(crate) fn known(&self, attachment: &Attachment) -> Option<Known> {
        self.known.lock().get(attachment).cloned()
    }

    /// Remembers the header of an A2 envelope of which a segment was verified, unless its keys must not be kept.
    pub(crate) fn remember(&self, attachment: &Attachment, opener: &Arc<A2Opener>, head: &Arc<Head>) {
        let keeps_keys = self.ring.file_keys().is_none_or(|keys| keys.keeps_keys());
        if !keeps_keys && opener.header().service().is_some() {
            return;
        }
        let known = KnownEnvelope { opener: Arc::clone(opener), head: Arc::clone(head) };
        self.known.lock().put(*attachment, Known::Segments(known));
    }

    /// Remembers that an attachment can only be read as a whole.
    pub(crate) fn remember_whole(&self, attachment: &Attachment) {
        self.known.lock().put(*attachment, Known::Whole);
    }

    /// Whether the key of an attachment was missing in two downloads, so that its header is not damaged.
    pub(crate) fn is_without_key(&self, attachment: &Attachment) -> bool {
        self.without_key.lock().get(attachment).is_some()
    }

    pub(crate) fn note_missing_key(&self, attachment: &Attachment) {
        self.without_key.lock().put(*attachment, ());
    }

    /// Notes that an attachment could be decrypted.
    pub(crate) fn note_key(&self, attachment: &Attachment) {
        self.without_key.lock().pop(attachment);
    }

    pub(crate) fn forget(&self, attachment: &Attachment) {
        self.known.lock().pop(attachment);
        self.without_key.lock().pop(attachment);
    }
}

#[cfg(test)]
mod tests;
