//! Reads of damaged files: Orthanc gets the right bytes from the bucket, or an error.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use crypto_envelope::{Format, envelope_len};
use serde_json::json;

use crate::Cloud;
use crate::fixture::codes::{BAD_RANGE, CORRUPTED_FILE};
use crate::fixture::{LoadedPlugin, UUID, content, flat_encrypted};
use crate::write_back::reading::{
    FORMS, SIZE, STORED_FORMS, WAYS, Way, cached_path, expect_cached, pending_path, warnings, with_cached,
    with_pending,
};
use crate::write_back::support::{StateFolder, write_back};

tests! {
    OneCloud:
        damaged_cached_envelope_is_read_from_the_bucket,
        damaged_header_is_found_by_each_read_of_the_whole,
        cut_cached_file_is_read_from_the_bucket,
        cut_cached_file_is_found_after_a_restart,
        cached_file_that_cannot_be_removed_is_not_served,
        damaged_pending_file_is_not_served,
        damaged_pending_file_is_read_from_the_bucket,
        cached_file_is_kept_if_its_key_is_missing,
}

fn flip(path: &Path, place: usize) -> Result<()> {
    let mut bytes = fs::read(path)?;
    *bytes.get_mut(place).context("the file is shorter")? ^= 1;
    Ok(fs::write(path, bytes)?)
}

fn cut(path: &Path, length: usize) -> Result<()> {
    Ok(fs::File::options().write(true).open(path)?.set_len(length as u64)?)
}

/// Checks that the read of a damaged cached file has sent one request, with one warning, and that the file is replaced,
/// by the next read at the latest: only what the bucket has can show that a key id or a size is wrong.
fn expect_replaced<C: Cloud>(
    plugin: &LoadedPlugin<C>,
    format: Option<Format>,
    object: &[u8],
    case: &str,
) -> Result<()> {
    ensure!(plugin.requests() == 1, "{case}");
    let lines = warnings(plugin);
    let path = cached_path(plugin, format).display().to_string();
    ensure!(lines.len() == 1 && lines.concat().contains(&path), "{case}: {lines:#?}");
    ensure!(plugin.errors().is_empty(), "{case}");
    if !cached_path(plugin, format).exists() {
        plugin.read(UUID)?;
    }
    expect_cached(plugin, format, object).with_context(|| case.to_owned())?;
    plugin.check()
}

fn damaged_cached_envelope_is_read_from_the_bucket<C: Cloud>() -> Result<()> {
    for format in [Format::A1, Format::A2] {
        // Magic, version, key id, algorithm or salt, wrapped key, first segment, its tag, others, the last tag.
        let last = usize::try_from(envelope_len(format, SIZE as u64))? - 1;
        for place in [0, 1, 2, 6, 10, 41, 81, 82, 30_000, 65_633, 65_634, 131_000, 262_300, last] {
            for way in WAYS {
                let case = format!("{format} byte {place} {way:?}");
                let (plugin, object) = with_cached::<C>(Some(format))?;
                flip(&cached_path(&plugin, Some(format)), place)?;
                ensure!(way.read(&plugin) == Ok(content(SIZE)), "{case}");
                expect_replaced(&plugin, Some(format), &object, &case)?;
            }
        }
        // A range discards the file, and does not replace it.
        let (plugin, _) = with_cached::<C>(Some(format))?;
        flip(&cached_path(&plugin, Some(format)), 100_100)?;
        ensure!(plugin.range(UUID, 100_000, 10)? == content(SIZE)[100_000..100_010]);
        ensure!(warnings(&plugin).len() == 1, "{:?}", warnings(&plugin));
        ensure!(StateFolder::of_plugin(&plugin).cached().is_empty() || format == Format::A1);
        plugin.check()?;
    }
    Ok(())
}

/// A header that was read before is not read again for a range.
fn damaged_header_is_found_by_each_read_of_the_whole<C: Cloud>() -> Result<()> {
    let (plugin, object) = with_cached::<C>(Some(Format::A2))?;
    let path = cached_path(&plugin, Some(Format::A2));
    flip(&path, 10)?;
    ensure!(plugin.range(UUID, 100_000, 10)? == content(SIZE)[100_000..100_010]);
    ensure!(plugin.requests() == 0 && path.exists());
    ensure!(Way::Range.read(&plugin) == Ok(content(SIZE)));
    expect_replaced(&plugin, Some(Format::A2), &object, "salt")
}

fn cut_cached_file_is_read_from_the_bucket<C: Cloud>() -> Result<()> {
    for format in FORMS {
        for length in [0, 1, 82, 100, 65_634, 200_000, SIZE - 1] {
            for way in WAYS {
                let case = format!("{format:?} {length} bytes {way:?}");
                let (plugin, object) = with_cached::<C>(format)?;
                cut(&cached_path(&plugin, format), length)?;
                ensure!(way.read(&plugin) == Ok(content(SIZE)), "{case}");
                expect_replaced(&plugin, format, &object, &case)?;
            }
        }
        let (plugin, _) = with_cached::<C>(format)?;
        cut(&cached_path(&plugin, format), 200_000)?;
        ensure!(plugin.range(UUID, 250_000, 10)? == content(SIZE)[250_000..250_010], "{format:?}");
        ensure!(warnings(&plugin).len() == 1, "{format:?}");
        plugin.check()?;
    }
    Ok(())
}

/// Content in clear that is read as a whole, as releases before 1.12.8 do, is the exception: nothing knows its size.
fn cut_cached_file_is_found_after_a_restart<C: Cloud>() -> Result<()> {
    for format in FORMS {
        for length in [0, 1, 100, 200_000, SIZE - 1] {
            for way in WAYS {
                if format.is_none() && way == Way::Whole {
                    continue;
                }
                let case = format!("{format:?} {length} bytes {way:?}");
                let (mut plugin, object) = with_cached::<C>(format)?;
                cut(&cached_path(&plugin, format), length)?;
                match format {
                    None => plugin.restart_with(&write_back(&json!({})))?,
                    Some(_) => plugin.restart_encrypted(&write_back(&json!({})), &json!({"Format": "A2"}))?,
                }
                ensure!(way.read(&plugin) == Ok(content(SIZE)), "{case}");
                expect_replaced(&plugin, format, &object, &case)?;
            }
        }
    }
    Ok(())
}

/// A folder that nobody can write to, which the root user of a test cannot have: the file is replaced by a folder.
fn cached_file_that_cannot_be_removed_is_not_served<C: Cloud>() -> Result<()> {
    for format in FORMS {
        let (plugin, _) = with_cached::<C>(format)?;
        let path = cached_path(&plugin, format);
        fs::remove_file(&path)?;
        fs::create_dir(&path)?;
        for way in WAYS {
            ensure!(way.read(&plugin) == Ok(content(SIZE)), "{format:?} {way:?}");
        }
        ensure!(plugin.errors().is_empty(), "{:?}", plugin.errors());
        plugin.check()?;
    }
    Ok(())
}

fn damaged_pending_file_is_not_served<C: Cloud>() -> Result<()> {
    for format in STORED_FORMS {
        for length in [0, 100, 200_000, SIZE - 1, SIZE + 100] {
            for way in WAYS {
                let plugin = with_pending::<C>(format)?;
                let path = pending_path(&plugin, format);
                match (format, length > SIZE) {
                    (None, true) => continue,
                    (Some(_), true) => flip(&path, 100_000)?,
                    (_, false) => cut(&path, length)?,
                }
                let case = format!("{format:?} {length} {way:?}");
                let read = way.read(&plugin).map(|bytes| bytes.len());
                ensure!(read == Err(CORRUPTED_FILE) || read == Err(BAD_RANGE), "{case}: {read:?}");
                let line = plugin.new_error()?;
                ensure!(line.contains(&path.display().to_string()), "{line}");
                ensure!(line.contains("only copy") || line.contains("truncated"), "{line}");
                ensure!(path.exists(), "{case}");
                plugin.check()?;
            }
        }
    }
    Ok(())
}

/// An Orthanc that was killed after an upload has both.
fn damaged_pending_file_is_read_from_the_bucket<C: Cloud>() -> Result<()> {
    for way in WAYS {
        let plugin = with_pending::<C>(Some(Format::A2))?;
        let path = pending_path(&plugin, Some(Format::A2));
        plugin.insert(&flat_encrypted(UUID), fs::read(&path)?);
        flip(&path, 100_000)?;
        ensure!(way.read(&plugin) == Ok(content(SIZE)), "{way:?}");
        ensure!(plugin.requests() == 1 && path.exists(), "{way:?}");
        ensure!(plugin.errors().is_empty(), "{way:?}");
        plugin.check()?;
    }
    Ok(())
}

fn cached_file_is_kept_if_its_key_is_missing<C: Cloud>() -> Result<()> {
    let (mut plugin, object) = with_cached::<C>(Some(Format::A2))?;
    let other_key = json!({"Format": "A2", "MasterKey": plugin.keys.entry(7)});
    let other_format = json!({"Format": "A1", "ReadFormats": ["A1"]});
    for encryption in [other_key, other_format] {
        plugin.restart_encrypted(&write_back(&json!({})), &encryption)?;
        ensure!(plugin.read(UUID).is_err(), "{encryption}");
        ensure!(warnings(&plugin).is_empty(), "{:?}", warnings(&plugin));
        expect_cached(&plugin, Some(Format::A2), &object)?;
    }
    plugin.restart_encrypted(&write_back(&json!({})), &json!({"Format": "A2"}))?;
    // Bytes that the attachment does not have.
    ensure!(plugin.range(UUID, SIZE as u64, 10).is_err());
    expect_cached(&plugin, Some(Format::A2), &object)?;
    plugin.requests();
    ensure!(plugin.read(UUID)? == content(SIZE));
    ensure!(plugin.requests() == 0);
    plugin.check()
}
