//! Pending files that are damaged: the only copy is kept, and never uploaded.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Cloud;
use crate::fixture::{LoadedPlugin, eventually, request, uuid};
use crate::write_back::support::{
    SOON, StateFolder, expect_readable, objects, store, without_uploads, write_back,
};

tests! {
    OneCloud:
        damaged_pending_file_is_put_into_quarantine,
        damage_of_an_envelope_is_found_after_a_restart,
        vanished_pending_file_does_not_stop_the_uploads,
        unreadable_pending_file_is_kept,
}

/// Flips a byte in the middle.
fn flip(path: &Path) -> Result<()> {
    let mut bytes = fs::read(path)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Ok(fs::write(path, bytes)?)
}

/// Removes the last byte.
fn cut(path: &Path) -> Result<()> {
    let mut bytes = fs::read(path)?;
    bytes.pop();
    Ok(fs::write(path, bytes)?)
}

/// Removes all bytes.
fn empty(path: &Path) -> Result<()> {
    Ok(fs::write(path, "")?)
}

const DAMAGES: [fn(&Path) -> Result<()>; 3] = [flip, cut, empty];

/// Returns a plugin with four pending attachments, of which three are damaged.
fn damaged<C: Cloud>(encrypted: bool, delay: u64) -> Result<(LoadedPlugin<C>, StateFolder)> {
    let options = write_back(&json!({"UploadDelay": delay}));
    let plugin = match encrypted {
        true => LoadedPlugin::encrypted_with(&options, &json!({"Format": "A2"}))?,
        false => LoadedPlugin::with(&options)?,
    };
    let state = StateFolder::of_plugin(&plugin);
    store(&plugin, 0..4)?;
    for (name, damage) in state.pending().iter().zip(DAMAGES) {
        damage(&state.pending_path(name))?;
    }
    Ok((plugin, state))
}

/// Waits until the three damaged files are in the quarantine and the fourth in the bucket.
fn expect_quarantine<C: Cloud>(plugin: &LoadedPlugin<C>, state: &StateFolder) -> Result<()> {
    eventually("nothing is pending", SOON, || state.pending().is_empty())?;
    let (quarantined, objects) = (state.quarantined(), objects(plugin));
    ensure!(quarantined.len() == 3 && objects.len() == 1, "{quarantined:?} {objects:?}");
    ensure!(objects[0].contains(&uuid(3)), "{objects:?}");
    for number in 0..3 {
        let lines = plugin.errors().into_iter().filter(|line| line.contains(&uuid(number)));
        let lines: Vec<_> = lines.collect();
        ensure!(lines.len() == 1 && lines[0].contains("quarantine"), "{lines:#?}");
    }
    expect_readable(plugin, 3..4)?;
    store(plugin, 10..12)?;
    plugin.check()
}

fn damaged_pending_file_is_put_into_quarantine<C: Cloud>() -> Result<()> {
    for encrypted in [false, true] {
        let (plugin, state) = damaged::<C>(encrypted, 3)?;
        expect_quarantine(&plugin, &state)?;
        let uploads = plugin.server.requests().of(request::CREATE);
        ensure!(uploads <= 3, "{uploads} uploads");
    }
    Ok(())
}

fn damage_of_an_envelope_is_found_after_a_restart<C: Cloud>() -> Result<()> {
    let (mut plugin, state) = damaged::<C>(true, 3600)?;
    plugin.restart_encrypted(&write_back(&json!({})), &json!({"Format": "A2"}))?;
    expect_quarantine(&plugin, &state)?;
    // They stay there.
    plugin.restart_encrypted(&write_back(&json!({})), &json!({"Format": "A2"}))?;
    assert_eq!(state.quarantined().len(), 3);
    plugin.check()
}

fn vanished_pending_file_does_not_stop_the_uploads<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&write_back(&json!({"UploadDelay": 2})))?;
    let state = StateFolder::of_plugin(&plugin);
    store(&plugin, 0..10)?;
    for name in &state.pending()[..5] {
        fs::remove_file(state.pending_path(name))?;
    }
    state.expect_uploaded()?;
    eventually("the others", SOON, || objects(&plugin).len() == 5)?;
    let mut errors = plugin.errors();
    errors.sort();
    ensure!(errors.len() == 5 && errors[0].contains(&uuid(0)), "{errors:#?}");
    plugin.check()
}

fn unreadable_pending_file_is_kept<C: Cloud>() -> Result<()> {
    let mut plugin = LoadedPlugin::<C>::with(&without_uploads())?;
    let state = StateFolder::of_plugin(&plugin);
    store(&plugin, 0..3)?;
    // The name of an attachment, but a folder.
    let folder = state.pending_path(&format!("00/{}.1", uuid(5)));
    fs::create_dir(&folder)?;
    // Files of somebody else.
    fs::write(state.pending_path("00/notes.txt"), "x")?;
    fs::write(state.pending_path("stray"), "x")?;
    plugin.restart_with(&write_back(&json!({})))?;
    eventually("the others", SOON, || state.pending() == ["00/notes.txt", "stray"])?;
    assert!(folder.exists());
    assert_eq!(objects(&plugin).len(), 3);
    plugin.check()
}
