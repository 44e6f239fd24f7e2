//! Jobs that are interrupted at random moments, while users store, read and delete.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use real_orthanc::{Client, Uploaded};
use serde_json::{Value, json};

use super::archive::{ARCHIVED, Archive, DAMAGED, PLAIN, sum};
use super::support::{JOB, expect_findings, report, start_at};
use crate::Cloud;
use crate::fixture::{Random, with, within};

tests! {
    Once:
        interrupted_jobs_are_complete;
    Long:
        often_interrupted_jobs_are_complete,
}

fn interrupted_jobs_are_complete<C: Cloud>() -> Result<()> {
    interrupt::<C>(1, 1)
}

fn often_interrupted_jobs_are_complete<C: Cloud>() -> Result<()> {
    interrupt::<C>(10, 2)
}

/// Latency of the bucket, so that a job lasts for a while.
const LATENCY: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Copy)]
enum Interruption {
    Kill,
    Stop,
    Pause,
    Cancel,
    Outage,
}

const INTERRUPTIONS: [Interruption; 5] =
    [Interruption::Kill, Interruption::Stop, Interruption::Pause, Interruption::Cancel, Interruption::Outage];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Move,
    Verify,
    Orphans,
    Reencrypt,
    Restore,
}

const KINDS: [Kind; 5] = [Kind::Move, Kind::Verify, Kind::Orphans, Kind::Reencrypt, Kind::Restore];

impl Kind {
    /// The counts of which each attachment has one.
    fn counts(self) -> &'static [&'static str] {
        match self {
            Self::Move => &["MovedAttachments", "AlreadyThere"],
            Self::Verify => &["VerifiedAttachments"],
            Self::Orphans => &["Attachments"],
            Self::Reencrypt => &["Rewritten", "AlreadyCurrent"],
            Self::Restore => {
                &["RestoresBegun", "AlreadyRestoring", "CopiesExtended", "AlreadyReadable", "NotInBucket"]
            }
        }
    }
}

/// A job that has not succeeded yet.
#[derive(Debug)]
struct Running {
    kind: Kind,
    id: String,
    /// The numbers of the instances that clients had stored before.
    stored: BTreeSet<usize>,
}

/// In each round, jobs (alternately all at once, and only one) are interrupted `times` times in each way.
fn interrupt<C: Cloud>(rounds: usize, times: usize) -> Result<()> {
    let mut random = Random::new();
    let mut archive = Archive::<C>::start()?;
    for round in 0..rounds {
        let mut kinds = if round % 2 == 0 { KINDS.to_vec() } else { vec![KINDS[round / 2 % KINDS.len()]] };
        kinds.retain(|kind| C::HAS_ARCHIVES || *kind != Kind::Restore);
        let context = format!("round {round}: {kinds:?}");
        let mut interruptions = INTERRUPTIONS.repeat(times);
        shuffle(&mut interruptions, &mut random);
        archive.prepare(kinds.contains(&Kind::Restore)).with_context(|| context.clone())?;
        let run = Round { archive: &mut archive, random: &mut random, kinds, running: Vec::new() };
        run.while_users_work(&interruptions).with_context(|| context.clone())?;
        archive.wait_for_all_jobs()?;
        archive.expect_complete().with_context(|| context)?;
    }
    Ok(())
}

fn shuffle<T>(list: &mut [T], random: &mut Random) {
    for end in (1..list.len()).rev() {
        let other = usize::try_from(random.below(end as u64 + 1)).unwrap_or_default();
        list.swap(end, other);
    }
}

struct Round<'a, C> {
    archive: &'a mut Archive<C>,
    random: &'a mut Random,
    kinds: Vec<Kind>,
    running: Vec<Running>,
}

impl<C: Cloud> Round<'_, C> {
    fn while_users_work(mut self, interruptions: &[Interruption]) -> Result<()> {
        // Orthanc does not answer on some connections while it shuts down.
        let rest = Client::with_timeout(self.archive.fixture.orthanc.url(), Duration::from_secs(10));
        let clients = Arc::clone(&self.archive.clients);
        self.archive.fixture.bucket.latency(LATENCY);
        clients.begin();
        let result = thread::scope(|scope| {
            let workers: Vec<_> =
                clients.work_without_moves().map(|work| scope.spawn(|| work(&rest))).collect();
            let result = self.interrupt(interruptions);
            clients.end();
            for worker in workers {
                worker.join().map_err(|_| anyhow!("a client panicked"))??;
            }
            result
        });
        self.archive.fixture.bucket.latency(Duration::ZERO);
        result
    }

    /// Interrupts jobs, and waits until the last ones have succeeded.
    fn interrupt(&mut self, interruptions: &[Interruption]) -> Result<()> {
        for (number, interruption) in interruptions.iter().enumerate() {
            let hit = self.wait_for_a_moment()?;
            println!("{interruption:?} hits {hit} jobs");
            if number == 0 {
                self.archive.delete_archived()?;
            }
            self.apply(*interruption).with_context(|| format!("{interruption:?}"))?;
        }
        let deadline = Instant::now() + JOB;
        while !self.running.is_empty() {
            ensure!(Instant::now() < deadline, "not done within {JOB:?}: {:?}", self.running);
            self.tend()?;
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits for a random moment at which jobs are running. Returns their number.
    fn wait_for_a_moment(&mut self) -> Result<usize> {
        for _ in 0..100 {
            self.tend()?;
            self.start_missing()?;
            thread::sleep(Duration::from_millis(self.random.below(200)));
            let active = self.running.iter().filter(|job| self.is_active(job)).count();
            if active > 0 {
                return Ok(active);
            }
        }
        bail!("no job is ever running: {:?}", self.running)
    }

    fn apply(&mut self, interruption: Interruption) -> Result<()> {
        let clients = Arc::clone(&self.archive.clients);
        let pause = Duration::from_millis(self.random.below(600));
        let fixture = &mut self.archive.fixture;
        match interruption {
            Interruption::Kill => clients.disturb(|| {
                fixture.orthanc.kill()?;
                Ok(fixture.orthanc.start_again()?)
            }),
            Interruption::Stop => clients.disturb(|| fixture.restart()),
            Interruption::Outage => clients.disturb(|| {
                fixture.bucket.stop();
                thread::sleep(pause);
                Ok(fixture.bucket.start_again()?)
            }),
            Interruption::Pause => self.all_leave("pause"),
            Interruption::Cancel => self.all_leave("cancel"),
        }
    }

    /// Pauses or cancels all jobs.
    fn all_leave(&self, action: &str) -> Result<()> {
        for job in &self.running {
            // Orthanc refuses if the job has ended, or is paused.
            self.archive.fixture.rest().post(&format!("/jobs/{}/{action}", job.id), b"")?;
        }
        for job in &self.running {
            ensure!(within(JOB, || !self.is_active(job)), "{job:?} does not {action}");
        }
        Ok(())
    }

    /// What Orthanc says of a job; `None` if Orthanc does not know it.
    fn look(&self, job: &Running) -> Result<Option<Value>> {
        let answer = self.archive.fixture.rest().get(&format!("/jobs/{}", job.id))?;
        if answer.status == 404 { Ok(None) } else { Ok(Some(answer.ok()?.json()?)) }
    }

    fn is_active(&self, job: &Running) -> bool {
        let state = self.look(job).ok().flatten().unwrap_or_default()["State"].take();
        state == "Running" || state == "Pending"
    }

    /// Makes jobs go on that were interrupted, and checks those that have succeeded.
    fn tend(&mut self) -> Result<()> {
        let random = self.random.below(1000);
        self.archive.end_a_restore(random);
        for job in std::mem::take(&mut self.running) {
            let Some(found) = self.look(&job)? else {
                // Orthanc had not saved it.
                self.start(job.kind)?;
                continue;
            };
            let action = match found["State"].as_str() {
                Some("Success") => {
                    self.expect_success(&job, &found).with_context(|| format!("{found:#}"))?;
                    continue;
                }
                Some("Failure") => Some("resubmit"),
                // A job that waits for restores is resumed by the plugin.
                Some("Paused") if found["Content"]["WaitingFor"].is_null() => Some("resume"),
                _ => None,
            };
            if let Some(action) = action {
                self.archive.fixture.rest().post(&format!("/jobs/{}/{action}", job.id), b"")?.ok()?;
            }
            self.running.push(job);
        }
        Ok(())
    }

    fn start_missing(&mut self) -> Result<()> {
        for kind in self.kinds.clone() {
            if !self.running.iter().any(|job| job.kind == kind) {
                self.start(kind)?;
            }
        }
        Ok(())
    }

    fn start(&mut self, kind: Kind) -> Result<()> {
        let archive = &mut self.archive;
        let plain = archive.plain.clone();
        let is_plain = |uploaded: &Uploaded| uploaded.study == plain;
        let stored = archive.clients.known.all_stored(|uploaded| match kind {
            Kind::Move | Kind::Reencrypt => is_plain(uploaded),
            Kind::Verify | Kind::Orphans => true,
            Kind::Restore => false,
        });
        // The users may have deleted the whole study.
        if stored.is_empty() && kind != Kind::Restore {
            return Ok(());
        }
        let resources = json!({"Resources": plain, "Asynchronous": true});
        let (path, body) = match kind {
            Kind::Move => {
                let is_away = archive.target == "object-storage";
                archive.target = if is_away { "file-system" } else { "object-storage" };
                ("/move-storage", with(resources, &json!({"TargetStorage": archive.target})))
            }
            Kind::Verify => ("/object-storage/verify", json!({"Depth": "content"})),
            Kind::Orphans => ("/object-storage/orphans", json!({"Delete": true, "MinAgeHours": 0})),
            Kind::Reencrypt => ("/object-storage/reencrypt", resources),
            Kind::Restore => {
                let study = archive.archived[0].0.study.as_str();
                ("/object-storage/restore", json!({"Resources": study, "Asynchronous": true}))
            }
        };
        let id = start_at(&archive.fixture, path, &body)?;
        self.running.push(Running { kind, id, stored });
        Ok(())
    }

    /// Checks that a job has handled each attachment once, and what it has found.
    fn expect_success(&self, job: &Running, found: &Value) -> Result<()> {
        let Running { kind, id, stored } = job;
        let archive = &self.archive;
        let content = &found["Content"];
        let report = report(&archive.fixture, id)?;
        let summed = sum(content, kind.counts()) + sum(content, &["DeletedMeanwhile", "Failures"]);
        let still_stored = archive.clients.known.all_stored(|_| true);
        let clients = stored.intersection(&still_stored).count();
        let (least, most) = match kind {
            Kind::Move | Kind::Reencrypt => (clients, PLAIN as usize),
            Kind::Restore => (archive.archived.len(), ARCHIVED as usize),
            Kind::Verify | Kind::Orphans => {
                let others = archive.archived.len() + DAMAGED as usize;
                (clients + others, archive.clients.known.len() + ARCHIVED as usize + DAMAGED as usize)
            }
        };
        ensure!((least as u64..=most as u64).contains(&summed), "{summed} are not {least} to {most}");
        match kind {
            Kind::Verify => expect_findings(&report, &archive.findings),
            Kind::Orphans => {
                ensure!(content["DeletionRefused"].is_null(), "nothing is deleted");
                Ok(())
            }
            Kind::Move | Kind::Reencrypt | Kind::Restore => expect_findings(&report, &BTreeSet::new()),
        }
    }
}
