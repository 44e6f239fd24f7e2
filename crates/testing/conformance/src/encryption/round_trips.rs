//! What is stored comes back, and lies in the bucket as the formats say.

use std::fs;

use anyhow::Result;
use crypto_envelope::{FileKey, KeyWrap, encrypt_a2_with_file_key};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::codes::{CORRUPTED_FILE, STORAGE_AREA_PLUGIN};
use crate::fixture::{DICOM, KEY_IDS, Setup, UUID, content, done, flat, legacy, object_url, uuid, vectors};

tests![
    a1_in_the_flat_structure_comes_back,
    a1_in_the_legacy_structure_comes_back,
    a2_in_the_flat_structure_comes_back,
    a2_in_the_legacy_structure_comes_back,
    every_content_type_has_its_name_and_enc,
    headers_of_old_releases_are_found_under_their_old_name,
    the_same_content_is_never_the_same_object,
    files_of_the_cpp_plugin_are_read_in_either_format,
    a_changed_key_encrypts_while_the_previous_one_still_decrypts,
    a_key_that_is_not_configured_is_an_error_that_names_its_id,
    an_object_under_a_key_vault_key_is_an_error_that_names_the_key,
    another_key_under_the_same_id_is_an_error,
];

const SEGMENT: usize = 65_536;

const SIZES: [usize; 11] =
    [0, 1, 15, 16, 17, SEGMENT - 1, SEGMENT, SEGMENT + 1, 1 << 20, 3 * SEGMENT, 20_000_000];

fn what_is_stored_comes_back<C: Cloud>(
    format: &str,
    structure: &str,
    name: fn(&str) -> String,
) -> Result<()> {
    let setup =
        Setup::<C>::encrypted_with(&json!({ "StorageStructure": structure }), &json!({ "Format": format }))?;
    let ring = setup.keys.ring(3)?;
    for size in SIZES {
        let (uuid, content) = (uuid(size), content(size));
        setup.create(&uuid, &content)?;
        assert_eq!(setup.cost(), (1, 0), "{size}");
        let object = setup.object(&name(&uuid))?;
        assert!(object.starts_with(format.as_bytes()), "{size}");
        assert!(crypto_envelope::decrypt(&ring, &uuid, &object)? == content, "{size}");
        assert!(setup.read(&uuid)? == content, "{size}");
        // One request, and nothing but the object.
        assert_eq!(setup.cost(), (1, object.len() as u64), "{size}");
        done(setup.host.remove(&uuid, DICOM))?;
        assert_eq!(setup.cost().0, 1, "{size}");
        assert!(setup.stored().is_empty());
    }
    setup.check()
}

fn a1_in_the_flat_structure_comes_back<C: Cloud>() -> Result<()> {
    what_is_stored_comes_back::<C>("A1", "flat", |uuid| format!("{}.enc", flat(uuid)))
}

fn a1_in_the_legacy_structure_comes_back<C: Cloud>() -> Result<()> {
    what_is_stored_comes_back::<C>("A1", "legacy", legacy)
}

fn a2_in_the_flat_structure_comes_back<C: Cloud>() -> Result<()> {
    what_is_stored_comes_back::<C>("A2", "flat", |uuid| format!("{}.enc", flat(uuid)))
}

fn a2_in_the_legacy_structure_comes_back<C: Cloud>() -> Result<()> {
    what_is_stored_comes_back::<C>("A2", "legacy", legacy)
}

fn every_content_type_has_its_name_and_enc<C: Cloud>() -> Result<()> {
    let setup =
        Setup::<C>::encrypted_with(&json!({ "RootPath": "some/folder" }), &json!({ "Format": "A2" }))?;
    for (content_type, extension) in [(0, "unk"), (1, "dcm"), (2, "json"), (3, "dcm.head"), (1024, "unk")] {
        done(setup.host.create(UUID, content_type, b"content"))?;
        assert_eq!(setup.stored(), [format!("some/folder/{UUID}.{extension}.enc")]);
        assert_eq!(done(setup.host.read_whole(UUID, content_type))?, b"content");
        done(setup.host.remove(UUID, content_type))?;
    }
    Ok(())
}

fn headers_of_old_releases_are_found_under_their_old_name<C: Cloud>() -> Result<()> {
    let setup =
        Setup::<C>::encrypted_with(&json!({"EnableLegacyUnknownFiles": true}), &json!({"Format": "A1"}))?;
    let object = setup.keys.seal(crypto_envelope::Format::A1, UUID, b"header")?;
    setup.insert(&format!("{UUID}.unk.enc"), object);
    assert_eq!(done(setup.host.read_whole(UUID, 3))?, b"header");
    done(setup.host.remove(UUID, 3))?;
    assert!(setup.stored().is_empty());
    Ok(())
}

fn the_same_content_is_never_the_same_object<C: Cloud>() -> Result<()> {
    for format in ["A1", "A2"] {
        let setup = Setup::<C>::encrypted(format)?;
        let key = format!("{}.enc", flat(UUID));
        setup.create(UUID, b"content")?;
        let first = setup.object(&key)?;
        setup.create(UUID, b"content")?;
        assert_ne!(first, setup.object(&key)?);
    }
    Ok(())
}

fn files_of_the_cpp_plugin_are_read_in_either_format<C: Cloud>() -> Result<()> {
    for format in ["A1", "A2"] {
        let mut setup = Setup::<C>::encrypted(format)?;
        let previous: Vec<Value> = KEY_IDS[1..].iter().map(|id| setup.keys.entry(*id)).collect();
        setup.restart_encrypted(&json!({}), &json!({ "Format": format, "PreviousMasterKeys": previous }))?;
        let mut read = 0;
        for entry in fs::read_dir(vectors())? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "enc") {
                continue;
            }
            read += 1;
            let (uuid, plain) = (uuid(read), fs::read(path.with_extension("plain"))?);
            setup.insert(&format!("{}.enc", flat(&uuid)), fs::read(&path)?);
            assert!(setup.read(&uuid)? == plain, "{}", path.display());
            if format == "A2" && plain.len() > 2 {
                assert_eq!(setup.range(&uuid, 1, plain.len() - 2)?, plain[1..plain.len() - 1]);
            }
        }
        assert_eq!(read, 8);
    }
    Ok(())
}

fn a_changed_key_encrypts_while_the_previous_one_still_decrypts<C: Cloud>() -> Result<()> {
    let mut setup = Setup::<C>::encrypted("A1")?;
    setup.create(&uuid(1), b"A1, key 3")?;
    setup.restart_encrypted(&json!({}), &json!({ "Format": "A2" }))?;
    setup.create(&uuid(2), b"A2, key 3")?;

    let previous = json!([setup.keys.entry(3)]);
    let changed = json!({ "MasterKey": setup.keys.entry(7), "PreviousMasterKeys": previous, "Format": "A2" });
    setup.restart_encrypted(&json!({}), &changed)?;
    setup.create(&uuid(3), b"A2, key 7")?;
    for (number, content, id) in [(1, "A1, key 3", 3), (2, "A2, key 3", 3), (3, "A2, key 7", 7)] {
        assert_eq!(setup.read(&uuid(number))?, content.as_bytes());
        assert_eq!(setup.range(&uuid(number), 4, 3)?, b"key");
        let object = setup.object(&format!("{}.enc", flat(&uuid(number))))?;
        assert_eq!(crypto_envelope::identify(&object).map(|header| header.key_id), Some(id));
    }
    Ok(())
}

fn a_key_that_is_not_configured_is_an_error_that_names_its_id<C: Cloud>() -> Result<()> {
    for format in ["A1", "A2"] {
        let mut setup = Setup::<C>::encrypted(format)?;
        setup.create(UUID, b"content")?;
        let others = json!({ "MasterKey": setup.keys.entry(7), "Format": "A2" });
        setup.restart_encrypted(&json!({}), &others)?;
        assert_eq!(setup.host.read_whole(UUID, DICOM), Err(STORAGE_AREA_PLUGIN));
        let line = setup.last_error();
        let begin = format!("cannot read {}.enc: ", object_url::<C>(&flat(UUID)));
        assert!(line.starts_with(&begin), "{line}");
        assert!(line.contains("under master key 3, which is not among the configured keys [7]"), "{line}");
        assert_eq!(setup.host.read_range(UUID, DICOM, 1, 2), Err(STORAGE_AREA_PLUGIN));
        assert_eq!(setup.last_error(), line);
        setup.check()?;
    }
    Ok(())
}

fn an_object_under_a_key_vault_key_is_an_error_that_names_the_key<C: Cloud>() -> Result<()> {
    let setup = Setup::<C>::encrypted("A2")?;
    let kid = "https://vault.example/keys/images/1";
    let wrap = KeyWrap::KeyVault { kid, wrapped: &[7; 256] };
    let object = encrypt_a2_with_file_key(&wrap, &FileKey::random()?, UUID, &content(500_000))?;
    setup.insert(&format!("{}.enc", flat(UUID)), object);
    for outcome in [
        setup.host.read_whole(UUID, DICOM),
        setup.host.read_range(UUID, DICOM, 0, 10),
        setup.host.read_range(UUID, DICOM, 400_000, 10),
    ] {
        assert_eq!(outcome, Err(CORRUPTED_FILE));
        let line = setup.last_error();
        assert!(line.contains(kid) && line.contains("configure the key vault"), "{line}");
    }
    setup.check()
}

fn another_key_under_the_same_id_is_an_error<C: Cloud>() -> Result<()> {
    for format in ["A1", "A2"] {
        let mut setup = Setup::<C>::encrypted(format)?;
        setup.create(UUID, b"content")?;
        let wrong = json!({ "MasterKey": [3, setup.keys.path("key-7.b64")], "Format": "A2" });
        setup.restart_encrypted(&json!({}), &wrong)?;
        assert_eq!(setup.host.read_whole(UUID, DICOM), Err(CORRUPTED_FILE));
        assert!(setup.last_error().contains("master key 3"), "{}", setup.last_error());
        setup.check()?;
    }
    Ok(())
}
