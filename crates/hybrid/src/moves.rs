//! Moves an attachment from one place to the other.
//!
//! At each moment at least one complete copy exists: the source is deleted last, after the copy has been
//! verified and, if it is a file, synced to the disk. An interrupted move leaves either the source alone or
//! both copies, and the next move of the attachment continues from there.

use std::fmt;
use std::sync::Arc;

use bucket::{Cause, Naming, Operation, ReadRange, StorageError, blocking, found};
use bytes::Bytes;
use storage_layout::Attachment;

use crate::claims::Claim;
use crate::place::{Place, Side};
use crate::source::{Source, StoredContent};
use crate::storage::HybridStorage;

/// Knows the form, in clear or encrypted, in which attachments are to be stored. The functions may block for
/// a while.
pub trait StoredForm: Send + Sync + fmt::Debug {
    /// Checks the form of content that is to be moved, also if the target already has a copy of it. Quick.
    ///
    /// # Errors
    ///
    /// The reason why the content must stay where it is.
    fn check(&self, _content: &StoredContent) -> Result<(), String> {
        Ok(())
    }

    /// Returns the bytes to store for `content`: unchanged, or encrypted if encryption has been switched on
    /// since.
    ///
    /// # Errors
    ///
    /// The reason why the content must not be stored.
    fn to_store(&self, attachment: &Attachment, content: StoredContent) -> Result<Bytes, String>;

    /// Whether the content is an envelope.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    fn is_envelope(&self, content: &StoredContent) -> Result<bool, String> {
        self.check(content)?;
        Ok(content.naming == Naming::Envelope)
    }

    /// Whether pending attachments may be stored in the bucket now. Quick.
    ///
    /// # Errors
    ///
    /// The reason to try again later.
    fn may_upload(&self) -> Result<(), String> {
        Ok(())
    }

    /// Checks an envelope that is read from the disk or the bucket.
    ///
    /// # Errors
    ///
    /// Why it is damaged. An envelope under an unknown key is not.
    fn verify(&self, _attachment: &Attachment, _envelope: &[u8]) -> Result<(), String> {
        Ok(())
    }

    /// Encrypts content in clear; `None` if encryption is off.
    ///
    /// # Errors
    ///
    /// Why it cannot be encrypted.
    fn seal(&self, _attachment: &Attachment, _content: &[u8]) -> Result<Option<Bytes>, String> {
        Ok(None)
    }

    /// Whether content has the form and the key of new attachments, and can be decrypted. `content` has all bytes, or
    /// enough of the first to recognize the form; if that is not enough to decide, it is not current.
    ///
    /// # Errors
    ///
    /// As [`convert`](Self::convert).
    fn is_current(&self, _attachment: &Attachment, _content: &StoredContent) -> Result<bool, FormError> {
        Ok(true)
    }

    /// Returns the bytes that replace `content`, in the form and under the key of new attachments, after they were
    /// compared with it. `md5` is that of the content that Orthanc stored, if it is known.
    ///
    /// # Errors
    ///
    /// The reason why the content must stay as it is: it cannot be decrypted, it is not what Orthanc stored, or nothing
    /// shows that it is.
    fn convert(
        &self,
        attachment: &Attachment,
        content: StoredContent,
        _md5: Option<Md5>,
    ) -> Result<Bytes, FormError> {
        self.to_store(attachment, content).map_err(FormError::lasting)
    }

    /// Whether two stored contents with different bytes are the same attachment.
    fn is_same(&self, attachment: &Attachment, one: &StoredContent, other: &StoredContent) -> bool;
}

/// An MD5 (RFC 1321), which detects faults but not attacks.
pub type Md5 = [u8; 16];

/// Why content cannot be brought into the form of new attachments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormError {
    /// The reason, for a message.
    pub reason: String,
    /// Whether the same content may be converted later: a key service does not answer.
    pub transient: bool,
}

impl FormError {
    /// A reason that lasts.
    pub fn lasting(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), transient: false }
    }
}

/// The result of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveOutcome {
    /// The attachment is in the target only.
    Moved {
        /// Its stored size.
        bytes: u64,
    },
    /// The attachment was in the target only.
    AlreadyThere,
    /// The attachment is in no place.
    Missing,
    /// Orthanc is deleting the attachment.
    Removed,
}

impl HybridStorage {
    /// Moves an attachment to `target`. `size` is its approximate size in bytes, which limits the memory of
    /// all moves together.
    ///
    /// # Errors
    ///
    /// The step that failed. The attachment is then still in the source, and possibly in the target as well.
    pub async fn move_to(
        &self,
        attachment: &Attachment,
        target: Side,
        size: u64,
        form: &Arc<dyn StoredForm>,
    ) -> Result<MoveOutcome, StorageError> {
        // Twice the size: the bytes read, and those that they are compared with or encrypted to.
        let _memory = self.budget.acquire(size.saturating_mul(2)).await;
        if let Some(local) = self.local()
            && let Some(outcome) = self.move_local(local, attachment, target, form).await?
        {
            return Ok(outcome);
        }
        let claim = Arc::new(self.claims.for_move(attachment.uuid).await);
        let source = self.place(target.other());
        let target = self.place(target);
        Move { attachment: *attachment, source, target, form: Arc::clone(form), claim }.run().await
    }
}

/// One move in progress.
struct Move {
    attachment: Attachment,
    source: Place,
    target: Place,
    form: Arc<dyn StoredForm>,
    claim: Arc<Claim>,
}

impl Move {
    async fn run(&self) -> Result<MoveOutcome, StorageError> {
        if self.claim.is_removed() {
            return Ok(MoveOutcome::Removed);
        }
        let Some(source) = self.open(&self.source).await? else { return self.without_source().await };
        let content = source.into_content().await?;
        if self.claim.is_removed() {
            return Ok(MoveOutcome::Removed);
        }
        self.form.check(&content).map_err(|reason| self.error(&self.source, Cause::NotAcceptable(reason)))?;
        match self.open(&self.target).await? {
            Some(copy) => {
                self.expect_same(&content, copy).await?;
                self.target.make_durable(&self.attachment).await?;
            }
            None => self.copy(content.clone()).await?,
        }
        if self.claim.is_removed() {
            return Ok(MoveOutcome::Removed);
        }
        self.source.remove(&self.attachment, Arc::clone(&self.claim)).await?;
        Ok(MoveOutcome::Moved { bytes: content.bytes.len() as u64 })
    }

    /// The attachment in `place`; `None` if it is not there.
    async fn open(&self, place: &Place) -> Result<Option<Source>, StorageError> {
        found(place.open(&self.attachment, ReadRange::Whole).await)
    }

    async fn without_source(&self) -> Result<MoveOutcome, StorageError> {
        if let Place::FileSystem { files, .. } = &self.source {
            // A move that was killed may have left the folders.
            let files = files.clone();
            let uuid = self.attachment.uuid;
            blocking(move || files.remove_empty_folders(&uuid)).await;
        }
        match self.target.open(&self.attachment, ReadRange::UpTo(0..1)).await {
            Ok(_) => Ok(MoveOutcome::AlreadyThere),
            // The range is outside an empty object.
            Err(error) if error.cause == Cause::OutOfRange => Ok(MoveOutcome::AlreadyThere),
            Err(error) if error.cause == Cause::NotFound => Ok(MoveOutcome::Missing),
            Err(error) => Err(error),
        }
    }

    /// Writes the copy and verifies it: an object by the server's checksum if there is one, otherwise by reading it
    /// back.
    async fn copy(&self, content: StoredContent) -> Result<(), StorageError> {
        let form = Arc::clone(&self.form);
        let attachment = self.attachment;
        let converted = blocking(move || form.to_store(&attachment, content)).await;
        let stored = converted.map_err(|reason| self.error(&self.source, Cause::NotAcceptable(reason)))?;
        self.target.create(&self.attachment, stored.clone(), Arc::clone(&self.claim)).await?;
        if self.target.side() == Side::ObjectStorage {
            return Ok(());
        }
        if let Some(copy) = self.open(&self.target).await?
            && copy.equals(&stored).await?
        {
            return Ok(());
        }
        Err(self.error(&self.target, Cause::CopyDamaged))
    }

    /// Fails unless `copy`, found in the target, is the same attachment as the source.
    async fn expect_same(&self, content: &StoredContent, copy: Source) -> Result<(), StorageError> {
        if copy.equals(&content.bytes).await? {
            return Ok(());
        }
        let differ = || self.error(&self.target, Cause::CopiesDiffer);
        let copy = self.open(&self.target).await?.ok_or_else(differ)?;
        let copy = copy.into_content().await?;
        let form = Arc::clone(&self.form);
        let attachment = self.attachment;
        let content = content.clone();
        let same = blocking(move || form.is_same(&attachment, &content, &copy)).await;
        if same { Ok(()) } else { Err(differ()) }
    }

    fn error(&self, place: &Place, cause: Cause) -> StorageError {
        StorageError::new(Operation::Move, place.name(&self.attachment), cause)
    }
}

#[cfg(test)]
mod tests;
