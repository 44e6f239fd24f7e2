//! Attachments in a bucket.

use std::ops::Range;

use bytes::Bytes;
use storage_layout::{Attachment, Layout};

use crate::download::Download;
use crate::error::{Cause, StorageError};
use crate::object::ObjectStorage;
use crate::retry::RetryPolicy;

/// The attachments of one Orthanc.
#[derive(Debug, Clone)]
pub struct AttachmentStorage {
    objects: ObjectStorage,
    layout: Layout,
    legacy_unknown_files: bool,
}

impl AttachmentStorage {
    /// Attachments in `objects`, named by `layout`. With `legacy_unknown_files`, the name that old releases gave to
    /// DICOM headers is looked for too (`EnableLegacyUnknownFiles`).
    pub fn new(objects: ObjectStorage, layout: Layout, legacy_unknown_files: bool) -> Self {
        Self { objects, layout, legacy_unknown_files }
    }

    /// Whether the bucket can be used: see [`ObjectStorage::check`].
    ///
    /// # Errors
    ///
    /// As [`ObjectStorage::check`].
    pub async fn check(&self, policy: RetryPolicy) -> Result<(), StorageError> {
        self.objects.check(&self.layout.root.join(""), policy).await
    }

    /// How messages name the object of `attachment`.
    pub fn object_url(&self, attachment: &Attachment) -> String {
        self.objects.object_url(&self.layout.object_name(attachment))
    }

    /// Stores an attachment: one request.
    ///
    /// # Errors
    ///
    /// When the bucket does not confirm it; then nothing may be taken as stored.
    pub async fn create(&self, attachment: &Attachment, content: Bytes) -> Result<(), StorageError> {
        self.objects.put(&self.layout.object_name(attachment), content).await
    }

    /// Begins to read an attachment, or a range of it: one request, two where only the old name exists.
    ///
    /// # Errors
    ///
    /// [`Cause::NotFound`] where the attachment is not in the bucket.
    pub async fn read(
        &self,
        attachment: &Attachment,
        range: Option<Range<u64>>,
    ) -> Result<Download, StorageError> {
        let error = match self.objects.get(&self.layout.object_name(attachment), range.clone()).await {
            Err(error) if error.cause == Cause::NotFound => error,
            result => return result,
        };
        match self.legacy_unknown_name(attachment) {
            None => Err(error),
            Some(name) => match self.objects.get(&name, range).await {
                Err(second) if second.cause == Cause::NotFound => Err(error),
                result => result,
            },
        }
    }

    /// Deletes an attachment, under its old name too: one request for each name.
    ///
    /// # Errors
    ///
    /// When the bucket does not confirm it.
    pub async fn remove(&self, attachment: &Attachment) -> Result<(), StorageError> {
        self.objects.delete(&self.layout.object_name(attachment)).await?;
        match self.legacy_unknown_name(attachment) {
            None => Ok(()),
            Some(name) => self.objects.delete(&name).await,
        }
    }

    fn legacy_unknown_name(&self, attachment: &Attachment) -> Option<String> {
        if self.legacy_unknown_files { self.layout.legacy_unknown_name(attachment) } else { None }
    }
}
