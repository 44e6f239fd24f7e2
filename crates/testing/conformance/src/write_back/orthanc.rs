//! The mode in a real Orthanc.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use real_orthanc::Client;
use real_orthanc::rest::Uploaded;
use serde_json::json;

use crate::Cloud;
use crate::fixture::{Keys, eventually, with};
use crate::hybrid::support::{encryption, expect_readable, upload};
use crate::orthanc::fixture::Fixture;
use crate::write_back::support::{SOON, StateFolder, write_back};

tests! {
    OneCloud:
        instances_are_stored_read_and_deleted,
        encrypted_instances_are_stored_read_and_deleted,
        killed_orthanc_uploads_what_is_pending,
        documented_command_flushes,
}

fn state<C: Cloud>(fixture: &Fixture<C>) -> StateFolder {
    StateFolder::of(&fixture.orthanc.storage_folder())
}

fn delete(rest: &Client, sent: &[(Uploaded, Vec<u8>)]) -> Result<()> {
    let study = &sent.first().context("nothing was sent")?.0.study;
    rest.delete(&format!("/studies/{study}"))?.ok()?;
    Ok(())
}

/// Stores, reads, restarts, reads and deletes.
fn round<C: Cloud>(options: &serde_json::Value) -> Result<()> {
    let mut fixture = Fixture::<C>::with(options)?;
    let sent = upload(&fixture, 1, 10)?;
    let others = upload(&fixture, 2, 3)?;
    expect_readable(&fixture, &sent)?;
    state(&fixture).expect_uploaded()?;
    let objects = fixture.objects().len();
    ensure!(objects >= 13 && state(&fixture).cached().len() == objects, "{objects}");
    fixture.restart()?;
    expect_readable(&fixture, &sent)?;
    delete(fixture.rest(), &sent)?;
    fixture.settle();
    expect_readable(&fixture, &others)?;
    let objects = fixture.objects().len();
    ensure!(objects >= 3 && state(&fixture).cached().len() == objects, "{objects}");
    delete(fixture.rest(), &others)?;
    fixture.settle();
    ensure!(fixture.objects().is_empty() && state(&fixture).cached().is_empty());
    let errors = fixture.log_lines('E');
    ensure!(errors.is_empty(), "{errors:#?}");
    Ok(())
}

fn instances_are_stored_read_and_deleted<C: Cloud>() -> Result<()> {
    round::<C>(&write_back(&json!({})))
}

fn encrypted_instances_are_stored_read_and_deleted<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let options = json!({"StorageEncryption": encryption(&keys, "A2")});
    round::<C>(&with(write_back(&json!({})), &options))
}

fn killed_orthanc_uploads_what_is_pending<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&write_back(&json!({"UploadDelay": 3600})))?;
    let sent = upload(&fixture, 1, 10)?;
    fixture.orthanc.kill()?;
    let pending = state(&fixture).pending().len();
    ensure!(pending >= 10 && fixture.objects().is_empty());
    // The delay would continue.
    fixture.configure(&write_back(&json!({})));
    fixture.orthanc.start_again()?;
    expect_readable(&fixture, &sent)?;
    eventually("the uploads", Duration::max(SOON, Duration::from_secs(30)), || {
        fixture.objects().len() == pending && state(&fixture).pending().is_empty()
    })?;
    expect_readable(&fixture, &sent)
}

fn documented_command_flushes<C: Cloud>() -> Result<()> {
    let document = include_str!("../../../../../docs/hybrid.md");
    let command = document.lines().find(|line| line.starts_with("curl") && line.ends_with("/flush"));
    let command = command.context("the document has no command")?;
    let fixture = Fixture::<C>::with(&write_back(&json!({"UploadDelay": 3600})))?;
    let sent = upload(&fixture, 1, 10)?;
    ensure!(state(&fixture).pending().len() >= 10 && fixture.objects().is_empty());
    let home = tempfile::tempdir()?;
    fs::write(home.path().join("orthanc.netrc"), "")?;
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).env("HOME", home.path()).env("ORTHANC", fixture.orthanc.url());
    let output = shell.output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(printed.contains("\"Flushed\""), "{printed}");
    ensure!(state(&fixture).pending().is_empty() && fixture.objects().len() >= 10);
    expect_readable(&fixture, &sent)
}
