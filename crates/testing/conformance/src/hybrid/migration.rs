//! From years on plain files to a bucket, without a stop (docs/hybrid.md).

use std::fs;

use anyhow::{Context, Result, ensure};
use real_orthanc::Client;
use serde_json::json;

use crate::Cloud;
use crate::fixture::library;
use crate::hybrid::support::{Keys, after_years_on_files, files, locations, move_to, stored_files};
use crate::orthanc::fixture::{Fixture, at_once, slice, slices};

tests![
    an_orthanc_of_plain_files_moves_into_the_bucket_study_by_study_while_it_serves,
    the_same_with_encryption_switched_on_at_that_moment,
    a_relative_storage_directory_is_beside_the_configuration_as_it_is_for_orthanc,
    what_a_killed_orthanc_was_writing_is_cleared_away_at_the_next_start,
];

/// Three studies of two patients, with an attachment of a user. Returns instances and their files.
fn years(rest: &Client) -> Result<Vec<(String, Vec<u8>)>> {
    let mut sent = Vec::new();
    for study in 1..=3 {
        for file in slices(study, 4)? {
            let uploaded = rest.upload(&file)?;
            rest.put(&format!("/studies/{}/attachments/1024", uploaded.study), b"a report")?.ok()?;
            sent.push((uploaded.id, file));
        }
    }
    Ok(sent)
}

fn migrate<C: Cloud>(encryption: &serde_json::Value) -> Result<()> {
    let mut sent = Vec::new();
    let section = json!({"HybridMode": "WriteToObjectStorage", "StorageEncryption": encryption});
    let fixture = after_years_on_files::<C>(&section, |rest| {
        sent = years(rest)?;
        Ok(())
    })?;
    let rest = fixture.rest();
    ensure!(stored_files(&fixture.orthanc).len() == 15);
    let readable = || -> Result<()> {
        for (instance, file) in &sent {
            ensure!(rest.file(instance)? == *file, "{instance}");
            rest.get_json(&format!("/instances/{instance}/tags"))?;
        }
        Ok(())
    };
    readable()?;
    // It keeps serving and storing while its studies move one by one.
    let studies = rest.get_json("/studies")?;
    let studies: Vec<_> =
        studies.as_array().context("no list")?.iter().filter_map(|id| id.as_str()).collect();
    at_once(2, |client| {
        if client == 0 {
            return studies
                .iter()
                .try_for_each(|study| move_to(&fixture, "object-storage", &[study]).map(|_| ()));
        }
        for file in slices(9, 10)? {
            rest.upload(&file)?;
            readable()?;
        }
        Ok(())
    })?;
    ensure!(files(&fixture.orthanc.storage_folder()).is_empty(), "{:?}", stored_files(&fixture.orthanc));
    for study in &studies {
        ensure!(locations(&fixture, study)?.iter().all(|place| place == "object-storage"));
    }
    readable()?;
    let encrypted = encryption.as_object().is_some_and(|section| !section.is_empty());
    for (key, object) in fixture.bucket.objects(C::BUCKET) {
        ensure!(key.ends_with(".enc") == encrypted && object.bytes.starts_with(b"A2") == encrypted, "{key}");
    }
    ensure!(fixture.keys().len() == 25 && fixture.log_lines('E').is_empty(), "{:?}", fixture.log_lines('E'));
    Ok(())
}

fn an_orthanc_of_plain_files_moves_into_the_bucket_study_by_study_while_it_serves<C: Cloud>() -> Result<()> {
    migrate::<C>(&json!({}))
}

fn the_same_with_encryption_switched_on_at_that_moment<C: Cloud>() -> Result<()> {
    migrate::<C>(&Keys::new()?.section("A2"))
}

fn a_relative_storage_directory_is_beside_the_configuration_as_it_is_for_orthanc<C: Cloud>() -> Result<()> {
    let bucket = C::server()?;
    let mut orthanc =
        real_orthanc::Orthanc::builder().section("StorageDirectory", "relative/files").start()?;
    let uploaded = orthanc.rest().upload(&slice()?)?;
    ensure!(files(&orthanc.folder().join("relative/files")).len() == 1);
    orthanc.stop()?;
    let section =
        crate::fixture::with(C::section(&bucket.endpoint()), &json!({"HybridMode": "WriteToObjectStorage"}));
    let library = library::<C>()?;
    orthanc.configure(|builder| builder.plugin(library).section(C::SECTION, section));
    orthanc.start_again()?;
    ensure!(orthanc.rest().file(&uploaded.id)? == slice()?);
    Ok(())
}

fn what_a_killed_orthanc_was_writing_is_cleared_away_at_the_next_start<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteToFileSystem"}))?;
    fixture.orthanc.kill()?;
    let folder = fixture.orthanc.storage_folder().join(".orthanc-object-storage");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("0123456789abcdef0123456789abcdef"), "half a fi")?;
    fixture.orthanc.start_again()?;
    ensure!(files(&fixture.orthanc.storage_folder()).iter().all(|name| name.ends_with('/')));
    fixture.orthanc.stop()?;
    ensure!(files(&fixture.orthanc.storage_folder()).is_empty());
    Ok(())
}
