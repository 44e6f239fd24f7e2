//! Buckets in memory, with the rules of S3 for objects and multipart uploads. Knows nothing of HTTP.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::s3::object::{Attributes, Content, Object};
use crate::stored::UnfinishedUpload;

/// Every part but the last has at least this many bytes.
pub(crate) const MINIMUM_PART: u64 = 5 * 1024 * 1024;

/// Part numbers go from 1 to this.
const MAXIMUM_PART_NUMBER: i32 = 10_000;

/// What the store refuses.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum StoreError {
    #[error("The specified bucket does not exist")]
    NoSuchBucket,
    #[error("The specified key does not exist.")]
    NoSuchKey,
    #[error(
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."
    )]
    NoSuchUpload,
    #[error("One or more of the specified parts could not be found, or its entity tag did not match.")]
    InvalidPart,
    #[error("The list of parts was not in ascending order.")]
    InvalidPartOrder,
    #[error("Part number must be an integer between 1 and 10000, inclusive")]
    InvalidPartNumber,
    #[error("A complete request must list at least one part")]
    NoParts,
    #[error("Your proposed upload is smaller than the minimum allowed size")]
    EntityTooSmall,
    #[error("At least one of the pre-conditions you specified did not hold")]
    PreconditionFailed,
}

/// Under which condition a write takes place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    Always,
    /// `If-None-Match: *`
    Absent,
    /// `If-Match`; `None` for `*`.
    Matches(Option<String>),
}

#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<String, Arc<Object>>,
    uploads: BTreeMap<String, Upload>,
}

#[derive(Debug)]
struct Upload {
    key: String,
    attributes: Attributes,
    parts: BTreeMap<i32, Content>,
}

/// A part that the client lists to complete an upload: its number and, without quotation marks, its ETag.
#[derive(Debug)]
pub(crate) struct ListedPart {
    pub(crate) number: i32,
    pub(crate) etag: Option<String>,
}

/// One entry of a listing.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Object(String, Arc<Object>),
    /// A common prefix, its delimiter included.
    Prefix(String),
}

impl Entry {
    /// The key or prefix.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Object(name, _) | Self::Prefix(name) => name,
        }
    }
}

/// The buckets of one server.
#[derive(Debug)]
pub(crate) struct Store {
    buckets: Mutex<BTreeMap<String, Bucket>>,
    next_upload: AtomicU64,
}

impl Store {
    /// A store with empty buckets.
    pub(crate) fn new(buckets: impl IntoIterator<Item = String>) -> Self {
        let buckets = buckets.into_iter().map(|name| (name, Bucket::default())).collect();
        Self { buckets: Mutex::new(buckets), next_upload: AtomicU64::new(1) }
    }

    fn with<T>(
        &self,
        bucket: &str,
        act: impl FnOnce(&mut Bucket) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        act(self.buckets.lock().get_mut(bucket).ok_or(StoreError::NoSuchBucket)?)
    }

    pub(crate) fn bucket_names(&self) -> Vec<String> {
        self.buckets.lock().keys().cloned().collect()
    }

    /// Whether it was new.
    pub(crate) fn create_bucket(&self, name: &str) -> bool {
        let mut buckets = self.buckets.lock();
        let new = !buckets.contains_key(name);
        buckets.entry(name.to_owned()).or_default();
        new
    }

    pub(crate) fn check_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        self.with(bucket, |_| Ok(()))
    }

    /// Puts an object; the one it replaces lives on for those who read it.
    pub(crate) fn put(
        &self,
        bucket: &str,
        key: &str,
        object: Object,
        condition: &Condition,
    ) -> Result<Arc<Object>, StoreError> {
        let object = Arc::new(object);
        self.with(bucket, |bucket| {
            check_condition(bucket, key, condition)?;
            bucket.objects.insert(key.to_owned(), Arc::clone(&object));
            Ok(())
        })?;
        Ok(object)
    }

    pub(crate) fn get(&self, bucket: &str, key: &str) -> Result<Arc<Object>, StoreError> {
        self.with(bucket, |bucket| bucket.objects.get(key).cloned().ok_or(StoreError::NoSuchKey))
    }

    /// Puts an object without attributes. Without the bucket nothing happens.
    pub(crate) fn replace(&self, bucket: &str, key: &str, content: Bytes) {
        let object = Object::new(Content::of(content), Attributes::default());
        let _ = self.put(bucket, key, object, &Condition::Always);
    }

    /// Removes an object; `None` if there was none, which S3 does not mind.
    pub(crate) fn remove(&self, bucket: &str, key: &str) -> Result<Option<Arc<Object>>, StoreError> {
        self.with(bucket, |bucket| Ok(bucket.objects.remove(key)))
    }

    /// Empties every bucket, uploads included.
    pub(crate) fn clear(&self) {
        self.buckets.lock().values_mut().for_each(|bucket| *bucket = Bucket::default());
    }

    pub(crate) fn objects(&self, bucket: &str) -> BTreeMap<String, Arc<Object>> {
        self.with(bucket, |bucket| Ok(bucket.objects.clone())).unwrap_or_default()
    }

    /// Up to `limit` entries after `after` (a key or, where it ends so, a common prefix), and whether there are more.
    pub(crate) fn list(
        &self,
        bucket: &str,
        prefix: &str,
        delimiter: &str,
        after: &str,
        limit: usize,
    ) -> Result<(Vec<Entry>, bool), StoreError> {
        self.with(bucket, |bucket| {
            let mut entries: Vec<Entry> = Vec::new();
            let start = if prefix > after { Bound::Included(prefix) } else { Bound::Excluded(after) };
            for (key, object) in bucket.objects.range::<str, _>((start, Bound::Unbounded)) {
                let Some(rest) = key.strip_prefix(prefix) else { break };
                let entry = match rest.split_once(delimiter).filter(|_| !delimiter.is_empty()) {
                    Some((folder, _)) => {
                        let name = format!("{prefix}{folder}{delimiter}");
                        // Told already, on this page or the one before.
                        if entries.last().map_or(after, Entry::name) == name {
                            continue;
                        }
                        Entry::Prefix(name)
                    }
                    None => Entry::Object(key.clone(), Arc::clone(object)),
                };
                if entries.len() == limit {
                    return Ok((entries, true));
                }
                entries.push(entry);
            }
            Ok((entries, false))
        })
    }

    /// Begins a multipart upload and returns its identifier.
    pub(crate) fn begin_upload(
        &self,
        bucket: &str,
        key: &str,
        attributes: Attributes,
    ) -> Result<String, StoreError> {
        self.with(bucket, |bucket| {
            let id = format!("upload-{:06}", self.next_upload.fetch_add(1, Ordering::Relaxed));
            let upload = Upload { key: key.to_owned(), attributes, parts: BTreeMap::new() };
            bucket.uploads.insert(id.clone(), upload);
            Ok(id)
        })
    }

    /// The attributes of an unfinished upload; tells early that there is none such.
    pub(crate) fn upload_attributes(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
        number: i32,
    ) -> Result<Attributes, StoreError> {
        if !(1..=MAXIMUM_PART_NUMBER).contains(&number) {
            return Err(StoreError::InvalidPartNumber);
        }
        self.with(bucket, |bucket| Ok(upload(bucket, key, upload_id)?.attributes.clone()))
    }

    /// Stores a part, in place of an earlier one with its number.
    pub(crate) fn put_part(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
        number: i32,
        content: Content,
    ) -> Result<(), StoreError> {
        self.with(bucket, |bucket| {
            upload(bucket, key, upload_id)?.parts.insert(number, content);
            Ok(())
        })
    }

    /// Makes an object of the parts listed and forgets the upload.
    pub(crate) fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
        listed: &[ListedPart],
        condition: &Condition,
    ) -> Result<Arc<Object>, StoreError> {
        self.with(bucket, |bucket| {
            let upload = upload(bucket, key, upload_id)?;
            let parts = listed_parts(upload, listed)?;
            let content = Content::joined(parts);
            let mut object = Object::new(content, upload.attributes.clone());
            object.etag = format!("{}-{}", object.etag, listed.len());
            object.parts = Some(listed.len());
            let object = Arc::new(object);
            check_condition(bucket, key, condition)?;
            bucket.uploads.remove(upload_id);
            bucket.objects.insert(key.to_owned(), Arc::clone(&object));
            Ok(object)
        })
    }

    pub(crate) fn abort_upload(&self, bucket: &str, key: &str, upload_id: &str) -> Result<(), StoreError> {
        self.with(bucket, |bucket| {
            upload(bucket, key, upload_id)?;
            bucket.uploads.remove(upload_id);
            Ok(())
        })
    }

    pub(crate) fn uploads(&self, bucket: &str) -> Result<Vec<UnfinishedUpload>, StoreError> {
        self.with(bucket, |bucket| {
            let unfinished = bucket.uploads.iter().map(|(id, upload)| UnfinishedUpload {
                upload_id: id.clone(),
                key: upload.key.clone(),
                parts: upload
                    .parts
                    .iter()
                    .map(|(number, part)| (*number, usize::try_from(part.length()).unwrap_or(usize::MAX)))
                    .collect(),
            });
            Ok(unfinished.collect())
        })
    }
}

fn check_condition(bucket: &Bucket, key: &str, condition: &Condition) -> Result<(), StoreError> {
    let existing = bucket.objects.get(key);
    match condition {
        Condition::Always => Ok(()),
        Condition::Absent if existing.is_some() => Err(StoreError::PreconditionFailed),
        Condition::Absent => Ok(()),
        Condition::Matches(etag) => {
            let existing = existing.ok_or(StoreError::NoSuchKey)?;
            match etag {
                Some(etag) if *etag != existing.etag => Err(StoreError::PreconditionFailed),
                _ => Ok(()),
            }
        }
    }
}

fn upload<'a>(bucket: &'a mut Bucket, key: &str, upload_id: &str) -> Result<&'a mut Upload, StoreError> {
    bucket.uploads.get_mut(upload_id).filter(|upload| upload.key == key).ok_or(StoreError::NoSuchUpload)
}

/// The parts that the client listed, if the list is in order and all but the last are large enough.
fn listed_parts<'a>(upload: &'a Upload, listed: &[ListedPart]) -> Result<Vec<&'a Content>, StoreError> {
    if listed.is_empty() {
        return Err(StoreError::NoParts);
    }
    if !listed.is_sorted_by(|a, b| a.number < b.number) {
        return Err(StoreError::InvalidPartOrder);
    }
    let found = |part: &ListedPart| {
        let content = upload.parts.get(&part.number)?;
        part.etag.as_ref().is_none_or(|etag| *etag == content.etag()).then_some(content)
    };
    let parts = listed.iter().map(found).collect::<Option<Vec<_>>>().ok_or(StoreError::InvalidPart)?;
    match parts.split_last() {
        Some((_, rest)) if rest.iter().any(|part| part.length() < MINIMUM_PART) => {
            Err(StoreError::EntityTooSmall)
        }
        _ => Ok(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(keys: &[&str]) -> Store {
        let store = Store::new(["bucket".to_owned()]);
        for key in keys {
            let object = Object::new(Content::of(Bytes::from_static(b"x")), Attributes::default());
            store.put("bucket", key, object, &Condition::Always).unwrap();
        }
        store
    }

    fn pages(store: &Store, prefix: &str, delimiter: &str, limit: usize) -> Vec<String> {
        let (mut names, mut after) = (Vec::new(), String::new());
        loop {
            let (entries, more) = store.list("bucket", prefix, delimiter, &after, limit).unwrap();
            assert!(entries.len() <= limit);
            names.extend(entries.iter().map(|entry| entry.name().to_owned()));
            match entries.last() {
                Some(last) if more => after = last.name().to_owned(),
                _ => return names,
            }
        }
    }

    #[test]
    fn a_listing_is_the_same_whatever_the_page_size() {
        let store = store(&["a", "a/b", "a/c", "a0", "b/x/1", "b/x/2", "b/y", "c"]);
        for limit in 1..10 {
            assert_eq!(pages(&store, "", "", limit).len(), 8);
            assert_eq!(pages(&store, "", "/", limit), ["a", "a/", "a0", "b/", "c"]);
            assert_eq!(pages(&store, "b/", "/", limit), ["b/x/", "b/y"]);
            assert_eq!(pages(&store, "a/", "", limit), ["a/b", "a/c"]);
            assert!(pages(&store, "d", "/", limit).is_empty());
        }
    }
}
