//! A state directory whose disk is full or fails, and `MaxPendingMB`.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use fake_orthanc::{LogLevel, Metric};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{LoadedPlugin, content, eventually, uuid};
use crate::hybrid::support::files;
use crate::small_disk::{on_disk_of_few_files, on_small_disk};
use crate::write_back::support::{NEVER, SOON, StateFolder, and, objects, write_back};

tests! {
    OneCloud:
        full_disk_evicts_the_cache_before_stores_go_to_the_bucket,
        full_disk_and_unreachable_bucket_fail_stores_only,
        files_on_a_full_disk_are_encrypted,
        failing_disk_sends_stores_to_the_bucket,
        too_much_pending_sends_stores_to_the_bucket,
        full_disk_evicts_the_cache_for_deletions,
}

/// The size of the disk, in kilobytes, and of each attachment.
const DISK: u32 = 64 * 1024;
const SIZE: usize = 1024 * 1024;

/// The content of the attachment with this number.
fn large(number: usize) -> Vec<u8> {
    let mut bytes = content(SIZE);
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn store<C: Cloud>(plugin: &LoadedPlugin<C>, numbers: impl IntoIterator<Item = usize>) -> Result<()> {
    numbers.into_iter().try_for_each(|number| plugin.create(&uuid(number), &large(number)))
}

fn expect_readable<C: Cloud>(
    plugin: &LoadedPlugin<C>,
    numbers: impl IntoIterator<Item = usize>,
) -> Result<()> {
    for number in numbers {
        ensure!(plugin.read(&uuid(number))? == large(number), "attachment {number}");
    }
    Ok(())
}

/// Deletes attachments, and waits until their files are gone.
fn remove<C: Cloud>(
    plugin: &LoadedPlugin<C>,
    state: &StateFolder,
    numbers: impl IntoIterator<Item = usize>,
) -> Result<()> {
    let names: Vec<_> = numbers.into_iter().map(uuid).collect();
    names.iter().try_for_each(|uuid| plugin.remove(uuid))?;
    let is_left = |file: &String| names.iter().any(|uuid| file.contains(uuid.as_str()));
    eventually("the files are deleted", SOON, || !state.pending().iter().any(is_left))
}

/// Checks that there is one warning of stores that do not become pending, and that it contains `reason`.
fn expect_warning<C: Cloud>(plugin: &LoadedPlugin<C>, reason: &str) -> Result<()> {
    let mut warnings = plugin.lines(LogLevel::Warning);
    warnings.retain(|line| line.contains("directly in the bucket"));
    ensure!(warnings.len() == 1 && warnings[0].contains(reason), "{warnings:#?}");
    Ok(())
}

fn options(disk: &Path, section: &Value) -> Value {
    let section = and(&json!({"KeepFreeMB": 0}), section);
    and(
        &write_back(&section),
        &json!({"StateDirectory": disk, "MaxRetries": 1, "ConnectionTimeout": 1, "RequestTimeout": 5}),
    )
}

fn full_disk_evicts_the_cache_before_stores_go_to_the_bucket<C: Cloud>() -> Result<()> {
    on_small_disk(DISK, |disk| {
        let state = StateFolder::at(disk.join("0"));
        let mut plugin = LoadedPlugin::<C>::with(&options(disk, &json!({})))?;
        store(&plugin, 0..30)?;
        state.expect_uploaded()?;
        assert_eq!((objects(&plugin).len(), state.cached().len()), (30, 30));
        plugin.restart_with(&options(disk, &json!({"UploadDelay": NEVER})))?;
        store(&plugin, 30..110)?;
        let pending = state.pending().len();
        // The files and nothing else fill the disk.
        ensure!((60..=64).contains(&pending), "{pending} are pending");
        assert_eq!(state.cached(), [""; 0]);
        assert_eq!(objects(&plugin).len(), 110 - pending);
        assert_eq!(files(&disk.join("0/tmp")), [""; 0]);
        expect_readable(&plugin, 0..110)?;
        expect_warning(&plugin, "full")?;
        assert_eq!(plugin.errors(), [""; 0]);

        // There is space again.
        remove(&plugin, &state, 30..40)?;
        store(&plugin, 110..115)?;
        assert_eq!(state.pending().len(), pending - 5);
        plugin.restart_with(&options(disk, &json!({})))?;
        state.expect_uploaded()?;
        assert_eq!(objects(&plugin).len(), 105);
        fs::remove_dir_all(disk.join("0/cache"))?;
        expect_readable(&plugin, (0..30).chain(40..115))?;
        assert_eq!(plugin.errors(), [""; 0]);
        plugin.check()
    })
}

fn full_disk_and_unreachable_bucket_fail_stores_only<C: Cloud>() -> Result<()> {
    on_small_disk(DISK, |disk| {
        let state = StateFolder::at(disk.join("0"));
        let plugin = LoadedPlugin::<C>::with(&options(disk, &json!({})))?;
        plugin.server.stop();
        let stored = (0..100).take_while(|number| store(&plugin, [*number]).is_ok()).count();
        ensure!((60..=64).contains(&stored), "{stored} are stored");
        let error = plugin.new_error()?;
        ensure!(error.contains(C::URL) && error.contains("full"), "{error}");
        expect_warning(&plugin, "full")?;
        assert_eq!(files(&disk.join("0/tmp")), [""; 0]);
        expect_readable(&plugin, 0..stored)?;
        ensure!(store(&plugin, [stored]).is_err());

        plugin.server.start_again()?;
        state.expect_uploaded()?;
        assert_eq!(state.cached().len(), stored);
        // Before, the cache is evicted.
        store(&plugin, stored..stored + 10)?;
        state.expect_uploaded()?;
        expect_readable(&plugin, 0..stored + 10)?;
        assert_eq!(objects(&plugin).len(), stored + 10);
        plugin.check()
    })
}

/// There is no space for encrypted files next to those in clear.
fn files_on_a_full_disk_are_encrypted<C: Cloud>() -> Result<()> {
    on_small_disk(DISK, |disk| {
        let state = StateFolder::at(disk.join("0"));
        let mut plugin = LoadedPlugin::<C>::with(&options(disk, &json!({"UploadDelay": NEVER})))?;
        store(&plugin, 0..66)?;
        let pending = state.pending().len();
        ensure!((60..=64).contains(&pending), "{pending} are pending");
        let encryption = json!({"Format": "A2", "ReadUnencrypted": true});
        plugin.restart_encrypted(&options(disk, &json!({})), &encryption)?;
        state.expect_uploaded()?;
        let encrypted = objects(&plugin).iter().filter(|key| key.ends_with(".enc")).count();
        assert_eq!((encrypted, objects(&plugin).len()), (pending, 66));
        expect_readable(&plugin, 0..66)?;
        assert_eq!(plugin.errors(), [""; 0]);
        plugin.check()
    })
}

fn failing_disk_sends_stores_to_the_bucket<C: Cloud>() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let state = StateFolder::at(folder.path().join("0"));
    let plugin = LoadedPlugin::<C>::with(&options(folder.path(), &json!({"UploadDelay": NEVER})))?;
    store(&plugin, 0..2)?;
    // Nothing can be written in the place of a folder.
    let temporary = folder.path().join("0/tmp");
    fs::remove_dir_all(&temporary).or_else(|_| fs::remove_file(&temporary)).ok();
    fs::write(&temporary, "in the way")?;
    store(&plugin, 2..5)?;
    assert_eq!((state.pending().len(), objects(&plugin).len()), (2, 3));
    expect_warning(&plugin, "Not a directory")?;
    expect_readable(&plugin, 0..5)?;
    fs::remove_file(&temporary)?;
    store(&plugin, 5..7)?;
    assert_eq!((state.pending().len(), objects(&plugin).len()), (4, 3));
    expect_readable(&plugin, 0..7)?;
    assert_eq!(plugin.errors(), [""; 0]);
    plugin.check()
}

fn too_much_pending_sends_stores_to_the_bucket<C: Cloud>() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let state = StateFolder::at(folder.path().join("0"));
    let section = json!({"UploadDelay": NEVER, "MaxPendingMB": 3});
    let mut plugin = LoadedPlugin::<C>::with(&options(folder.path(), &section))?;
    store(&plugin, 0..6)?;
    assert_eq!((state.pending().len(), objects(&plugin).len()), (3, 3));
    expect_warning(&plugin, "MaxPendingMB")?;
    remove(&plugin, &state, 0..1)?;
    store(&plugin, 6..8)?;
    assert_eq!((state.pending().len(), objects(&plugin).len()), (3, 4));
    expect_readable(&plugin, 1..8)?;
    // What an earlier process has left counts as well.
    plugin.server.stop();
    plugin.restart_with(&options(folder.path(), &section))?;
    let counted =
        || plugin.orthanc.metrics().get("object_storage_pending_files") == Some(&Metric::Float(3.0));
    eventually("the files are counted", SOON, counted)?;
    ensure!(store(&plugin, [8]).is_err(), "stored beyond the limit");
    expect_readable(&plugin, [1, 2, 6])?;
    plugin.server.start_again()?;
    plugin.restart_with(&options(folder.path(), &json!({})))?;
    state.expect_uploaded()?;
    assert_eq!(objects(&plugin).len(), 7);
    expect_readable(&plugin, 1..8)?;
    plugin.check()
}

/// In a tmpfs, each marker takes one of the files that the disk can hold.
fn full_disk_evicts_the_cache_for_deletions<C: Cloud>() -> Result<()> {
    on_disk_of_few_files(1000, |disk| {
        let state = StateFolder::at(disk.join("0"));
        let plugin = LoadedPlugin::<C>::with(&options(disk, &json!({})))?;
        store(&plugin, 0..20)?;
        state.expect_uploaded()?;
        plugin.server.stop();
        let filled =
            (0..1000).take_while(|file| File::create_new(disk.join(format!("other-{file}"))).is_ok());
        ensure!(filled.count() < 1000, "the disk is not full");
        for number in 0..5 {
            plugin.remove(&uuid(number))?;
        }
        let warnings = plugin.lines(LogLevel::Warning).concat();
        ensure!(!warnings.contains("immediately"), "{warnings}");
        ensure!(!state.cached().is_empty(), "more was evicted than needed");
        plugin.server.start_again()?;
        let limit = Duration::from_secs(120);
        eventually("the objects are deleted", limit, || objects(&plugin).len() == 15)?;
        expect_readable(&plugin, 5..20)?;
        assert_eq!(plugin.errors(), [""; 0]);
        plugin.check()
    })
}
