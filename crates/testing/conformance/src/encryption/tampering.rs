//! Changed objects: a writer of the bucket cannot make the plugin return content that Orthanc has not stored.

use anyhow::Result;
use bytes::Bytes;
use crypto_envelope::Format;
use fake_cloud::Fault;
use serde_json::json;

use crate::Cloud;
use crate::fixture::codes::{BAD_RANGE, CORRUPTED_FILE, INEXISTENT_FILE, STORAGE_AREA_PLUGIN};
use crate::fixture::{DICOM, LoadedPlugin, UUID, content, flat, flat_encrypted, request, uuid};

tests! {
    EveryCloud:
        object_replaced_after_its_header_was_read;
    OneCloud:
        changed_bit_is_an_error,
        truncated_or_extended_object_is_an_error,
        swapped_segments_are_an_error,
        object_of_another_attachment_is_an_error,
        interrupted_download_is_decrypted,
        read_of_a_replaced_object_starts_over,
}

/// Three segments and a shorter one.
const SIZE: usize = 3 * 65_536 + 1000;
const SEALED: usize = 65_536 + 16;

/// Checks that neither a whole read nor a range returns content. `check` also finds content in a buffer of
/// Orthanc.
fn assert_refused<C: Cloud>(plugin: &LoadedPlugin<C>, change: &str) -> Result<()> {
    let codes = [CORRUPTED_FILE, STORAGE_AREA_PLUGIN, BAD_RANGE];
    for outcome in [
        plugin.orthanc.read_whole(UUID, DICOM),
        plugin.orthanc.read_range(UUID, DICOM, 0, 3 * 65_536),
        plugin.orthanc.read_range(UUID, DICOM, 0, 3 * 65_536),
    ] {
        let code = outcome.map(|bytes| bytes.len());
        assert!(code.is_err_and(|code| codes.contains(&code)), "{change}: {code:?}");
    }
    plugin.check()
}

fn changed_bit_is_an_error<C: Cloud>() -> Result<()> {
    for format in [Format::A1, Format::A2] {
        let plugin = LoadedPlugin::<C>::encrypted("A2")?;
        let object = plugin.keys.seal(format, UUID, &content(SIZE))?;
        // Version, key id, algorithm, k, W, salt, wrapped key, first segment, its tag, third segment, and its
        // tag.
        let header = [0, 1, 2, 5, 6, 7, 8, 9, 10, 41, 42, 81];
        let segments = [82, 30_000, 82 + SEALED - 1, 2 * SEALED + 90, 82 + 3 * SEALED - 1];
        for place in header.into_iter().chain(segments) {
            let mut altered = object.clone();
            altered[place] ^= 1;
            plugin.insert(&flat_encrypted(UUID), altered);
            assert_refused(&plugin, &format!("{format} byte {place}"))?;
        }
        plugin.insert(&flat_encrypted(UUID), object);
        assert!(plugin.read(UUID)? == content(SIZE));
    }
    Ok(())
}

fn truncated_or_extended_object_is_an_error<C: Cloud>() -> Result<()> {
    for format in [Format::A1, Format::A2] {
        let plugin = LoadedPlugin::<C>::encrypted("A2")?;
        let object = plugin.keys.seal(format, UUID, &content(SIZE))?;
        let header = [0, 1, 2, 6, 41, 81, 82, 97, 98];
        let segments = [1, 2, 3].map(|number| 82 + number * SEALED);
        let last = [82 + 3 * SEALED + 16, object.len() - 16, object.len() - 1];
        for length in [&header[..], &segments, &last].concat() {
            plugin.insert(&flat_encrypted(UUID), object[..length].to_vec());
            let whole = plugin.orthanc.read_whole(UUID, DICOM);
            assert_eq!(whole, Err(CORRUPTED_FILE), "{format} {length}");
            // A range may use complete segments before the last one, and nothing else.
            let range = plugin.orthanc.read_range(UUID, DICOM, SIZE as u64 - 2000, 2000);
            assert!(range == Err(CORRUPTED_FILE) || range == Err(BAD_RANGE), "{format} {length}");
            plugin.check()?;
        }
        plugin.insert(&flat_encrypted(UUID), [&object[..], b"x"].concat());
        assert_eq!(plugin.orthanc.read_whole(UUID, DICOM), Err(CORRUPTED_FILE));
        assert!(plugin.orthanc.read_range(UUID, DICOM, SIZE as u64 - 10, 10).is_err());
        plugin.check()?;
    }
    Ok(())
}

fn swapped_segments_are_an_error<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::encrypted("A2")?;
    let object = plugin.keys.seal(Format::A2, UUID, &content(SIZE))?;
    let (header, segments) = object.split_at(82);
    let swapped =
        [header, &segments[SEALED..2 * SEALED], &segments[..SEALED], &segments[2 * SEALED..]].concat();
    plugin.insert(&flat_encrypted(UUID), swapped);
    assert_refused(&plugin, "swapped segments")
}

fn object_of_another_attachment_is_an_error<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::encrypted("A2")?;
    plugin.create(&uuid(1), &content(SIZE))?;
    plugin.insert(&flat_encrypted(UUID), plugin.object(&flat_encrypted(&uuid(1)))?);
    assert_refused(&plugin, "swapped objects")?;
    let errors = plugin.errors();
    assert!(errors.iter().all(|line| line.contains(UUID)), "{errors:#?}");
    Ok(())
}

fn object_replaced_after_its_header_was_read<C: Cloud>() -> Result<()> {
    let plugin =
        LoadedPlugin::<C>::encrypted_with(&json!({}), &json!({"Format": "A2", "ReadUnencrypted": true}))?;
    // Shorter, longer, of the same length, and in A1, as if another Orthanc had stored them.
    let replacements = [
        (Format::A2, SIZE - 100_000),
        (Format::A2, 5 * SIZE),
        (Format::A2, 5 * SIZE),
        (Format::A1, SIZE),
        (Format::A2, SIZE),
    ];
    plugin.create(UUID, &content(SIZE))?;
    plugin.range(UUID, 0, 10)?;
    for (round, (format, size)) in replacements.into_iter().enumerate() {
        let whole: Vec<u8> = content(size + round)[round..].to_vec();
        plugin.insert(&flat_encrypted(UUID), plugin.keys.seal(format, UUID, &whole)?);
        let start = size - 10;
        assert!(plugin.range(UUID, start as u64, 10)? == whole[start..], "{round}");
        assert!(plugin.range(UUID, 70_000, 10)? == whole[70_000..70_010], "{round}");
        assert!(plugin.read(UUID)? == whole, "{round}");
    }
    // A clear object with its clear name.
    plugin.range(UUID, 0, 10)?;
    plugin.server.remove(C::BUCKET, &flat_encrypted(UUID));
    plugin.insert(&flat(UUID), content(100));
    assert_eq!(plugin.range(UUID, 90, 10)?, content(100)[90..]);

    // An object of one short segment.
    plugin.create(UUID, &content(SIZE))?;
    plugin.range(UUID, 0, 10)?;
    plugin.insert(&flat_encrypted(UUID), plugin.keys.seal(Format::A2, UUID, b"short")?);
    assert_eq!(plugin.orthanc.read_range(UUID, DICOM, SIZE as u64 - 10, 10), Err(BAD_RANGE));
    assert_eq!(plugin.range(UUID, 0, 5)?, b"short");
    plugin.remove(UUID)?;
    plugin.settle();
    assert_eq!(plugin.orthanc.read_range(UUID, DICOM, 0, 5), Err(INEXISTENT_FILE));
    plugin.check()
}

fn interrupted_download_is_decrypted<C: Cloud>() -> Result<()> {
    for format in [Format::A1, Format::A2] {
        let plugin = LoadedPlugin::<C>::encrypted("A2")?;
        let whole = content(20_000_000);
        plugin.insert(&flat_encrypted(UUID), plugin.keys.seal(format, UUID, &whole)?);
        plugin.fault(request::READ, Fault::CloseAfterResponseBytes(7_000_001), 1);
        plugin.fault(request::READ_RANGE, Fault::ResetAfterResponseBytes(5_000_000), 1);
        assert!(plugin.read(UUID)? == whole, "{format}");
        assert_eq!(plugin.requests(), 3);
        // The same for a range.
        let fault = Fault::CloseAfterResponseBytes(100_000);
        let operation = if format == Format::A1 { request::READ } else { request::READ_RANGE };
        let rule = plugin.fault(operation, fault, 1);
        assert!(plugin.range(UUID, 5_000_000, 1_000_000)? == whole[5_000_000..6_000_000], "{format}");
        assert_eq!(rule.fired(), 1);
        plugin.check()?;
    }
    Ok(())
}

fn read_of_a_replaced_object_starts_over<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::encrypted("A2")?;
    let new = vec![9; 20_000_000];
    plugin.create(UUID, &content(20_000_000))?;
    let replacement = Bytes::from(plugin.keys.seal(Format::A2, UUID, &new)?);
    plugin.fault(request::READ, Fault::CloseAfterResponseBytes(7_000_000), 1);
    plugin.fault(request::READ_RANGE, Fault::ReplaceObject(replacement), 1);
    assert!(plugin.read(UUID)? == new, "neither the old nor a mix of both");
    plugin.check()
}
