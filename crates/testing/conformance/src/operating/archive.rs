//! An archive with everything that jobs are for: objects that are damaged, archived, orphaned, or in another form.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use crypto_envelope::identify;
use fake_cloud::StoredObject;
use real_orthanc::Uploaded;
use serde_json::{Value, json};

use super::support::{Finding, JOB, expect_findings, run};
use crate::Cloud;
use crate::fixture::{Keys, flat_encrypted, uuid, with, within};
use crate::hybrid::support::{expect_all_at, files_of_attachments, move_to, stored_files, upload, uuid_of};
use crate::orthanc::fixture::Fixture;
use crate::orthanc::survival::clients::Clients;
use crate::orthanc::survival::known::State;

/// Instances of the study that is moved and re-encrypted.
pub(super) const PLAIN: u32 = 24;
/// Instances of the study of which the objects are archived.
pub(super) const ARCHIVED: u32 = 6;
/// Instances of the study of which the objects are damaged.
pub(super) const DAMAGED: u32 = 3;
/// Objects that belong to no attachment.
const ORPHANS: usize = 5;
const BUCKET_FIRST: &str = "WriteToObjectStorage";
const DISK_FIRST: &str = "WriteToFileSystem";
/// The numbers of these studies are above those of all clients.
const FIRST_STUDY: u64 = 1 << 40;

/// An Orthanc, its users, and what they do not use before the end of a round.
pub(super) struct Archive<C> {
    pub(super) fixture: Fixture<C>,
    pub(super) clients: Arc<Clients>,
    keys: Keys,
    /// The id of the present master key.
    key: u32,
    /// The present `HybridMode`.
    mode: &'static str,
    round: u64,
    /// Orthanc's id of the study that is moved and re-encrypted.
    pub(super) plain: String,
    pub(super) archived: Vec<(Uploaded, Vec<u8>)>,
    damaged: Vec<(Uploaded, Vec<u8>)>,
    /// The objects before they were damaged.
    sound: BTreeMap<String, StoredObject>,
    /// What a verification must find.
    pub(super) findings: BTreeSet<Finding>,
    /// Where the next move goes.
    pub(super) target: &'static str,
}

impl<C: Cloud> Archive<C> {
    pub(super) fn start() -> Result<Self> {
        let keys = Keys::new()?;
        let fixture = Fixture::<C>::configured(&options(&keys, 3, BUCKET_FIRST), |builder| {
            // Otherwise, Orthanc reads from its memory, and runs two jobs at once.
            builder.section("MaximumStorageCacheSize", 0).section("ConcurrentJobs", 8)
        })?;
        Ok(Self {
            fixture,
            // With changes all the time, Orthanc would never stop.
            clients: Arc::new(Clients::new(true).beside_jobs()),
            keys,
            key: 3,
            mode: BUCKET_FIRST,
            round: 0,
            plain: String::new(),
            archived: Vec::new(),
            damaged: Vec::new(),
            sound: BTreeMap::new(),
            findings: BTreeSet::new(),
            target: "object-storage",
        })
    }

    /// Stores new studies, damages and, if `archives`, archives some objects, and changes the key, in every second round
    /// also the storage that is written to first.
    pub(super) fn prepare(&mut self, archives: bool) -> Result<()> {
        let first = FIRST_STUDY + 10 * self.round;
        self.round += 1;
        self.archived = upload(&self.fixture, first, ARCHIVED)?;
        self.damaged = upload(&self.fixture, first + 1, DAMAGED)?;
        if self.mode == DISK_FIRST {
            let studies = [&self.archived, &self.damaged].map(|sent| sent[0].0.study.as_str());
            move_to(&self.fixture, "object-storage", &studies)?;
        }
        let plain = upload(&self.fixture, first + 2, PLAIN)?;
        self.plain.clone_from(&plain[0].0.study);
        for (uploaded, file) in plain {
            self.clients.known.add(uploaded, file);
        }
        self.plant_orphans();
        run(&self.fixture, "orphans", &json!({"MinAgeHours": 0}))?;
        self.damage()?;
        if archives {
            for (uploaded, _) in &self.archived {
                self.fixture
                    .bucket
                    .archive(C::BUCKET, &flat_encrypted(&uuid_of(&self.fixture, &uploaded.id)?));
            }
        }
        self.key = if self.key == 3 { 7 } else { 3 };
        self.mode = if self.round % 4 < 2 { BUCKET_FIRST } else { DISK_FIRST };
        self.fixture.start_again_with(&options(&self.keys, self.key, self.mode))?;
        // Orthanc has not saved that the search has ended.
        self.wait_for_all_jobs()
    }

    fn plant_orphans(&self) {
        for number in 0..ORPHANS {
            self.fixture.bucket.insert(C::BUCKET, &flat_encrypted(&uuid(number)), b"orphan".as_slice());
        }
    }

    /// Removes some objects, and flips a bit of others.
    fn damage(&mut self) -> Result<()> {
        self.findings.clear();
        for (number, (uploaded, _)) in self.damaged.iter().enumerate() {
            let uuid = uuid_of(&self.fixture, &uploaded.id)?;
            let key = flat_encrypted(&uuid);
            let object = self.fixture.bucket.remove(C::BUCKET, &key).context("no object")?;
            let problem = if number == 0 {
                let mut bytes = object.bytes.to_vec();
                bytes[4000] ^= 1;
                self.fixture.bucket.insert(C::BUCKET, &key, bytes);
                "damaged"
            } else {
                "missing"
            };
            self.findings.insert((uuid, problem.to_owned()));
            self.sound.insert(key, object);
        }
        Ok(())
    }

    /// Deletes an instance whose object is archived.
    pub(super) fn delete_archived(&mut self) -> Result<()> {
        let (uploaded, file) = self.archived.remove(0);
        self.fixture.rest().delete(&uploaded.path)?.ok()?;
        let number = self.clients.known.add(uploaded, file);
        self.clients.known.set(number, State::Deleted);
        Ok(())
    }

    /// Ends the restore of one object that is being restored.
    pub(super) fn end_a_restore(&self, random: u64) {
        let restoring = self.fixture.bucket.restoring(C::BUCKET);
        if let Some(key) = restoring.get(usize::try_from(random).unwrap_or_default() % restoring.len().max(1))
        {
            self.fixture.bucket.end_restore(C::BUCKET, key);
        }
    }

    /// The number of attachments in the index.
    fn count(&self) -> Result<u64> {
        let statistics = self.fixture.rest().get_json("/statistics")?;
        statistics["CountInstances"].as_u64().context("no CountInstances")
    }

    /// Repairs what was damaged, runs each job without any disturbance, and checks that everything is as it must be.
    pub(super) fn expect_complete(&mut self) -> Result<()> {
        let fixture = &self.fixture;
        for (key, object) in std::mem::take(&mut self.sound) {
            fixture.bucket.insert(C::BUCKET, &key, object.bytes);
        }
        for (uploaded, file) in self.damaged.drain(..).chain(self.archived.drain(..)) {
            self.clients.known.add(uploaded, file);
        }
        fixture.settle();
        let count = self.count()?;
        let left = self.clients.known.all_stored(|uploaded| uploaded.study == self.plain).len();
        if left > 0 {
            let moved = move_to(fixture, self.target, &[&self.plain])?;
            let summed = sum(&moved, &["MovedAttachments", "AlreadyThere"]);
            ensure!(summed >= left as u64 && moved["Failures"] == 0, "{left}: {moved:#}");
            expect_all_at(fixture, &self.plain, self.target)?;
        }
        self.expect_no_orphans(count)?;
        let verified = run(fixture, "verify", &json!({"Depth": "content"}))?;
        expect_counts(&verified, &["VerifiedAttachments"], count)?;
        expect_findings(&verified, &BTreeSet::new())?;
        let rewritten = run(fixture, "reencrypt", &json!({}))?;
        expect_counts(&rewritten, &["Rewritten", "AlreadyCurrent"], count)?;
        self.expect_all_under_the_key(count)?;
        if C::HAS_ARCHIVES {
            let restored = run(fixture, "restore", &json!({}))?;
            expect_counts(&restored, &["AlreadyReadable", "NotInBucket"], count)?;
        }
        let ring = self.keys.ring(self.key)?;
        self.clients.known.check(fixture, Some(&ring))?;
        self.clients.known.expect_all_kinds()
    }

    /// Searches for orphans and deletes them until none can be left: the bucket and the disk have one copy of each
    /// attachment, and nothing else.
    fn expect_no_orphans(&self, count: u64) -> Result<()> {
        for last in [false, true] {
            let found = run(&self.fixture, "orphans", &json!({"Delete": true, "MinAgeHours": 0}))?;
            expect_counts(&found, &["Attachments"], count)?;
            let summary = &found["Summary"];
            ensure!(summary["DeletionRefused"].is_null() && summary["NotDeleted"] == 0, "{found:#}");
            ensure!(!last || summary["OrphanObjects"] == summary["DeletedObjects"], "{found:#}");
        }
        let copies = self.fixture.keys().len() + stored_files(&self.fixture.orthanc).len();
        ensure!(copies as u64 == count, "{copies} copies of {count} attachments");
        Ok(())
    }

    fn expect_all_under_the_key(&self, count: u64) -> Result<()> {
        let root = self.fixture.orthanc.storage_folder();
        let files = files_of_attachments(&root).into_iter().map(|name| std::fs::read(root.join(name)));
        let objects = self.fixture.objects().into_values().map(|object| Ok(object.bytes.to_vec()));
        let mut under = 0;
        for content in files.chain(objects) {
            let header = identify(&content?).context("something is not encrypted")?;
            ensure!(header.key_id == self.key, "something is under key {}", header.key_id);
            under += 1;
        }
        ensure!(under == count, "{under} of {count} are under the key");
        Ok(())
    }

    /// Waits for the end of all jobs that Orthanc knows.
    pub(super) fn wait_for_all_jobs(&self) -> Result<()> {
        let all = || self.fixture.rest().get_json("/jobs?expand");
        let has_ended = |job: &Value| matches!(job["State"].as_str(), Some("Success" | "Failure"));
        let ended = within(JOB, || {
            all().is_ok_and(|all| all.as_array().is_some_and(|all| all.iter().all(has_ended)))
        });
        ensure!(ended, "{:#}", all()?);
        Ok(())
    }
}

/// The plugin's options with this master key, the other one as previous key, and this mode.
fn options(keys: &Keys, id: u32, mode: &str) -> Value {
    let previous = if id == 3 { 7 } else { 3 };
    let encryption =
        json!({"Format": "A2", "MasterKey": keys.entry(id), "PreviousMasterKeys": [keys.entry(previous)]});
    let options = json!({"HybridMode": mode, "ConnectionTimeout": 1});
    with(options, &json!({"StorageEncryption": encryption}))
}

/// The sum of these counts.
pub(super) fn sum(content: &Value, names: &[&str]) -> u64 {
    names.iter().filter_map(|name| content[name].as_u64()).sum()
}

/// Fails unless each of `count` attachments is counted under one of these names, and none failed.
fn expect_counts(report: &Value, names: &[&str], count: u64) -> Result<()> {
    let summary = &report["Summary"];
    let is_right =
        sum(summary, names) == count && summary["Failures"] == 0 && summary["DeletedMeanwhile"] == 0;
    ensure!(is_right, "not {count} under {names:?}: {report:#}");
    Ok(())
}
