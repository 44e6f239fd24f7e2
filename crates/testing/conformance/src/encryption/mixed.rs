//! Clear, A1 and A2 objects in one bucket.

use anyhow::Result;
use crypto_envelope::Format;
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::codes::{BAD_RANGE, CORRUPTED_FILE, INEXISTENT_FILE};
use crate::fixture::{DICOM, LoadedPlugin, content, flat, flat_encrypted, legacy, object_url, uuid};

tests! {
    OneCloud:
        mixed_bucket_is_read_and_deleted,
        small_clear_objects_are_read,
        object_names_decide_about_encryption,
        encrypted_object_is_preferred,
        clear_objects_are_not_read_by_default,
}

const SIZE: usize = 300_000;
/// A start and a length of each kind of range.
const RANGES: [(usize, usize); 6] =
    [(0, 1), (0, 4096), (65_530, 20), (131_072, 65_536), (SIZE - 1, 1), (0, SIZE)];

/// Returns an object's name for a UUID.
type Name = fn(&str) -> String;

/// The structures, each with the names of clear and of encrypted objects.
const STRUCTURES: [(&str, Name, Name); 2] = [("flat", flat, flat_encrypted), ("legacy", legacy, legacy)];

/// Returns a plugin that reads clear objects too.
fn reading_clear<C: Cloud>(structure: &str, format: &str) -> Result<LoadedPlugin<C>> {
    let encryption = json!({ "Format": format, "ReadUnencrypted": true });
    LoadedPlugin::<C>::encrypted_with(&json!({ "StorageStructure": structure }), &encryption)
}

/// Stores attachment 1 in clear, 2 in A1 and 3 in A2.
fn fill<C: Cloud>(plugin: &LoadedPlugin<C>, clear: Name, encrypted: Name) -> Result<()> {
    plugin.insert(&clear(&uuid(1)), content(SIZE));
    for (number, format) in [(2, Format::A1), (3, Format::A2)] {
        let object = plugin.keys.seal(format, &uuid(number), &content(SIZE))?;
        plugin.insert(&encrypted(&uuid(number)), object);
    }
    Ok(())
}

fn mixed_bucket_is_read_and_deleted<C: Cloud>() -> Result<()> {
    let whole = content(SIZE);
    for (structure, clear, encrypted) in STRUCTURES {
        let plugin = reading_clear::<C>(structure, "A2")?;
        fill(&plugin, clear, encrypted)?;
        for uuid in [1, 2, 3].map(uuid) {
            // The plugin remembers the format after the first read.
            for _ in 0..2 {
                for (start, len) in RANGES {
                    assert!(
                        plugin.range(&uuid, start as u64, len)? == whole[start..start + len],
                        "{uuid} {start}"
                    );
                }
                assert!(plugin.read(&uuid)? == whole, "{uuid}");
            }
            for (start, len) in [(SIZE as u64, 1), (SIZE as u64 - 1, 2), (1 << 40, 1)] {
                let range = plugin.orthanc.read_range(&uuid, DICOM, start, len);
                assert_eq!(range, Err(BAD_RANGE), "{uuid} {start}");
            }
            plugin.remove(&uuid)?;
            plugin.settle();
            assert_eq!(plugin.orthanc.read_whole(&uuid, DICOM), Err(INEXISTENT_FILE));
        }
        assert!(plugin.stored().is_empty());
        plugin.check()?;
    }
    let plugin = reading_clear::<C>("flat", "A1")?;
    fill(&plugin, flat, flat_encrypted)?;
    for number in 1..=3 {
        assert!(plugin.read(&uuid(number))? == whole, "{number}");
    }
    Ok(())
}

fn small_clear_objects_are_read<C: Cloud>() -> Result<()> {
    for (structure, clear, _) in STRUCTURES {
        let plugin = reading_clear::<C>(structure, "A2")?;
        for (number, text) in ["", "A", "A1", "A2", "B2000000", "{\"a\": 1}"].iter().enumerate() {
            plugin.insert(&clear(&uuid(number)), text.as_bytes());
            assert_eq!(plugin.read(&uuid(number))?, text.as_bytes(), "{structure} {text}");
            if !text.is_empty() {
                assert_eq!(plugin.range(&uuid(number), 0, 1)?, text.as_bytes()[..1], "{structure} {text}");
            }
        }
        plugin.check()?;
    }
    Ok(())
}

fn object_names_decide_about_encryption<C: Cloud>() -> Result<()> {
    let plugin = reading_clear::<C>("flat", "A2")?;
    let envelope = plugin.keys.seal(Format::A2, &uuid(1), b"content")?;
    plugin.insert(&flat(&uuid(1)), envelope.clone());
    assert_eq!(plugin.read(&uuid(1))?, envelope);
    plugin.insert(&flat_encrypted(&uuid(2)), content(SIZE));
    assert_eq!(plugin.orthanc.read_whole(&uuid(2), DICOM), Err(CORRUPTED_FILE));
    assert_eq!(plugin.orthanc.read_range(&uuid(2), DICOM, 0, 10), Err(CORRUPTED_FILE));
    Ok(())
}

fn encrypted_object_is_preferred<C: Cloud>() -> Result<()> {
    let plugin = reading_clear::<C>("flat", "A2")?;
    plugin.create(&uuid(1), b"encrypted")?;
    plugin.insert(&flat(&uuid(1)), "clear");
    assert_eq!(plugin.read(&uuid(1))?, b"encrypted");
    plugin.remove(&uuid(1))?;
    assert!(plugin.stored().is_empty(), "both objects must be deleted");
    Ok(())
}

fn clear_objects_are_not_read_by_default<C: Cloud>() -> Result<()> {
    for (structure, clear, encrypted) in STRUCTURES {
        let options: Value = json!({ "StorageStructure": structure });
        let plugin = LoadedPlugin::<C>::encrypted_with(&options, &json!({ "Format": "A2" }))?;
        fill(&plugin, clear, encrypted)?;
        assert!(plugin.read(&uuid(2))? == content(SIZE) && plugin.read(&uuid(3))? == content(SIZE));
        if structure == "flat" {
            // The plugin does not request the clear name.
            assert_eq!(plugin.orthanc.read_whole(&uuid(1), DICOM), Err(INEXISTENT_FILE));
            assert_eq!(plugin.orthanc.read_range(&uuid(1), DICOM, 0, 10), Err(INEXISTENT_FILE));
            plugin.insert(&encrypted(&uuid(1)), content(SIZE));
        }
        let url = object_url::<C>(&encrypted(&uuid(1)));
        for outcome in [
            plugin.orthanc.read_whole(&uuid(1), DICOM),
            plugin.orthanc.read_range(&uuid(1), DICOM, 0, 10),
            plugin.orthanc.read_range(&uuid(1), DICOM, 200_000, 10),
        ] {
            assert_eq!(outcome.map(|bytes| bytes.len()), Err(CORRUPTED_FILE));
        }
        let errors = plugin.errors();
        let lines =
            errors.iter().filter(|line| line.contains(&url) && line.contains("ReadUnencrypted is false"));
        assert_eq!(lines.count(), 3, "{errors:#?}");
        plugin.check()?;
    }
    Ok(())
}
