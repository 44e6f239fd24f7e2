//! Reads: pending files, the cache and how it is filled.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crypto_envelope::Format;
use fake_cloud::{Fault, Odd};
use fake_orthanc::LogLevel;
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::codes::CORRUPTED_FILE;
use crate::fixture::{
    DICOM, KEY, LoadedPlugin, UUID, content, eventually, flat_encrypted, legacy, request, within,
};
use crate::write_back::support::{NEVER, SOON, StateFolder, write_back};

tests! {
    EveryCloud:
        second_read_sends_no_request;
    OneCloud:
        cached_attachment_has_ranges,
        known_envelope_is_kept_by_a_whole_range,
        ranges_are_not_kept,
        reads_are_not_kept_if_switched_off,
        legacy_object_is_kept_under_its_form,
        failed_read_leaves_no_copy,
        changed_byte_does_not_reach_the_cache,
        wrong_checksum_of_an_envelope_is_kept,
        deletion_during_a_read_leaves_no_copy,
        concurrent_reads_make_one_copy,
        cached_file_is_read_once,
        pending_file_is_read_in_each_form,
}

pub(crate) const SIZE: usize = 300_000;
/// Content in clear, and the formats of envelopes.
pub(crate) const FORMS: [Option<Format>; 3] = [None, Some(Format::A1), Some(Format::A2)];
/// Those that the plugin of these tests stores.
pub(crate) const STORED_FORMS: [Option<Format>; 2] = [None, Some(Format::A2)];

/// The two ways in which Orthanc reads whole attachments, the second since 1.12.8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Whole,
    Range,
}

pub(crate) const WAYS: [Way; 2] = [Way::Whole, Way::Range];

impl Way {
    pub(crate) fn read<C: Cloud>(self, plugin: &LoadedPlugin<C>) -> Result<Vec<u8>, i32> {
        match self {
            Self::Whole => plugin.orthanc.read_whole(UUID, DICOM),
            Self::Range => plugin.orthanc.read_range(UUID, DICOM, 0, SIZE),
        }
    }
}

/// Loads a plugin that stores attachments in clear, or as A2, with options of the section `WriteBack`. Those that write
/// A1 do not offer ranges.
fn load<C: Cloud>(encrypted: bool, section: &Value) -> Result<LoadedPlugin<C>> {
    match encrypted {
        false => LoadedPlugin::with(&write_back(section)),
        true => LoadedPlugin::encrypted_with(&write_back(section), &json!({"Format": "A2"})),
    }
}

/// Loads a plugin whose bucket has the attachment. Returns the object too.
fn with_object<C: Cloud>(format: Option<Format>, section: &Value) -> Result<(LoadedPlugin<C>, Vec<u8>)> {
    let plugin = load::<C>(format.is_some(), section)?;
    let object = sealed(&plugin, format)?;
    plugin.insert(&key(format), object.clone());
    Ok((plugin, object))
}

/// Loads a plugin whose cache has the attachment.
pub(crate) fn with_cached<C: Cloud>(format: Option<Format>) -> Result<(LoadedPlugin<C>, Vec<u8>)> {
    let (plugin, object) = with_object::<C>(format, &json!({}))?;
    plugin.read(UUID)?;
    expect_cached(&plugin, format, &object)?;
    plugin.requests();
    Ok((plugin, object))
}

fn sealed<C: Cloud>(plugin: &LoadedPlugin<C>, format: Option<Format>) -> Result<Vec<u8>> {
    format.map_or(Ok(content(SIZE)), |format| plugin.keys.seal(format, UUID, &content(SIZE)))
}

fn key(format: Option<Format>) -> String {
    format.map_or(KEY.to_owned(), |_| flat_encrypted(UUID))
}

/// The name of the attachment's file in the state directory.
fn file_name(format: Option<Format>) -> String {
    let ending = if format.is_some() { ".enc" } else { "" };
    format!("{UUID}.{DICOM}{ending}")
}

pub(crate) fn cached_path<C: Cloud>(plugin: &LoadedPlugin<C>, format: Option<Format>) -> PathBuf {
    let name = format!("{}/{}/{}", &UUID[..2], &UUID[2..4], file_name(format));
    StateFolder::of_plugin(plugin).cached_path(&name)
}

pub(crate) fn pending_path<C: Cloud>(plugin: &LoadedPlugin<C>, format: Option<Format>) -> PathBuf {
    StateFolder::of_plugin(plugin).pending_path(&format!("{}/{}", &UUID[..2], file_name(format)))
}

/// Waits until the attachment is in the cache, and nothing else.
pub(crate) fn expect_cached<C: Cloud>(
    plugin: &LoadedPlugin<C>,
    format: Option<Format>,
    object: &[u8],
) -> Result<()> {
    let path = cached_path(plugin, format);
    eventually("the file is in the cache", SOON, || {
        fs::read(&path).is_ok_and(|file| file == object)
            && StateFolder::of_plugin(plugin).unfinished().is_empty()
    })?;
    let found = StateFolder::of_plugin(plugin).cached();
    ensure!(found.len() == 1, "{found:?}");
    Ok(())
}

/// Checks that no copy is kept, nor will be.
fn expect_no_copy<C: Cloud>(plugin: &LoadedPlugin<C>) -> Result<()> {
    eventually("no copy is being made", SOON, || StateFolder::of_plugin(plugin).unfinished().is_empty())?;
    let appears = within(Duration::from_millis(300), || !StateFolder::of_plugin(plugin).cached().is_empty());
    ensure!(!appears, "{:?}", StateFolder::of_plugin(plugin).cached());
    Ok(())
}

/// Returns the warnings about the attachment.
pub(crate) fn warnings<C: Cloud>(plugin: &LoadedPlugin<C>) -> Vec<String> {
    let mut lines = plugin.lines(LogLevel::Warning);
    lines.retain(|line| line.contains(UUID));
    lines
}

fn second_read_sends_no_request<C: Cloud>() -> Result<()> {
    for format in FORMS {
        for first in WAYS {
            let (plugin, object) = with_object::<C>(format, &json!({}))?;
            let case = format!("{format:?} {first:?}");
            ensure!(first.read(&plugin) == Ok(content(SIZE)), "{case}");
            ensure!(plugin.requests() > 0, "{case}");
            expect_cached(&plugin, format, &object)?;
            for second in WAYS {
                ensure!(second.read(&plugin) == Ok(content(SIZE)), "{case}");
                let line = plugin.lines(LogLevel::Info).pop().context("no line")?;
                let path = cached_path(&plugin, format).display().to_string();
                ensure!(line.starts_with(&format!("read {path} ")), "{line}");
            }
            ensure!(plugin.requests() == 0, "{case}");
            ensure!(plugin.errors().is_empty() && warnings(&plugin).is_empty(), "{case}");
            plugin.check()?;
        }
    }
    Ok(())
}

fn cached_attachment_has_ranges<C: Cloud>() -> Result<()> {
    for format in FORMS {
        let (plugin, _) = with_cached::<C>(format)?;
        let whole = content(SIZE);
        for (start, len) in [(0, 1), (5, 100), (65_530, 10), (70_000, 150_000), (SIZE - 1, 1), (1, SIZE - 1)]
        {
            let range = plugin.range(UUID, start as u64, len)?;
            ensure!(range == whole[start..start + len], "{format:?} {start} {len}");
        }
        ensure!(plugin.requests() == 0, "{format:?}");
        plugin.check()?;
    }
    Ok(())
}

fn known_envelope_is_kept_by_a_whole_range<C: Cloud>() -> Result<()> {
    let (plugin, object) = with_object::<C>(Some(Format::A2), &json!({}))?;
    plugin.range(UUID, 100_000, 10)?;
    expect_no_copy(&plugin)?;
    plugin.requests();
    ensure!(Way::Range.read(&plugin) == Ok(content(SIZE)));
    ensure!(plugin.requests() == 1);
    expect_cached(&plugin, Some(Format::A2), &object)?;
    ensure!(Way::Range.read(&plugin) == Ok(content(SIZE)));
    ensure!(plugin.requests() == 0);
    plugin.check()
}

fn ranges_are_not_kept<C: Cloud>() -> Result<()> {
    for format in [None, Some(Format::A2)] {
        let (plugin, _) = with_object::<C>(format, &json!({}))?;
        for (start, len) in [(0, 10), (200_000, 10), (0, SIZE - 70_000), (1, SIZE - 1)] {
            plugin.range(UUID, start, len)?;
        }
        expect_no_copy(&plugin)?;
        plugin.check()?;
    }
    Ok(())
}

fn reads_are_not_kept_if_switched_off<C: Cloud>() -> Result<()> {
    for section in [json!({"CacheReads": false}), json!({"MaxCacheMB": 0})] {
        for format in FORMS {
            let (plugin, _) = with_object::<C>(format, &section)?;
            for way in WAYS {
                ensure!(way.read(&plugin) == Ok(content(SIZE)), "{section} {format:?}");
            }
            expect_no_copy(&plugin)?;
            plugin.check()?;
        }
    }
    Ok(())
}

/// In this structure, the names of objects do not say whether they are encrypted.
fn legacy_object_is_kept_under_its_form<C: Cloud>() -> Result<()> {
    for format in FORMS {
        let settings = json!({
            "HybridMode": "WriteBack", "StorageStructure": "legacy", "WriteBack": {},
        });
        let plugin =
            LoadedPlugin::<C>::encrypted_with(&settings, &json!({"Format": "A2", "ReadUnencrypted": true}))?;
        let object = sealed(&plugin, format)?;
        plugin.insert(&legacy(UUID), object.clone());
        ensure!(plugin.read(UUID)? == content(SIZE), "{format:?}");
        expect_cached(&plugin, format, &object)?;
        plugin.requests();
        for way in WAYS {
            ensure!(way.read(&plugin) == Ok(content(SIZE)), "{format:?}");
        }
        ensure!(plugin.range(UUID, 70_000, 10)? == content(SIZE)[70_000..70_010], "{format:?}");
        ensure!(plugin.requests() == 0, "{format:?}");
        plugin.check()?;
    }
    Ok(())
}

fn failed_read_leaves_no_copy<C: Cloud>() -> Result<()> {
    for format in FORMS {
        let settings = json!({"HybridMode": "WriteBack", "MaxRetries": 0});
        let plugin = match format {
            None => LoadedPlugin::<C>::with(&settings)?,
            Some(_) => LoadedPlugin::encrypted_with(&settings, &json!({"Format": "A2"}))?,
        };
        let mut object = sealed(&plugin, format)?;
        plugin.insert(&key(format), object.clone());
        for operation in [request::READ, request::READ_RANGE] {
            plugin.fault(operation, Fault::CloseAfterResponseBytes(200_000), usize::MAX);
        }
        for way in WAYS {
            ensure!(way.read(&plugin).is_err(), "{format:?}");
        }
        expect_no_copy(&plugin)?;
        plugin.server.faults().clear();
        if format.is_some() {
            // The last byte is one of a tag.
            *object.last_mut().context("the object is empty")? ^= 1;
            plugin.insert(&key(format), object);
            for way in WAYS {
                ensure!(way.read(&plugin) == Err(CORRUPTED_FILE), "{format:?}");
            }
            expect_no_copy(&plugin)?;
        }
        plugin.check()?;
    }
    Ok(())
}

fn changed_byte_does_not_reach_the_cache<C: Cloud>() -> Result<()> {
    for format in FORMS {
        for way in WAYS {
            let (plugin, object) = with_object::<C>(format, &json!({}))?;
            for operation in [request::READ, request::READ_RANGE] {
                plugin.fault(operation, Fault::CorruptResponseByte(250_000), usize::MAX);
            }
            ensure!(way.read(&plugin).is_err(), "{format:?} {way:?}");
            expect_no_copy(&plugin)?;
            plugin.server.faults().clear();
            // The first attempt is discarded, the second is kept.
            for operation in [request::READ, request::READ_RANGE] {
                plugin.fault(operation, Fault::CorruptResponseByte(250_000), 1);
            }
            if way.read(&plugin) != Ok(content(SIZE)) {
                // Some reads of envelopes have no checksum, and fail at once.
                ensure!(format.is_some(), "{format:?} {way:?}");
                ensure!(way.read(&plugin) == Ok(content(SIZE)), "{format:?} {way:?}");
            }
            expect_cached(&plugin, format, &object)?;
            plugin.check()?;
        }
    }
    Ok(())
}

fn wrong_checksum_of_an_envelope_is_kept<C: Cloud>() -> Result<()> {
    for format in FORMS {
        let (plugin, object) = with_object::<C>(format, &json!({}))?;
        plugin.fault(request::READ, Fault::Odd(Odd::WrongChecksum), usize::MAX);
        let read = plugin.orthanc.read_whole(UUID, DICOM);
        if format.is_some() {
            ensure!(read == Ok(content(SIZE)), "{format:?}");
            expect_cached(&plugin, format, &object)?;
        } else {
            ensure!(read == Err(CORRUPTED_FILE));
            expect_no_copy(&plugin)?;
        }
        plugin.check()?;
    }
    Ok(())
}

fn deletion_during_a_read_leaves_no_copy<C: Cloud>() -> Result<()> {
    for format in FORMS {
        let plugin = load::<C>(format.is_some(), &json!({}))?;
        // The first MiB arrives after 2 s, the last one after 5 s.
        let whole = content(3_000_000);
        let object = format.map_or(Ok(whole.clone()), |format| plugin.keys.seal(format, UUID, &whole))?;
        plugin.insert(&key(format), object);
        plugin.server.bandwidth_per_connection(Some(600_000));
        let read = thread::scope(|scope| {
            let reading = scope.spawn(|| plugin.read(UUID));
            eventually("the copy is being made", SOON, || {
                !StateFolder::of_plugin(&plugin).unfinished().is_empty()
            })?;
            plugin.remove(UUID)?;
            plugin.settle();
            ensure!(plugin.stored().is_empty() && !reading.is_finished(), "the read was too fast");
            reading.join().map_err(|_| anyhow::anyhow!("a panic"))?
        })?;
        ensure!(read == whole, "{format:?}");
        expect_no_copy(&plugin)?;
        plugin.check()?;
    }
    Ok(())
}

fn concurrent_reads_make_one_copy<C: Cloud>() -> Result<()> {
    for format in FORMS {
        let (plugin, object) = with_object::<C>(format, &json!({}))?;
        let read = |number: usize| (0..5).all(|_| WAYS[number % 2].read(&plugin) == Ok(content(SIZE)));
        let right = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|number| scope.spawn(move || read(number))).collect();
            threads.into_iter().all(|thread| thread.join().unwrap_or(false))
        });
        ensure!(right, "{format:?}");
        expect_cached(&plugin, format, &object)?;
        ensure!(plugin.errors().is_empty() && warnings(&plugin).is_empty(), "{format:?}");
        plugin.check()?;
    }
    Ok(())
}

/// Returns the number of calls and bytes that this thread has read so far.
fn reads_of_this_thread() -> Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/thread-self/io")?;
    let figure = |name: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.with_context(|| format!("no {name}"))?.trim().parse()?)
    };
    Ok((figure("syscr:")?, figure("rchar:")?))
}

fn cached_file_is_read_once<C: Cloud>() -> Result<()> {
    for format in FORMS {
        let (plugin, object) = with_cached::<C>(format)?;
        for way in WAYS {
            let first = reads_of_this_thread()?;
            let before = reads_of_this_thread()?;
            ensure!(way.read(&plugin) == Ok(content(SIZE)), "{format:?}");
            let after = reads_of_this_thread()?;
            // Without the calls for the figures.
            let calls = after.0 - before.0 - (before.0 - first.0);
            let bytes = after.1 - before.1;
            ensure!(calls == 2, "{format:?} {way:?}: {calls} calls for pieces of 256 KiB");
            ensure!(bytes < object.len() as u64 + 1000, "{format:?} {way:?}: {bytes} bytes");
        }
        plugin.check()?;
    }
    Ok(())
}

/// Loads a plugin that does not upload the attachment soon, and stores it.
pub(crate) fn with_pending<C: Cloud>(format: Option<Format>) -> Result<LoadedPlugin<C>> {
    let plugin = load::<C>(format.is_some(), &json!({"UploadDelay": NEVER}))?;
    plugin.create(UUID, &content(SIZE))?;
    ensure!(pending_path(&plugin, format).exists());
    plugin.requests();
    Ok(plugin)
}

fn pending_file_is_read_in_each_form<C: Cloud>() -> Result<()> {
    for format in STORED_FORMS {
        let plugin = with_pending::<C>(format)?;
        for way in WAYS {
            ensure!(way.read(&plugin) == Ok(content(SIZE)), "{format:?}");
            let line = plugin.lines(LogLevel::Info).pop().context("no line")?;
            let path = pending_path(&plugin, format).display().to_string();
            ensure!(line.starts_with(&format!("read {path} ")), "{line}");
        }
        ensure!(plugin.range(UUID, 70_000, 10)? == content(SIZE)[70_000..70_010], "{format:?}");
        ensure!(plugin.requests() == 0 && StateFolder::of_plugin(&plugin).cached().is_empty());
        plugin.check()?;
    }
    Ok(())
}
