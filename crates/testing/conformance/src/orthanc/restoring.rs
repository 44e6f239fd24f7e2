//! What `docs/operations.md` says about backups: the index, the keys and the bucket bring an archive back.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::Cloud;
use crate::fixture::Keys;
use crate::hybrid::support::{encryption, expect_readable, upload, uuid_of};
use crate::orthanc::fixture::Fixture;
use crate::write_back::support::{StateFolder, without_uploads, write_back};

tests! {
    OneCloud:
        older_index_finds_all_objects_that_exist,
        documented_commands_restore_pending_attachments,
        documented_script_lists_missing_objects,
}

/// Where the document has Orthanc's files.
const STORAGE: &str = "/var/lib/orthanc/db-v6";

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
    let verified = json!({"Depth": "exists", "Synchronous": true});
    let verified = fixture.rest().post_json("/object-storage/verify", &verified)?.ok()?.json()?;
    ensure!(verified["FailedAttachments"][0]["Uuid"] == object, "{verified:#}");
    ensure!(verified["Failures"] == 1 && verified["VerifiedAttachments"] == kept.len(), "{verified:#}");
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

/// Runs the script of the documentation for the Orthanc at `url`, with short pages. Returns what it prints.
fn list_missing(url: &str) -> Result<String> {
    let document = include_str!("../../../../../docs/operations.md");
    let (_, part) = document.split_once("\n### What is missing\n").context("no such part")?;
    let script = part.split("```").nth(1).context("no script")?.trim_start_matches("sh\n");
    ensure!(script.contains("limit=1000\n") && script.contains("sleep 5\n"), "{script}");
    let script = script.replace("limit=1000\n", "limit=2\n").replace("sleep 5\n", "sleep 0.3\n");
    let script = script.replace("http://localhost:8042", url);
    let output = Command::new("sh").args(["-c", &script]).output().context("starting sh")?;
    let printed = String::from_utf8([output.stdout, output.stderr].concat())?;
    ensure!(output.status.success(), "{printed}");
    Ok(printed)
}

fn documented_script_lists_missing_objects<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::start()?;
    let url = fixture.orthanc.url();
    let end = "The verification has ended: Success\n";
    for study in 1..=2 {
        upload(&fixture, study, 3)?;
    }
    let printed = list_missing(&url)?;
    ensure!(printed == end, "{printed}");

    let mut objects = fixture.keys();
    objects.retain(|key| key.ends_with(".dcm"));
    ensure!(objects.len() == 6, "{objects:?}");
    for object in &objects {
        fixture.bucket.remove(C::BUCKET, object);
    }
    let printed = list_missing(&url)?;
    ensure!(printed.matches("Instances ").count() == 6 && printed.ends_with(end), "{printed}");
    ensure!(objects.iter().all(|object| printed.contains(object)), "{printed}");
    Ok(())
}

fn documented_commands_restore_pending_attachments<C: Cloud>() -> Result<()> {
    let document = include_str!("../../../../../docs/operations.md");
    let mut blocks = document.split("```").filter_map(|block| block.strip_prefix("sh\n"));
    let back_up = blocks.find(|block| block.contains("/pending")).context("no command for the backup")?;
    let (_, put_back) = document.split_once("put them back: `").context("no command for the restore")?;
    let (put_back, _) = put_back.split_once('`').context("no end of the command")?;

    let mut fixture = Fixture::<C>::with(&without_uploads())?;
    let sent = upload(&fixture, 1, 4)?;
    let backup = tempfile::tempdir()?;
    let index = fixture.orthanc.folder().join("index");
    let storage = fixture.orthanc.storage_folder();
    let run = |command: &str| -> Result<()> {
        let command = format!("set -e\n{}", command.replace(STORAGE, &storage.display().to_string()));
        let output = Command::new("sh").args(["-c", &command]).env("folder", backup.path()).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    fixture.orthanc.stop()?;
    copy_files(&index, &backup.path().join("index"))?;
    run(back_up)?;

    // The machine is lost.
    fs::remove_dir_all(&index)?;
    fs::remove_dir_all(&storage)?;
    fs::create_dir_all(&storage)?;
    copy_files(&backup.path().join("index"), &index)?;
    run(put_back)?;
    ensure!(fixture.keys().is_empty(), "{:?}", fixture.keys());
    fixture.configure(&write_back(&json!({})));
    fixture.orthanc.start_again()?;
    expect_readable(&fixture, &sent)?;
    StateFolder::of(&storage).expect_uploaded()?;
    ensure!(fixture.objects().len() >= sent.len(), "{:?}", fixture.keys());
    expect_readable(&fixture, &sent)
}
