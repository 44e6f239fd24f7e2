//! What every store has to do with an object.

use std::ops::Range;

use anyhow::{Result, anyhow, ensure};
use bucket::{Cause, Payload, ReadRange, RetryPolicy, StorageError};
use serde_json::json;

use crate::Cloud;
use crate::client::fixture::{Client, all};
use crate::fixture::content;

tests![
    what_is_put_is_got_and_gone_after_a_delete_with_one_request_each,
    an_object_that_is_put_again_is_replaced,
    a_range_is_exactly_what_was_asked_for,
    as_much_of_a_range_as_there_is_can_be_asked_for,
    a_range_beyond_the_end_is_out_of_range,
    an_object_of_no_bytes_is_whole_and_has_no_range,
    a_missing_object_is_not_found,
    a_missing_object_is_deleted_already,
    a_missing_bucket_is_told_from_a_missing_object,
    the_check_finds_an_empty_bucket,
    refused_credentials_are_refused_for_every_operation,
    sixty_four_objects_are_put_got_and_deleted_at_once,
];

/// A range of an object.
fn part(range: Range<u64>) -> ReadRange {
    ReadRange::Range(range)
}

fn what_is_put_is_got_and_gone_after_a_delete_with_one_request_each<C: Cloud>() -> Result<()> {
    let bucket = Client::<C>::start()?;
    let bytes = content(300_000);
    let whole = bytes.clone();
    // Whether the memory is somebody else's or not.
    for kind in [Payload::Owned as fn(_) -> _, Payload::Lent] {
        bucket.runtime.block_on(bucket.storage.put("object", kind(whole.clone().into())))?;
        assert_eq!(bucket.requests(), 1);
        bucket.assert_stored("object", &bytes);
        assert!(bucket.get("object", ReadRange::Whole)? == bytes, "the bytes differ");
        assert_eq!(bucket.server.requests().body_bytes_sent, bytes.len() as u64);
        assert_eq!(bucket.requests(), 1);
        bucket.delete("object")?;
        assert_eq!(bucket.requests(), 1);
        assert!(bucket.keys().is_empty(), "{:?}", bucket.keys());
    }
    Ok(())
}

fn an_object_that_is_put_again_is_replaced<C: Cloud>() -> Result<()> {
    let bucket = Client::<C>::start()?;
    for size in [10_000, 20_000, 5, 0, 20_000] {
        bucket.put("object", content(size))?;
        bucket.assert_stored("object", &content(size));
        assert!(bucket.get("object", ReadRange::Whole)? == content(size), "the bytes differ");
    }
    assert_eq!(bucket.keys(), ["object"]);
    Ok(())
}

fn a_range_is_exactly_what_was_asked_for<C: Cloud>() -> Result<()> {
    let bucket = Client::<C>::start()?;
    let (bytes, size) = (content(100_000), 100_000);
    bucket.put("object", bytes.clone())?;
    bucket.server.reset_counts();
    for (start, end) in [(0, 1), (0, size), (1, size), (0, size - 1), (size - 1, size), (49_999, 50_001)] {
        let range = bucket.get("object", part(start as u64..end as u64))?;
        assert!(range == bytes[start..end], "{start}..{end}");
        assert_eq!(bucket.server.requests().body_bytes_sent, (end - start) as u64);
        assert_eq!(bucket.requests(), 1);
    }
    Ok(())
}

fn as_much_of_a_range_as_there_is_can_be_asked_for<C: Cloud>() -> Result<()> {
    let bucket = Client::<C>::start()?;
    bucket.put("object", content(1000))?;
    for (start, end, there) in [(0, 10, 10), (0, 5000, 1000), (990, 2000, 1000), (999, 1_000_000, 1000)] {
        let download = bucket.runtime.block_on(bucket.storage.get("object", ReadRange::UpTo(start..end)))?;
        assert_eq!((download.object_size(), download.range()), (1000, start..there));
        let expected = &content(1000)[usize::try_from(start)?..usize::try_from(there)?];
        assert_eq!(bucket.runtime.block_on(all(download))?, expected);
    }
    let error = failed(bucket.get("object", ReadRange::UpTo(1000..1001)))?;
    assert_eq!(error.cause, Cause::OutOfRange);
    Ok(())
}

fn a_range_beyond_the_end_is_out_of_range<C: Cloud>() -> Result<()> {
    let bucket = Client::<C>::start()?;
    bucket.put("object", content(1000))?;
    bucket.server.reset_counts();
    for range in [999..1001, 0..1001, 1000..1001, 1001..1002, 5000..6000, 1 << 40..(1 << 40) + 5] {
        let error = failed(bucket.get("object", part(range.clone())))?;
        assert_eq!((error.cause, error.transient), (Cause::OutOfRange, false), "{range:?}");
        assert_eq!(bucket.requests(), 1, "{range:?}");
    }
    Ok(())
}

fn an_object_of_no_bytes_is_whole_and_has_no_range<C: Cloud>() -> Result<()> {
    let bucket = Client::<C>::start()?;
    bucket.put("object", "")?;
    bucket.assert_stored("object", b"");
    assert_eq!(bucket.get("object", ReadRange::Whole)?, b"");
    bucket.server.reset_counts();
    for part in [part(0..1), part(1..2), ReadRange::UpTo(0..1), ReadRange::UpTo(0..100)] {
        let error = failed(bucket.get("object", part.clone()))?;
        assert_eq!(error.cause, Cause::OutOfRange, "{part:?}");
        assert_eq!(bucket.requests(), 1, "{part:?}");
    }
    bucket.delete("object")?;
    assert!(bucket.keys().is_empty());
    Ok(())
}

fn a_missing_object_is_not_found<C: Cloud>() -> Result<()> {
    let bucket = Client::<C>::start()?;
    bucket.put("object", "content")?;
    bucket.server.reset_counts();
    for part in [ReadRange::Whole, part(0..1), part(5000..5001), ReadRange::UpTo(0..1)] {
        let error = failed(bucket.get("objec", part.clone()))?;
        assert_eq!((&error.cause, error.transient), (&Cause::NotFound, false), "{part:?}");
        assert_eq!((error.status(), bucket.requests()), (Some(404), 1), "{part:?}");
        let expected =
            format!("cannot read {}/objec: no such object (HTTP 404 {}", C::URL, C::NO_SUCH_OBJECT);
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
    Ok(())
}

fn a_missing_object_is_deleted_already<C: Cloud>() -> Result<()> {
    let bucket = Client::<C>::start()?;
    bucket.put("object/below", "content")?;
    bucket.server.reset_counts();
    for name in ["object", "object/belo", "object/below", "object/below"] {
        bucket.delete(name)?;
        assert_eq!(bucket.requests(), 1, "{name}");
    }
    assert!(bucket.keys().is_empty());
    Ok(())
}

fn a_missing_bucket_is_told_from_a_missing_object<C: Cloud>() -> Result<()> {
    let bucket = Client::<C>::with(&json!({C::BUCKET_OPTION: "missing"}))?;
    for (operation, outcome) in outcomes(&bucket) {
        let error = failed(outcome)?;
        assert_eq!((error.cause, error.transient), (Cause::BucketMissing, false), "{operation}");
        assert_eq!(error.attempts, 1, "{operation}");
        assert_eq!(error.answer.and_then(|answer| answer.code).as_deref(), Some(C::NO_SUCH_BUCKET));
    }
    assert_eq!(bucket.requests(), 5);
    assert!(bucket.server.keys("missing").is_empty());
    Ok(())
}

fn the_check_finds_an_empty_bucket<C: Cloud>() -> Result<()> {
    let bucket = Client::<C>::start()?;
    for root in ["", "root/", "Röntgen/100% #1/"] {
        bucket.runtime.block_on(bucket.storage.check(root, RetryPolicy::default()))?;
        assert_eq!(bucket.requests(), 1);
    }
    assert!(bucket.keys().is_empty(), "the check leaves nothing");
    Ok(())
}

fn refused_credentials_are_refused_for_every_operation<C: Cloud>() -> Result<()> {
    for number in 0.. {
        let server = C::server()?;
        let Some(refusal) = C::refusals(&server.endpoint()).into_iter().nth(number) else { break };
        let bucket = Client::<C>::of(server, &refusal.changes)?;
        for (operation, outcome) in outcomes(&bucket) {
            let error = failed(outcome)?;
            assert!(!error.transient && error.attempts == 1, "{operation}: {error}");
            let line = error.to_string();
            let cause = line.split_once(": ").map_or("", |(_, cause)| cause);
            assert!(cause.starts_with(&refusal.cause), "{operation}: {line}");
        }
        assert!(bucket.keys().is_empty());
    }
    Ok(())
}

/// What becomes of every operation, each with its name.
fn outcomes<C: Cloud>(bucket: &Client<C>) -> [(&'static str, Result<(), StorageError>); 5] {
    [
        ("check", bucket.runtime.block_on(bucket.storage.check("", RetryPolicy::default())).map(drop)),
        ("put", bucket.put("object", "content")),
        ("get", bucket.get("object", ReadRange::Whole).map(drop)),
        ("range", bucket.get("object", part(0..1)).map(drop)),
        ("delete", bucket.delete("object")),
    ]
}

fn sixty_four_objects_are_put_got_and_deleted_at_once<C: Cloud>() -> Result<()> {
    let bucket = Client::<C>::start()?;
    let work = |number: usize| {
        let (storage, name) = (bucket.storage.clone(), format!("folder {}/{number}", number % 3));
        async move {
            let bytes = content(1000 + number * 3001);
            storage.put(&name, Payload::Owned(bytes.clone().into())).await?;
            let whole = all(storage.get(&name, ReadRange::Whole).await?).await?;
            ensure!(whole == bytes, "the bytes of {name} differ");
            let range = all(storage.get(&name, part(7..bytes.len() as u64)).await?).await?;
            ensure!(range == bytes[7..], "the bytes of a range of {name} differ");
            if number.is_multiple_of(2) {
                storage.delete(&name).await?;
            }
            Ok(())
        }
    };
    let tasks: Vec<_> = (0..64).map(|number| bucket.runtime.spawn(work(number))).collect();
    for task in tasks {
        bucket.runtime.block_on(task)??;
    }
    let odd = (1..64).step_by(2);
    let mut left: Vec<_> = odd.map(|number| format!("folder {}/{number}", number % 3)).collect();
    left.sort();
    assert_eq!(bucket.keys(), left);
    assert_eq!(bucket.requests(), 64 * 3 + 32);
    Ok(())
}

/// The error of what must not succeed.
pub(crate) fn failed<T>(outcome: Result<T, StorageError>) -> Result<StorageError> {
    outcome.err().ok_or_else(|| anyhow!("it succeeded"))
}
