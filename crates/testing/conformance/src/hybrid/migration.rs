//! From an Orthanc with its own storage to a bucket, while it serves its clients (docs/hybrid.md).

use std::fs;

use anyhow::{Context, Result, ensure};
use real_orthanc::{Client, Orthanc};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{Keys, library, with};
use crate::hybrid::support::{
    encryption, expect_all_at, expect_no_errors, files_of_attachments, move_to, stored_files,
    with_existing_files,
};
use crate::orthanc::fixture::{Fixture, at_once, slice, slices};

tests! {
    OneCloud:
        plain_files_move_into_the_bucket,
        plain_files_move_into_an_encrypted_bucket,
        relative_storage_directory_is_resolved,
        unfinished_files_are_deleted_at_the_start,
}

/// Stores three studies, each with an attachment of a user. Returns instances and their files.
fn store_studies(rest: &Client) -> Result<Vec<(String, Vec<u8>)>> {
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

fn migrate<C: Cloud>(encryption: &Value, prefix: &[u8]) -> Result<()> {
    let mut sent = Vec::new();
    let section = json!({"HybridMode": "WriteToObjectStorage", "StorageEncryption": encryption});
    let fixture = with_existing_files::<C>(&section, |rest| {
        sent = store_studies(rest)?;
        Ok(())
    })?;
    let rest = fixture.rest();
    ensure!(stored_files(&fixture.orthanc).len() == 15);
    let expect_served = || -> Result<()> {
        for (instance, file) in &sent {
            ensure!(rest.file(instance)? == *file, "{instance}");
            rest.get_json(&format!("/instances/{instance}/tags"))?;
        }
        Ok(())
    };
    expect_served()?;
    let list = rest.get_json("/studies")?;
    let studies: Vec<_> = list.as_array().context("no list")?.iter().filter_map(Value::as_str).collect();
    at_once(2, |client| {
        if client == 0 {
            let mut moves = studies.iter().map(|study| move_to(&fixture, "object-storage", &[study]));
            return moves.try_for_each(|moved| moved.map(drop));
        }
        for file in slices(9, 10)? {
            rest.upload(&file)?;
            expect_served()?;
        }
        Ok(())
    })?;
    ensure!(
        files_of_attachments(&fixture.orthanc.storage_folder()).is_empty(),
        "{:?}",
        stored_files(&fixture.orthanc)
    );
    for study in &studies {
        expect_all_at(&fixture, study, "object-storage")?;
    }
    expect_served()?;
    for (key, object) in fixture.objects() {
        ensure!(key.ends_with(".enc") != prefix.is_empty() && object.bytes.starts_with(prefix), "{key}");
    }
    ensure!(fixture.keys().len() == 25, "{:?}", fixture.keys());
    expect_no_errors(&fixture)
}

fn plain_files_move_into_the_bucket<C: Cloud>() -> Result<()> {
    migrate::<C>(&json!({}), b"")
}

fn plain_files_move_into_an_encrypted_bucket<C: Cloud>() -> Result<()> {
    migrate::<C>(&encryption(&Keys::new()?, "A2"), b"A2")
}

fn relative_storage_directory_is_resolved<C: Cloud>() -> Result<()> {
    let bucket = C::server()?;
    let mut orthanc = Orthanc::builder().section("StorageDirectory", "relative/files").start()?;
    let uploaded = orthanc.rest().upload(&slice()?)?;
    ensure!(files_of_attachments(&orthanc.folder().join("relative/files")).len() == 1);
    orthanc.stop()?;
    let section = with(C::section(&bucket.endpoint()), &json!({"HybridMode": "WriteToObjectStorage"}));
    let library = library::<C>()?;
    orthanc.configure(|builder| builder.plugin(library).section(C::SECTION, section));
    orthanc.start_again()?;
    ensure!(orthanc.rest().file(&uploaded.id)? == slice()?);
    Ok(())
}

fn unfinished_files_are_deleted_at_the_start<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteToFileSystem"}))?;
    fixture.orthanc.kill()?;
    let folder = fixture.orthanc.storage_folder().join(".orthanc-object-storage");
    fs::create_dir_all(&folder)?;
    let unfinished = folder.join("0123456789abcdef0123456789abcdef");
    fs::write(&unfinished, "half a fi")?;
    fixture.orthanc.start_again()?;
    ensure!(!unfinished.exists(), "the file is still there");
    Ok(())
}
