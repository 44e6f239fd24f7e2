//! Moves that cannot be done: a clear error, and nothing lost.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use fake_cloud::{Fault, FaultRule};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::request;
use crate::hybrid::support::{
    JOB, Keys, after_years_on_files, expect_readable, locations, move_to, start_moving, stored_files, upload,
    uuid_of,
};
use crate::orthanc::fixture::{Fixture, slice, slices};

tests![
    a_bucket_that_is_away_fails_the_job_and_loses_nothing,
    a_bucket_that_denies_fails_the_job_and_loses_nothing,
    a_copy_that_is_not_what_was_written_is_found_before_the_source_is_deleted,
    what_is_not_encrypted_is_not_moved_where_that_is_not_accepted,
    a_full_disk_fails_stores_and_moves_with_a_clear_error_and_leaves_no_half_file,
    a_file_system_that_denies_fails_the_job_and_loses_nothing,
    orthanc_stops_at_once_while_a_job_waits_for_a_bucket_that_is_away_and_the_job_goes_on_later,
];

fn hybrid<C: Cloud>() -> Result<Fixture<C>> {
    Fixture::<C>::with(&json!({"HybridMode": "WriteToFileSystem", "MaxRetries": 1}))
}

/// Moves what fails, and returns the job.
fn failed_move<C: Cloud>(fixture: &Fixture<C>, target: &str, resource: &str) -> Result<Value> {
    let id = start_moving(fixture, target, &[resource])?;
    let job = fixture.rest().wait_job(&id, JOB)?;
    ensure!(job["State"] == "Failure", "{job:#}");
    let error = job["Content"]["Error"].as_str().unwrap_or_default();
    ensure!(error.starts_with("attachment ") && error.contains(" (dicom) of instances/"), "{error}");
    ensure!(fixture.log_lines('E').iter().any(|line| line.contains(error)), "{:?}", fixture.log_lines('E'));
    Ok(job)
}

fn error(job: &Value) -> &str {
    job["Content"]["Error"].as_str().unwrap_or_default()
}

fn a_bucket_that_is_away_fails_the_job_and_loses_nothing<C: Cloud>() -> Result<()> {
    let fixture = hybrid::<C>()?;
    let sent = upload(&fixture, 1, 3)?;
    fixture.bucket.stop();
    let job = failed_move(&fixture, "object-storage", &sent[0].0.study)?;
    ensure!(error(&job).contains("after 2 attempts"), "{job:#}");
    expect_readable(&fixture, &sent)?;
    let answer = fixture.rest().post_json(
        "/move-storage",
        &json!({"Resources": [sent[0].0.study], "TargetStorage": "object-storage"}),
    )?;
    ensure!(answer.status == 500 && answer.text().starts_with("attachment "), "{}", answer.text());
    fixture.bucket.start_again()?;
    move_to(&fixture, "object-storage", &[&sent[0].0.study])?;
    ensure!(stored_files(&fixture.orthanc).is_empty());
    expect_readable(&fixture, &sent)
}

fn a_bucket_that_denies_fails_the_job_and_loses_nothing<C: Cloud>() -> Result<()> {
    let fixture = hybrid::<C>()?;
    let sent = upload(&fixture, 1, 2)?;
    let denied = || FaultRule::new(Fault::status(403, "AccessDenied")).times(usize::MAX);
    for operation in [request::CREATE, request::READ] {
        fixture.bucket.faults().push(denied().on(operation));
        let job = failed_move(&fixture, "object-storage", &sent[0].0.study)?;
        ensure!(error(&job).contains("access denied") && error(&job).contains("403"), "{job:#}");
        fixture.bucket.faults().clear();
        expect_readable(&fixture, &sent)?;
    }
    // The copy is there, and the source cannot be deleted: both remain, and the next move goes on.
    move_to(&fixture, "object-storage", &[&sent[0].0.study])?;
    fixture.bucket.faults().push(denied().on(request::REMOVE));
    let job = failed_move(&fixture, "file-system", &sent[0].0.study)?;
    ensure!(error(&job).contains("cannot delete"), "{job:#}");
    ensure!(locations(&fixture, &sent[0].0.study)?.contains(&"both".to_owned()));
    expect_readable(&fixture, &sent)?;
    fixture.bucket.faults().clear();
    move_to(&fixture, "file-system", &[&sent[0].0.study])?;
    ensure!(fixture.keys().is_empty());
    expect_readable(&fixture, &sent)
}

fn a_copy_that_is_not_what_was_written_is_found_before_the_source_is_deleted<C: Cloud>() -> Result<()> {
    let fixture = hybrid::<C>()?;
    let sent = upload(&fixture, 1, 1)?;
    let uuid = uuid_of(&fixture, &sent[0].0.id)?;
    // Someone else's bytes take the place of the copy before it is looked at.
    let replaced = Fault::ReplaceObject(b"something else".as_slice().into());
    fixture.bucket.faults().push(FaultRule::new(replaced).on(request::HEAD));
    let job = failed_move(&fixture, "object-storage", &sent[0].0.id)?;
    ensure!(error(&job).contains("the copy is not what was written"), "{job:#}");
    expect_readable(&fixture, &sent)?;
    // And now that there are two that differ, nobody but a human can tell which is right.
    let job = failed_move(&fixture, "object-storage", &sent[0].0.id)?;
    ensure!(error(&job).contains("the two storages hold different contents"), "{job:#}");
    fixture.bucket.remove(C::BUCKET, &format!("{uuid}.dcm"));
    move_to(&fixture, "object-storage", &[&sent[0].0.id])?;
    expect_readable(&fixture, &sent)
}

fn what_is_not_encrypted_is_not_moved_where_that_is_not_accepted<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let mut encryption = keys.section("A2");
    encryption["ReadUnencrypted"] = json!(false);
    let mut instance = String::new();
    let section = json!({"HybridMode": "WriteToObjectStorage", "StorageEncryption": encryption});
    let fixture = after_years_on_files::<C>(&section, |rest| {
        instance = rest.upload(&slice()?)?.id;
        Ok(())
    })?;
    let job = failed_move(&fixture, "object-storage", &instance)?;
    ensure!(error(&job).contains("ReadUnencrypted is off"), "{job:#}");
    ensure!(stored_files(&fixture.orthanc).len() == 1 && fixture.keys().is_empty());
    Ok(())
}

/// A tiny file system, as long as it lives.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    /// `None` where this user may not mount one.
    fn mount(folder: &Path, kilobytes: u32) -> Result<Option<Self>> {
        fs::create_dir_all(folder)?;
        let size = format!("size={kilobytes}k");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder).output();
        Ok(mounted.is_ok_and(|output| output.status.success()).then(|| Self(folder.to_owned())))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn a_full_disk_fails_stores_and_moves_with_a_clear_error_and_leaves_no_half_file<C: Cloud>() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let storage = folder.path().join("small");
    let Some(_mounted) = Tmpfs::mount(&storage, 64)? else {
        println!("SKIPPED: this user may not mount a tmpfs");
        return Ok(());
    };
    let section = json!({"HybridMode": "WriteToObjectStorage"});
    let mut fixture =
        Fixture::<C>::configured(&section, |builder| builder.section("StorageDirectory", json!(storage)))?;
    let sent = upload(&fixture, 1, 10)?;
    let job = failed_move(&fixture, "file-system", &sent[0].0.study)?;
    ensure!(error(&job).contains("the disk is full"), "{job:#}");
    expect_readable(&fixture, &sent)?;
    let moved = crate::hybrid::support::files(&storage);
    let whole = |name: &String| {
        name.ends_with('/') || fs::metadata(storage.join(name)).is_ok_and(|file| file.len() > 8000)
    };
    ensure!(moved.iter().all(whole), "{moved:?}");
    fixture.start_again_with(&json!({"HybridMode": "WriteToFileSystem"}))?;
    let answer = fixture.rest().post("/instances", &slices(2, 1)?[0])?;
    ensure!(answer.status == 500, "{}", answer.status);
    let errors = fixture.log_lines('E');
    ensure!(
        errors.iter().any(|line| line.contains("cannot store") && line.contains("the disk is full")),
        "{errors:?}"
    );
    ensure!(crate::hybrid::support::files(&storage) == moved, "a failed store leaves something behind");
    expect_readable(&fixture, &sent)
}

fn a_file_system_that_denies_fails_the_job_and_loses_nothing<C: Cloud>() -> Result<()> {
    // Root may do anything: for it, a folder that is a file has to do.
    let fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteToObjectStorage"}))?;
    let sent = upload(&fixture, 1, 1)?;
    let storage = fixture.orthanc.storage_folder();
    fs::create_dir_all(&storage)?;
    fs::set_permissions(&storage, fs::Permissions::from_mode(0o555))?;
    if fs::write(storage.join("probe"), "").is_ok() {
        fs::remove_file(storage.join("probe"))?;
        let uuid = uuid_of(&fixture, &sent[0].0.id)?;
        fs::write(storage.join(&uuid[0..2]), "in the way")?;
    }
    failed_move(&fixture, "file-system", &sent[0].0.id)?;
    expect_readable(&fixture, &sent)?;
    ensure!(fixture.keys().len() == 1);
    fs::set_permissions(&storage, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn orthanc_stops_at_once_while_a_job_waits_for_a_bucket_that_is_away_and_the_job_goes_on_later<C: Cloud>()
-> Result<()> {
    // With all its retries, the move would go on for minutes.
    let mut fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteToFileSystem"}))?;
    let sent = upload(&fixture, 1, 3)?;
    fixture.bucket.stop();
    let id = start_moving(&fixture, "object-storage", &[&sent[0].0.study])?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    let begin = std::time::Instant::now();
    fixture.orthanc.stop()?;
    ensure!(begin.elapsed().as_secs() < 10, "{:?}", begin.elapsed());
    fixture.bucket.start_again()?;
    fixture.orthanc.start_again()?;
    ensure!(fixture.rest().wait_job(&id, JOB)?["State"] == "Success");
    ensure!(stored_files(&fixture.orthanc).is_empty() && fixture.keys().len() == 3);
    expect_readable(&fixture, &sent)
}
