//! Orthanc's attachments as objects in a bucket.

use std::collections::BTreeSet;

use bytes::Bytes;
use cloud_http::{ArchiveState, Checksum};
use storage_layout::{Attachment, Layout, Structure};

use crate::bucket::{Bucket, ObjectHead, Payload};
use crate::download::{Download, ReadRange};
use crate::elsewhere::Searches;
use crate::error::{Cause, Operation, StorageError, found};
use crate::retry::RetryPolicy;

/// The attachments of one Orthanc in a bucket.
#[derive(Debug, Clone)]
pub struct ObjectStorage {
    pub(crate) bucket: Bucket,
    pub(crate) layout: Layout,
    legacy_unknown_files: bool,
    read_unencrypted: bool,
    key_vault_blobs: bool,
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

/// What is added to the name of an encrypted blob of the earlier plugin for Azure Key Vault.
const SIDECAR: &str = ".info";
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
    /// What may be the MD5 of the object: an ETag that looks like one. It is something else if the server encrypts the
    /// object, for example.
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
        Self { bucket, layout, legacy_unknown_files, read_unencrypted, key_vault_blobs: false, searches }
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

    /// The bucket's name in messages.
    pub fn url(&self) -> &str {
        self.bucket.url()
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
    /// have.
    ///
    /// # Errors
    ///
    /// [`Cause::NotFound`] if the attachment is not in the bucket.
    pub async fn read(&self, attachment: &Attachment, range: ReadRange) -> Result<Found, StorageError> {
        let mut missing = None;
        for (name, naming) in self.names(attachment) {
            // Before the blob, which would occupy a connection meanwhile, and which is deleted before its sidecar.
            let sidecar = if naming == Naming::KeyVault { self.sidecar(&name).await? } else { None };
            let opened = match naming {
                Naming::Envelope => self.bucket.get_sealed(&name, range.clone()).await,
                Naming::Clear | Naming::Either | Naming::KeyVault => {
                    self.bucket.get(&name, range.clone()).await
                }
            };
            match opened {
                Ok(download) => {
                    let naming = of_blob(naming, sidecar.is_some());
                    return Ok(Found { download, naming, name, sidecar });
                }
                // The regular name comes first, so its error is the one to report.
                Err(error) if error.cause == Cause::NotFound => missing = missing.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        let not_found = || StorageError::new(Operation::Read, self.object_url(attachment), Cause::NotFound);
        Err(missing.unwrap_or_else(not_found))
    }

    /// Asks for an attachment without its content, with as many requests as [`read`](Self::read). Returns `None` if
    /// it is not in the bucket.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or refuses.
    pub async fn describe(&self, attachment: &Attachment) -> Result<Option<Described>, StorageError> {
        for (name, naming) in self.names(attachment) {
            let sidecar = match naming {
                Naming::KeyVault => found(self.bucket.head(&sidecar_of(&name)).await)?,
                Naming::Envelope | Naming::Clear | Naming::Either => None,
            };
            if let Some(ObjectHead { size, e_tag, md5, archive }) = found(self.bucket.head(&name).await)? {
                let naming = of_blob(naming, sidecar.is_some());
                let possible_md5 = match e_tag.as_deref().and_then(Checksum::of_e_tag) {
                    Some(Checksum::Md5(md5)) => Some(md5),
                    _ => None,
                };
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
        self.bucket.get_small(&sidecar_of(name), LONGEST_SIDECAR).await
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
        names.into_iter().flatten().map(|name| sidecar_of(&name)).collect()
    }

    /// Aborts an upload in parts that has begun earlier; see [`Bucket::abort_upload`].
    ///
    /// # Errors
    ///
    /// As [`Bucket::abort_upload`].
    pub async fn abort_upload(&self, name: &str, upload_id: &str) -> Result<(), StorageError> {
        self.bucket.abort_upload(name, upload_id).await
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

    /// The names that an attachment's object may have in any configuration with this root.
    fn every_name(&self, attachment: &Attachment) -> Vec<String> {
        let structures = [Structure::Flat, Structure::Legacy].into_iter();
        let layouts = structures.flat_map(|structure| {
            [false, true].map(|encrypted| Layout { structure, encrypted, ..self.layout.clone() })
        });
        let names = layouts.flat_map(|layout| {
            let names = [Some(layout.object_name(attachment)), layout.legacy_unknown_name(attachment)];
            let names: Vec<_> = names.into_iter().flatten().collect();
            names
                .iter()
                .filter_map(|name| self.backslash_name(&layout, name))
                .chain(names.clone())
                .collect::<Vec<_>>()
        });
        let key_vault = self.key_vault_blobs.then(|| attachment.key_vault_names());
        // In the legacy structure, encrypted objects have the same names.
        names.chain(key_vault.into_iter().flatten()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The names that an attachment's object may have, the regular one first.
    pub(crate) fn names(&self, attachment: &Attachment) -> Vec<(String, Naming)> {
        let layout = &self.layout;
        let mut names = self.names_in(layout, self.naming(), attachment);
        if layout.encrypted && self.read_unencrypted && layout.structure == Structure::Flat {
            let clear = Layout { encrypted: false, ..layout.clone() };
            names.extend(self.names_in(&clear, Naming::Clear, attachment));
        }
        let old = |(name, naming): &(String, _)| Some((self.backslash_name(layout, name)?, *naming));
        names.extend(names.iter().filter_map(old).collect::<Vec<_>>());
        if self.key_vault_blobs {
            names.extend(attachment.key_vault_names().map(|name| (name, Naming::KeyVault)));
        }
        names
    }

    fn backslash_name(&self, layout: &Layout, name: &str) -> Option<String> {
        let has_them = self.bucket.options.backslash_names == Some(true);
        has_them.then(|| layout.backslash_name(name)).flatten()
    }

    fn names_in(&self, layout: &Layout, naming: Naming, attachment: &Attachment) -> Vec<(String, Naming)> {
        let unknown = if self.legacy_unknown_files { layout.legacy_unknown_name(attachment) } else { None };
        std::iter::once(layout.object_name(attachment)).chain(unknown).map(|name| (name, naming)).collect()
    }
}

/// What is known of the content of an object with this naming. Blobs of the earlier plugin for Azure Key Vault are
/// encrypted if they have a sidecar.
fn of_blob(naming: Naming, has_sidecar: bool) -> Naming {
    if naming == Naming::KeyVault && !has_sidecar { Naming::Clear } else { naming }
}

pub(crate) fn sidecar_of(name: &str) -> String {
    format!("{name}{SIDECAR}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use storage_layout::{ContentType, RootPath};

    use super::*;
    use crate::bucket::BucketOptions;

    #[tokio::test]
    async fn content_decides_about_the_name_of_a_confirmed_object() {
        let attachment = Attachment::new("fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11", ContentType::DICOM).unwrap();
        for configured in [false, true] {
            let bucket = Bucket::new(BucketOptions::new(Arc::new(InMemory::new()), "memory://bucket"));
            let layout = Layout { encrypted: configured, ..Layout::default() };
            let objects = ObjectStorage::new(bucket, layout, false, true);
            for encrypted in [false, true] {
                let content = Bytes::from(format!("encrypted: {encrypted}"));
                assert!(!objects.has(&attachment, encrypted, &content).await.unwrap());
                objects.create_confirmed(&attachment, encrypted, content.clone()).await.unwrap();
                assert!(objects.has(&attachment, encrypted, &content).await.unwrap());
            }
            for (suffix, size) in [(".dcm", 16), (".dcm.enc", 15)] {
                let name = format!("{}{suffix}", attachment.uuid);
                assert_eq!(objects.bucket.head(&name).await.unwrap().size, size, "{name}, {configured}");
            }
        }
    }

    #[tokio::test]
    async fn blobs_of_the_earlier_key_vault_plugin_are_found_and_removed() {
        let uuid = "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11";
        // In the blobs, Orthanc has called the types of users unknown.
        for (content_type, in_name, encrypted) in
            [(1024, 0, false), (1024, 0, true), (1024, 1024, true), (1, 1, false), (1, 1, true)]
        {
            let attachment = Attachment::new(uuid, ContentType(content_type)).unwrap();
            let (name, sidecar) = (format!("{uuid}-{in_name}"), format!("{uuid}-{in_name}.info"));
            let bucket = Bucket::new(BucketOptions::new(Arc::new(InMemory::new()), "memory://bucket"));
            // That plugin knew no root path.
            let layout = Layout { root: RootPath::new("a/b").unwrap(), encrypted: true, ..Layout::default() };
            let without = ObjectStorage::new(bucket, layout, false, false);
            let with = without.clone().with_key_vault_blobs();
            let put = async |name: &str| without.bucket.put(name, Payload::Owned("x".into())).await.unwrap();
            put(&name).await;
            if encrypted {
                put(&sidecar).await;
            }
            let naming = if encrypted { Naming::KeyVault } else { Naming::Clear };
            let error = without.read(&attachment, ReadRange::Whole).await.unwrap_err();
            assert_eq!(error.cause, Cause::NotFound);
            let found = with.read(&attachment, ReadRange::Whole).await.unwrap();
            assert_eq!((found.name, found.naming), (name.clone(), naming));
            let described = with.describe(&attachment).await.unwrap().unwrap();
            assert_eq!((described.name, described.naming), (name.clone(), naming));
            assert_eq!(found.sidecar.as_deref(), encrypted.then_some(&b"x"[..]));

            // A new object has precedence.
            with.create(&attachment, Payload::Owned("new".into())).await.unwrap();
            let found = with.read(&attachment, ReadRange::Whole).await.unwrap();
            assert_eq!(found.naming, Naming::Envelope);
            with.remove_many(&[attachment]).await.into_iter().collect::<Result<(), _>>().unwrap();
            assert!(with.describe(&attachment).await.unwrap().is_none());
            put(&name).await;
            put(&sidecar).await;
            with.remove(&attachment).await.unwrap();
            assert!(with.bucket.head(&sidecar).await.is_err());
            put(&name).await;
            put(&sidecar).await;
            with.remove_everywhere(&[attachment]).await.into_iter().collect::<Result<(), _>>().unwrap();
            assert!(with.bucket.head(&name).await.is_err() && with.bucket.head(&sidecar).await.is_err());
            put(&sidecar).await;
            without.remove_everywhere(&[attachment]).await.into_iter().collect::<Result<(), _>>().unwrap();
            assert!(with.bucket.head(&sidecar).await.is_ok(), "not a name of this configuration");
        }
    }

    #[tokio::test]
    async fn objects_of_windows_are_found_and_removed() {
        let attachment = Attachment::new("fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11", ContentType::DICOM).unwrap();
        let names = [
            r"a/b\fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11.dcm",
            r"a\b\fb\4b\fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11",
        ];
        for (structure, name) in [Structure::Flat, Structure::Legacy].into_iter().zip(names) {
            for backslash_names in [true, false] {
                let store = Arc::new(InMemory::new());
                let options = BucketOptions {
                    backslash_names: Some(backslash_names),
                    ..BucketOptions::new(Arc::clone(&store), "memory://bucket")
                };
                let layout = Layout { root: RootPath::new("a/b").unwrap(), structure, encrypted: false };
                let objects = ObjectStorage::new(Bucket::new(options), layout, false, false);
                for other in names {
                    objects.bucket.put(other, Payload::Owned("x".into())).await.unwrap();
                }
                let found = objects.read(&attachment, ReadRange::Whole).await.map(|found| found.name);
                assert_eq!(found.ok().as_deref(), backslash_names.then_some(name));
                let described = objects.describe(&attachment).await.unwrap().map(|described| described.size);
                assert_eq!(described, backslash_names.then_some(1));
                objects.remove(&attachment).await.unwrap();
                let gone = objects.bucket.head(name).await.is_err();
                assert_eq!(gone, backslash_names, "{name}");
                // With another structure, for deletions of an earlier configuration.
                objects
                    .remove_everywhere(&[attachment])
                    .await
                    .into_iter()
                    .collect::<Result<(), _>>()
                    .unwrap();
                for other in names {
                    assert_eq!(objects.bucket.head(other).await.is_err(), backslash_names, "{other}");
                }
            }
        }
    }
}
