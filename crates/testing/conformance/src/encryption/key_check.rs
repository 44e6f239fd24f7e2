//! The comparison of the master keys with those that were used before.

use std::time::Duration;
use std::{fs, thread};

use anyhow::Result;
use crypto_envelope::{Format, encrypt, parse_key_file};
use fake_cloud::{BucketServer, Fault, FaultRule};
use fake_orthanc::LogLevel;
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::codes::STORAGE_AREA_PLUGIN;
use crate::fixture::{
    DICOM, Keys, LoadedPlugin, UUID, encrypted_configuration, eventually, flat_encrypted, load, object_url,
    refusal, request, uuid,
};

tests! {
    EveryCloud:
        key_is_noted_and_compared,
        other_key_under_the_same_id_prevents_the_start;
    OneCloud:
        wrong_key_is_found_when_the_server_answers,
        right_key_is_accepted_when_the_server_answers,
        waiting_stores_share_one_comparison,
        keys_are_not_compared_without_permission,
        damaged_note_is_reported_and_kept,
}

const NOTE: &str = ".orthanc-object-storage/key-3";

/// Returns the fingerprint of a key file.
fn fingerprint(keys: &Keys, id: u32) -> Result<String> {
    Ok(parse_key_file(&fs::read(keys.path(&format!("key-{id}.b64")))?)?.fingerprint().to_string())
}

/// Key 7 under the id 3.
fn wrong(keys: &Keys) -> Value {
    json!({"MasterKey": [3, keys.path("key-7.b64")]})
}

fn key_is_noted_and_compared<C: Cloud>() -> Result<()> {
    let root = json!({"RootPath": "a/b"});
    let server = C::server()?;
    let keys = Keys::new()?;
    let orthanc = load::<C>(encrypted_configuration::<C>(&server, &keys, &root, &json!({})))??;
    assert_eq!(server.requests().total, C::REQUESTS_AT_START + 3, "asked for, written, read again");
    let note = server.object(C::BUCKET, &format!("a/b/{NOTE}")).map(|note| note.bytes.to_vec());
    let expected = format!("{{\"Fingerprint\":\"{}\",\"KeyId\":3}}\n", fingerprint(&keys, 3)?);
    assert_eq!(note.as_deref(), Some(expected.as_bytes()));
    drop(orthanc);
    server.reset_counts();
    let previous = json!({"PreviousMasterKeys": [keys.entry(7)]});
    let _orthanc = load::<C>(encrypted_configuration::<C>(&server, &keys, &root, &previous))??;
    assert_eq!(server.requests().total, C::REQUESTS_AT_START + 2, "one for each key");
    assert_eq!(server.keys(C::BUCKET), [format!("a/b/{NOTE}")], "a key that was not used has no note");
    Ok(())
}

fn other_key_under_the_same_id_prevents_the_start<C: Cloud>() -> Result<()> {
    let mut plugin = LoadedPlugin::<C>::encrypted("A2")?;
    plugin.create(UUID, b"x")?;
    let encryption = json!({"MasterKey": [7, plugin.keys.path("key-7.b64")],
                            "PreviousMasterKeys": [[3, plugin.keys.path("key-4294967295.b64")]]});
    for (encryption, id) in [(wrong(&plugin.keys), 7), (encryption, u32::MAX)] {
        let configuration =
            encrypted_configuration::<C>(&plugin.server, &plugin.keys, &json!({}), &encryption);
        let line = refusal::<C, _>(load::<C>(configuration)?)?;
        for fragment in [
            "master key 3",
            &object_url::<C>(NOTE),
            &fingerprint(&plugin.keys, 3)?,
            &fingerprint(&plugin.keys, id)?,
        ] {
            assert!(line.contains(fragment), "{fragment} {line}");
        }
        assert!(plugin.keys.spellings()?.iter().all(|key| !line.contains(key)), "{line}");
    }
    plugin.restart_encrypted(&json!({}), &json!({"Format": "A2"}))?;
    assert_eq!(plugin.read(UUID)?, b"x");
    plugin.check()
}

/// Loads the plugin while the server is unreachable.
fn without_server<C: Cloud>(server: BucketServer, keys: Keys, encryption: &Value) -> Result<LoadedPlugin<C>> {
    server.stop();
    let options = json!({"MaxRetries": 0});
    let configuration = encrypted_configuration::<C>(&server, &keys, &options, encryption);
    let plugin = LoadedPlugin::<C>::load_with_keys(server, keys, configuration)?;
    assert_eq!(plugin.orthanc.create(UUID, DICOM, b"x"), Err(STORAGE_AREA_PLUGIN));
    let line = plugin.new_error()?;
    assert!(line.contains(&object_url::<C>(&flat_encrypted(UUID))), "{line}");
    plugin.server.start_again()?;
    Ok(plugin)
}

fn wrong_key_is_found_when_the_server_answers<C: Cloud>() -> Result<()> {
    let first = LoadedPlugin::<C>::encrypted("A2")?;
    let note = first.object(NOTE)?;
    let server = C::server()?;
    server.insert(C::BUCKET, NOTE, note);
    let keys = Keys::new()?;
    let old = encrypt(&keys.ring(u32::MAX)?, Format::A2, &uuid(1), b"old")?;
    server.insert(C::BUCKET, &flat_encrypted(&uuid(1)), old);
    let mut encryption = wrong(&keys);
    encryption["PreviousMasterKeys"] = json!([keys.entry(u32::MAX)]);
    let plugin = without_server::<C>(server, keys, &encryption)?;
    for _ in 0..2 {
        assert_eq!(plugin.orthanc.create(UUID, DICOM, b"x"), Err(STORAGE_AREA_PLUGIN));
    }
    let errors = plugin.errors();
    let about_the_key = errors.iter().filter(|line| line.contains("master key 3 is not"));
    assert_eq!(about_the_key.count(), 3, "one by itself, and one for each store: {errors:#?}");
    assert_eq!(plugin.stored(), [flat_encrypted(&uuid(1))]);
    assert_eq!(plugin.read(&uuid(1))?, b"old", "reads go on");
    plugin.check()
}

fn right_key_is_accepted_when_the_server_answers<C: Cloud>() -> Result<()> {
    let plugin = without_server::<C>(C::server()?, Keys::new()?, &json!({}))?;
    plugin.create(UUID, b"x")?;
    assert_eq!(plugin.server.requests().of(request::CREATE), 2, "the key's note comes first");
    plugin.create(&uuid(1), b"x")?;
    assert_eq!(plugin.server.requests().of(request::CREATE), 3);
    plugin.check()?;
    // Without a store, the keys are compared in the background.
    let plugin = without_server::<C>(C::server()?, Keys::new()?, &json!({}))?;
    eventually("the note", Duration::from_secs(60), || plugin.object(NOTE).is_ok())?;
    plugin.check()
}

fn waiting_stores_share_one_comparison<C: Cloud>() -> Result<()> {
    let plugin = without_server::<C>(C::server()?, Keys::new()?, &json!({}))?;
    let slow = Fault::Delay(Duration::from_secs(2));
    plugin.server.faults().push(FaultRule::new(slow).on(request::READ).times(usize::MAX));
    thread::scope(|scope| {
        let stores: Vec<_> = (1..=4)
            .map(|number| {
                scope.spawn({
                    let plugin = &plugin;
                    move || plugin.orthanc.create(&uuid(number), DICOM, b"x")
                })
            })
            .collect();
        for store in stores {
            assert!(matches!(store.join(), Ok(Ok(()))));
        }
    });
    assert_eq!(
        plugin.server.requests().of(request::READ),
        2,
        "the note is asked for, written, and read again"
    );
    plugin.check()
}

fn keys_are_not_compared_without_permission<C: Cloud>() -> Result<()> {
    for operation in [request::READ, request::CREATE] {
        let server = C::server()?;
        let denied = Fault::status(403, C::MISSING_PERMISSION);
        server.faults().push(FaultRule::new(denied).on(operation).times(usize::MAX));
        let keys = Keys::new()?;
        let configuration =
            encrypted_configuration::<C>(&server, &keys, &json!({"CheckWrite": false}), &json!({}));
        let plugin = LoadedPlugin::<C>::load_with_keys(server, keys, configuration)?;
        let infos = plugin.lines(LogLevel::Info);
        let is_about_the_key =
            |line: &String| line.contains(NOTE) && line.contains("master key 3 cannot be compared");
        assert!(infos.iter().any(is_about_the_key), "{infos:#?}");
        assert_eq!(plugin.errors(), [""; 0]);
        plugin.server.faults().clear();
        plugin.create(UUID, b"x")?;
        plugin.check()?;
    }
    Ok(())
}

fn damaged_note_is_reported_and_kept<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    server.insert(C::BUCKET, NOTE, "<html>");
    let keys = Keys::new()?;
    let configuration = encrypted_configuration::<C>(&server, &keys, &json!({}), &json!({}));
    let plugin = LoadedPlugin::<C>::load_with_keys(server, keys, configuration)?;
    let line = plugin.new_error()?;
    assert!(line.contains(&object_url::<C>(NOTE)) && line.contains("is damaged"), "{line}");
    assert_eq!(plugin.object(NOTE)?, "<html>");
    plugin.create(UUID, b"x")?;
    plugin.check()
}
