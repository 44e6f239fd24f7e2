//! Uploads to a bucket in memory, which has no checksums and whose requests can fail or take long.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod store;

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bucket::{Bucket, BucketOptions, Cause, Payload, RetryPolicy, TransferOptions, UploadJournal};
use parking_lot::Mutex;
use store::{Fault, NAME, PART, SECOND, Store, bytes, stored};
use tokio::runtime::Builder;
use tokio::time::Instant;

/// Returns a bucket that sends objects of more than one part in parts.
fn bucket(store: &Arc<Store>, deadline: Duration) -> Bucket {
    Bucket::new(BucketOptions {
        retry: RetryPolicy { deadline, ..RetryPolicy::default() },
        transfer: TransferOptions { connections: 2, part_size: PART as u64, always: false },
        largest_put: PART as u64,
        ..BucketOptions::new(Arc::<Store>::clone(store), "memory://bucket")
    })
}

fn content(size: usize) -> Payload {
    Payload::Owned(bytes(size))
}

/// An object in one request, and one in parts.
const SIZES: [usize; 2] = [1000, PART + 1];

#[tokio::test(start_paused = true)]
async fn lost_confirmation_of_a_whole_object_is_success() {
    for size in SIZES {
        let store = Store::with(Fault::NoAnswer);
        let bucket = bucket(&store, SECOND);
        bucket.put(NAME, content(size)).await.unwrap();
        assert_eq!(store.heads.load(Ordering::Relaxed), 1, "{size}");
        assert!(stored(&bucket).await == bytes(size), "{size}");
    }
}

#[tokio::test(start_paused = true)]
async fn object_without_a_checksum_is_read_back() {
    for size in SIZES {
        for (fault, is_equal) in [(Fault::None, true), (Fault::NoAnswer, true), (Fault::Replaced, false)] {
            let store = Store::with(fault);
            let bucket = bucket(&store, SECOND);
            let result = bucket.put_confirmed(NAME, bytes(size)).await;
            let requests = [&store.heads, &store.reads].map(|count| count.load(Ordering::Relaxed));
            assert_eq!(requests, [1, 1], "{size} with {:?}", store.fault);
            match result {
                Ok(()) => assert!(is_equal, "{size}"),
                Err(error) => {
                    assert!(!is_equal, "{size}: {error}");
                    assert_eq!((&error.cause, error.may_remain), (&Cause::CopyDamaged, true));
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn look_at_the_bytes_has_a_short_patience() {
    let store = Store::with(Fault::NoAnswerToReads);
    let options = BucketOptions::new(Arc::<Store>::clone(&store), "memory://bucket");
    let retry = RetryPolicy { max_retries: 0, ..options.retry };
    let start = Instant::now();
    Bucket::new(BucketOptions { retry, ..options }).put(NAME, content(1000)).await.unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn different_object_of_the_same_size_is_not_taken_for_the_upload() {
    for size in SIZES {
        let bucket = bucket(&Store::with(Fault::NoAnswerAndReplaced), SECOND);
        let error = bucket.put(NAME, content(size)).await.unwrap_err();
        assert_eq!(error.cause, Cause::TimedOut(SECOND), "{size}");
    }
}

#[tokio::test(start_paused = true)]
async fn upload_that_was_not_carried_out_fails() {
    for size in SIZES {
        let bucket = bucket(&Store::with(Fault::Stalled), SECOND);
        let error = bucket.put(NAME, content(size)).await.unwrap_err();
        assert_eq!((error.cause, error.transient), (Cause::TimedOut(SECOND), true), "{size}");
    }
}

#[tokio::test(start_paused = true)]
async fn parts_after_a_broken_upload_have_the_same_deadline() {
    let store = Store::with(Fault::Breaking);
    let options = BucketOptions::new(Arc::<Store>::clone(&store), "memory://bucket");
    let retry = RetryPolicy { deadline: SECOND, ..options.retry };
    let bucket = Bucket::new(BucketOptions { retry, ..options });
    let start = Instant::now();
    let error = bucket.put(NAME, content(PART + 1)).await.unwrap_err();
    assert_eq!(error.cause, Cause::TimedOut(SECOND));
    assert!(start.elapsed() < SECOND * 6 / 5, "{:?}", start.elapsed());
    assert_eq!(store.events.lock().first().map(String::as_str), Some("create"));
}

#[test]
fn hashing_does_not_hold_up_other_tasks() {
    for (size, uploads) in [(2 * 1024 * 1024, 1), (2 * PART, 2)] {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sender, receiver) = mpsc::channel();
        let bucket = bucket(&Store::with(Fault::Blocking(Mutex::new(receiver))), 600 * SECOND);
        let upload = runtime.spawn(async move { bucket.put(NAME, content(size)).await });
        // This task's thread is the one that the upload blocks.
        runtime.spawn(async move {
            for _ in 0..uploads {
                tokio::time::sleep(Duration::from_millis(10)).await;
                sender.send(()).unwrap();
            }
        });
        runtime.block_on(upload).unwrap().unwrap();
    }
}

/// A journal in the store's list of events.
#[derive(Debug)]
struct Journal(Arc<Mutex<Vec<String>>>);

impl UploadJournal for Journal {
    fn began(&self, name: &str, upload_id: &str) -> io::Result<()> {
        self.0.lock().push(format!("began {name} {upload_id}"));
        Err(io::Error::other("a journal that fails does not fail the upload"))
    }

    fn ended(&self, name: &str, upload_id: &str) -> io::Result<()> {
        self.0.lock().push(format!("ended {name} {upload_id}"));
        Ok(())
    }
}

/// Uploads two parts, and returns the events.
async fn journal(fault: Fault) -> Vec<String> {
    let store = Store::with(fault);
    let journal = Arc::new(Journal(Arc::clone(&store.events)));
    let bucket = bucket(&store, 600 * SECOND).with_journal(journal);
    let upload = bucket.put(NAME, content(PART + 1));
    // Dropped if it takes longer.
    let _ = tokio::time::timeout(SECOND, upload).await;
    std::mem::take(&mut *store.events.lock())
}

#[tokio::test]
async fn journal_has_the_uploads_that_have_not_ended() {
    let begin = ["create", "began object 0"];
    let send = ["part", "part", "complete"];
    let end = "ended object 0";
    assert_eq!(journal(Fault::None).await, [&begin[..], &send, &[end]].concat());
    let aborted = journal(Fault::Refusing { aborts: false }).await;
    assert_eq!(aborted, [&begin[..], &send, &["abort", end]].concat());
    let left = journal(Fault::Refusing { aborts: true }).await;
    assert_eq!(left, [&begin[..], &send, &["abort"]].concat());
    assert_eq!(journal(Fault::Stalled).await, begin, "the future was dropped");
}
