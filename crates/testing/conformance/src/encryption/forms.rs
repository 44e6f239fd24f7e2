//! Envelopes and content in clear where their names are the same: in the legacy structure and in files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use crypto_envelope::{Format, RECOGNIZE_LEN};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Cloud;
use crate::fixture::codes::{CORRUPTED_FILE, INEXISTENT_FILE, STORAGE_AREA_PLUGIN};
use crate::fixture::{
    DICOM, Keys, LoadedPlugin, UUID, configuration, content, flat, flat_encrypted, legacy, object_url,
    section, uuid, with,
};

tests! {
    OneCloud:
        envelopes_are_refused_without_encryption,
        clear_attachments_may_begin_like_envelopes,
        content_that_could_not_be_read_is_not_stored,
        clear_objects_are_looked_at_once,
        look_needs_no_second_connection,
        envelope_in_place_of_a_clear_object_is_refused,
        a1_object_in_place_of_an_a2_object_is_refused,
}

const SIZE: usize = 300_000;

/// A plugin with files, or without.
struct Place<C> {
    plugin: LoadedPlugin<C>,
    files: Option<TempDir>,
}

impl<C: Cloud> Place<C> {
    /// In the legacy structure of the bucket.
    fn bucket(encryption: &Value) -> Result<Self> {
        let options = json!({ "StorageStructure": "legacy", "StorageEncryption": encryption });
        Ok(Self { plugin: LoadedPlugin::with(&options)?, files: None })
    }

    /// In files, which are read first.
    fn files(encryption: &Value) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let server = C::server()?;
        let options = json!({ "HybridMode": "WriteToFileSystem", "StorageEncryption": encryption });
        let configuration = with(
            configuration::<C>(section::<C>(&server, &options)),
            &json!({ "StorageDirectory": folder.path() }),
        );
        Ok(Self { plugin: LoadedPlugin::load(server, configuration)?, files: Some(folder) })
    }

    fn put(&self, uuid: &str, content: &[u8]) -> Result<()> {
        match &self.files {
            None => self.plugin.insert(&legacy(uuid), content.to_vec()),
            Some(folder) => {
                let path = folder.path().join(legacy(uuid));
                fs::create_dir_all(path.parent().context("no folder")?)?;
                fs::write(path, content)?;
            }
        }
        Ok(())
    }

    /// The name in messages.
    fn name(&self, uuid: &str) -> String {
        let key = legacy(uuid);
        let in_files = |folder: &TempDir| Path::new(folder.path()).join(&key).display().to_string();
        self.files.as_ref().map_or_else(|| object_url::<C>(&key), in_files)
    }
}

fn envelopes_are_refused_without_encryption<C: Cloud>() -> Result<()> {
    let off = json!({});
    for place in [Place::<C>::bucket(&off)?, Place::files(&off)?] {
        let plugin = &place.plugin;
        for format in [Format::A1, Format::A2] {
            place.put(UUID, &plugin.keys.seal(format, UUID, &content(SIZE))?)?;
            for outcome in [
                plugin.orthanc.read_whole(UUID, DICOM),
                plugin.orthanc.read_range(UUID, DICOM, 0, SIZE),
                plugin.orthanc.read_range(UUID, DICOM, 0, 10),
                plugin.orthanc.read_range(UUID, DICOM, 1, 10),
                plugin.orthanc.read_range(UUID, DICOM, SIZE as u64, 10),
            ] {
                assert_eq!(outcome.map(|bytes| bytes.len()), Err(STORAGE_AREA_PLUGIN), "{format}");
            }
            let errors = plugin.errors();
            let expected =
                [&place.name(UUID), &format!("{format} envelope under master key 3"), "StorageEncryption"];
            let line = errors.last().context("no error")?;
            assert!(expected.iter().all(|part| line.contains(part)), "{line}");
        }
        assert_eq!(plugin.errors().len(), 10, "{:#?}", plugin.errors());
        plugin.check()?;
    }
    Ok(())
}

/// Content in clear of each kind that Orthanc stores, beginning with these two letters.
fn clear_contents(start: &str) -> Vec<Vec<u8>> {
    let dicom = |preamble: Vec<u8>| [start.as_bytes(), &preamble, b"DICM", &content(SIZE)].concat();
    let size = [start.as_bytes(), &[9, 0, 0, 0, 0, 0]].concat();
    vec![
        dicom(vec![0; 126]),
        // With the id of a key that is configured.
        dicom([&[3, 0, 0, 0][..], &[0; 122]].concat()),
        dicom(content(126)),
        format!("{start}{}", "{\"00080005\": \"ISO_IR 192\"}".repeat(100)).into_bytes(),
        [&size[..], &[0x78, 0x9c], &content(SIZE)].concat(),
        [start.as_bytes(), &[7; 1000]].concat(),
    ]
}

fn clear_attachments_may_begin_like_envelopes<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let off = json!({});
    let on = keys.section(&json!({ "Format": "A2", "ReadUnencrypted": true }));
    for place in [Place::<C>::bucket(&off)?, Place::files(&off)?, Place::bucket(&on)?, Place::files(&on)?] {
        let plugin = &place.plugin;
        for (number, whole) in [clear_contents("A1"), clear_contents("A2")].concat().iter().enumerate() {
            let uuid = uuid(number);
            place.put(&uuid, whole)?;
            assert!(plugin.read(&uuid)? == *whole, "{number}");
            for start in [0, 1, 150, whole.len() - 10] {
                assert!(
                    plugin.range(&uuid, start as u64, 10)? == whole[start..start + 10],
                    "{number} {start}"
                );
            }
        }
        assert_eq!(plugin.errors(), [""; 0]);
        plugin.check()?;
    }
    Ok(())
}

fn content_that_could_not_be_read_is_not_stored<C: Cloud>() -> Result<()> {
    let off = json!({});
    for place in [Place::<C>::bucket(&off)?, Place::files(&off)?] {
        let plugin = &place.plugin;
        let envelope = plugin.keys.seal(Format::A1, UUID, b"content")?;
        assert_eq!(plugin.orthanc.create(UUID, DICOM, &envelope), Err(STORAGE_AREA_PLUGIN));
        let line = plugin.new_error()?;
        assert!(line.starts_with(&format!("cannot store {}: ", place.name(UUID))), "{line}");
        assert_eq!(plugin.orthanc.read_whole(UUID, DICOM), Err(INEXISTENT_FILE));
        for (number, content) in clear_contents("A1").iter().enumerate() {
            plugin.create(&uuid(number), content)?;
            assert!(plugin.read(&uuid(number))? == *content, "{number}");
        }
    }
    // In the flat structure, the name says that the object is in clear.
    let plugin = LoadedPlugin::<C>::start()?;
    let envelope = plugin.keys.seal(Format::A1, UUID, b"content")?;
    plugin.create(UUID, &envelope)?;
    assert_eq!(plugin.read(UUID)?, envelope);
    assert_eq!(plugin.range(UUID, 1, 10)?, envelope[1..11]);
    Ok(())
}

fn clear_objects_are_looked_at_once<C: Cloud>() -> Result<()> {
    // In the flat structure, the name says that the object is in clear.
    let plugin = LoadedPlugin::<C>::start()?;
    plugin.insert(&flat(UUID), content(SIZE));
    for start in [200_000, 0, 100] {
        plugin.range(UUID, start, 1000)?;
        assert_eq!(plugin.cost(), (1, 1000), "{start}");
    }
    let Place { plugin, .. } = Place::<C>::bucket(&json!({}))?;
    for number in [1, 2] {
        plugin.insert(&legacy(&uuid(number)), content(SIZE));
    }
    plugin.range(&uuid(1), 200_000, 1000)?;
    assert_eq!(plugin.cost(), (2, 1000 + RECOGNIZE_LEN as u64));
    for start in [200_000, 0, 100] {
        plugin.range(&uuid(1), start, 1000)?;
        assert_eq!(plugin.cost(), (1, 1000), "{start}");
    }
    // A range from the first byte shows the beginning, if it is long enough.
    plugin.range(&uuid(2), 0, 10)?;
    assert_eq!(plugin.cost(), (2, 10 + RECOGNIZE_LEN as u64));
    plugin.insert(&legacy(&uuid(2)), content(SIZE + 1));
    plugin.range(&uuid(2), 0, RECOGNIZE_LEN)?;
    assert_eq!(plugin.cost(), (1, RECOGNIZE_LEN as u64));
    plugin.range(&uuid(2), 500, 10)?;
    assert_eq!(plugin.cost(), (1, 10));
    Ok(())
}

fn look_needs_no_second_connection<C: Cloud>() -> Result<()> {
    let options = json!({ "StorageStructure": "legacy", "MaxConnections": 1, "RequestTimeout": 20 });
    let plugin = LoadedPlugin::<C>::with(&options)?;
    // More than a download keeps in memory, so that it occupies its connection.
    let whole = content(40_000_000);
    // The second object replaces one that is known.
    for size in [39_000_000, 40_000_000] {
        plugin.insert(&legacy(UUID), whole[..size].to_vec());
        assert!(plugin.range(UUID, 1000, size - 1000)? == whole[1000..size], "{size}");
    }
    Ok(())
}

fn envelope_in_place_of_a_clear_object_is_refused<C: Cloud>() -> Result<()> {
    let off = json!({});
    for place in [Place::<C>::bucket(&off)?, Place::files(&off)?] {
        let plugin = &place.plugin;
        place.put(UUID, &content(SIZE))?;
        plugin.range(UUID, 1000, 10)?;
        // An envelope of the same size.
        place.put(UUID, &plugin.keys.seal(Format::A1, UUID, &content(SIZE - 86))?)?;
        assert_eq!(plugin.orthanc.read_range(UUID, DICOM, 1000, 10), Err(STORAGE_AREA_PLUGIN));
        place.put(UUID, &content(SIZE))?;
        assert_eq!(plugin.range(UUID, 1000, 10)?, content(SIZE)[1000..1010]);
        plugin.check()?;
    }
    Ok(())
}

fn a1_object_in_place_of_an_a2_object_is_refused<C: Cloud>() -> Result<()> {
    for (formats, is_noticed) in [(json!(["A1", "A2"]), false), (json!(["A2"]), true)] {
        let encryption = json!({ "Format": "A2", "ReadFormats": formats });
        let plugin = LoadedPlugin::<C>::encrypted_with(&json!({}), &encryption)?;
        plugin.create(UUID, &content(SIZE))?;
        // The second range is of an object whose header is known.
        assert_eq!(plugin.range(UUID, 200_000, 10)?, content(SIZE)[200_000..200_010]);
        let mut other = content(SIZE);
        other.reverse();
        plugin.insert(&flat_encrypted(UUID), plugin.keys.seal(Format::A1, &uuid(1), &other)?);
        for (start, len) in [(200_000, 10), (0, 10), (0, SIZE)] {
            let range = plugin.orthanc.read_range(UUID, DICOM, start as u64, len);
            let expected =
                if is_noticed { Err(CORRUPTED_FILE) } else { Ok(other[start..start + len].to_vec()) };
            assert!(range == expected, "{formats} {start}");
        }
        let whole = plugin.orthanc.read_whole(UUID, DICOM);
        assert!(whole == if is_noticed { Err(CORRUPTED_FILE) } else { Ok(other) }, "{formats}");
        let errors = plugin.errors();
        assert_eq!(errors.len(), if is_noticed { 4 } else { 0 }, "{errors:#?}");
        let url = object_url::<C>(&flat_encrypted(UUID));
        assert!(errors.iter().all(|line| line.contains(&url) && line.contains("ReadFormats")), "{errors:#?}");
        plugin.check()?;
    }
    Ok(())
}
