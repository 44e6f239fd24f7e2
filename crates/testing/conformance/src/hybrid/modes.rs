//! Where attachments are written, and in which order they are looked for.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Cloud;
use crate::fixture::request;
use crate::hybrid::support::{Keys, expect_readable, path_of, reads, stored_files, upload, uuid_of};
use crate::orthanc::fixture::{Fixture, slice};

tests![
    writes_go_to_the_storage_of_the_mode_and_to_no_other,
    an_attachment_on_the_second_storage_costs_one_failed_request_and_no_error_line,
    what_neither_storage_has_is_an_error_and_is_looked_for_no_longer,
    another_failure_of_the_first_storage_is_a_warning_and_the_second_is_tried,
    an_attachment_on_both_storages_is_read_and_deleted_from_both,
    the_deprecated_option_is_understood_and_loses_against_hybrid_mode,
    files_are_written_as_orthanc_itself_writes_them,
];

/// Each mode with each form of encryption and each structure.
fn in_all_ways<C: Cloud>(test: impl Fn(&str, &str, &str, &Fixture<C>) -> Result<()>) -> Result<()> {
    let keys = Keys::new()?;
    for mode in ["WriteToFileSystem", "WriteToObjectStorage"] {
        for (format, structure) in [("clear", "flat"), ("A1", "legacy"), ("A2", "flat")] {
            let encryption = if format == "clear" { json!({}) } else { keys.section(format) };
            let section =
                json!({"HybridMode": mode, "StorageStructure": structure, "StorageEncryption": encryption});
            let fixture = Fixture::<C>::configured(&section, |builder| builder.verbose(true))?;
            test(mode, format, structure, &fixture)?;
        }
    }
    Ok(())
}

fn writes_go_to_the_storage_of_the_mode_and_to_no_other<C: Cloud>() -> Result<()> {
    in_all_ways::<C>(|mode, format, structure, fixture| {
        let sent = upload(fixture, 1, 2)?;
        // In A1, Orthanc stores headers as attachments of their own.
        let count = if format == "A1" { 4 } else { 2 };
        let (on_files, in_bucket) = if mode == "WriteToFileSystem" { (count, 0) } else { (0, count) };
        let files = stored_files(&fixture.orthanc);
        ensure!(files.len() == on_files, "{mode} {format}: {files:?}");
        ensure!(fixture.keys().len() == in_bucket, "{mode} {format}: {:?}", fixture.keys());
        expect_readable(fixture, &sent)?;
        for (uploaded, file) in &sent {
            fixture.rest().get_json(&format!("/instances/{}/tags", uploaded.id))?;
            if mode == "WriteToFileSystem" {
                let bytes = std::fs::read(path_of(&fixture.orthanc, &uuid_of(fixture, &uploaded.id)?))?;
                ensure!((bytes == *file) == (format == "clear"), "{format}");
                ensure!(format == "clear" || bytes.starts_with(format.as_bytes()), "{format}");
            }
        }
        ensure!(fixture.keys().iter().all(|key| key.contains('/') == (structure == "legacy")));
        fixture.rest().delete(&format!("/studies/{}", sent[0].0.study))?.ok()?;
        ensure!(stored_files(&fixture.orthanc).is_empty() && fixture.keys().is_empty(), "{mode} {format}");
        ensure!(fixture.log_lines('E').is_empty(), "{:?}", fixture.log_lines('E'));
        Ok(())
    })
}

fn an_attachment_on_the_second_storage_costs_one_failed_request_and_no_error_line<C: Cloud>() -> Result<()> {
    // Written to the bucket, then read in the mode that looks at the files first; and the other way round.
    for (written, read) in
        [("WriteToObjectStorage", "WriteToFileSystem"), ("WriteToFileSystem", "WriteToObjectStorage")]
    {
        let mut fixture =
            Fixture::<C>::configured(&json!({"HybridMode": written}), |builder| builder.verbose(true))?;
        let sent = upload(&fixture, 1, 1)?;
        fixture.start_again_with(&json!({"HybridMode": read}))?;
        let ((), counts) = fixture.counted(|| expect_readable(&fixture, &sent))?;
        // In the bucket: found. On the file system: asked for in vain.
        ensure!((reads(&counts), counts.total) == (1, 1), "{read}: {counts:?}");
        let (_, counts) = fixture
            .counted(|| Ok(fixture.rest().get_json(&format!("/instances/{}/tags", sent[0].0.id))?))?;
        ensure!((counts.of(request::READ_RANGE), counts.total) == (1, 1), "{read}: {counts:?}");
        let status = fixture.rest().get_json("/object-storage/status")?;
        ensure!(status["ReadsFromSecondStorage"] == 2, "{status}");
        ensure!(fixture.log_lines('E').is_empty(), "{:?}", fixture.log_lines('E'));
        let infos = fixture.log_lines('I');
        ensure!(infos.iter().any(|line| line.contains("does not exist, trying")), "{infos:?}");
    }
    Ok(())
}

fn what_neither_storage_has_is_an_error_and_is_looked_for_no_longer<C: Cloud>() -> Result<()> {
    for mode in ["WriteToFileSystem", "WriteToObjectStorage"] {
        let fixture = Fixture::<C>::with(&json!({"HybridMode": mode}))?;
        let sent = upload(&fixture, 1, 1)?;
        let uuid = uuid_of(&fixture, &sent[0].0.id)?;
        let _ = std::fs::remove_file(path_of(&fixture.orthanc, &uuid));
        fixture.bucket.remove(C::BUCKET, &format!("{uuid}.dcm"));
        let answer = fixture.rest().get(&format!("/instances/{}/file", sent[0].0.id))?;
        ensure!(answer.status == 404, "{}", answer.status);
        let errors = fixture.log_lines('E');
        ensure!(errors.len() == 1 && errors[0].contains("no such object"), "{errors:?}");
    }
    Ok(())
}

fn another_failure_of_the_first_storage_is_a_warning_and_the_second_is_tried<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteToFileSystem"}))?;
    let sent = upload(&fixture, 1, 1)?;
    fixture.start_again_with(&json!({"HybridMode": "WriteToObjectStorage", "MaxRetries": 0}))?;
    fixture.bucket.stop();
    expect_readable(&fixture, &sent)?;
    let warnings = fixture.log_lines('W');
    ensure!(warnings.iter().any(|line| line.contains("; trying ") && line.contains(C::URL)), "{warnings:?}");
    ensure!(fixture.log_lines('E').is_empty(), "{:?}", fixture.log_lines('E'));
    Ok(())
}

fn an_attachment_on_both_storages_is_read_and_deleted_from_both<C: Cloud>() -> Result<()> {
    for mode in ["WriteToFileSystem", "WriteToObjectStorage"] {
        let fixture = Fixture::<C>::with(&json!({"HybridMode": mode}))?;
        let sent = upload(&fixture, 1, 1)?;
        let (uuid, file) = (uuid_of(&fixture, &sent[0].0.id)?, &sent[0].1);
        // As a move leaves it that was broken off.
        let path = path_of(&fixture.orthanc, &uuid);
        std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
        std::fs::write(&path, file)?;
        fixture.bucket.insert(C::BUCKET, &format!("{uuid}.dcm"), file.clone());
        expect_readable(&fixture, &sent)?;
        fixture.rest().delete(&format!("/instances/{}", sent[0].0.id))?.ok()?;
        ensure!(fixture.keys().is_empty() && stored_files(&fixture.orthanc).is_empty(), "{mode}");
    }
    Ok(())
}

fn the_deprecated_option_is_understood_and_loses_against_hybrid_mode<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&json!({"MigrationFromFileSystemEnabled": true}))?;
    ensure!(fixture.rest().get_json("/object-storage/status")?["HybridMode"] == "WriteToObjectStorage");
    let warnings = fixture.log_lines('W');
    ensure!(warnings.iter().any(|line| line.contains("MigrationFromFileSystemEnabled is deprecated")));
    let explicit = json!({"MigrationFromFileSystemEnabled": true, "HybridMode": "Disabled"});
    let fixture = Fixture::<C>::with(&explicit)?;
    ensure!(fixture.rest().get_json("/object-storage/status")?["HybridMode"] == "Disabled");
    ensure!(fixture.rest().post("/move-storage", b"{}")?.status == 404);
    Ok(())
}

fn files_are_written_as_orthanc_itself_writes_them<C: Cloud>() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteToFileSystem"}))?;
    let own = real_orthanc::Orthanc::builder().start()?;
    let (ours, theirs) = (fixture.rest().upload(&slice()?)?, own.rest().upload(&slice()?)?);
    let uuid = uuid_of(&fixture, &ours.id)?;
    let info = own.rest().get_json(&format!("/instances/{}/attachments/dicom/info", theirs.id))?;
    let paths = [path_of(&fixture.orthanc, &uuid), path_of(&own, info["Uuid"].as_str().unwrap_or_default())];
    let modes = |path: &std::path::Path| -> Result<Vec<u32>> {
        path.ancestors().take(3).map(|path| Ok(path.metadata()?.permissions().mode())).collect()
    };
    ensure!(modes(&paths[0])? == modes(&paths[1])?, "{paths:?}");
    ensure!(std::fs::read(&paths[0])? == std::fs::read(&paths[1])?);
    Ok(())
}
