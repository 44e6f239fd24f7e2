//! Uploads of streams to a bucket in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::io;
use std::sync::Arc;

use bucket::{Bucket, BucketOptions, ReadRange, StorageError, UploadJournal};
use bytes::Bytes;
use futures_util::stream;
use object_store::memory::InMemory;
use parking_lot::Mutex;

const NAME: &str = "object";
const PART: usize = 8 * 1024 * 1024;

/// The uploads in parts that have begun (`true`) and ended.
#[derive(Debug, Default)]
struct Journal(Mutex<Vec<bool>>);

impl UploadJournal for Journal {
    fn began(&self, _: &str, _: &str) -> io::Result<()> {
        self.0.lock().push(true);
        Ok(())
    }

    fn ended(&self, _: &str, _: &str) -> io::Result<()> {
        self.0.lock().push(false);
        Ok(())
    }
}

fn bucket() -> (Bucket, Arc<Journal>) {
    let journal = Arc::new(Journal::default());
    let bucket = Bucket::new(BucketOptions::new(Arc::new(InMemory::new()), "memory://bucket"));
    (bucket.with_journal(Arc::<Journal>::clone(&journal)), journal)
}

#[derive(Debug, PartialEq)]
enum Failure {
    Source,
    Storage(StorageError),
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

fn content(size: usize) -> Bytes {
    let byte = |number: usize| number.to_le_bytes()[0];
    (0..size).map(|index| byte(index / 251) ^ byte(index)).collect::<Vec<_>>().into()
}

fn chunks(content: &Bytes, size: usize) -> Vec<Result<Bytes, Failure>> {
    content.chunks(size).map(|chunk| Ok(content.slice_ref(chunk))).collect()
}

async fn stored(bucket: &Bucket) -> Bytes {
    let mut download = bucket.get(NAME, ReadRange::Whole).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = download.next().await.unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    bytes.into()
}

#[tokio::test]
async fn streams_of_any_size_are_stored() {
    for (size, chunk, has_parts) in [
        (0, 1, false),
        (1000, 7, false),
        (PART, 100_000, false),
        (PART + 1, 100_000, true),
        (4 * PART, PART, true),
        (3 * PART + 5, 2 * PART + 3, true),
    ] {
        let (bucket, journal) = bucket();
        let content = content(size);
        let length = bucket.put_stream(NAME, stream::iter(chunks(&content, chunk))).await.unwrap();
        assert_eq!(length, size as u64);
        assert!(stored(&bucket).await == content, "{size}");
        let expected: &[bool] = if has_parts { &[true, false] } else { &[] };
        assert_eq!(*journal.0.lock(), expected, "{size}");
    }
}

#[tokio::test]
async fn stream_that_fails_leaves_the_earlier_object() {
    for size in [1000, PART, PART + 1, 3 * PART] {
        let (bucket, journal) = bucket();
        let earlier = content(10);
        bucket.put_stream(NAME, stream::iter(chunks(&earlier, 10))).await.unwrap();
        let mut cut = chunks(&content(size), 100_000);
        cut.push(Err(Failure::Source));
        assert_eq!(bucket.put_stream(NAME, stream::iter(cut)).await, Err(Failure::Source), "{size}");
        assert_eq!(stored(&bucket).await, earlier, "{size}");
        // Each upload in parts that has begun is aborted.
        let journal = journal.0.lock().clone();
        assert!(journal.is_empty() || journal == [true, false], "{size}: {journal:?}");
    }
}
