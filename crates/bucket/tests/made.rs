//! Uploads of content that is made as it is sent.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod store;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bucket::{Bucket, BucketOptions, Cause, Payload, RetryPolicy, Source, SourceError, TransferOptions};
use bytes::Bytes;
use parking_lot::Mutex;
use store::{Fault, NAME, PART, SECOND, Store, bytes, stored};

/// Content that is made as it is sent, and counts what is in memory.
#[derive(Debug)]
struct Made {
    content: Bytes,
    in_memory: Arc<AtomicUsize>,
    most_in_memory: Arc<AtomicUsize>,
    fails: bool,
}

/// A range of the content, while it is in memory.
struct Part(Bytes, Arc<AtomicUsize>);

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0.len(), Ordering::Relaxed);
    }
}

impl Source for Made {
    fn size(&self) -> u64 {
        self.content.len() as u64
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<Bytes>, SourceError> {
        if self.fails {
            return Err("out of order".into());
        }
        let part =
            self.content.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap());
        let before = self.in_memory.fetch_add(part.len(), Ordering::Relaxed);
        self.most_in_memory.fetch_max(before + part.len(), Ordering::Relaxed);
        let middle = part.len() / 2;
        let whole = Bytes::from_owner(Part(part, Arc::clone(&self.in_memory)));
        Ok(vec![whole.slice(..middle), whole.slice(middle..)])
    }
}

fn made(size: usize) -> Made {
    Made { content: bytes(size), in_memory: Arc::default(), most_in_memory: Arc::default(), fails: false }
}

/// Sent in parts by [`making_bucket`].
const MADE: usize = 40 * 1024 * 1024;

/// Sends everything that is larger than a part in parts.
fn making_bucket(store: &Arc<Store>, connections: usize) -> Bucket {
    Bucket::new(BucketOptions {
        transfer: TransferOptions { connections, part_size: PART as u64, always: true },
        ..BucketOptions::new(Arc::<Store>::clone(store), "memory://bucket")
    })
}

#[tokio::test(start_paused = true)]
async fn retry_sends_the_same_bytes_again() {
    for size in [PART, MADE] {
        let store = Store::with(Fault::FailingOnce(Mutex::default()));
        let source = made(size);
        let in_memory = Arc::clone(&source.in_memory);
        let content = source.content.clone();
        making_bucket(&store, 3).put(NAME, Payload::Made(Arc::new(source))).await.unwrap();
        let sent = std::mem::take(&mut *store.sent.lock());
        let mut first: Vec<Option<Bytes>> = vec![None; size.div_ceil(PART)];
        for (index, bytes) in sent {
            match first[index].take() {
                None => first[index] = Some(bytes),
                Some(earlier) => assert!(earlier == bytes, "part {index}"),
            }
        }
        assert!(first.iter().all(Option::is_none), "each part was sent twice");
        assert!(stored(&making_bucket(&store, 3)).await == content);
        assert_eq!(in_memory.load(Ordering::Relaxed), 0);
        assert!(content.is_unique(), "the source is released");
    }
}

#[tokio::test(start_paused = true)]
async fn only_parts_in_transfer_are_made() {
    let store = Store::with(Fault::Slow);
    let source = made(MADE);
    let most_in_memory = Arc::clone(&source.most_in_memory);
    let bucket = making_bucket(&store, 3);
    bucket.put(NAME, Payload::Made(Arc::new(source))).await.unwrap();
    // The last part may be shorter.
    assert_eq!(most_in_memory.load(Ordering::Relaxed), 3 * PART);
}

#[tokio::test(start_paused = true)]
async fn lost_confirmation_of_made_content_is_success() {
    for size in [1000, PART, MADE] {
        let store = Store::with(Fault::NoAnswer);
        let bucket = Bucket::new(BucketOptions {
            retry: RetryPolicy { deadline: SECOND, ..RetryPolicy::default() },
            ..BucketOptions::new(Arc::<Store>::clone(&store), "memory://bucket")
        });
        bucket.put(NAME, Payload::Made(Arc::new(made(size)))).await.unwrap();
        assert!(stored(&bucket).await == bytes(size), "{size}");
        let replaced = Store::with(Fault::NoAnswerAndReplaced);
        let bucket = Bucket::new(BucketOptions {
            retry: RetryPolicy { deadline: SECOND, ..RetryPolicy::default() },
            ..BucketOptions::new(replaced, "memory://bucket")
        });
        bucket.put(NAME, Payload::Made(Arc::new(made(size)))).await.unwrap_err();
    }
}

#[tokio::test(start_paused = true)]
async fn content_that_cannot_be_made_is_not_stored() {
    for size in [PART, MADE] {
        let store = Store::with(Fault::None);
        let source = Made { fails: true, ..made(size) };
        let error = making_bucket(&store, 3).put(NAME, Payload::Made(Arc::new(source))).await.unwrap_err();
        assert!(matches!(&error.cause, Cause::Other(reason) if reason == "out of order"), "{error}");
        assert!(!error.transient && !error.may_remain, "{error:?}");
        assert!(store.sent.lock().is_empty());
        let events = store.events.lock().clone();
        assert_eq!(events, if size == MADE { vec!["create", "abort"] } else { Vec::new() });
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_upload_releases_its_source() {
    let store = Store::with(Fault::Stalled);
    let source = made(MADE);
    let content = source.content.clone();
    let bucket = making_bucket(&store, 30);
    let upload = bucket.put(NAME, Payload::Made(Arc::new(source)));
    tokio::time::timeout(SECOND, upload).await.unwrap_err();
    store.sent.lock().clear();
    assert!(content.is_unique());
}
