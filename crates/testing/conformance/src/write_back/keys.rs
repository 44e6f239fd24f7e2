//! Nothing becomes pending under a master key that is not known to be the right one.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use fake_orthanc::LogLevel;
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::codes::STORAGE_AREA_PLUGIN;
use crate::fixture::{DICOM, Keys, LoadedPlugin, encrypted_configuration, eventually, uuid};
use crate::write_back::support::{
    StateFolder, and, expect_all_uploaded, expect_readable, objects, store, without_uploads, write_back,
};

tests! {
    OneCloud:
        wrong_key_stores_nothing_while_the_bucket_is_unreachable,
        known_key_stores_while_the_bucket_is_unreachable,
        unknown_key_waits_for_the_bucket,
        damaged_local_note_is_as_good_as_none,
        unwritable_local_note_does_not_prevent_stores,
        reason_of_the_disk_is_named_if_the_key_is_unknown,
}

/// The bucket's note about master key 3.
const NOTE: &str = ".orthanc-object-storage/key-3";

/// Options with which requests to an unreachable server fail soon.
fn impatient(options: &Value) -> Value {
    and(options, &json!({"OutageTimeout": 1, "ConnectionTimeout": 1}))
}

/// `StorageEncryption` with key 7 under the id 3.
fn wrong(keys: &Keys) -> Value {
    json!({"Format": "A2", "MasterKey": [3, keys.path("key-7.b64")]})
}

fn right() -> Value {
    json!({"Format": "A2"})
}

/// The plugin's own note about master key 3.
fn local_note<C: Cloud>(plugin: &LoadedPlugin<C>) -> PathBuf {
    plugin.orthanc.storage_folder().join(".orthanc-object-storage/0/key-3")
}

/// Loads the plugin, which compares the keys, and stops the server.
fn compared<C: Cloud>() -> Result<LoadedPlugin<C>> {
    let plugin = LoadedPlugin::<C>::encrypted_with(&impatient(&without_uploads()), &right())?;
    plugin.server.stop();
    Ok(plugin)
}

/// Expects that nothing is stored, and an error line with these texts.
fn expect_refused<C: Cloud>(plugin: &LoadedPlugin<C>, texts: &[&str]) -> Result<()> {
    let pending = StateFolder::of_plugin(plugin).pending();
    ensure!(plugin.orthanc.create(&uuid(9), DICOM, b"x") == Err(STORAGE_AREA_PLUGIN), "stored");
    let error = plugin.new_error()?;
    for text in texts {
        ensure!(error.contains(text), "{text}: {error}");
    }
    ensure!(StateFolder::of_plugin(plugin).pending() == pending, "something is pending");
    Ok(())
}

fn wrong_key_stores_nothing_while_the_bucket_is_unreachable<C: Cloud>() -> Result<()> {
    let mut plugin = compared::<C>()?;
    store(&plugin, 0..2)?;
    plugin.restart_encrypted(&impatient(&without_uploads()), &wrong(&plugin.keys))?;
    let path = local_note(&plugin).display().to_string();
    expect_refused(&plugin, &["master key 3 is not the key", &path])?;
    // When the bucket answers, its note decides.
    plugin.server.start_again()?;
    let is_about_the_bucket =
        |line: &String| line.contains("master key 3 is not the key") && line.contains(C::URL);
    eventually("the error", Duration::from_secs(60), || plugin.errors().iter().any(is_about_the_bucket))?;
    ensure!(plugin.orthanc.create(&uuid(9), DICOM, b"x").is_err(), "stored");
    assert_eq!((StateFolder::of_plugin(&plugin).pending().len(), objects(&plugin).len()), (2, 0));

    plugin.restart_encrypted(&write_back(&json!({})), &right())?;
    store(&plugin, 2..4)?;
    expect_all_uploaded(&plugin, 4)?;
    expect_readable(&plugin, 0..4)?;
    assert_eq!(StateFolder::of_plugin(&plugin).quarantined(), [""; 0]);
    plugin.check()
}

fn known_key_stores_while_the_bucket_is_unreachable<C: Cloud>() -> Result<()> {
    let mut plugin = compared::<C>()?;
    plugin.restart_encrypted(&impatient(&write_back(&json!({}))), &right())?;
    store(&plugin, 0..4)?;
    expect_readable(&plugin, 0..4)?;
    assert_eq!(plugin.errors(), [""; 0]);
    plugin.server.start_again()?;
    expect_all_uploaded(&plugin, 4)?;
    expect_readable(&plugin, 0..4)?;
    plugin.check()
}

fn unknown_key_waits_for_the_bucket<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    server.stop();
    let keys = Keys::new()?;
    let options = impatient(&write_back(&json!({})));
    let configuration = encrypted_configuration::<C>(&server, &keys, &options, &right());
    let plugin = LoadedPlugin::<C>::load_with_keys(server, keys, configuration)?;
    expect_refused(&plugin, &["has not compared master key 3", C::URL, "make the bucket reachable"])?;
    plugin.server.start_again()?;
    store(&plugin, 0..2)?;
    assert_eq!(fs::read(local_note(&plugin))?, plugin.object(NOTE)?);
    plugin.server.stop();
    store(&plugin, 2..4)?;
    plugin.server.start_again()?;
    expect_all_uploaded(&plugin, 4)?;
    plugin.check()
}

fn damaged_local_note_is_as_good_as_none<C: Cloud>() -> Result<()> {
    let mut plugin = compared::<C>()?;
    for damaged in ["", "{\"KeyId\":3", "{\"KeyId\":7,\"Fingerprint\":\"00112233445566778899aabbccddeeff\"}"]
    {
        fs::write(local_note(&plugin), damaged)?;
        plugin.restart_encrypted(&impatient(&without_uploads()), &right())?;
        expect_refused(&plugin, &["has not compared master key 3"])?;
    }
    plugin.server.start_again()?;
    store(&plugin, 0..1)?;
    assert_eq!(fs::read(local_note(&plugin))?, plugin.object(NOTE)?);
    plugin.check()
}

fn unwritable_local_note_does_not_prevent_stores<C: Cloud>() -> Result<()> {
    let mut plugin = compared::<C>()?;
    plugin.server.start_again()?;
    fs::remove_file(local_note(&plugin))?;
    fs::create_dir(local_note(&plugin))?;
    plugin.restart_encrypted(&impatient(&without_uploads()), &right())?;
    let mut warnings = plugin.lines(LogLevel::Warning);
    warnings.retain(|line| line.contains("cannot note in") && line.contains("master key 3 was compared"));
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    plugin.server.stop();
    store(&plugin, 0..2)?;
    assert_eq!(plugin.errors(), [""; 0]);
    plugin.restart_encrypted(&impatient(&without_uploads()), &right())?;
    expect_refused(&plugin, &["has not compared master key 3"])?;
    expect_readable(&plugin, 0..2)?;
    plugin.check()
}

fn reason_of_the_disk_is_named_if_the_key_is_unknown<C: Cloud>() -> Result<()> {
    let mut plugin = compared::<C>()?;
    plugin.restart_encrypted(&impatient(&without_uploads()), &right())?;
    // Nothing can be written in the place of a folder.
    let temporary = plugin.orthanc.storage_folder().join(".orthanc-object-storage/0/tmp");
    fs::remove_dir_all(&temporary).or_else(|_| fs::remove_file(&temporary)).ok();
    fs::write(&temporary, "in the way")?;
    expect_refused(&plugin, &[C::URL, "before, ", "Not a directory"])?;
    plugin.check()
}
