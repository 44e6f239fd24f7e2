//! Orthanc's attachments as objects in a bucket.

use bytes::Bytes;
use cloud_http::ArchiveState;
use storage_layout::{Attachment, Layout, ObjectNames, Structure};

use crate::bucket::{Bucket, ObjectHead};
use crate::content::Payload;
use crate::download::{Download, ReadRange};
use crate::elsewhere::Searches;
use crate::error::{Cause, Operation, StorageError, found};
use crate::retry::RetryPolicy;

/// The attachments of one Orthanc in a bucket.
#[derive(Debug, Clone)]
pub struct ObjectStorage {
    pub(crate) bucket: Bucket,
    pub(crate) layout: Layout,
    pub(crate) legacy_unknown_files: bool,
    pub(crate) read_unencrypted: bool,
    pub(crate) reads_encrypted: bool,
    pub(crate) key_vault_blobs: bool,
    pub(crate) searches: Searches,
}

/// Whether content is encrypted, as far as the name of its object or file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// The content must be an envelope.
    Envelope,
    /// The content is in clear.
    Clear,
    /// Envelopes and content in clear have the same names, so that the content decides.
    Either,
    /// The content was encrypted by the earlier plugin for Azure Key Vault.
    KeyVault,
}

/// Maximum size of a sidecar, in bytes.
const LONGEST_SIDECAR: usize = 64 * 1024;

/// An object that is being read.
#[derive(Debug)]
pub struct Found {
    /// The content.
    pub download: Download,
    /// What the object's name says about the content.
    pub naming: Naming,
    /// The object's name.
    pub name: String,
    /// With [`Naming::KeyVault`]: the sidecar, a JSON document with the wrapped key.
    pub sidecar: Option<Bytes>,
}

/// What is known of an object whose content has not been asked for.
#[derive(Debug, Clone)]
pub struct Described {
    /// The object's name.
    pub name: String,
    /// What the name says about the content.
    pub naming: Naming,
    /// Size of the object, in bytes.
    pub size: u64,
    /// Its ETag, if the server sent one.
    pub version: Option<String>,
    /// The MD5 (RFC 1321) of the object, if the server sent one.
    pub md5: Option<[u8; 16]>,
    /// What may be the MD5 of the object: an ETag that looks like one. It may be something else, unless the server says
    /// that it is: then this is `None`.
    pub possible_md5: Option<[u8; 16]>,
    /// Whether it can be read, or its sidecar cannot.
    pub archive: ArchiveState,
}

impl ObjectStorage {
    /// Attachments in `bucket`, named by `layout`.
    ///
    /// With `legacy_unknown_files`, DICOM headers are also searched under the name that old releases gave
    /// them (`EnableLegacyUnknownFiles`). With `read_unencrypted`, attachments stored before encryption was
    /// switched on are accepted (`ReadUnencrypted`).
    pub fn new(bucket: Bucket, layout: Layout, legacy_unknown_files: bool, read_unencrypted: bool) -> Self {
        let searches = Searches::default();
        let reads_encrypted = false;
        let key_vault_blobs = false;
        Self {
            bucket,
            layout,
            legacy_unknown_files,
            read_unencrypted,
            reads_encrypted,
            key_vault_blobs,
            searches,
        }
    }

    /// The same attachments, and those that the earlier plugin for Azure Key Vault stored.
    #[must_use]
    pub fn with_key_vault_blobs(self) -> Self {
        Self { key_vault_blobs: true, ..self }
    }

    /// The same attachments with another retry policy.
    #[must_use]
    pub fn with_retry(self, retry: RetryPolicy) -> Self {
        Self { bucket: self.bucket.with_retry(retry), ..self }
    }

    /// When failed requests are retried.
    pub fn retry(&self) -> RetryPolicy {
        self.bucket.retry()
    }

    /// Number of retries of requests to the bucket since the start.
    pub fn retries(&self) -> u64 {
        self.bucket.retries()
    }

    /// Counts the retry of a read whose bytes may have been damaged on the way.
    pub fn count_retry(&self) {
        self.bucket.health.count_retry();
    }

    /// Warns that the bytes of an answer were damaged on the way, which another read has shown: once in a while, and all
    /// others are info lines. `error` is that of the first read.
    pub fn report_damaged_answer(&self, error: &str) {
        self.bucket.health.report_damaged_answer(error);
    }

    /// The bucket's name in messages.
    pub fn url(&self) -> &str {
        self.bucket.url()
    }

    /// The name of an object in messages.
    pub fn named_url(&self, name: &str) -> String {
        self.bucket.object_url(name)
    }

    /// Tells the bucket and the root path apart from all others.
    pub fn identity(&self) -> String {
        format!("{}, root {:?}", self.bucket.identity(), self.layout.root.join(""))
    }

    /// What the name of a new object says about its content.
    pub fn naming(&self) -> Naming {
        match (self.layout.encrypted, self.read_unencrypted, self.layout.structure) {
            (false, _, Structure::Flat) => Naming::Clear,
            (false, _, Structure::Legacy) | (true, true, Structure::Legacy) => Naming::Either,
            (true, ..) => Naming::Envelope,
        }
    }

    /// What is known about the content of files next to the bucket, whose names do not say whether they are
    /// encrypted.
    pub fn file_naming(&self) -> Naming {
        match (self.layout.encrypted, self.read_unencrypted) {
            (false, _) | (true, true) => Naming::Either,
            (true, false) => Naming::Envelope,
        }
    }

    /// Whether new objects are encrypted.
    pub fn encrypts(&self) -> bool {
        self.layout.encrypted
    }

    /// The name of the object that `attachment` is written to.
    pub fn object_name(&self, attachment: &Attachment) -> String {
        self.layout.object_name(attachment)
    }

    /// The name of that object in messages.
    pub fn object_url(&self, attachment: &Attachment) -> String {
        self.bucket.object_url(&self.object_name(attachment))
    }

    /// Stores an attachment, with one request unless it is large. `content` is already encrypted if it is to
    /// be.
    ///
    /// # Errors
    ///
    /// If the bucket does not confirm the object, which must then be taken as not stored.
    pub async fn create(&self, attachment: &Attachment, content: Payload) -> Result<(), StorageError> {
        self.bucket.put(&self.object_name(attachment), content).await
    }

    /// Stores an attachment, and compares size and checksum of the object with `content`; see
    /// [`Bucket::put_confirmed`]. `encrypted` says whether the content is an envelope, which decides about the object's
    /// name.
    ///
    /// # Errors
    ///
    /// As [`Bucket::put_confirmed`].
    pub async fn create_confirmed(
        &self,
        attachment: &Attachment,
        encrypted: bool,
        content: Bytes,
    ) -> Result<(), StorageError> {
        self.bucket.put_confirmed(&self.name_of(attachment, encrypted), content).await
    }

    /// Whether the bucket has the object that [`create_confirmed`](Self::create_confirmed) stores; see [`Bucket::has`].
    ///
    /// # Errors
    ///
    /// As [`Bucket::has`].
    pub async fn has(
        &self,
        attachment: &Attachment,
        encrypted: bool,
        content: &Bytes,
    ) -> Result<bool, StorageError> {
        self.bucket.has(&self.name_of(attachment, encrypted), content).await
    }

    fn name_of(&self, attachment: &Attachment, encrypted: bool) -> String {
        Layout { encrypted, ..self.layout.clone() }.object_name(attachment)
    }

    /// Begins to read an attachment: one request, and one more for each further name that its object may
    /// have. With several names, one more if there is no object.
    ///
    /// # Errors
    ///
    /// [`Cause::NotFound`] if the attachment is not in the bucket.
    pub async fn read(&self, attachment: &Attachment, range: ReadRange) -> Result<Found, StorageError> {
        let names = self.names(attachment);
        let mut missing = None;
        // A re-encryption stores the object under the first name before it deletes that under another one.
        let again = names.first().filter(|_| names.len() > 1);
        for (name, naming) in names.iter().chain(again) {
            match self.open(name, *naming, range.clone()).await {
                // The regular name comes first, so its error is the one to report.
                Err(error) if error.cause == Cause::NotFound => missing = missing.or(Some(error)),
                opened => return opened,
            }
        }
        let not_found = || StorageError::new(Operation::Read, self.object_url(attachment), Cause::NotFound);
        Err(missing.unwrap_or_else(not_found))
    }

    /// Begins to read the object `name`.
    pub(crate) async fn open(
        &self,
        name: &str,
        naming: Naming,
        range: ReadRange,
    ) -> Result<Found, StorageError> {
        // Before the blob, which would occupy a connection meanwhile, and which is deleted before its sidecar.
        let sidecar = if naming == Naming::KeyVault { self.sidecar(name).await? } else { None };
        let download = match naming {
            Naming::Envelope => self.bucket.get_sealed(name, range).await?,
            Naming::Clear | Naming::Either | Naming::KeyVault => self.bucket.get(name, range).await?,
        };
        let naming = of_blob(naming, sidecar.is_some());
        Ok(Found { download, naming, name: name.to_owned(), sidecar })
    }

    /// Asks for an attachment without its content, with as many requests as [`read`](Self::read). Returns `None` if
    /// it is not in the bucket.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or refuses.
    pub async fn describe(&self, attachment: &Attachment) -> Result<Option<Described>, StorageError> {
        let names = self.names(attachment);
        let again = names.first().filter(|_| names.len() > 1);
        for (name, naming) in names.iter().chain(again) {
            let sidecar = match naming {
                Naming::KeyVault => found(self.bucket.head(&Attachment::sidecar_of(name)).await)?,
                Naming::Envelope | Naming::Clear | Naming::Either => None,
            };
            if let Some(head) = found(self.bucket.head(name).await)? {
                let ObjectHead { size, e_tag, md5, possible_md5, archive } = head;
                let naming = of_blob(*naming, sidecar.is_some());
                let name = name.clone();
                let blocked = sidecar.map(|sidecar| sidecar.archive).filter(|state| !state.is_readable());
                let archive = blocked.filter(|_| archive.is_readable()).unwrap_or(archive);
                let version = e_tag;
                return Ok(Some(Described { name, naming, size, version, md5, possible_md5, archive }));
            }
        }
        Ok(None)
    }

    /// The sidecar of a blob of the earlier plugin for Azure Key Vault; `None` if it has none.
    async fn sidecar(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        self.bucket.get_small(&Attachment::sidecar_of(name), LONGEST_SIDECAR).await
    }

    /// Deletes an attachment under each name that its object may have, with one request for each.
    ///
    /// # Errors
    ///
    /// If the bucket does not confirm a deletion.
    pub async fn remove(&self, attachment: &Attachment) -> Result<(), StorageError> {
        let names = self.names(attachment).into_iter().map(|(name, _)| name);
        for name in names.chain(self.sidecars(attachment)) {
            self.bucket.delete(&name).await?;
        }
        Ok(())
    }

    /// The names of the sidecars that an attachment may have. They must be deleted after the blobs: a blob without sidecar
    /// is taken for content in clear.
    fn sidecars(&self, attachment: &Attachment) -> Vec<String> {
        let names = self.key_vault_blobs.then(|| attachment.key_vault_names());
        names.into_iter().flatten().map(|name| Attachment::sidecar_of(&name)).collect()
    }

    /// Aborts an upload in parts that has begun earlier; see [`Bucket::abort_upload`].
    ///
    /// Returns the name of the object in messages. They name only attachments: other names may have UIDs of studies.
    ///
    /// # Errors
    ///
    /// As [`Bucket::abort_upload`].
    pub async fn abort_upload(&self, name: &str, upload_id: &str) -> Result<String, StorageError> {
        let is_attachment = self.object_names().attachment_of(name).is_some();
        let bucket = self.bucket.clone();
        let bucket = if is_attachment { bucket } else { bucket.with_hidden_names() };
        bucket.abort_upload(name, upload_id).await?;
        Ok(bucket.object_url(name))
    }

    /// Deletes attachments under each name that their objects may have; see [`Bucket::delete_many`]. Returns a
    /// result for each attachment, in their order.
    pub async fn remove_many(&self, attachments: &[Attachment]) -> Vec<Result<(), StorageError>> {
        let names = |attachment| self.names(attachment).into_iter().map(|(name, _)| name).collect();
        self.remove_with_sidecars(attachments, attachments.iter().map(names).collect()).await
    }

    /// Deletes attachments as [`remove_many`](Self::remove_many) does, also under the names that their objects
    /// have with another structure, or with encryption on or off.
    pub async fn remove_everywhere(&self, attachments: &[Attachment]) -> Vec<Result<(), StorageError>> {
        let names = attachments.iter().map(|attachment| self.every_name(attachment));
        self.remove_with_sidecars(attachments, names.collect()).await
    }

    /// Deletes the objects of each attachment, and then the sidecars of those whose objects were deleted.
    async fn remove_with_sidecars(
        &self,
        attachments: &[Attachment],
        lists: Vec<Vec<String>>,
    ) -> Vec<Result<(), StorageError>> {
        let removed = self.remove_names(lists).await;
        if !self.key_vault_blobs {
            return removed;
        }
        let sidecars = attachments.iter().zip(&removed).map(|(attachment, removed)| match removed {
            Ok(()) => self.sidecars(attachment),
            Err(_) => Vec::new(),
        });
        let sidecars = self.remove_names(sidecars.collect()).await;
        removed.into_iter().zip(sidecars).map(|(removed, sidecar)| removed.and(sidecar)).collect()
    }

    /// Deletes lists of objects. The result of a list is that of all its objects.
    async fn remove_names(&self, lists: Vec<Vec<String>>) -> Vec<Result<(), StorageError>> {
        let all: Vec<String> = lists.concat();
        let mut results = self.bucket.delete_many(&all).await.into_iter();
        lists.iter().map(|list| results.by_ref().take(list.len()).fold(Ok(()), Result::and)).collect()
    }

    /// From a name to the attachment, for the names that an object may have in any configuration with this root.
    pub fn object_names(&self) -> ObjectNames {
        ObjectNames {
            root: self.layout.root.clone(),
            backslashes: self.bucket.options.backslash_names.is_some(),
            key_vault: self.key_vault_blobs,
        }
    }
}

/// What is known of the content of an object with this naming. Blobs of the earlier plugin for Azure Key Vault are
/// encrypted if they have a sidecar.
fn of_blob(naming: Naming, has_sidecar: bool) -> Naming {
    if naming == Naming::KeyVault && !has_sidecar { Naming::Clear } else { naming }
}

#[cfg(test)]
mod tests;
