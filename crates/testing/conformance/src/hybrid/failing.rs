//! Moves that fail: each gives one clear error and loses nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use fake_cloud::{Fault, FaultRule};
use real_orthanc::Client;
use serde_json::json;

use crate::Cloud;
use crate::fixture::{Keys, request, within};
use crate::hybrid::support::{
    JOB, expect_counts, expect_readable, files_of_attachments, locations, move_to, path_of, start_moving,
    upload, uuid_of, with_existing_files,
};
use crate::orthanc::fixture::{Fixture, slice, slices};
use crate::small_disk::on_small_disk;

tests! {
    EveryCloud:
        damaged_copy_is_noticed;
    OneCloud:
        bad_attachments_do_not_end_the_move,
        unreachable_bucket_fails_the_move,
        unreachable_bucket_ends_a_long_move,
        denied_requests_fail_the_move,
        clear_files_are_not_moved_by_default,
        full_disk_fails_stores_and_moves,
        unwritable_disk_fails_the_move,
        orthanc_stops_while_a_move_waits,
        orthanc_stops_while_a_client_waits_for_a_move,
}

fn hybrid<C: Cloud>() -> Result<Fixture<C>> {
    Fixture::<C>::with(&json!({"HybridMode": "WriteToFileSystem", "MaxRetries": 1}))
}

/// Checks that a move fails with an error in its content and in the log, which contains all `fragments`.
fn failed_move<C: Cloud>(
    fixture: &Fixture<C>,
    target: &str,
    resource: &str,
    fragments: &[&str],
) -> Result<()> {
    let id = start_moving(fixture, target, &[resource])?;
    let job = fixture.rest().wait_job(&id, JOB)?;
    ensure!(job["State"] == "Failure", "{job:#}");
    let error = job["Content"]["Error"].as_str().unwrap_or_default();
    for fragment in ["dicom", "instances/"].iter().chain(fragments) {
        ensure!(error.contains(fragment), "{fragment:?} is not in {error:?}");
    }
    ensure!(fixture.log_lines('E').iter().any(|line| line.contains(error)), "{:?}", fixture.log_lines('E'));
    Ok(())
}

fn bad_attachments_do_not_end_the_move<C: Cloud>() -> Result<()> {
    let fixture = hybrid::<C>()?;
    let sent = upload(&fixture, 1, 20)?;
    let bad = [&sent[3].0.id, &sent[12].0.id];
    let uuids = [uuid_of(&fixture, bad[0])?, uuid_of(&fixture, bad[1])?];
    fs::remove_file(path_of(&fixture.orthanc, &uuids[0]))?;
    fixture.bucket.insert(C::BUCKET, &format!("{}.dcm", uuids[1]), b"something else".as_slice());
    let id = start_moving(&fixture, "object-storage", &[&sent[0].0.study])?;
    let job = fixture.rest().wait_job(&id, JOB)?;
    let content = &job["Content"];
    ensure!(job["State"] == "Failure" && content["MovedAttachments"] == 18, "{job:#}");
    ensure!(content["Failures"] == 2, "{job:#}");
    for (uuid, (instance, reason)) in uuids.iter().zip(bad.iter().zip(["no storage", "different contents"])) {
        let failed = content["FailedAttachments"].as_array().into_iter().flatten();
        let failed = failed.clone().find(|failed| failed["Uuid"] == uuid.as_str()).context("not listed")?;
        ensure!(
            failed["Resource"] == format!("instances/{instance}") && failed["Name"] == "dicom",
            "{job:#}"
        );
        ensure!(failed["Error"].as_str().is_some_and(|error| error.contains(reason)), "{job:#}");
    }
    ensure!(content["Error"].as_str().is_some_and(|error| error.contains(": 2; the first: ")), "{job:#}");
    let warnings = fixture.log_lines('W');
    ensure!(warnings.iter().filter(|line| line.contains("not moved")).count() == 2, "{warnings:#?}");
    ensure!(fixture.log_lines('E').len() == 1, "{:#?}", fixture.log_lines('E'));
    expect_counts(&fixture, 1, 19)
}

fn unreachable_bucket_ends_a_long_move<C: Cloud>() -> Result<()> {
    let fixture = hybrid::<C>()?;
    let sent = upload(&fixture, 1, 50)?;
    fixture.bucket.stop();
    let id = start_moving(&fixture, "object-storage", &[&sent[0].0.study])?;
    let job = fixture.rest().wait_job(&id, JOB)?;
    let error = job["Content"]["Error"].as_str().unwrap_or_default();
    ensure!(error.contains("gave up after 0 of 50 instances") && error.contains("2 attempts"), "{job:#}");
    let warnings = fixture.log_lines('W');
    ensure!(warnings.iter().filter(|line| line.contains("not moved")).count() == 16, "{warnings:#?}");
    fixture.bucket.start_again()?;
    fixture.rest().post(&format!("/jobs/{id}/resubmit"), b"")?.ok()?;
    let succeeded =
        || fixture.rest().get_json(&format!("/jobs/{id}")).is_ok_and(|job| job["State"] == "Success");
    ensure!(within(JOB, succeeded), "{:#}", fixture.rest().get_json(&format!("/jobs/{id}"))?);
    expect_counts(&fixture, 0, 50)?;
    expect_readable(&fixture, &sent)
}

fn unreachable_bucket_fails_the_move<C: Cloud>() -> Result<()> {
    let fixture = hybrid::<C>()?;
    let sent = upload(&fixture, 1, 3)?;
    let study = sent[0].0.study.as_str();
    fixture.bucket.stop();
    failed_move(&fixture, "object-storage", study, &["2 attempts"])?;
    expect_readable(&fixture, &sent)?;
    let body = json!({"Resources": [study], "TargetStorage": "object-storage"});
    let answer = fixture.rest().post_json("/move-storage", &body)?;
    ensure!(answer.status == 500 && answer.text().contains("2 attempts"), "{}", answer.text());
    fixture.bucket.start_again()?;
    move_to(&fixture, "object-storage", &[study])?;
    expect_counts(&fixture, 0, 3)?;
    expect_readable(&fixture, &sent)
}

fn denied_requests_fail_the_move<C: Cloud>() -> Result<()> {
    let fixture = hybrid::<C>()?;
    let sent = upload(&fixture, 1, 2)?;
    let study = sent[0].0.study.as_str();
    let denied = || FaultRule::new(Fault::status(403, "AccessDenied")).times(usize::MAX);
    for operation in [request::CREATE, request::READ] {
        fixture.bucket.faults().push(denied().on(operation));
        failed_move(&fixture, "object-storage", study, &["HTTP 403"])?;
        fixture.bucket.faults().clear();
        expect_readable(&fixture, &sent)?;
    }
    // The copy is written, but the source cannot be deleted. Both remain, and the next move completes the
    // work.
    move_to(&fixture, "object-storage", &[study])?;
    fixture.bucket.faults().push(denied().on(request::REMOVE));
    failed_move(&fixture, "file-system", study, &["HTTP 403", "delete"])?;
    ensure!(locations(&fixture, study)?.contains(&"both".to_owned()));
    expect_readable(&fixture, &sent)?;
    fixture.bucket.faults().clear();
    move_to(&fixture, "file-system", &[study])?;
    expect_counts(&fixture, 2, 0)?;
    expect_readable(&fixture, &sent)
}

fn damaged_copy_is_noticed<C: Cloud>() -> Result<()> {
    let fixture = hybrid::<C>()?;
    let sent = upload(&fixture, 1, 1)?;
    let id = sent[0].0.id.as_str();
    let uuid = uuid_of(&fixture, id)?;
    // The server stores something else.
    let damaged = Fault::StoreInstead(b"something else".as_slice().into());
    fixture.bucket.faults().push(FaultRule::new(damaged).on(request::CREATE));
    failed_move(&fixture, "object-storage", id, &[&uuid])?;
    expect_readable(&fixture, &sent)?;
    // The two copies differ now, and the plugin cannot know which one is right.
    failed_move(&fixture, "object-storage", id, &[&uuid])?;
    expect_counts(&fixture, 1, 1)?;
    fixture.bucket.remove(C::BUCKET, &format!("{uuid}.dcm"));
    move_to(&fixture, "object-storage", &[id])?;
    expect_readable(&fixture, &sent)
}

fn clear_files_are_not_moved_by_default<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let encryption = keys.section(&json!({"Format": "A2"}));
    let mut instance = String::new();
    let section = json!({"HybridMode": "WriteToObjectStorage", "StorageEncryption": encryption});
    let fixture = with_existing_files::<C>(&section, |rest| {
        instance = rest.upload(&slice()?)?.id;
        Ok(())
    })?;
    failed_move(&fixture, "object-storage", &instance, &["ReadUnencrypted"])?;
    expect_counts(&fixture, 1, 0)
}

fn full_disk_fails_stores_and_moves<C: Cloud>() -> Result<()> {
    on_small_disk(64, full_disk::<C>)
}

fn full_disk<C: Cloud>(storage: &Path) -> Result<()> {
    let section = json!({"HybridMode": "WriteToObjectStorage"});
    let mut fixture =
        Fixture::<C>::configured(&section, |builder| builder.section("StorageDirectory", json!(storage)))?;
    let sent = upload(&fixture, 1, 10)?;
    failed_move(&fixture, "file-system", &sent[0].0.study, &["full"])?;
    expect_readable(&fixture, &sent)?;
    let moved = files_of_attachments(storage);
    let is_whole = |name: &String| {
        name.ends_with('/') || fs::metadata(storage.join(name)).is_ok_and(|file| file.len() > 8000)
    };
    ensure!(moved.iter().all(is_whole), "{moved:?}");
    fixture.start_again_with(&json!({"HybridMode": "WriteToFileSystem"}))?;
    let answer = fixture.rest().post("/instances", &slices(2, 1)?[0])?;
    ensure!(answer.status == 500, "{}", answer.status);
    let errors = fixture.log_lines('E');
    ensure!(errors.iter().any(|line| line.contains("store") && line.contains("full")), "{errors:?}");
    ensure!(files_of_attachments(storage) == moved, "a failed store leaves a file");
    expect_readable(&fixture, &sent)
}

fn unwritable_disk_fails_the_move<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteToObjectStorage"}))?;
    let sent = upload(&fixture, 1, 1)?;
    let storage = fixture.orthanc.storage_folder();
    fs::create_dir_all(&storage)?;
    fs::set_permissions(&storage, fs::Permissions::from_mode(0o555))?;
    let mut reason = "access denied";
    if fs::write(storage.join("probe"), "").is_ok() {
        // Permissions do not apply to root. A file in the place of a folder does.
        fs::remove_file(storage.join("probe"))?;
        let uuid = uuid_of(&fixture, &sent[0].0.id)?;
        fs::write(storage.join(&uuid[0..2]), "in the way")?;
        reason = "Not a directory";
    }
    failed_move(&fixture, "file-system", &sent[0].0.id, &["cannot store", reason])?;
    expect_readable(&fixture, &sent)?;
    ensure!(fixture.keys().len() == 1);
    fs::set_permissions(&storage, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn orthanc_stops_while_a_move_waits<C: Cloud>() -> Result<()> {
    // With all its retries, the move would take minutes.
    let mut fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteToFileSystem"}))?;
    let sent = upload(&fixture, 1, 3)?;
    fixture.bucket.stop();
    let id = start_moving(&fixture, "object-storage", &[&sent[0].0.study])?;
    thread::sleep(Duration::from_millis(500));
    let job = fixture.rest().get_json(&format!("/jobs/{id}"))?;
    ensure!(job["State"] == "Running", "{job:#}");
    let start = Instant::now();
    fixture.orthanc.stop()?;
    ensure!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    fixture.bucket.start_again()?;
    fixture.orthanc.start_again()?;
    ensure!(fixture.rest().wait_job(&id, JOB)?["State"] == "Success");
    expect_counts(&fixture, 0, 3)?;
    expect_readable(&fixture, &sent)
}

fn orthanc_stops_while_a_client_waits_for_a_move<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteToFileSystem"}))?;
    let sent = upload(&fixture, 1, 3)?;
    fixture.bucket.stop();
    let client = Client::new(fixture.orthanc.url());
    let body = json!({"Resources": [sent[0].0.study], "TargetStorage": "object-storage"});
    thread::scope(|scope| -> Result<()> {
        let waiting = scope.spawn(|| client.post_json("/move-storage", &body));
        let jobs = || fixture.rest().get_json("/jobs?expand");
        let is_running = || jobs().is_ok_and(|jobs| jobs[0]["State"] == "Running");
        ensure!(within(JOB, is_running), "{:?}", jobs());
        let start = Instant::now();
        fixture.orthanc.stop()?;
        ensure!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
        // Orthanc 1.10 closes the connection before it can send the answer.
        if let Ok(answer) = waiting.join().map_err(|_| anyhow!("panicked"))? {
            let text = answer.text();
            ensure!(answer.status == 503 && text.contains("after the restart"), "{} {text}", answer.status);
        }
        Ok(())
    })?;
    fixture.bucket.start_again()?;
    fixture.orthanc.start_again()?;
    ensure!(within(JOB, || expect_counts(&fixture, 0, 3).is_ok()), "{:?}", fixture.keys());
    expect_readable(&fixture, &sent)
}
