//! The storage that new files go to, and the order in which the storages are read.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Result, ensure};
use real_orthanc::Orthanc;
use serde_json::json;

use crate::Cloud;
use crate::fixture::{Keys, request};
use crate::hybrid::support::{
    encryption, expect_counts, expect_no_errors, expect_readable, path_of, upload, uuid_of, write_file,
};
use crate::orthanc::fixture::{Fixture, slice};

tests! {
    OneCloud:
        new_files_go_to_the_storage_of_the_mode,
        second_storage_costs_one_request,
        missing_attachment_is_one_error,
        failure_of_the_first_storage_is_a_warning,
        both_copies_are_deleted,
        deprecated_option_selects_a_mode,
        files_are_like_those_of_orthanc,
}

const MODES: [&str; 2] = ["WriteToFileSystem", "WriteToObjectStorage"];

fn new_files_go_to_the_storage_of_the_mode<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    for mode in MODES {
        // In A1, Orthanc stores headers as separate attachments.
        for (format, structure, count) in [("clear", "flat", 2), ("A1", "legacy", 4), ("A2", "flat", 2)] {
            let is_clear = format == "clear";
            let section = if is_clear { json!({}) } else { encryption(&keys, format) };
            let fixture = Fixture::<C>::with(&json!({
                "HybridMode": mode, "StorageStructure": structure, "StorageEncryption": section,
            }))?;
            let sent = upload(&fixture, 1, 2)?;
            let (files, objects) = if mode == MODES[0] { (count, 0) } else { (0, count) };
            expect_counts(&fixture, files, objects)?;
            expect_readable(&fixture, &sent)?;
            for (uploaded, file) in &sent {
                fixture.rest().get_json(&format!("/instances/{}/tags", uploaded.id))?;
                if mode == MODES[0] {
                    let bytes = fs::read(path_of(&fixture.orthanc, &uuid_of(&fixture, &uploaded.id)?))?;
                    ensure!((bytes == *file) == is_clear, "{format}");
                    ensure!(is_clear || bytes.starts_with(format.as_bytes()), "{format}");
                }
            }
            ensure!(fixture.keys().iter().all(|key| key.contains('/') == (structure == "legacy")));
            fixture.rest().delete(&format!("/studies/{}", sent[0].0.study))?.ok()?;
            expect_counts(&fixture, 0, 0)?;
            expect_no_errors(&fixture)?;
        }
    }
    Ok(())
}

fn second_storage_costs_one_request<C: Cloud>() -> Result<()> {
    for (write_mode, read_mode) in [(MODES[1], MODES[0]), (MODES[0], MODES[1])] {
        let mut fixture = Fixture::<C>::with(&json!({"HybridMode": write_mode}))?;
        let sent = upload(&fixture, 1, 1)?;
        fixture.start_again_with(&json!({"HybridMode": read_mode}))?;
        // The request finds the object, or finds that there is none before the file is read.
        let ((), read) = fixture.counted(|| expect_readable(&fixture, &sent))?;
        ensure!((read.of(fixture.whole_read()?), read.total) == (1, 1), "{read_mode}: {read:?}");
        let tags = format!("/instances/{}/tags", sent[0].0.id);
        let (_, range) = fixture.counted(|| fixture.rest().get_json(&tags))?;
        ensure!((range.of(request::READ_RANGE), range.total) == (1, 1), "{read_mode}: {range:?}");
        let status = fixture.rest().get_json("/object-storage/status")?;
        ensure!(status["ReadsFromSecondStorage"] == 2, "{status}");
        expect_no_errors(&fixture)?;
    }
    Ok(())
}

fn missing_attachment_is_one_error<C: Cloud>() -> Result<()> {
    for mode in MODES {
        let fixture = Fixture::<C>::with(&json!({"HybridMode": mode}))?;
        let sent = upload(&fixture, 1, 1)?;
        let uuid = uuid_of(&fixture, &sent[0].0.id)?;
        let _ = fs::remove_file(path_of(&fixture.orthanc, &uuid));
        fixture.bucket.remove(C::BUCKET, &format!("{uuid}.dcm"));
        let answer = fixture.rest().get(&format!("/instances/{}/file", sent[0].0.id))?;
        ensure!(answer.status == 404, "{}", answer.status);
        let errors = fixture.log_lines('E');
        ensure!(errors.len() == 1 && errors[0].contains(&uuid), "{errors:?}");
    }
    Ok(())
}

fn failure_of_the_first_storage_is_a_warning<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&json!({"HybridMode": MODES[0]}))?;
    let sent = upload(&fixture, 1, 1)?;
    let uuid = uuid_of(&fixture, &sent[0].0.id)?;
    fixture.start_again_with(&json!({"HybridMode": MODES[1], "MaxRetries": 0}))?;
    fixture.bucket.stop();
    expect_readable(&fixture, &sent)?;
    let warnings = fixture.log_lines('W');
    let is_about_read = |line: &String| line.contains(&uuid) && line.contains(C::URL);
    ensure!(warnings.iter().any(is_about_read), "{warnings:?}");
    expect_no_errors(&fixture)
}

fn both_copies_are_deleted<C: Cloud>() -> Result<()> {
    for mode in MODES {
        let fixture = Fixture::<C>::with(&json!({"HybridMode": mode}))?;
        let sent = upload(&fixture, 1, 1)?;
        let (uploaded, file) = &sent[0];
        let uuid = uuid_of(&fixture, &uploaded.id)?;
        // An interrupted move leaves both copies.
        write_file(&fixture.orthanc, &uuid, file)?;
        fixture.bucket.insert(C::BUCKET, &format!("{uuid}.dcm"), file.clone());
        expect_readable(&fixture, &sent)?;
        fixture.rest().delete(&uploaded.path)?.ok()?;
        expect_counts(&fixture, 0, 0)?;
    }
    Ok(())
}

fn deprecated_option_selects_a_mode<C: Cloud>() -> Result<()> {
    let mut section = json!({"MigrationFromFileSystemEnabled": true});
    let fixture = Fixture::<C>::with(&section)?;
    ensure!(fixture.rest().get_json("/object-storage/status")?["HybridMode"] == "WriteToObjectStorage");
    let warnings = fixture.log_lines('W');
    let is_about_option = |line: &String| line.contains("MigrationFromFileSystemEnabled");
    ensure!(warnings.iter().any(is_about_option), "{warnings:?}");
    section["HybridMode"] = json!("Disabled");
    let disabled = Fixture::<C>::with(&section)?;
    ensure!(disabled.rest().get_json("/object-storage/status")?["HybridMode"] == "Disabled");
    ensure!(disabled.rest().post("/move-storage", b"{}")?.status == 404);
    Ok(())
}

fn files_are_like_those_of_orthanc<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&json!({"HybridMode": MODES[0]}))?;
    let other = Fixture::<C>::new(Orthanc::builder().start()?, C::server()?);
    let path = |fixture: &Fixture<C>| -> Result<_> {
        let uploaded = fixture.rest().upload(&slice()?)?;
        Ok(path_of(&fixture.orthanc, &uuid_of(fixture, &uploaded.id)?))
    };
    let paths = [path(&fixture)?, path(&other)?];
    let modes = |path: &Path| -> Result<Vec<u32>> {
        path.ancestors().take(3).map(|path| Ok(path.metadata()?.permissions().mode())).collect()
    };
    ensure!(modes(&paths[0])? == modes(&paths[1])?, "{paths:?}");
    ensure!(fs::read(&paths[0])? == fs::read(&paths[1])?);
    Ok(())
}
