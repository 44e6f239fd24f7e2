//! Encrypted attachments come back, and their objects have the documented format.

use std::fs;

use anyhow::Result;
use crypto_envelope::{FileKey, KeyWrap, Service, ServiceWrap, encrypt_a2_with_file_key};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::codes::{CORRUPTED_FILE, STORAGE_AREA_PLUGIN};
use crate::fixture::{
    DICOM, KEY_IDS, LoadedPlugin, UUID, content, done, flat_encrypted, legacy, object_url, uuid, vectors,
};

tests! {
    OneCloud:
        attachments_come_back,
        object_names_end_with_enc,
        same_content_gives_different_objects,
        files_of_the_cpp_plugin_are_read,
        previous_key_still_decrypts,
        undecryptable_object_is_an_error_with_key_id,
        key_vault_object_is_an_error_with_its_key,
}

const SEGMENT: usize = 65_536;

const SIZES: [usize; 11] =
    [0, 1, 15, 16, 17, SEGMENT - 1, SEGMENT, SEGMENT + 1, 1 << 20, 3 * SEGMENT, 20_000_000];

fn attachments_come_back<C: Cloud>() -> Result<()> {
    let structures = [("flat", flat_encrypted as fn(&str) -> String), ("legacy", legacy)];
    for (format, (structure, name)) in
        ["A1", "A2"].into_iter().flat_map(|format| structures.map(|s| (format, s)))
    {
        let options = json!({ "StorageStructure": structure });
        let plugin = LoadedPlugin::<C>::encrypted_with(&options, &json!({ "Format": format }))?;
        let ring = plugin.keys.ring(3)?;
        for size in SIZES {
            let uuid = uuid(size);
            let content = content(size);
            plugin.create(&uuid, &content)?;
            assert_eq!(plugin.cost(), (1, 0), "{size}");
            let object = plugin.object(&name(&uuid))?;
            assert!(object.starts_with(format.as_bytes()), "{size}");
            assert!(crypto_envelope::decrypt(&ring, &uuid, &object)? == content, "{size}");
            assert!(plugin.read(&uuid)? == content, "{size}");
            assert_eq!(plugin.cost(), (1, object.len() as u64), "{size}");
            plugin.remove(&uuid)?;
            assert_eq!((plugin.cost().0, plugin.stored().len()), (1, 0), "{size}");
        }
        plugin.check()?;
    }
    Ok(())
}

fn object_names_end_with_enc<C: Cloud>() -> Result<()> {
    let options = json!({ "RootPath": "some/folder", "EnableLegacyUnknownFiles": true });
    let plugin = LoadedPlugin::<C>::encrypted_with(&options, &json!({ "Format": "A2" }))?;
    for (content_type, extension) in [(0, "unk"), (1, "dcm"), (2, "json"), (3, "dcm.head"), (1024, "unk")] {
        done(plugin.orthanc.create(UUID, content_type, b"content"))?;
        assert_eq!(plugin.stored(), [format!("some/folder/{UUID}.{extension}.enc")]);
        assert_eq!(done(plugin.orthanc.read_whole(UUID, content_type))?, b"content");
        done(plugin.orthanc.remove(UUID, content_type))?;
        plugin.settle();
    }
    // Headers of old releases.
    let object = plugin.keys.seal(crypto_envelope::Format::A1, UUID, b"header")?;
    plugin.insert(&format!("some/folder/{UUID}.unk.enc"), object);
    assert_eq!(done(plugin.orthanc.read_whole(UUID, 3))?, b"header");
    done(plugin.orthanc.remove(UUID, 3))?;
    assert!(plugin.stored().is_empty());
    Ok(())
}

fn same_content_gives_different_objects<C: Cloud>() -> Result<()> {
    for format in ["A1", "A2"] {
        let plugin = LoadedPlugin::<C>::encrypted(format)?;
        plugin.create(UUID, b"content")?;
        let first = plugin.object(&flat_encrypted(UUID))?;
        plugin.create(UUID, b"content")?;
        assert_ne!(first, plugin.object(&flat_encrypted(UUID))?);
    }
    Ok(())
}

fn files_of_the_cpp_plugin_are_read<C: Cloud>() -> Result<()> {
    for format in ["A1", "A2"] {
        let mut plugin = LoadedPlugin::<C>::encrypted(format)?;
        let previous: Vec<Value> = KEY_IDS[1..].iter().map(|id| plugin.keys.entry(*id)).collect();
        plugin.restart_encrypted(&json!({}), &json!({ "Format": format, "PreviousMasterKeys": previous }))?;
        let mut files = 0;
        for entry in fs::read_dir(vectors())? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "enc") {
                continue;
            }
            files += 1;
            let uuid = uuid(files);
            let plain = fs::read(path.with_extension("plain"))?;
            plugin.insert(&flat_encrypted(&uuid), fs::read(&path)?);
            assert!(plugin.read(&uuid)? == plain, "{}", path.display());
            if format == "A2" && plain.len() > 2 {
                assert_eq!(plugin.range(&uuid, 1, plain.len() - 2)?, plain[1..plain.len() - 1]);
            }
        }
        assert_eq!(files, 8);
    }
    Ok(())
}

fn previous_key_still_decrypts<C: Cloud>() -> Result<()> {
    let mut plugin = LoadedPlugin::<C>::encrypted("A1")?;
    plugin.create(&uuid(1), b"A1, key 3")?;
    plugin.restart_encrypted(&json!({}), &json!({ "Format": "A2" }))?;
    plugin.create(&uuid(2), b"A2, key 3")?;

    let previous = json!([plugin.keys.entry(3)]);
    let rotated =
        json!({ "MasterKey": plugin.keys.entry(7), "PreviousMasterKeys": previous, "Format": "A2" });
    plugin.restart_encrypted(&json!({}), &rotated)?;
    plugin.create(&uuid(3), b"A2, key 7")?;
    for (number, content, id) in [(1, "A1, key 3", 3), (2, "A2, key 3", 3), (3, "A2, key 7", 7)] {
        assert_eq!(plugin.read(&uuid(number))?, content.as_bytes());
        assert_eq!(plugin.range(&uuid(number), 4, 3)?, b"key");
        let object = plugin.object(&flat_encrypted(&uuid(number)))?;
        assert_eq!(crypto_envelope::identify(&object).map(|header| header.key_id), Some(id));
    }
    Ok(())
}

fn undecryptable_object_is_an_error_with_key_id<C: Cloud>() -> Result<()> {
    for format in ["A1", "A2"] {
        let mut plugin = LoadedPlugin::<C>::encrypted(format)?;
        plugin.create(UUID, b"content")?;
        let wrong = json!([3, plugin.keys.path("key-7.b64")]);
        let unknown = plugin.keys.entry(7);
        for (key, code) in [(unknown, STORAGE_AREA_PLUGIN), (wrong, CORRUPTED_FILE)] {
            // As in a bucket of the C++ plugins, which do not note their keys.
            plugin.server.remove(C::BUCKET, ".orthanc-object-storage/key-3");
            plugin.restart_encrypted(&json!({}), &json!({ "MasterKey": key, "Format": "A2" }))?;
            assert_eq!(plugin.orthanc.read_whole(UUID, DICOM), Err(code));
            let line = plugin.new_error()?;
            assert!(
                line.contains(&object_url::<C>(&flat_encrypted(UUID))) && line.contains("key 3"),
                "{line}"
            );
            assert_eq!(plugin.orthanc.read_range(UUID, DICOM, 1, 2), Err(code));
            plugin.check()?;
        }
    }
    Ok(())
}

fn key_vault_object_is_an_error_with_its_key<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::encrypted("A2")?;
    let kid = "https://vault.example/keys/images/1";
    let service = Service::AzureKeyVault;
    let wrap = KeyWrap::Service(ServiceWrap { service, key: kid, wrapped: &[7; 256] });
    let object = encrypt_a2_with_file_key(&wrap, &FileKey::random()?, UUID, &content(500_000))?;
    plugin.insert(&flat_encrypted(UUID), object);
    for outcome in [
        plugin.orthanc.read_whole(UUID, DICOM),
        plugin.orthanc.read_range(UUID, DICOM, 0, 10),
        plugin.orthanc.read_range(UUID, DICOM, 400_000, 10),
    ] {
        assert_eq!(outcome, Err(STORAGE_AREA_PLUGIN));
    }
    let errors = plugin.errors();
    assert_eq!(errors.iter().filter(|line| line.contains(kid)).count(), 3, "{errors:#?}");
    plugin.check()
}
