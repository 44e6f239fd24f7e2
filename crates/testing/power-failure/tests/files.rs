//! What a power failure leaves of stored attachments and of deletions.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use anyhow::{Result, ensure};
use hybrid::StateDirectory;
use power_failure::disk::{Order, State};
use power_failure::{Recorder, content, purpose};

/// Records one of the programs.
fn record(program: &str) -> Recorder {
    let recorder = Recorder::new().unwrap();
    assert!(recorder.run(&mut command(program, &recorder), None).unwrap().success());
    recorder
}

fn command(program: &str, recorder: &Recorder) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_power-failure-program"));
    command.arg(program).arg(recorder.tree());
    command
}

/// Each acknowledged attachment is there, and each that is there is right.
fn attachments_are_right(events: &[String], state: &State) -> Result<()> {
    for event in events {
        let uuid = event.strip_prefix("stored ").unwrap();
        let path = format!("{}/{}/{uuid}", &uuid[..2], &uuid[2..4]);
        ensure!(state.files.contains_key(&path), "{uuid} is lost");
    }
    for (path, found) in &state.files {
        let name = path.rsplit('/').next().unwrap();
        let is_attachment = path.matches('/').count() == 2;
        ensure!(!is_attachment || *found == content(name), "{name} has {} wrong bytes", found.len());
    }
    Ok(())
}

#[test]
fn stored_files_survive() {
    let mut acknowledged = 0;
    let states = record("files").check(Order::Posix, |events, state| {
        acknowledged = acknowledged.max(events.len());
        attachments_are_right(events, state)
    });
    assert!(states.unwrap() > 1);
    assert_eq!(acknowledged, 12);
}

/// The next process does not know which folders its predecessor has synced, which a journal makes good.
#[test]
fn files_stored_after_a_kill_survive() {
    for records in [4, 8, 9, 10, 22] {
        let recorder = Recorder::new().unwrap();
        assert!(!recorder.run(&mut command("files", &recorder), Some(records)).unwrap().success());
        assert!(recorder.run(&mut command("files", &recorder), None).unwrap().success());
        recorder.check(Order::Journal, attachments_are_right).unwrap();
    }
}

#[test]
fn forgotten_syncs_are_found() {
    record("no-mistake").check(Order::Posix, attachments_are_right).unwrap();
    for (mistake, found) in [
        ("no-file", "0 wrong bytes"),
        ("late-file", "0 wrong bytes"),
        ("no-inner", "is lost"),
        ("no-outer", "is lost"),
        ("no-root", "is lost"),
    ] {
        let error = record(mistake).check(Order::Posix, attachments_are_right).expect_err(mistake);
        assert!(format!("{error:#}").contains(found), "{mistake}: {error:#}");
    }
}

#[test]
fn unrecorded_changes_are_found() {
    let error = record("unseen").check(Order::Posix, |_, _| Ok(())).unwrap_err();
    assert!(error.to_string().contains("was not recorded"), "{error:#}");
}

#[test]
fn synced_markers_survive() {
    let mut acknowledged = 0;
    let states = record("markers").check(Order::Posix, |events, state| {
        // Before, folders are created, with nothing to lose.
        let Some(event) = events.last() else { return Ok(()) };
        let marked = event.strip_prefix("marked ").unwrap().parse()?;
        acknowledged = acknowledged.max(marked);
        let folder = tempfile::tempdir()?;
        state.write(folder.path())?;
        let pending = StateDirectory::open(folder.path(), &purpose())?.markers().pending();
        ensure!((marked..=12).contains(&pending), "{pending} markers of {marked}");
        Ok(())
    });
    assert!(states.unwrap() > 1);
    assert_eq!(acknowledged, 12);
}
