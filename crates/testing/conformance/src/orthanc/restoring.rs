//! What `docs/operations.md` says about backups: the index, the keys and the bucket bring an archive back.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Cloud;
use crate::fixture::Keys;
use crate::hybrid::support::{encryption, expect_readable, upload, uuid_of};
use crate::orthanc::fixture::Fixture;

tests! {
    OneCloud:
        older_index_finds_all_objects_that_exist,
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        fs::copy(&path, to.join(path.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// Returns the number of instances in the bucket.
fn objects<C: Cloud>(fixture: &Fixture<C>) -> usize {
    fixture.keys().iter().filter(|key| key.ends_with(".dcm.enc")).count()
}

fn older_index_finds_all_objects_that_exist<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let mut fixture = Fixture::<C>::with(&json!({"StorageEncryption": encryption(&keys, "A2")}))?;
    let backup = tempfile::tempdir()?;
    let index = fixture.orthanc.folder().join("index");

    let mut kept = upload(&fixture, 1, 4)?;
    fixture.orthanc.stop()?;
    copy_files(&index, backup.path())?;
    fixture.orthanc.start_again()?;

    // After the backup, an instance is deleted and another study is stored.
    let (deleted, file) = kept.remove(0);
    let object = uuid_of(&fixture, &deleted.id)?;
    fixture.rest().delete(&deleted.path)?.ok()?;
    let later = upload(&fixture, 2, 2)?;
    ensure!(objects(&fixture) == kept.len() + later.len(), "{:?}", fixture.keys());

    // The machine is lost. The configuration and the keys come from their own backups.
    fixture.orthanc.kill()?;
    fs::remove_dir_all(&index)?;
    fs::remove_dir_all(fixture.orthanc.storage_folder())?;
    copy_files(backup.path(), &index)?;
    fixture.orthanc.start_again()?;

    expect_readable(&fixture, &kept)?;
    ensure!(fixture.rest().get(&format!("{}/file", deleted.path))?.status == 404);
    let errors = fixture.log_lines('E');
    ensure!(errors.len() == 1 && errors[0].contains(&object), "{errors:#?}");
    ensure!(
        fixture.rest().get_json("/studies")? == json!([kept[0].0.study]),
        "the later study is not in the index"
    );
    ensure!(objects(&fixture) == kept.len() + later.len(), "no object is deleted: {:?}", fixture.keys());

    // Sent again, the lost instance is stored only after it was deleted.
    ensure!(fixture.rest().upload(&file)?.status == "AlreadyStored");
    fixture.rest().delete(&deleted.path)?.ok()?;
    expect_readable(&fixture, &[(fixture.rest().upload(&file)?, file)])?;
    expect_readable(&fixture, &upload(&fixture, 2, 2)?)
}
