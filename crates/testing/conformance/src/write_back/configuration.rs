//! The configuration changes while attachments are pending.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use fake_cloud::{Fault, FaultRule};
use fake_orthanc::LogLevel;
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{DICOM, LoadedPlugin, eventually, flat, legacy, request, uuid};
use crate::write_back::support::{
    SOON, StateFolder, and, expect_all_uploaded, expect_readable, objects, requests_for, store,
    without_uploads, write_back,
};

tests! {
    OneCloud:
        pending_files_are_uploaded_in_every_mode,
        pending_content_in_clear_is_encrypted_first,
        pending_envelopes_are_uploaded_after_encryption_was_switched_off,
        pending_envelopes_keep_their_key,
        objects_have_the_names_of_the_present_structure,
        pending_files_wait_for_their_bucket,
        nothing_is_uploaded_with_a_wrong_key,
        changed_delay_keeps_pending_files,
        pending_files_need_a_state_directory_that_works,
}

fn pending_files_are_uploaded_in_every_mode<C: Cloud>() -> Result<()> {
    for mode in ["Disabled", "WriteToObjectStorage", "WriteToFileSystem"] {
        let mut plugin = LoadedPlugin::<C>::with(&without_uploads())?;
        let state = StateFolder::of_plugin(&plugin);
        store(&plugin, 0..5)?;
        let held = plugin.server.hold_key(request::CREATE, ".dcm");
        plugin.restart_with(&json!({"HybridMode": mode}))?;
        assert_eq!(state.pending().len(), 5);
        expect_readable(&plugin, 0..5)?;
        held.release();
        expect_all_uploaded(&plugin, 5)?;
        assert_eq!(state.cached(), [""; 0]);
        store(&plugin, 5..6)?;
        assert_eq!(state.pending(), [""; 0]);
        expect_readable(&plugin, 0..6)?;
        // And back.
        plugin.restart_with(&write_back(&json!({})))?;
        expect_readable(&plugin, 0..6)?;
        plugin.check()?;
    }
    Ok(())
}

fn pending_content_in_clear_is_encrypted_first<C: Cloud>() -> Result<()> {
    for read_unencrypted in [true, false] {
        let mut plugin = LoadedPlugin::<C>::with(&without_uploads())?;
        let state = StateFolder::of_plugin(&plugin);
        store(&plugin, 0..5)?;
        let encryption = json!({"Format": "A2", "ReadUnencrypted": read_unencrypted});
        plugin.restart_encrypted(&write_back(&json!({})), &encryption)?;
        // What was acknowledged is readable, whatever may be read from the bucket.
        expect_readable(&plugin, 0..5)?;
        expect_all_uploaded(&plugin, 5)?;
        for number in 0..5 {
            let name = flat(&uuid(number));
            assert!(plugin.object(&format!("{name}.enc"))?.starts_with(b"A2"));
            let encrypted = requests_for(&plugin, "PUT", &format!("{name}.enc"));
            assert_eq!((requests_for(&plugin, "PUT", &name), encrypted), (1, 1), "never in clear");
        }
        assert!(state.cached().iter().all(|name| name.ends_with(".enc")), "{:?}", state.cached());
        expect_readable(&plugin, 0..5)?;
        plugin.check()?;
    }
    Ok(())
}

fn pending_envelopes_are_uploaded_after_encryption_was_switched_off<C: Cloud>() -> Result<()> {
    let mut plugin = LoadedPlugin::<C>::encrypted_with(&without_uploads(), &json!({"Format": "A2"}))?;
    store(&plugin, 0..5)?;
    plugin.restart_with(&write_back(&json!({})))?;
    expect_all_uploaded(&plugin, 5)?;
    assert!(objects(&plugin).iter().all(|name| name.ends_with(".dcm.enc")), "{:?}", objects(&plugin));
    // An envelope is never served as if it were the content.
    assert!(plugin.orthanc.read_whole(&uuid(0), DICOM).is_err());
    plugin.restart_encrypted(&write_back(&json!({})), &json!({"Format": "A2"}))?;
    expect_readable(&plugin, 0..5)?;
    plugin.check()
}

fn pending_envelopes_keep_their_key<C: Cloud>() -> Result<()> {
    let mut plugin = LoadedPlugin::<C>::encrypted_with(&without_uploads(), &json!({"Format": "A2"}))?;
    store(&plugin, 0..5)?;
    let both = json!({"Format": "A2", "MasterKey": plugin.keys.entry(7), "PreviousMasterKeys": [plugin.keys.entry(3)]});
    let only_new = json!({"Format": "A2", "MasterKey": plugin.keys.entry(7)});
    // Without the earlier key, envelopes cannot be checked. They are kept as they are.
    plugin.restart_encrypted(&write_back(&json!({})), &only_new)?;
    expect_all_uploaded(&plugin, 5)?;
    store(&plugin, 5..7)?;
    expect_all_uploaded(&plugin, 7)?;
    assert!(plugin.orthanc.read_whole(&uuid(0), DICOM).is_err());
    plugin.restart_encrypted(&write_back(&json!({})), &both)?;
    expect_readable(&plugin, 0..7)?;
    plugin.check()
}

fn objects_have_the_names_of_the_present_structure<C: Cloud>() -> Result<()> {
    let mut plugin = LoadedPlugin::<C>::with(&without_uploads())?;
    store(&plugin, 0..3)?;
    let legacy_structure = and(&write_back(&json!({})), &json!({"StorageStructure": "legacy"}));
    plugin.restart_with(&legacy_structure)?;
    expect_all_uploaded(&plugin, 3)?;
    assert_eq!(objects(&plugin), [0, 1, 2].map(|number| legacy(&uuid(number))));
    expect_readable(&plugin, 0..3)?;
    plugin.check()
}

fn pending_files_wait_for_their_bucket<C: Cloud>() -> Result<()> {
    let mut plugin = LoadedPlugin::<C>::with(&without_uploads())?;
    let state = StateFolder::of_plugin(&plugin);
    store(&plugin, 0..3)?;
    // A root path is as good as another bucket.
    plugin.restart_with(&and(&write_back(&json!({})), &json!({"RootPath": "other"})))?;
    store(&plugin, 3..4)?;
    eventually("the new one is uploaded", SOON, || objects(&plugin).len() == 1)?;
    let reported = || {
        let lines = [plugin.lines(LogLevel::Warning), plugin.errors()].concat();
        lines.iter().any(|line| line.contains(".orthanc-object-storage/0") && line.contains("pending"))
    };
    eventually("the report", SOON, reported)?;
    assert_eq!(state.pending().len(), 3);
    plugin.restart_with(&write_back(&json!({})))?;
    eventually("the old ones are uploaded", SOON, || objects(&plugin).len() == 4)?;
    expect_readable(&plugin, 0..3)?;
    plugin.check()
}

/// The object with the fingerprint of master key 3.
const NOTE: &str = ".orthanc-object-storage/key-3";

fn nothing_is_uploaded_with_a_wrong_key<C: Cloud>() -> Result<()> {
    let encryption = json!({"Format": "A2"});
    let mut plugin = LoadedPlugin::<C>::encrypted_with(&without_uploads(), &encryption)?;
    // After the comparison, another Orthanc has used another key.
    let note = json!({"KeyId": 3, "Fingerprint": "00112233445566778899aabbccddeeff"}).to_string();
    plugin.insert(NOTE, note);
    // The keys cannot be compared at the next start.
    let unanswered = FaultRule::new(Fault::slow_down()).key("key-3").times(usize::MAX);
    plugin.server.faults().push(unanswered);
    plugin.restart_encrypted(&write_back(&json!({})), &encryption)?;
    let state = StateFolder::of_plugin(&plugin);
    store(&plugin, 0..5)?;
    expect_readable(&plugin, 0..5)?;
    plugin.server.faults().clear();
    let limit = Duration::from_secs(60);
    eventually("the error", limit, || plugin.errors().iter().any(|line| line.contains("master key 3")))?;
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((state.pending().len(), objects(&plugin).len()), (5, 0));
    expect_readable(&plugin, 0..5)?;
    // No further attachment is stored with the wrong key.
    assert!(plugin.orthanc.create(&uuid(9), DICOM, b"x").is_err());
    plugin.server.remove(C::BUCKET, NOTE);
    plugin.restart_encrypted(&write_back(&json!({})), &encryption)?;
    expect_all_uploaded(&plugin, 5)?;
    expect_readable(&plugin, 0..5)?;
    plugin.check()
}

fn changed_delay_keeps_pending_files<C: Cloud>() -> Result<()> {
    let mut plugin = LoadedPlugin::<C>::with(&without_uploads())?;
    store(&plugin, 0..3)?;
    let changed: Value = json!({"DeletionDelay": 1, "EnableLegacyUnknownFiles": true});
    plugin.restart_with(&and(&write_back(&json!({})), &changed))?;
    expect_all_uploaded(&plugin, 3)?;
    // A state directory elsewhere does not have the files of the earlier one.
    let folder = tempfile::tempdir()?;
    plugin.restart_with(&without_uploads())?;
    store(&plugin, 3..4)?;
    let elsewhere = json!({"StateDirectory": folder.path()});
    plugin.restart_with(&and(&write_back(&json!({})), &elsewhere))?;
    assert_eq!(StateFolder::of_plugin(&plugin).pending().len(), 1);
    for entry in fs::read_dir(plugin.orthanc.storage_folder().join(".orthanc-object-storage"))? {
        ensure!(entry?.file_name() == "0");
    }
    plugin.restart_with(&write_back(&json!({})))?;
    expect_all_uploaded(&plugin, 4)?;
    plugin.check()
}

fn pending_files_need_a_state_directory_that_works<C: Cloud>() -> Result<()> {
    for mode in ["Disabled", "WriteToObjectStorage", "WriteToFileSystem", "WriteBack"] {
        let options = json!({"HybridMode": mode});
        let mut plugin = LoadedPlugin::<C>::with(&without_uploads())?;
        store(&plugin, 0..3)?;
        plugin.orthanc.finalize();
        // Nobody can write a file in the place of a folder.
        let lock = plugin.orthanc.storage_folder().join(".orthanc-object-storage/0/lock");
        fs::remove_file(&lock)?;
        fs::create_dir(&lock)?;
        ensure!(plugin.restart_with(&options).is_err(), "{mode}");
        ensure!(plugin.new_error()?.contains("StateDirectory"), "{mode}");
        assert_eq!(StateFolder::of_plugin(&plugin).pending().len(), 3);
        fs::remove_dir(&lock)?;
        plugin.restart_with(&options)?;
        expect_all_uploaded(&plugin, 3)?;
        expect_readable(&plugin, 0..3)?;
        if mode == "WriteBack" {
            continue;
        }
        // Without pending files, the plugin works.
        plugin.orthanc.finalize();
        fs::remove_file(&lock)?;
        fs::create_dir(&lock)?;
        plugin.restart_with(&options)?;
        ensure!(plugin.lines(LogLevel::Warning).concat().contains("StateDirectory cannot be used"), "{mode}");
        expect_readable(&plugin, 0..3)?;
        plugin.check()?;
    }
    Ok(())
}
