//! Clear objects, A1 and A2 side by side in one bucket.

use anyhow::Result;
use crypto_envelope::Format;
use serde_json::json;

use crate::Cloud;
use crate::fixture::codes::{BAD_RANGE, CORRUPTED_FILE, INEXISTENT_FILE};
use crate::fixture::{DICOM, Setup, content, done, flat, legacy, object_url, uuid};

tests![
    a_mixed_flat_bucket_is_read_and_removed_from,
    a_mixed_legacy_bucket_is_read_and_removed_from,
    small_clear_objects_are_read_whatever_they_begin_with,
    in_the_flat_structure_a_clear_name_decides_even_if_the_content_looks_like_an_envelope,
    of_two_objects_the_encrypted_one_is_read_and_both_are_removed,
    without_read_unencrypted_nothing_in_clear_is_delivered,
    read_unencrypted_does_not_let_an_unencrypted_object_take_an_encrypted_name,
    with_a1_as_format_the_whole_mixed_bucket_is_read,
];

const SIZE: usize = 300_000;
/// A start and a length, each kind of range.
const RANGES: [(usize, usize); 6] =
    [(0, 1), (0, 4096), (65_530, 20), (131_072, 65_536), (SIZE - 1, 1), (0, SIZE)];

fn encrypted(uuid: &str) -> String {
    format!("{}.enc", flat(uuid))
}

/// Puts attachment 1 in clear, 2 in A1 and 3 in A2 into the bucket.
fn fill<C: Cloud>(setup: &Setup<C>, clear: fn(&str) -> String, envelope: fn(&str) -> String) -> Result<()> {
    setup.insert(&clear(&uuid(1)), content(SIZE));
    for (number, format) in [(2, Format::A1), (3, Format::A2)] {
        let object = setup.keys.seal(format, &uuid(number), &content(SIZE))?;
        setup.insert(&envelope(&uuid(number)), object);
    }
    Ok(())
}

fn all_are_read_and_removed<C: Cloud>(
    structure: &str,
    clear: fn(&str) -> String,
    envelope: fn(&str) -> String,
) -> Result<()> {
    let setup = Setup::<C>::encrypted_with(
        &json!({ "StorageStructure": structure }),
        &json!({ "Format": "A2", "ReadUnencrypted": true }),
    )?;
    fill(&setup, clear, envelope)?;
    let whole = content(SIZE);
    for number in 1..=3 {
        let uuid = uuid(number);
        for (start, len) in RANGES {
            assert!(setup.range(&uuid, start as u64, len)? == whole[start..start + len], "{number} {start}");
        }
        assert!(setup.read(&uuid)? == whole, "{number}");
        // Now that all is known of it.
        for (start, len) in RANGES {
            assert!(setup.range(&uuid, start as u64, len)? == whole[start..start + len], "{number} {start}");
        }
        for (start, len) in [(SIZE as u64, 1), (SIZE as u64 - 1, 2), (1 << 40, 1)] {
            let range = setup.host.read_range(&uuid, DICOM, start, len);
            assert_eq!(range, Err(BAD_RANGE), "{number} {start}");
        }
        done(setup.host.remove(&uuid, DICOM))?;
        assert_eq!(setup.host.read_whole(&uuid, DICOM), Err(INEXISTENT_FILE));
    }
    assert!(setup.stored().is_empty());
    setup.check()
}

fn a_mixed_flat_bucket_is_read_and_removed_from<C: Cloud>() -> Result<()> {
    all_are_read_and_removed::<C>("flat", flat, encrypted)
}

fn a_mixed_legacy_bucket_is_read_and_removed_from<C: Cloud>() -> Result<()> {
    all_are_read_and_removed::<C>("legacy", legacy, legacy)
}

fn small_clear_objects_are_read_whatever_they_begin_with<C: Cloud>() -> Result<()> {
    for (structure, name) in [("flat", flat as fn(&str) -> String), ("legacy", legacy)] {
        let setup = Setup::<C>::encrypted_with(
            &json!({ "StorageStructure": structure }),
            &json!({ "Format": "A2", "ReadUnencrypted": true }),
        )?;
        for (number, text) in ["", "A", "A1", "A2", "B2000000", "{\"a\": 1}"].iter().enumerate() {
            setup.insert(&name(&uuid(number)), text.as_bytes());
            assert_eq!(setup.read(&uuid(number))?, text.as_bytes(), "{structure} {text}");
            if !text.is_empty() {
                assert_eq!(setup.range(&uuid(number), 0, 1)?, text.as_bytes()[..1], "{structure} {text}");
            }
        }
        setup.check()?;
    }
    Ok(())
}

fn in_the_flat_structure_a_clear_name_decides_even_if_the_content_looks_like_an_envelope<C: Cloud>()
-> Result<()> {
    let setup = Setup::<C>::encrypted_with(&json!({}), &json!({ "Format": "A2", "ReadUnencrypted": true }))?;
    let looks = setup.keys.seal(Format::A2, &uuid(1), b"content")?;
    setup.insert(&flat(&uuid(1)), looks.clone());
    assert_eq!(setup.read(&uuid(1))?, looks);
    Ok(())
}

fn of_two_objects_the_encrypted_one_is_read_and_both_are_removed<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::encrypted_with(&json!({}), &json!({ "Format": "A2", "ReadUnencrypted": true }))?;
    setup.create(&uuid(1), b"encrypted")?;
    setup.insert(&flat(&uuid(1)), "clear");
    assert_eq!(setup.read(&uuid(1))?, b"encrypted");
    done(setup.host.remove(&uuid(1), DICOM))?;
    assert!(setup.stored().is_empty());
    Ok(())
}

fn without_read_unencrypted_nothing_in_clear_is_delivered<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::encrypted("A2")?;
    fill(&setup, flat, encrypted)?;
    // Under its clear name it is not even looked for.
    assert_eq!(setup.host.read_whole(&uuid(1), DICOM), Err(INEXISTENT_FILE));
    assert_eq!(setup.host.read_range(&uuid(1), DICOM, 0, 10), Err(INEXISTENT_FILE));
    assert!(setup.read(&uuid(2))? == content(SIZE));
    assert!(setup.read(&uuid(3))? == content(SIZE));
    // Somebody slipped it in under the name of an encrypted one.
    setup.insert(&encrypted(&uuid(1)), content(SIZE));
    refused(&setup, &encrypted(&uuid(1)))?;
    setup.check()?;

    let setup =
        Setup::<C>::encrypted_with(&json!({ "StorageStructure": "legacy" }), &json!({ "Format": "A2" }))?;
    fill(&setup, legacy, legacy)?;
    refused(&setup, &legacy(&uuid(1)))?;
    assert!(setup.read(&uuid(2))? == content(SIZE));
    assert!(setup.read(&uuid(3))? == content(SIZE));
    setup.check()
}

/// Attachment 1 is not delivered, since it is not encrypted.
fn refused<C: Cloud>(setup: &Setup<C>, key: &str) -> Result<()> {
    let line =
        format!("cannot read {}: it is not encrypted, and ReadUnencrypted is off", object_url::<C>(key));
    assert_eq!(setup.host.read_whole(&uuid(1), DICOM), Err(CORRUPTED_FILE));
    assert_eq!(setup.last_error(), line);
    for start in [0, 200_000] {
        assert_eq!(setup.host.read_range(&uuid(1), DICOM, start, 10), Err(CORRUPTED_FILE));
        assert_eq!(setup.last_error(), line);
    }
    Ok(())
}

fn read_unencrypted_does_not_let_an_unencrypted_object_take_an_encrypted_name<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::encrypted_with(&json!({}), &json!({ "Format": "A2", "ReadUnencrypted": true }))?;
    setup.insert(&encrypted(&uuid(1)), content(SIZE));
    assert_eq!(setup.host.read_whole(&uuid(1), DICOM), Err(CORRUPTED_FILE));
    assert_eq!(setup.host.read_range(&uuid(1), DICOM, 0, 10), Err(CORRUPTED_FILE));
    Ok(())
}

fn with_a1_as_format_the_whole_mixed_bucket_is_read<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::encrypted_with(&json!({}), &json!({ "Format": "A1", "ReadUnencrypted": true }))?;
    fill(&setup, flat, encrypted)?;
    for number in 1..=3 {
        assert!(setup.read(&uuid(number))? == content(SIZE), "{number}");
    }
    Ok(())
}
