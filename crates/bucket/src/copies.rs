//! Each object of an attachment by itself, for its re-encryption.
//!
//! An attachment has one object. It can have two after a re-encryption that was interrupted between storing the object
//! under its new name and deleting that under its old name.

use bytes::Bytes;
use storage_layout::Attachment;

use crate::download::ReadRange;
use crate::error::{Cause, StorageError, found};
use crate::object_storage::{Found, Naming, ObjectStorage};

impl ObjectStorage {
    /// The same attachments, and those that were encrypted before encryption was switched off (`ReadEncrypted`).
    #[must_use]
    pub fn with_encrypted(self) -> Self {
        Self { reads_encrypted: true, ..self }
    }

    /// Whether attachments are read that were encrypted before encryption was switched off.
    pub fn reads_encrypted(&self) -> bool {
        self.reads_encrypted
    }

    /// Begins to read the first `length` bytes of each object of an attachment, in the order in which
    /// [`read`](Self::read) looks for them. Takes a request for each name that the object may have.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or refuses.
    pub async fn read_each(&self, attachment: &Attachment, length: u64) -> Result<Vec<Found>, StorageError> {
        let mut objects = Vec::new();
        for (name, naming) in self.names(attachment) {
            let opened = match self.open(&name, naming, ReadRange::UpTo(0..length)).await {
                // An empty object has no ranges, but can be read as a whole.
                Err(error) if error.cause == Cause::OutOfRange => {
                    self.open(&name, naming, ReadRange::Whole).await
                }
                opened => opened,
            };
            objects.extend(found(opened)?);
        }
        Ok(objects)
    }

    /// Begins to read one of the objects that [`read_each`](Self::read_each) has found.
    ///
    /// # Errors
    ///
    /// [`Cause::NotFound`] if it was deleted meanwhile.
    pub async fn read_named(&self, attachment: &Attachment, name: &str) -> Result<Found, StorageError> {
        let names = self.names(attachment);
        let known = names.into_iter().find(|(known, _)| known == name);
        self.open(name, known.map_or(Naming::Either, |(_, naming)| naming), ReadRange::Whole).await
    }

    /// Whether the object `name` has this content; see [`Bucket::has`](crate::Bucket::has).
    ///
    /// # Errors
    ///
    /// As [`Bucket::has`](crate::Bucket::has).
    pub async fn has_named(&self, name: &str, content: &Bytes) -> Result<bool, StorageError> {
        self.bucket.has(name, content).await
    }

    /// Deletes one of the objects of an attachment. Succeeds if it does not exist.
    ///
    /// # Errors
    ///
    /// If the bucket does not confirm the deletion.
    pub async fn remove_named(&self, attachment: &Attachment, name: &str) -> Result<(), StorageError> {
        self.bucket.delete(name).await?;
        if self.is_key_vault_name(attachment, name) {
            // Last: a blob without sidecar is taken for content in clear.
            self.bucket.delete(&Attachment::sidecar_of(name)).await?;
        }
        Ok(())
    }

    /// Whether blobs of the earlier plugin for Azure Key Vault are read.
    pub fn reads_key_vault_blobs(&self) -> bool {
        self.key_vault_blobs
    }

    /// Whether the earlier plugin for Azure Key Vault gave this name to the attachment's object.
    pub fn is_key_vault_name(&self, attachment: &Attachment, name: &str) -> bool {
        attachment.key_vault_names().any(|known| known == name)
    }
}
