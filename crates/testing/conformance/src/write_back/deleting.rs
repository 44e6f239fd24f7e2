//! Deletions of attachments that are pending, being uploaded or cached.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use fake_cloud::Fault;
use serde_json::json;

use crate::Cloud;
use crate::fixture::{DICOM, LoadedPlugin, UUID, codes, eventually, request, uuid};
use crate::write_back::support::{
    SOON, StateFolder, and, expect_all_uploaded, expect_readable, objects, store, without_uploads, write_back,
};

tests! {
    OneCloud:
        pending_attachment_that_is_deleted_is_never_uploaded,
        attachment_that_is_deleted_during_its_upload_is_gone,
        pending_attachment_is_deleted_while_the_bucket_is_unreachable,
        cached_attachment_is_deleted_everywhere,
        deleted_pending_attachment_is_kept_for_the_delay,
        pending_attachment_is_deleted_after_a_restart,
}

/// Checks that an attachment is nowhere, and that Orthanc is told so.
fn expect_gone<C: Cloud>(plugin: &LoadedPlugin<C>, uuid: &str) -> Result<()> {
    let state = StateFolder::of_plugin(plugin);
    let files = [state.pending(), state.cached()].concat();
    ensure!(!files.iter().any(|name| name.contains(uuid)), "{files:?}");
    let objects = plugin.stored();
    ensure!(!objects.iter().any(|name| name.contains(uuid)), "{objects:?}");
    assert_eq!(plugin.orthanc.read_whole(uuid, DICOM), Err(codes::INEXISTENT_FILE));
    Ok(())
}

fn pending_attachment_that_is_deleted_is_never_uploaded<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&write_back(&json!({"UploadDelay": 3})))?;
    store(&plugin, 0..10)?;
    for number in 0..5 {
        plugin.remove(&uuid(number))?;
    }
    plugin.settle();
    assert_eq!(StateFolder::of_plugin(&plugin).pending().len(), 5);
    for number in 0..5 {
        expect_gone(&plugin, &uuid(number))?;
    }
    expect_all_uploaded(&plugin, 5)?;
    assert_eq!(plugin.server.requests().of(request::CREATE), 5);
    expect_readable(&plugin, 5..10)?;
    plugin.check()
}

fn attachment_that_is_deleted_during_its_upload_is_gone<C: Cloud>() -> Result<()> {
    for cache in [0, 100] {
        let plugin = LoadedPlugin::<C>::with(&write_back(&json!({"MaxCacheMB": cache})))?;
        let held = plugin.server.hold(request::CREATE);
        plugin.create(UUID, b"content")?;
        ensure!(held.wait_until(1, SOON), "no upload");
        plugin.remove(UUID)?;
        thread::sleep(Duration::from_secs(1));
        held.release();
        plugin.settle();
        expect_gone(&plugin, UUID)?;
        assert_eq!(plugin.server.requests().of(request::CREATE), 1);
        plugin.check()?;
    }
    Ok(())
}

fn pending_attachment_is_deleted_while_the_bucket_is_unreachable<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&write_back(&json!({})))?;
    let state = StateFolder::of_plugin(&plugin);
    plugin.server.stop();
    store(&plugin, 0..20)?;
    for number in 10..20 {
        plugin.remove(&uuid(number))?;
    }
    // An upload in progress keeps its file until its attempt has ended.
    let limit = Duration::from_secs(60);
    eventually("the files are gone", limit, || state.pending().len() == 10)?;
    plugin.server.start_again()?;
    expect_all_uploaded(&plugin, 10)?;
    plugin.settle();
    for number in 10..20 {
        expect_gone(&plugin, &uuid(number))?;
    }
    expect_readable(&plugin, 0..10)?;
    plugin.check()
}

fn cached_attachment_is_deleted_everywhere<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&write_back(&json!({})))?;
    plugin.create(UUID, b"content")?;
    expect_all_uploaded(&plugin, 1)?;
    assert_eq!(StateFolder::of_plugin(&plugin).cached().len(), 1);
    plugin.remove(UUID)?;
    plugin.settle();
    expect_gone(&plugin, UUID)?;
    plugin.check()
}

fn deleted_pending_attachment_is_kept_for_the_delay<C: Cloud>() -> Result<()> {
    let options = and(&write_back(&json!({"UploadDelay": 2})), &json!({"DeletionDelay": 1}));
    let plugin = LoadedPlugin::<C>::with(&options)?;
    plugin.create(UUID, b"content")?;
    plugin.remove(UUID)?;
    // It is uploaded like any other, since only the bucket is safe from a loss of the disk.
    eventually("the upload", SOON, || objects(&plugin).len() == 1)?;
    eventually("nothing is pending", SOON, || StateFolder::of_plugin(&plugin).pending().is_empty())?;
    thread::sleep(Duration::from_secs(2));
    assert_eq!(objects(&plugin).len(), 1);
    plugin.check()
}

fn pending_attachment_is_deleted_after_a_restart<C: Cloud>() -> Result<()> {
    let mut plugin = LoadedPlugin::<C>::with(&without_uploads())?;
    store(&plugin, 0..10)?;
    plugin.fault(request::CREATE, Fault::Delay(Duration::from_secs(1)), usize::MAX);
    plugin.restart_with(&write_back(&json!({"Uploads": 2})))?;
    for number in 0..10 {
        plugin.remove(&uuid(number))?;
    }
    plugin.settle();
    for number in 0..10 {
        expect_gone(&plugin, &uuid(number))?;
    }
    thread::sleep(Duration::from_secs(2));
    assert_eq!(plugin.stored(), [""; 0]);
    plugin.check()
}
