//! Orthanc's attachments as objects in a bucket.

use std::collections::BTreeSet;

use bytes::Bytes;
use storage_layout::{Attachment, Layout, Structure};

use crate::bucket::{Bucket, Payload};
use crate::download::{Download, ReadRange};
use crate::elsewhere::Searches;
use crate::error::{Cause, Operation, StorageError};
use crate::retry::RetryPolicy;

/// The attachments of one Orthanc in a bucket.
#[derive(Debug, Clone)]
pub struct ObjectStorage {
    pub(crate) bucket: Bucket,
    pub(crate) layout: Layout,
    legacy_unknown_files: bool,
    read_unencrypted: bool,
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
}

/// An object that is being read.
#[derive(Debug)]
pub struct Found {
    /// The content.
    pub download: Download,
    /// What the object's name says about the content.
    pub naming: Naming,
    /// The object's name.
    pub name: String,
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
}

impl ObjectStorage {
    /// Attachments in `bucket`, named by `layout`.
    ///
    /// With `legacy_unknown_files`, DICOM headers are also searched under the name that old releases gave
    /// them (`EnableLegacyUnknownFiles`). With `read_unencrypted`, attachments stored before encryption was
    /// switched on are accepted (`ReadUnencrypted`).
    pub fn new(bucket: Bucket, layout: Layout, legacy_unknown_files: bool, read_unencrypted: bool) -> Self {
        Self { bucket, layout, legacy_unknown_files, read_unencrypted, searches: Searches::default() }
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

    /// Begins to read an attachment: one request, and one more for each further name that its object may
    /// have.
    ///
    /// # Errors
    ///
    /// [`Cause::NotFound`] if the attachment is not in the bucket.
    pub async fn read(&self, attachment: &Attachment, range: ReadRange) -> Result<Found, StorageError> {
        let mut missing = None;
        for (name, naming) in self.names(attachment) {
            let opened = match naming {
                Naming::Envelope => self.bucket.get_sealed(&name, range.clone()).await,
                Naming::Clear | Naming::Either => self.bucket.get(&name, range.clone()).await,
            };
            match opened {
                Ok(download) => return Ok(Found { download, naming, name }),
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
            match self.bucket.head(&name).await {
                Ok((size, version)) => return Ok(Some(Described { name, naming, size, version })),
                Err(error) if error.cause == Cause::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Whether the server's checksum confirms that the object of `attachment` is `content`. `false` if the
    /// server has no checksum, or a different one.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn is_confirmed(&self, attachment: &Attachment, content: &Bytes) -> Result<bool, StorageError> {
        self.bucket.is_confirmed(&self.object_name(attachment), content).await
    }

    /// Deletes an attachment under each name that its object may have, with one request for each.
    ///
    /// # Errors
    ///
    /// If the bucket does not confirm a deletion.
    pub async fn remove(&self, attachment: &Attachment) -> Result<(), StorageError> {
        for (name, _) in self.names(attachment) {
            self.bucket.delete(&name).await?;
        }
        Ok(())
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
        self.remove_names(attachments.iter().map(names).collect()).await
    }

    /// Deletes attachments as [`remove_many`](Self::remove_many) does, also under the names that their objects
    /// have with another structure, or with encryption on or off.
    pub async fn remove_everywhere(&self, attachments: &[Attachment]) -> Vec<Result<(), StorageError>> {
        self.remove_names(attachments.iter().map(|attachment| self.every_name(attachment)).collect()).await
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
        // In the legacy structure, encrypted objects have the same names.
        names.collect::<BTreeSet<_>>().into_iter().collect()
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use storage_layout::{ContentType, RootPath};

    use super::*;
    use crate::bucket::BucketOptions;

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
