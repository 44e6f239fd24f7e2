//! Attachments in a bucket.

use bytes::Bytes;
use storage_layout::{Attachment, Layout, Structure};

use crate::bucket::{Bucket, BucketCheck, Payload};
use crate::download::{Download, ReadRange};
use crate::error::{Cause, StorageError};
use crate::retry::RetryPolicy;

/// The attachments of one Orthanc.
#[derive(Debug, Clone)]
pub struct ObjectStorage {
    objects: Bucket,
    layout: Layout,
    legacy_unknown_files: bool,
    read_unencrypted: bool,
}

/// What an object's name says of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// It is encrypted, and must not be taken for anything else.
    Envelope,
    /// It is not encrypted.
    Clear,
    /// Nothing: encrypted and unencrypted objects have the same names, and both are accepted.
    Either,
}

/// An attachment that is being read.
#[derive(Debug)]
pub struct Found {
    /// Its bytes.
    pub download: Download,
    /// What its name says of them.
    pub naming: Naming,
    /// Its object's name.
    pub name: String,
}

impl ObjectStorage {
    /// Attachments in `objects`, named by `layout`. With `legacy_unknown_files`, the name that old releases gave to
    /// DICOM headers is looked for too (`EnableLegacyUnknownFiles`); with `read_unencrypted`, attachments that were
    /// stored before the encryption was switched on (`ReadUnencrypted`).
    pub fn new(objects: Bucket, layout: Layout, legacy_unknown_files: bool, read_unencrypted: bool) -> Self {
        Self { objects, layout, legacy_unknown_files, read_unencrypted }
    }

    /// Whether the bucket can be used: see [`Bucket::check`].
    ///
    /// # Errors
    ///
    /// As [`Bucket::check`].
    pub async fn check(&self, policy: RetryPolicy) -> Result<BucketCheck, StorageError> {
        self.objects.check(&self.layout.root.join(""), policy).await
    }

    /// How messages name the bucket.
    pub fn url(&self) -> &str {
        self.objects.url()
    }

    /// What can be said of the content of files beside the bucket: their names tell nothing.
    pub fn file_naming(&self) -> Naming {
        match (self.layout.encrypted, self.read_unencrypted) {
            (false, _) => Naming::Clear,
            (true, true) => Naming::Either,
            (true, false) => Naming::Envelope,
        }
    }

    /// The name of the object of `attachment`.
    pub fn object_name(&self, attachment: &Attachment) -> String {
        self.layout.object_name(attachment)
    }

    /// How messages name the object of `attachment`.
    pub fn object_url(&self, attachment: &Attachment) -> String {
        self.objects.object_url(&self.layout.object_name(attachment))
    }

    /// Stores an attachment, encrypted already where it is to be: one request.
    ///
    /// # Errors
    ///
    /// When the bucket does not confirm it; then nothing may be taken as stored.
    pub async fn create(&self, attachment: &Attachment, content: Payload) -> Result<(), StorageError> {
        self.objects.put(&self.layout.object_name(attachment), content).await
    }

    /// Begins to read an attachment's object, or a part of it: one request, and one more for each other name that it
    /// may have.
    ///
    /// # Errors
    ///
    /// [`Cause::NotFound`] where the attachment is not in the bucket.
    pub async fn read(&self, attachment: &Attachment, part: ReadRange) -> Result<Found, StorageError> {
        let mut missing = None;
        for (name, naming) in self.names(attachment) {
            match self.objects.get(&name, part.clone()).await {
                Ok(download) => return Ok(Found { download, naming, name }),
                Err(error) if error.cause == Cause::NotFound => missing = missing.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        // There is always one name, the regular one, and the first error is its.
        Err(missing.unwrap_or_else(|| self.objects.not_found(&self.layout.object_name(attachment))))
    }

    /// Whether the server says by its checksum that the object of `attachment` is `content`. `false` where it says
    /// nothing of the kind, or something else.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn is_confirmed(&self, attachment: &Attachment, content: &Bytes) -> Result<bool, StorageError> {
        self.objects.is_confirmed(&self.layout.object_name(attachment), content).await
    }

    /// Deletes an attachment under each name that it may have: one request for each.
    ///
    /// # Errors
    ///
    /// When the bucket does not confirm it.
    pub async fn remove(&self, attachment: &Attachment) -> Result<(), StorageError> {
        for (name, _) in self.names(attachment) {
            self.objects.delete(&name).await?;
        }
        Ok(())
    }

    /// The names that an attachment's object may have, the regular one first.
    fn names(&self, attachment: &Attachment) -> Vec<(String, Naming)> {
        let layout = &self.layout;
        let naming = match (layout.encrypted, self.read_unencrypted, layout.structure) {
            (false, ..) => Naming::Clear,
            (true, true, Structure::Legacy) => Naming::Either,
            (true, ..) => Naming::Envelope,
        };
        let mut names = self.names_in(layout, naming, attachment);
        if layout.encrypted && self.read_unencrypted && layout.structure == Structure::Flat {
            let clear = Layout { encrypted: false, ..layout.clone() };
            names.extend(self.names_in(&clear, Naming::Clear, attachment));
        }
        names
    }

    fn names_in(&self, layout: &Layout, naming: Naming, attachment: &Attachment) -> Vec<(String, Naming)> {
        let unknown = if self.legacy_unknown_files { layout.legacy_unknown_name(attachment) } else { None };
        std::iter::once(layout.object_name(attachment)).chain(unknown).map(|name| (name, naming)).collect()
    }
}
