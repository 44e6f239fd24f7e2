//! Operations on single objects, which are the same for every cloud.

use std::ops::Range;

use anyhow::{Result, ensure};
use bucket::{Cause, Payload, ReadRange, RetryPolicy, StorageError};
use bytes::Bytes;
use serde_json::json;

use crate::Cloud;
use crate::client::fixture::{Client, all, failed};
use crate::fixture::content;

tests! {
    EveryCloud:
        content_of_every_size_is_stored_exactly,
        put_replaces_an_object,
        ranges_are_exact,
        range_must_begin_in_the_object,
        missing_object_is_not_found,
        missing_bucket_is_not_a_missing_object,
        wrong_credentials_fail_every_operation,
}

const KIB: usize = 1024;

fn range(range: Range<u64>) -> ReadRange {
    ReadRange::Range(range)
}

fn content_of_every_size_is_stored_exactly<C: Cloud>() -> Result<()> {
    let client = Client::<C>::start()?;
    let mut contents: Vec<Vec<u8>> = [0, b'\r', b'\n', 0x1A, 0xFF].map(|value| vec![value; 64 * KIB]).into();
    for unit in [1, 16 * KIB, 64 * KIB, 128 * KIB, 1024 * KIB] {
        contents.extend([unit - 1, unit, unit + 1].map(content));
    }
    for bytes in contents {
        let size = bytes.len();
        let stored = Bytes::from(bytes);
        for payload in [Payload::Owned as fn(_) -> _, Payload::Lent] {
            client.runtime.block_on(client.bucket.put("object", payload(stored.clone())))?;
            assert_eq!(client.requests(), 1, "{size}");
            client.assert_stored("object", &stored);
            assert!(client.get("object", ReadRange::Whole)? == stored, "{size}");
            assert_eq!((client.server.requests().body_bytes_sent, client.requests()), (size as u64, 1));
            client.delete("object")?;
            assert_eq!((client.requests(), client.keys().len()), (1, 0), "{size}");
        }
    }
    Ok(())
}

fn put_replaces_an_object<C: Cloud>() -> Result<()> {
    let client = Client::<C>::start()?;
    for size in [10_000, 20_000, 5, 0, 20_000] {
        client.put("object", content(size))?;
        client.assert_stored("object", &content(size));
        assert!(client.get("object", ReadRange::Whole)? == content(size), "the bytes differ");
    }
    assert_eq!(client.keys(), ["object"]);
    Ok(())
}

fn ranges_are_exact<C: Cloud>() -> Result<()> {
    let client = Client::<C>::start()?;
    let size = 2048 * KIB + 5;
    let bytes = content(size);
    client.put("object", bytes.clone())?;
    client.server.reset_counts();
    let mut ranges = vec![(0, 1), (1, size), (0, size - 1), (size - 1, size)];
    for boundary in [16 * KIB, 64 * KIB, 256 * KIB, 1024 * KIB] {
        ranges.extend([
            (boundary - 1, boundary),
            (boundary - 1, boundary + 1),
            (boundary, 2 * boundary),
            (boundary, size),
        ]);
    }
    // After this one, the next range from the first byte may be asked for without a range.
    ranges.push((0, size));
    for (start, end) in ranges {
        let read = client.get("object", range(start as u64..end as u64))?;
        assert!(read == bytes[start..end], "{start}..{end}");
        assert_eq!((client.server.requests().body_bytes_sent, client.requests()), ((end - start) as u64, 1));
    }
    Ok(())
}

fn range_must_begin_in_the_object<C: Cloud>() -> Result<()> {
    let client = Client::<C>::start()?;
    client.put("object", content(1000))?;
    for (start, end, read_end) in [(0, 10, 10), (0, 5000, 1000), (990, 2000, 1000), (999, 1_000_000, 1000)] {
        let download = client.runtime.block_on(client.bucket.get("object", ReadRange::UpTo(start..end)))?;
        assert_eq!((download.object_size(), download.range()), (1000, start..read_end));
        let expected = &content(1000)[usize::try_from(start)?..usize::try_from(read_end)?];
        assert_eq!(client.runtime.block_on(all(download))?, expected);
    }
    client.put("empty", "")?;
    for (name, range) in [
        ("object", ReadRange::UpTo(1000..1001)),
        ("empty", ReadRange::UpTo(0..1)),
        ("empty", ReadRange::UpTo(0..100)),
        ("empty", range(0..1)),
        ("empty", range(1..2)),
    ] {
        client.server.reset_counts();
        let error = failed(client.get(name, range.clone()))?;
        assert_eq!((error.cause, client.requests()), (Cause::OutOfRange, 1), "{name} {range:?}");
    }
    Ok(())
}

fn missing_object_is_not_found<C: Cloud>() -> Result<()> {
    let client = Client::<C>::start()?;
    client.put("object/below", "content")?;
    client.server.reset_counts();
    for range in [ReadRange::Whole, range(0..1), range(5000..5001), ReadRange::UpTo(0..1)] {
        let error = failed(client.get("object", range.clone()))?;
        assert_eq!((&error.cause, error.transient), (&Cause::NotFound, false), "{range:?}");
        assert_eq!((error.status(), client.requests()), (Some(404), 1), "{range:?}");
        let line = error.to_string();
        assert!(line.contains(&format!("{}/object", C::URL)) && line.contains(C::NO_SUCH_OBJECT), "{line}");
    }
    for name in ["object", "object/belo", "object/below", "object/below"] {
        client.delete(name)?;
        assert_eq!(client.requests(), 1, "{name}");
    }
    assert!(client.keys().is_empty());
    Ok(())
}

/// The results of all operations, each with its name.
fn results<C: Cloud>(client: &Client<C>) -> [(&'static str, Result<(), StorageError>); 5] {
    [
        ("check", client.runtime.block_on(client.bucket.check("check", RetryPolicy::default())).map(drop)),
        ("put", client.put("object", "content")),
        ("get", client.get("object", ReadRange::Whole).map(drop)),
        ("range", client.get("object", range(0..1)).map(drop)),
        ("delete", client.delete("object")),
    ]
}

fn missing_bucket_is_not_a_missing_object<C: Cloud>() -> Result<()> {
    let client = Client::<C>::with(&json!({C::BUCKET_OPTION: "missing"}))?;
    for (operation, result) in results(&client) {
        let error = failed(result)?;
        assert_eq!(
            (error.cause, error.transient, error.attempts),
            (Cause::BucketMissing, false, 1),
            "{operation}"
        );
        assert_eq!(error.answer.and_then(|answer| answer.code).as_deref(), Some(C::NO_SUCH_BUCKET));
    }
    assert_eq!(client.requests(), 5);
    assert!(client.server.keys("missing").is_empty());
    Ok(())
}

fn wrong_credentials_fail_every_operation<C: Cloud>() -> Result<()> {
    for number in 0.. {
        let server = C::server()?;
        let Some(refusal) = C::refusals(&server.endpoint()).into_iter().nth(number) else {
            ensure!(number > 0, "no wrong credentials");
            break;
        };
        let client = Client::<C>::of(server, &refusal.changes)?;
        for (operation, result) in results(&client) {
            let error = failed(result)?;
            assert!(!error.transient && error.attempts == 1, "{operation}: {error}");
            assert!(error.to_string().contains(&refusal.answer), "{operation}: {error}");
        }
        assert!(client.keys().is_empty());
    }
    Ok(())
}
