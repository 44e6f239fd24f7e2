//! Stores: acknowledged on the disk, in the bucket soon after.

use std::fs;

use anyhow::{Result, ensure};
use fake_cloud::{Fault, FaultRule, Operation};
use fake_orthanc::LogLevel;
use serde_json::json;

use crate::Cloud;
use crate::fixture::{
    DICOM, KEY, LoadedPlugin, UUID, configuration, content, eventually, flat, load, object_url, refusal,
    request, section, uuid,
};
use crate::write_back::support::{
    SOON, StateFolder, and, expect_all_uploaded, expect_readable, numbered, objects, requests_for, store,
    without_uploads, write_back,
};

tests! {
    EveryCloud:
        stored_attachment_is_soon_in_the_bucket,
        large_attachment_is_uploaded_in_parts;
    OneCloud:
        store_does_not_need_the_bucket,
        encrypted_attachments_are_encrypted_on_the_disk,
        nothing_is_cached_without_a_cache,
        all_content_types_are_stored,
        empty_attachment_is_stored,
        store_exceeding_the_limit_goes_to_the_bucket,
        state_directory_is_required,
}

fn store_does_not_need_the_bucket<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&write_back(&json!({})))?;
    let state = StateFolder::of_plugin(&plugin);
    plugin.server.stop();
    store(&plugin, 0..20)?;
    let expected: Vec<_> = (0..20).map(|number| format!("00/{}.1", uuid(number))).collect();
    assert_eq!(state.pending(), expected);
    assert_eq!(fs::read(state.pending_path(&expected[7]))?, numbered(7));
    expect_readable(&plugin, 0..20)?;
    assert_eq!(objects(&plugin), [""; 0]);
    plugin.server.start_again()?;
    expect_all_uploaded(&plugin, 20)?;
    assert_eq!(plugin.object(&format!("{}.dcm", uuid(7)))?, numbered(7));
    assert_eq!(plugin.errors(), [""; 0]);
    plugin.check()
}

fn stored_attachment_is_soon_in_the_bucket<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&write_back(&json!({})))?;
    let state = StateFolder::of_plugin(&plugin);
    let held = plugin.server.hold(request::CREATE);
    plugin.create(UUID, b"content")?;
    ensure!(held.wait_until(1, SOON), "no upload");
    assert_eq!(state.pending(), [format!("fb/{UUID}.1")]);
    held.release();
    expect_all_uploaded(&plugin, 1)?;
    assert_eq!(&plugin.object(KEY)?[..], b"content");
    assert_eq!(state.cached(), [format!("fb/4b/{UUID}.1")]);
    assert_eq!(plugin.requests(), 1);
    assert_eq!(plugin.read(UUID)?, b"content");
    assert_eq!(plugin.requests(), 0, "it is read from the cache");
    assert_eq!([plugin.errors(), plugin.lines(LogLevel::Warning)].concat().len(), 1, "no encryption");
    plugin.check()
}

fn encrypted_attachments_are_encrypted_on_the_disk<C: Cloud>() -> Result<()> {
    for format in ["A1", "A2"] {
        let plugin = LoadedPlugin::<C>::encrypted_with(&write_back(&json!({})), &json!({"Format": format}))?;
        let state = StateFolder::of_plugin(&plugin);
        let held = plugin.server.hold(request::CREATE);
        plugin.create(UUID, &content(5000))?;
        let name = format!("fb/{UUID}.1.enc");
        assert_eq!(state.pending(), std::slice::from_ref(&name));
        let pending = fs::read(state.pending_path(&name))?;
        assert!(pending.starts_with(format.as_bytes()));
        assert_eq!(plugin.read(UUID)?, content(5000));
        if format == "A2" {
            assert_eq!(plugin.range(UUID, 1000, 2000)?, content(5000)[1000..3000]);
        }
        held.release();
        expect_all_uploaded(&plugin, 1)?;
        assert_eq!(state.cached(), [format!("fb/4b/{UUID}.1.enc")]);
        assert_eq!(plugin.object(&format!("{KEY}.enc"))?, pending, "it is encrypted once");
        assert_eq!(plugin.read(UUID)?, content(5000));
        plugin.check()?;
    }
    Ok(())
}

fn nothing_is_cached_without_a_cache<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&write_back(&json!({"MaxCacheMB": 0})))?;
    store(&plugin, 0..3)?;
    expect_all_uploaded(&plugin, 3)?;
    expect_readable(&plugin, 0..3)?;
    assert_eq!(StateFolder::of_plugin(&plugin).cached(), [""; 0]);
    plugin.check()
}

fn all_content_types_are_stored<C: Cloud>() -> Result<()> {
    let mut plugin = LoadedPlugin::<C>::with(&without_uploads())?;
    let types = [0, 1, 2, 3, 1024, 65535];
    for (number, content_type) in types.into_iter().enumerate() {
        let stored = plugin.orthanc.create(&uuid(number), content_type, &numbered(number));
        assert_eq!(stored, Ok(()), "{content_type}");
        assert_eq!(plugin.orthanc.read_whole(&uuid(number), content_type), Ok(numbered(number)));
    }
    plugin.restart_with(&write_back(&json!({})))?;
    expect_all_uploaded(&plugin, types.len())?;
    for (number, content_type) in types.into_iter().enumerate() {
        assert_eq!(plugin.orthanc.read_whole(&uuid(number), content_type), Ok(numbered(number)));
    }
    plugin.check()
}

fn empty_attachment_is_stored<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&write_back(&json!({})))?;
    plugin.create(UUID, b"")?;
    assert_eq!(plugin.read(UUID)?, b"");
    expect_all_uploaded(&plugin, 1)?;
    assert_eq!(plugin.read(UUID)?, b"");
    plugin.check()
}

fn large_attachment_is_uploaded_in_parts<C: Cloud>() -> Result<()> {
    let options = and(&write_back(&json!({})), &json!({"TransferPoolSize": 4}));
    let plugin = LoadedPlugin::<C>::with(&options)?;
    // A slow line, so that the second upload is sent in parts.
    plugin.server.bandwidth_per_connection(Some(12_000_000));
    let large = content(20_000_000);
    for number in 0..2 {
        plugin.create(&uuid(number), &large)?;
        expect_all_uploaded(&plugin, number + 1)?;
        ensure!(plugin.object(&flat(&uuid(number)))? == large);
    }
    assert_eq!(plugin.server.requests().of(Operation::CompleteMultipartUpload), 1);
    plugin.check()
}

fn store_exceeding_the_limit_goes_to_the_bucket<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&write_back(&json!({"MaxPendingMB": 1, "UploadDelay": 3600})))?;
    let state = StateFolder::of_plugin(&plugin);
    plugin.create(&uuid(0), &content(1_000_000))?;
    assert_eq!(plugin.server.requests().of(request::CREATE), 0);
    plugin.create(&uuid(1), &content(100_000))?;
    assert_eq!(plugin.server.requests().of(request::CREATE), 1);
    assert_eq!(state.pending().len(), 1);
    assert_eq!(plugin.read(&uuid(1))?, content(100_000));
    // A small one is still taken.
    plugin.create(&uuid(2), &content(10_000))?;
    assert_eq!((state.pending().len(), plugin.server.requests().of(request::CREATE)), (2, 1));
    let denied = FaultRule::new(Fault::status(403, C::MISSING_PERMISSION)).on(Operation::PutObject);
    plugin.server.faults().push(denied.times(usize::MAX));
    assert!(plugin.orthanc.create(&uuid(3), DICOM, &content(100_000)).is_err());
    let error = plugin.new_error()?;
    assert!(error.contains(&object_url::<C>(&uuid(3))) && error.contains("403"), "{error}");
    assert_eq!(requests_for(&plugin, "PUT", &uuid(0)), 0);
    plugin.check()
}

fn state_directory_is_required<C: Cloud>() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    fs::write(&file, "in the way")?;
    let server = C::server()?;
    let mut options = write_back(&json!({}));
    options["StateDirectory"] = json!(file.join("state"));
    let line = refusal::<C, _>(load::<C>(configuration::<C>(section::<C>(&server, &options)))?)?;
    ensure!(line.contains("WriteBack") && line.contains("StateDirectory"), "{line}");
    eventually("nothing is left", SOON, || server.keys(C::BUCKET).is_empty())
}
