//! Content is stored exactly as it is, whatever its size: buffers, chunks and parts have their own.

use anyhow::Result;
use bucket::{Payload, ReadRange};
use bytes::Bytes;

use crate::Cloud;
use crate::client::fixture::Client;
use crate::fixture::content;

tests![
    content_around_16_kib_is_stored_exactly,
    content_around_64_kib_is_stored_exactly,
    content_around_1_mib_is_stored_exactly,
    ranges_across_the_boundaries_are_exact,
    content_of_one_byte_value_is_stored_exactly,
];

const KIB: usize = 1024;

/// Stores as many bytes as `unit` and its multiples, and some more and fewer, in either kind of memory.
fn around<C: Cloud>(unit: usize) -> Result<()> {
    let bucket = Client::<C>::start()?;
    for near in [unit, 2 * unit, 3 * unit] {
        for size in [near - 2, near - 1, near, near + 1, near + 2] {
            let bytes = Bytes::from(content(size));
            for content in [Payload::Owned(bytes.clone()), Payload::Lent(bytes.clone())] {
                bucket.runtime.block_on(bucket.storage.put("object", content))?;
                bucket.assert_stored("object", &bytes);
                bucket.delete("object")?;
            }
            bucket.put("object", bytes.clone())?;
            assert!(bucket.get("object", ReadRange::Whole)? == bytes, "{size}");
            let last = size as u64 - 1;
            assert_eq!(bucket.get("object", ReadRange::Range(last..last + 1))?, bytes[size - 1..], "{size}");
        }
    }
    Ok(())
}

fn content_around_16_kib_is_stored_exactly<C: Cloud>() -> Result<()> {
    around::<C>(16 * KIB)
}

fn content_around_64_kib_is_stored_exactly<C: Cloud>() -> Result<()> {
    around::<C>(64 * KIB)
}

fn content_around_1_mib_is_stored_exactly<C: Cloud>() -> Result<()> {
    around::<C>(1024 * KIB)
}

fn ranges_across_the_boundaries_are_exact<C: Cloud>() -> Result<()> {
    let bucket = Client::<C>::start()?;
    let bytes = content(4 * 1024 * KIB + 5);
    bucket.put("object", bytes.clone())?;
    for boundary in [16 * KIB, 64 * KIB, 256 * KIB, 1024 * KIB, 2 * 1024 * KIB] {
        for (start, end) in [
            (boundary - 1, boundary),
            (boundary - 1, boundary + 1),
            (boundary, boundary + 1),
            (boundary, 2 * boundary),
            (0, boundary),
            (boundary, bytes.len()),
        ] {
            let range = bucket.get("object", ReadRange::Range(start as u64..end as u64))?;
            assert!(range == bytes[start..end], "{start}..{end}");
        }
    }
    Ok(())
}

fn content_of_one_byte_value_is_stored_exactly<C: Cloud>() -> Result<()> {
    let bucket = Client::<C>::start()?;
    for value in [0, b'\r', b'\n', 0x1A, 0x7F, 0x80, 0xFF] {
        for size in [1, 2, 64 * KIB] {
            bucket.put("object", vec![value; size])?;
            bucket.assert_stored("object", &vec![value; size]);
            assert!(bucket.get("object", ReadRange::Whole)? == vec![value; size], "{size} times {value}");
        }
    }
    Ok(())
}
