//! Buckets in memory, with S3's rules for objects and multipart uploads.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;
use s3s::dto::RestoreRequest;
use s3s::{S3Result, s3_error};

use crate::checksum;
use crate::s3::archive::Archived;
use crate::stored::{Buckets, StoredObject};

/// Minimum size of every part except the last.
const MINIMUM_PART: usize = 5 * 1024 * 1024;

/// Size of objects whose `ETag` is not an MD5.
const LARGE: usize = 16 * 1024 * 1024;

/// Maximum part number; the first is 1.
const MAXIMUM_PART_NUMBER: i32 = 10_000;

/// An object in the store. It is replaced as a whole and never changed, so a reader keeps the object it
/// started with.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) stored: StoredObject,
    pub(crate) etag: String,
    pub(crate) last_modified: SystemTime,
    /// The values of Google's `x-goog-hash`, computed on first use.
    pub(crate) google_hashes: OnceLock<Vec<String>>,
}

impl Object {
    fn new(stored: StoredObject) -> Self {
        let crc = checksum::crc64nvme(&stored.bytes);
        let etag = etag(&stored.bytes, crc);
        let stored = StoredObject { checksum_crc64nvme: checksum::crc64nvme_header(crc), ..stored };
        Self { stored, etag, last_modified: SystemTime::now(), google_hashes: OnceLock::new() }
    }

    /// Whether the object was uploaded in parts, which its `ETag` shows.
    pub(crate) fn is_in_parts(&self) -> bool {
        self.etag.contains('-')
    }
}

/// Returns an MD5 as in S3, or for large objects, whose MD5 would take long, another value that depends on the content
/// alone.
fn etag(bytes: &[u8], crc64nvme: u64) -> String {
    if bytes.len() < LARGE {
        return checksum::md5_etag(bytes);
    }
    format!("{crc64nvme:016x}{:016x}", bytes.len())
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) objects: Vec<(String, Arc<Object>)>,
    /// Whether there are more objects.
    pub(crate) is_truncated: bool,
}

#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<String, Arc<Object>>,
    /// Keys of objects that cannot be deleted.
    protected: BTreeSet<String>,
    /// Objects in archive tiers, by key.
    archived: BTreeMap<String, Archived>,
    uploads: BTreeMap<String, Upload>,
}

#[derive(Debug)]
struct Upload {
    key: String,
    /// The future object, still without bytes.
    object: StoredObject,
    parts: BTreeMap<i32, Part>,
}

#[derive(Debug)]
struct Part {
    bytes: Bytes,
    etag: String,
}

/// The buckets of one server.
#[derive(Debug)]
pub(crate) struct Store {
    buckets: Mutex<BTreeMap<String, Bucket>>,
    next_upload: AtomicU64,
}

impl Store {
    /// Returns a store with one empty bucket, `bucket`.
    pub(crate) fn new() -> Self {
        let buckets = BTreeMap::from([("bucket".to_owned(), Bucket::default())]);
        Self { buckets: Mutex::new(buckets), next_upload: AtomicU64::new(1) }
    }

    fn with<T>(&self, bucket: &str, act: impl FnOnce(&mut Bucket) -> S3Result<T>) -> S3Result<T> {
        let mut buckets = self.buckets.lock();
        let bucket = buckets
            .get_mut(bucket)
            .ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))?;
        act(bucket)
    }

    /// Stores an object. Fails if there is one that must not be replaced.
    pub(crate) fn put(
        &self,
        bucket: &str,
        key: &str,
        stored: StoredObject,
        may_replace: bool,
    ) -> S3Result<Arc<Object>> {
        let object = Arc::new(Object::new(stored));
        self.with(bucket, |bucket| {
            if !may_replace && bucket.objects.contains_key(key) {
                return Err(s3_error!(PreconditionFailed, "At least one of the pre-conditions did not hold"));
            }
            bucket.archived.remove(key);
            bucket.objects.insert(key.to_owned(), Arc::clone(&object));
            Ok(object)
        })
    }

    pub(crate) fn get(&self, bucket: &str, key: &str) -> S3Result<Arc<Object>> {
        let missing = || s3_error!(NoSuchKey, "The specified key does not exist.");
        self.with(bucket, |bucket| bucket.objects.get(key).cloned().ok_or_else(missing))
    }

    /// Returns an object to read.
    pub(crate) fn open(&self, bucket: &str, key: &str) -> S3Result<Arc<Object>> {
        let object = self.get(bucket, key)?;
        let refusal =
            || s3_error!(InvalidObjectState, "The operation is not valid for the object's storage class");
        let is_readable = self.archived(bucket, key).is_none_or(|archived| archived.is_readable());
        if is_readable { Ok(object) } else { Err(refusal()) }
    }

    /// Returns the state of an object in an archive tier; `None` if it is in none.
    pub(crate) fn archived(&self, bucket: &str, key: &str) -> Option<Archived> {
        self.with(bucket, |bucket| Ok(bucket.archived.get(key).cloned())).ok().flatten()
    }

    /// Begins to restore an object. Returns the status of the answer.
    pub(crate) fn restore(
        &self,
        bucket: &str,
        key: &str,
        request: Option<RestoreRequest>,
    ) -> S3Result<StatusCode> {
        self.get(bucket, key)?;
        let message = "Restore is not allowed for the object's current storage class";
        self.with(bucket, |bucket| match bucket.archived.get_mut(key) {
            Some(archived) => archived.restore(request),
            None => Err(s3_error!(InvalidObjectState, "{message}")),
        })
    }

    /// Deletes an object. Succeeds if there is none, as in S3.
    pub(crate) fn delete(&self, bucket: &str, key: &str) -> S3Result<Option<Arc<Object>>> {
        self.with(bucket, |bucket| {
            if bucket.protected.contains(key) {
                return Err(s3_error!(
                    AccessDenied,
                    "Access Denied because object protected by object lock."
                ));
            }
            bucket.archived.remove(key);
            Ok(bucket.objects.remove(key))
        })
    }

    /// Returns the first `limit` objects after `after` whose keys begin with `prefix`, and whether there are more. Without
    /// `folders`, the rest of their keys has no slash.
    pub(crate) fn list(
        &self,
        bucket: &str,
        prefix: &str,
        folders: bool,
        after: &str,
        limit: usize,
    ) -> S3Result<Page> {
        self.with(bucket, |bucket| {
            let later = bucket.objects.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
            let is_listed =
                |key: &str| key.strip_prefix(prefix).is_some_and(|rest| folders || !rest.contains('/'));
            let mut listed = later.filter(|(key, _)| is_listed(key));
            let page = listed.by_ref().take(limit).map(|(key, object)| (key.clone(), Arc::clone(object)));
            let page: Vec<_> = page.collect();
            Ok(Page { objects: page, is_truncated: listed.next().is_some() })
        })
    }

    pub(crate) fn check_bucket(&self, bucket: &str) -> S3Result<()> {
        self.with(bucket, |_| Ok(()))
    }

    /// Starts a multipart upload and returns its identifier.
    pub(crate) fn begin_upload(&self, bucket: &str, key: &str, object: StoredObject) -> S3Result<String> {
        self.with(bucket, |bucket| {
            let id = format!("upload-{:06}", self.next_upload.fetch_add(1, Ordering::Relaxed));
            let upload = Upload { key: key.to_owned(), object, parts: BTreeMap::new() };
            bucket.uploads.insert(id.clone(), upload);
            Ok(id)
        })
    }

    /// Stores a part, replacing an earlier one with the same number, and returns its `ETag`.
    pub(crate) fn put_part(&self, bucket: &str, id: &str, number: i32, bytes: Bytes) -> S3Result<String> {
        if !(1..=MAXIMUM_PART_NUMBER).contains(&number) {
            return Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000"));
        }
        let etag = etag(&bytes, checksum::crc64nvme(&bytes));
        self.with(bucket, |bucket| {
            let part = Part { bytes, etag: etag.clone() };
            upload(bucket, id)?.parts.insert(number, part);
            Ok(etag)
        })
    }

    /// Joins the listed parts, given as number and `ETag`, to an object and forgets the upload.
    pub(crate) fn complete_upload(
        &self,
        bucket: &str,
        id: &str,
        listed: &[(i32, String)],
    ) -> S3Result<Arc<Object>> {
        self.with(bucket, |bucket| {
            let upload = upload(bucket, id)?;
            let bytes = join(&upload.parts, listed)?;
            let mut object = Object::new(StoredObject { bytes, ..upload.object.clone() });
            object.etag = format!("{}-{}", object.etag, listed.len());
            let key = upload.key.clone();
            bucket.uploads.remove(id);
            let object = Arc::new(object);
            bucket.objects.insert(key, Arc::clone(&object));
            Ok(object)
        })
    }

    pub(crate) fn abort_upload(&self, bucket: &str, id: &str) -> S3Result<()> {
        self.with(bucket, |bucket| {
            upload(bucket, id)?;
            bucket.uploads.remove(id);
            Ok(())
        })
    }
}

fn upload<'a>(bucket: &'a mut Bucket, id: &str) -> S3Result<&'a mut Upload> {
    bucket.uploads.get_mut(id).ok_or_else(|| s3_error!(NoSuchUpload, "The specified upload does not exist."))
}

/// Joins the listed parts, which must exist, be in order and, except for the last, have the minimum size.
fn join(parts: &BTreeMap<i32, Part>, listed: &[(i32, String)]) -> S3Result<Bytes> {
    if listed.is_empty() {
        return Err(s3_error!(MalformedXML, "A complete request must list at least one part"));
    }
    if !listed.is_sorted_by(|(a, _), (b, _)| a < b) {
        return Err(s3_error!(InvalidPartOrder, "The list of parts was not in ascending order."));
    }
    let mut whole = Vec::new();
    for (index, (number, etag)) in listed.iter().enumerate() {
        let part = parts.get(number).filter(|part| part.etag == *etag);
        let part =
            part.ok_or_else(|| s3_error!(InvalidPart, "One or more of the specified parts were not found"))?;
        if part.bytes.len() < MINIMUM_PART && index + 1 < listed.len() {
            return Err(s3_error!(EntityTooSmall, "Your proposed upload is smaller than the minimum"));
        }
        whole.extend_from_slice(&part.bytes);
    }
    Ok(whole.into())
}

impl Buckets for Store {
    fn keys(&self, bucket: &str) -> Vec<String> {
        self.with(bucket, |bucket| Ok(bucket.objects.keys().cloned().collect())).unwrap_or_default()
    }

    fn object(&self, bucket: &str, key: &str) -> Option<StoredObject> {
        self.get(bucket, key).ok().map(|object| object.stored.clone())
    }

    fn insert(&self, bucket: &str, key: &str, content: Bytes) {
        let object = Object::new(StoredObject { bytes: content, ..StoredObject::default() });
        let mut buckets = self.buckets.lock();
        buckets.entry(bucket.to_owned()).or_default().objects.insert(key.to_owned(), Arc::new(object));
    }

    fn remove(&self, bucket: &str, key: &str) -> Option<StoredObject> {
        self.delete(bucket, key).ok().flatten().map(|object| object.stored.clone())
    }

    fn protect(&self, bucket: &str, key: &str) {
        // Fails only without the bucket, where there is nothing to protect.
        let _ = self.with(bucket, |bucket| Ok(bucket.protected.insert(key.to_owned())));
    }

    fn archive(&self, bucket: &str, key: &str) {
        // Fails only without the bucket, where there is nothing to archive.
        let _ = self.with(bucket, |bucket| {
            let object = bucket.objects.get(key);
            let class = object.and_then(|object| object.stored.storage_class.as_deref());
            Ok(bucket.archived.insert(key.to_owned(), Archived::new(class)))
        });
    }

    fn restoring(&self, bucket: &str) -> Vec<String> {
        let keys = |bucket: &mut Bucket| {
            let restoring = bucket.archived.iter().filter(|(_, archived)| archived.is_in_progress());
            restoring.map(|(key, _)| key.clone()).collect()
        };
        self.with(bucket, |bucket| Ok(keys(bucket))).unwrap_or_default()
    }

    fn end_restore(&self, bucket: &str, key: &str) {
        // Fails only without the bucket, where there is nothing to restore.
        let _ = self.with(bucket, |bucket| {
            bucket.archived.retain(|archived_key, archived| archived_key != key || archived.end_restore());
            Ok(())
        });
    }

    fn unfinished_uploads(&self, bucket: &str) -> Vec<String> {
        let keys = |bucket: &mut Bucket| bucket.uploads.values().map(|upload| upload.key.clone()).collect();
        self.with(bucket, |bucket| Ok(keys(bucket))).unwrap_or_default()
    }

    fn clear(&self) {
        self.buckets.lock().values_mut().for_each(|bucket| *bucket = Bucket::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(parts: &[(i32, usize)], listed: &[(i32, &str)]) -> Result<Arc<Object>, String> {
        let store = Store::new();
        let id = store.begin_upload("bucket", "key", StoredObject::default()).unwrap();
        let etags: BTreeMap<_, _> = parts
            .iter()
            .map(|(number, size)| {
                let bytes = vec![u8::try_from(*number).unwrap(); *size];
                (*number, store.put_part("bucket", &id, *number, bytes.into()).unwrap())
            })
            .collect();
        let listed: Vec<_> = listed
            .iter()
            .map(|(number, etag)| {
                let etag = if etag.is_empty() { etags[number].clone() } else { (*etag).to_owned() };
                (*number, etag)
            })
            .collect();
        let outcome = store.complete_upload("bucket", &id, &listed);
        assert_eq!(store.unfinished_uploads("bucket").is_empty(), outcome.is_ok());
        outcome.map_err(|error| error.code().as_str().to_owned())
    }

    #[test]
    fn parts_are_joined_by_their_numbers() {
        let object = complete(&[(2, 3), (1, MINIMUM_PART)], &[(1, ""), (2, "")]).unwrap();
        assert!(object.etag.ends_with("-2"));
        assert!(object.stored.bytes == [vec![1; MINIMUM_PART], vec![2; 3]].concat());
    }

    #[test]
    fn invalid_lists_of_parts_are_refused() {
        let sizes = [(1, MINIMUM_PART - 1), (2, MINIMUM_PART)];
        for (listed, code) in [
            (&[][..], "MalformedXML"),
            (&[(2, ""), (1, "")], "InvalidPartOrder"),
            (&[(2, "other")], "InvalidPart"),
            (&[(3, "missing")], "InvalidPart"),
            (&[(1, ""), (2, "")], "EntityTooSmall"),
        ] {
            assert_eq!(complete(&sizes, listed).unwrap_err(), code);
        }
    }
}
