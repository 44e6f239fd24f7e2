//! What a power failure leaves of attachments on their way to the bucket.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Result, ensure};
use power_failure::disk::{Order, State};
use power_failure::{Recorder, content};

/// What has happened to attachments and objects.
#[derive(Debug, Default)]
struct Past<'a> {
    stored: BTreeSet<&'a str>,
    /// Attachments whose deletion was requested.
    deleting: BTreeSet<&'a str>,
    /// Attachments whose deletion was acknowledged and synced.
    deleted: BTreeSet<&'a str>,
    /// Attachments whose files were damaged.
    damaged: BTreeSet<&'a str>,
    /// Objects that are in the bucket.
    present: BTreeSet<&'a str>,
    /// Objects that may be in the bucket.
    possible: BTreeSet<&'a str>,
}

impl<'a> Past<'a> {
    fn new(events: &'a [String]) -> Self {
        let mut past = Self::default();
        for event in events {
            let (what, name) = event.split_once(' ').unwrap();
            let uuid = &name[..36];
            match what {
                "stored" => past.stored.insert(uuid),
                "deleting" => past.deleting.insert(uuid),
                "deleted" => past.deleted.insert(uuid),
                "damaged" => past.damaged.insert(uuid),
                "put-begins" => past.possible.insert(uuid),
                "put-ends" => past.present.insert(uuid),
                "delete-begins" => past.present.remove(uuid),
                "delete-ends" => past.possible.remove(uuid),
                _ => panic!("{event}"),
            };
        }
        past
    }

    fn check(&self, state: &State) -> Result<()> {
        let files = &state.files;
        let found = |folder: &str, uuid: &str| {
            let path = |number| format!("state/{number}/{folder}/{}/{uuid}.1", &uuid[..2]);
            [0, 1].map(path).iter().any(|path| files.contains_key(path))
        };
        let quarantine = |uuid: &str| format!("state/0/quarantine/{uuid}.1");
        for uuid in self.stored.difference(&self.deleting) {
            let is_damaged = self.damaged.contains(uuid) && files.contains_key(&quarantine(uuid));
            let is_pending = found("pending", uuid);
            ensure!(is_pending || is_damaged || self.present.contains(uuid), "{uuid} is lost");
        }
        for uuid in &self.deleted {
            let is_back = found("pending", uuid) || self.possible.contains(uuid);
            ensure!(!is_back || found("deleting", uuid), "{uuid} is back");
        }
        for (path, bytes) in files {
            let [_, _, folder @ ("pending" | "cache" | "quarantine"), .., name] =
                path.split('/').collect::<Vec<_>>()[..]
            else {
                continue;
            };
            let is_right = *bytes == content(&name[..36]) && folder != "quarantine";
            ensure!(is_right || self.damaged.contains(&name[..36]), "{path} has wrong bytes");
        }
        Ok(())
    }
}

fn run(recorder: &Recorder, program: &str, kill_after: Option<usize>) -> bool {
    let mut command = Command::new(env!("CARGO_BIN_EXE_power-failure-program"));
    recorder.run(command.arg(program).arg(recorder.tree()), kill_after).unwrap().success()
}

/// Checks each state, and returns the numbers of attachments stored and deleted, and of objects.
fn check(recorder: &Recorder, order: Order) -> Result<(usize, usize, usize)> {
    let mut last = (0, 0, 0);
    recorder.check(order, |events, state| {
        let past = Past::new(events);
        last = (past.stored.len(), past.deleted.len(), past.present.len());
        past.check(state)
    })?;
    Ok(last)
}

#[test]
fn acknowledged_attachments_survive_and_deleted_ones_stay_away() {
    let recorder = Recorder::new().unwrap();
    assert!(run(&recorder, "write-back", None));
    assert_eq!(check(&recorder, Order::Posix).unwrap(), (14, 5, 8));
}

/// The next process does not know what its predecessor has synced.
#[test]
fn work_of_a_killed_process_survives() {
    let whole = Recorder::new().unwrap();
    assert!(run(&whole, "write-back", None));
    let records = whole.records().unwrap();
    let mut most = 0;
    // Three quarters of the records are about empty folders.
    for part in [49, 52, 55, 58] {
        let recorder = Recorder::new().unwrap();
        assert!(!run(&recorder, "write-back", Some(records * part / 64)));
        assert!(run(&recorder, "write-back-resumed", None));
        let (stored, deleted, objects) = check(&recorder, Order::Posix).unwrap();
        assert_eq!(deleted, 5);
        assert!(objects < stored, "{objects} of {stored}");
        most = most.max(stored);
    }
    assert!(most > 6, "{most}");
}

#[test]
fn work_that_is_taken_over_survives() {
    let recorder = Recorder::new().unwrap();
    assert!(run(&recorder, "take-over", None));
    assert_eq!(check(&recorder, Order::Posix).unwrap(), (4, 0, 0));
}
