//! The key service cannot be reached, at start or later.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use real_orthanc::Uploaded;
use serde_json::json;

use super::fixture::KeyService;
use crate::Cloud;
use crate::fixture::{eventually, with};
use crate::hybrid::support::{expect_all_at, expect_no_errors, expect_readable, move_to, upload};
use crate::orthanc::fixture::{Fixture, slices};
use crate::orthanc::stopping::stop_in_time;
use crate::write_back::support::{NEVER, SOON, StateFolder, write_back};

tests! {
    Newest:
        orthanc_starts_without_the_service_and_stores_when_it_is_back,
        pending_files_are_uploaded_without_the_service,
        pending_files_in_clear_wait_for_the_service,
}

/// Checks that Orthanc refuses to store an instance, with an error that names the reason.
fn expect_refused<C: Cloud>(service: &KeyService, fixture: &Fixture<C>, file: &[u8]) -> Result<()> {
    let before = fixture.rest().get_json("/instances")?;
    let lines = fixture.log_lines('E').len();
    let answer = fixture.rest().post("/instances", file)?;
    ensure!(answer.status >= 500, "HTTP status {}: {}", answer.status, answer.text());
    let errors = fixture.log_lines('E').split_off(lines);
    let is_clear = |line: &String| {
        line.contains("cannot store")
            && line.contains(service.server.name())
            && line.contains("Connection refused")
    };
    ensure!(errors.len() == 1 && errors.iter().all(is_clear), "{errors:#?}");
    ensure!(fixture.rest().get_json("/instances")? == before, "Orthanc knows the instance");
    Ok(())
}

/// Checks that the start has given the reason for which nothing can be stored.
fn expect_warning<C: Cloud>(fixture: &Fixture<C>) -> Result<()> {
    let warnings = fixture.log_lines('W');
    let is_expected = |line: &&String| line.contains("once the key service has wrapped a key");
    ensure!(warnings.iter().filter(is_expected).count() == 1, "{warnings:#?}");
    Ok(())
}

fn orthanc_starts_without_the_service_and_stores_when_it_is_back<C: Cloud>() -> Result<()> {
    let service = KeyService::start::<C>()?;
    let mut fixture = service.orthanc::<C>(&json!({}))?;
    let clear = upload(&fixture, 1, 2)?;
    let study = clear[0].0.study.as_str();
    let mode = json!({"HybridMode": "WriteToObjectStorage"});
    let options = service.impatient(&json!({"ReadUnencrypted": true}), &mode);
    let mut files = slices(2, 6)?.into_iter();
    let mut sent: Vec<(Uploaded, Vec<u8>)> = Vec::new();
    let mut store = |fixture: &Fixture<C>| -> Result<()> {
        for file in files.by_ref().take(2) {
            sent.push((fixture.rest().upload(&file)?, file));
        }
        expect_readable(fixture, &sent)
    };

    service.line.cut();
    fixture.start_again_with(&options)?;
    expect_warning(&fixture)?;
    expect_readable(&fixture, &clear)?;
    expect_refused(&service, &fixture, &slices(3, 1)?[0])?;
    // What a move stores is encrypted, too.
    let moves = json!({"Resources": [study], "TargetStorage": "file-system"});
    let answer = fixture.rest().post_json("/move-storage", &moves)?;
    ensure!(answer.status >= 500, "HTTP status {}: {}", answer.status, answer.text());
    expect_all_at(&fixture, study, "object-storage")?;
    expect_readable(&fixture, &clear)?;

    service.line.mend();
    store(&fixture)?;
    move_to(&fixture, "file-system", &[study])?;
    expect_all_at(&fixture, study, "file-system")?;
    expect_readable(&fixture, &clear)?;
    service.expect_counts(1, 0)?;
    // The keys that Orthanc has are enough.
    let errors = fixture.log_lines('E').len();
    service.line.cut();
    store(&fixture)?;
    service.line.mend();
    service.line.freeze();
    store(&fixture)?;
    ensure!(fixture.log_lines('E').len() == errors, "{:#?}", fixture.log_lines('E'));

    // A new process has none.
    fixture.start_again_with(&options)?;
    expect_warning(&fixture)?;
    let answer = fixture.rest().get(&format!("{}/file", sent[0].0.path))?;
    ensure!(answer.status >= 500, "HTTP status {}: {}", answer.status, answer.text());
    let errors = fixture.log_lines('E');
    ensure!(errors.iter().any(|line| line.contains(service.server.name())), "{errors:#?}");
    // Deletions need no key.
    let objects = fixture.objects().len();
    fixture.rest().delete(&sent.remove(0).0.path)?.ok()?;
    ensure!(fixture.keys().len() < objects, "nothing was deleted");
    service.line.mend();
    expect_readable(&fixture, &sent)
}

fn pending_files_are_uploaded_without_the_service<C: Cloud>() -> Result<()> {
    let service = KeyService::start::<C>()?;
    service.line.cut();
    let options = |delay| service.impatient(&json!({}), &write_back(&json!({"UploadDelay": delay})));
    let mut fixture = service.orthanc::<C>(&options(NEVER))?;
    let state = StateFolder::of(&fixture.orthanc.storage_folder());
    expect_warning(&fixture)?;
    // Nothing is written to the disk in clear.
    expect_refused(&service, &fixture, &slices(2, 1)?[0])?;
    ensure!(state.pending().is_empty() && state.unfinished().is_empty());
    service.line.mend();
    let mut sent = upload(&fixture, 1, 4)?;
    // The key that Orthanc has is enough.
    service.line.freeze();
    sent.extend(upload(&fixture, 3, 2)?);
    expect_readable(&fixture, &sent)?;
    let pending = state.pending();
    ensure!(pending.len() >= 6 && pending.iter().all(|name| name.ends_with(".enc")), "{pending:?}");

    // A stop while Orthanc waits for the service, to verify what an earlier process left, changes nothing.
    fixture.start_again_with(&with(options(0), &json!({"OutageTimeout": 120})))?;
    thread::sleep(Duration::from_secs(2));
    stop_in_time(&mut fixture)?;
    ensure!(state.quarantined().is_empty(), "{:?}", state.quarantined());
    ensure!(state.pending() == pending && fixture.objects().is_empty(), "{:?}", state.pending());

    fixture.configure(&options(0));
    fixture.orthanc.start_again()?;
    eventually("the uploads", SOON * 3, || state.pending().is_empty())?;
    ensure!(fixture.objects().len() == pending.len() && state.quarantined().is_empty());
    expect_no_errors(&fixture)?;
    service.line.mend();
    expect_readable(&fixture, &sent)
}

fn pending_files_in_clear_wait_for_the_service<C: Cloud>() -> Result<()> {
    let service = KeyService::start::<C>()?;
    let mut fixture = service.orthanc::<C>(&write_back(&json!({"UploadDelay": NEVER})))?;
    let sent = upload(&fixture, 1, 4)?;
    let state = StateFolder::of(&fixture.orthanc.storage_folder());
    let pending = state.pending();
    service.line.cut();
    let options = service.impatient(&json!({"ReadUnencrypted": true}), &write_back(&json!({})));
    fixture.start_again_with(&options)?;
    let reason = || {
        let status = fixture.rest().get_json("/object-storage/status");
        status.is_ok_and(|status| status["WriteBack"].to_string().contains(service.server.name()))
    };
    eventually("the status has the reason", SOON, reason)?;
    ensure!(state.pending() == pending && fixture.objects().is_empty(), "{:?}", state.pending());
    expect_readable(&fixture, &sent)?;
    service.line.mend();
    eventually("the uploads", SOON * 3, || state.pending().is_empty())?;
    let objects = fixture.objects();
    ensure!(
        objects.len() == pending.len() && objects.keys().all(|name| name.ends_with(".enc")),
        "{:?}",
        objects.keys()
    );
    service.expect_counts(1, 0)?;
    expect_readable(&fixture, &sent)
}
