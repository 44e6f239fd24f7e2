//! `cargo xtask bench --jobs`: users' requests with and without a running job, in turns.
//!
//! Each job has an Orthanc of its own with an archive. In a turn with the job, it runs while clients store, read and
//! delete other files; before a turn without it, the job is paused. The result is the ratio within a pair of turns, so
//! that other load on the machine affects both.

mod report;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use real_orthanc::dicom::Study;
use real_orthanc::{Builder, Client};
use serde_json::{Value, json};
use xtask::options::Bench;

use self::report::{Pair, Report};
use super::report::Sample;
use super::{Candidate, Operation, Phase, phase};
use crate::cloud::Cloud;
use crate::load;

/// Clients of the users.
const CLIENTS: usize = 8;
/// Instances of 130 kB in the archive that a job handles, for each instance that the users store.
const ARCHIVE: u32 = 5;
/// Pairs of turns in each round.
const PAIRS: usize = 2;
/// How often to look at a job.
const LOOK: Duration = Duration::from_millis(100);
const TIMEOUT: Duration = Duration::from_secs(120);

/// What the users do in a turn, in this order. Deletions are not measured: the plugin makes them in the background.
const PHASES: [Phase; 3] = [
    phase("store 130 kB, 8 clients", Operation::Upload, false, CLIENTS),
    phase("read 130 kB, 8 clients", Operation::Read, false, CLIENTS),
    phase("delete", Operation::Delete, false, CLIENTS),
];
/// Number of phases that are measured.
const MEASURED: usize = 2;

/// A job that runs alongside the users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Verify,
    Reencrypt,
    Orphans,
    Move,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Verify, Self::Reencrypt, Self::Orphans, Self::Move];

    fn name(self) -> &'static str {
        match self {
            Self::Verify => "verify, depth content",
            Self::Reencrypt => "re-encrypt from clear to A2",
            Self::Orphans => "orphans",
            Self::Move => "move from the disk to the bucket",
        }
    }

    /// The count of what the job has handled.
    fn counter(self) -> &'static str {
        match self {
            Self::Verify => "VerifiedAttachments",
            Self::Reencrypt => "Rewritten",
            Self::Orphans => "Attachments",
            Self::Move => "MovedAttachments",
        }
    }

    /// Starts a job for the archive's study. Returns its id.
    fn start(self, rest: &Client, study: &str) -> Result<String> {
        let (path, body) = match self {
            Self::Verify => ("/object-storage/verify", json!({"Depth": "content"})),
            Self::Reencrypt => ("/object-storage/reencrypt", json!({})),
            Self::Orphans => ("/object-storage/orphans", json!({})),
            Self::Move => {
                let target =
                    json!({"Resources": [study], "TargetStorage": "object-storage", "Asynchronous": true});
                ("/move-storage", target)
            }
        };
        let answer = rest.post_json(path, &body)?.ok()?.json()?;
        Ok(answer["ID"].as_str().context("no id of the job")?.to_owned())
    }

    /// Whether the job can be started again when it has handled everything.
    fn repeats(self) -> bool {
        matches!(self, Self::Verify | Self::Orphans)
    }
}

/// Runs the benchmark.
pub(crate) fn run(options: &Bench) -> Result<()> {
    crate::interrupt::catch()?;
    eprintln!("generating files");
    let series = |number, count| Study(number).ct_series(count, 256, 256).collect::<Result<Vec<_>>>();
    let files = series(1, options.instances)?;
    let archive = series(2, options.instances * ARCHIVE)?;
    let mut report = Report::default();
    for number in 0..options.rounds {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            eprintln!("round {} of {}: {}", number + 1, options.rounds, kind.name());
            let mut round = Round::start(options.plugin, kind, &archive)?;
            // Opens connections and fills caches.
            round.turn(&files[..files.len().min(100)])?;
            for pair in 0..PAIRS {
                report.add(index, round.pair(&files, (number + pair).is_multiple_of(2))?);
            }
        }
    }
    println!("{}", report.table(options));
    Ok(())
}

/// An Orthanc with an archive, and the job.
struct Round {
    kind: Kind,
    candidate: Candidate,
    /// The archive's study.
    study: String,
    job: Option<String>,
    /// What the jobs that have ended have handled.
    handled: u64,
}

impl Round {
    /// Starts Orthanc and stores the archive.
    fn start(plugin: &str, kind: Kind, archive: &[Vec<u8>]) -> Result<Self> {
        let mut cloud = Cloud::start(plugin)?;
        if kind == Kind::Move {
            cloud.set("HybridMode", "WriteToFileSystem");
        }
        let mut orthanc = cloud.orthanc(None)?;
        let (_, answers) = load::run(orthanc.http_port(), CLIENTS, archive.len(), |client, index| {
            crate::interrupt::check()?;
            client.upload(&archive[index])
        })?;
        let study = answers.first().and_then(|answer| answer["ParentStudy"].as_str());
        let study = study.context("the archive is empty")?.to_owned();
        if kind == Kind::Reencrypt {
            orthanc.stop()?;
            let encrypting = reading_clear(&cloud)?;
            orthanc.configure(|_| encrypting);
            orthanc.start_again()?;
        }
        let candidate = Candidate { orthanc, cloud: Some(cloud), ids: Vec::new() };
        Ok(Self { kind, candidate, study, job: None, handled: 0 })
    }

    /// Runs a turn with the job and one without it.
    fn pair(&mut self, files: &[Vec<u8>], is_job_first: bool) -> Result<Pair> {
        if is_job_first {
            let with_job = self.turn_with_job(files)?;
            let without = self.turn(files)?;
            return Ok(Pair { without, with_job });
        }
        let without = self.turn(files)?;
        Ok(Pair { without, with_job: self.turn_with_job(files)? })
    }

    /// Runs all phases. Returns the samples of those that are measured.
    fn turn(&mut self, files: &[Vec<u8>]) -> Result<[Sample; MEASURED]> {
        let mut samples = VecDeque::new();
        for phase in &PHASES {
            samples.push_back(self.candidate.run(phase, files, 0)?);
        }
        // What this turn leaves behind must not slow down the next one.
        self.candidate.orthanc.rest().wait_for_deletions(TIMEOUT)?;
        let mut next = || samples.pop_front().context("too few phases");
        Ok([next()?, next()?])
    }

    /// Runs a turn alongside the job, which is paused at the end. Returns also how many attachments it handled a second.
    fn turn_with_job(&mut self, files: &[Vec<u8>]) -> Result<([Sample; MEASURED], f64)> {
        let rest = self.candidate.orthanc.rest().clone();
        let before = self.handled_until_now(&rest)?;
        let begun = Instant::now();
        self.resume(&rest)?;
        let is_over = AtomicBool::new(false);
        let (kind, study) = (self.kind, self.study.clone());
        let mut keeper = Keeper { rest: rest.clone(), kind, study, job: self.job.take(), handled: 0 };
        let (samples, kept) = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let result = keeper.keep(&is_over);
                (keeper, result)
            });
            let samples = self.turn(files);
            is_over.store(true, Ordering::Relaxed);
            (samples, thread.join())
        });
        let Ok((keeper, kept)) = kept else { bail!("the thread that watches the job panicked") };
        kept?;
        self.job = keeper.job;
        self.handled += keeper.handled;
        self.pause(&rest)?;
        let seconds = begun.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let rate = (self.handled_until_now(&rest)? - before) as f64 / seconds;
        Ok((samples?, rate))
    }

    fn resume(&mut self, rest: &Client) -> Result<()> {
        match &self.job {
            None => self.job = Some(self.kind.start(rest, &self.study)?),
            Some(id) => drop(rest.post(&format!("/jobs/{id}/resume"), b"{}")?.ok()?),
        }
        Ok(())
    }

    /// Pauses the job, and waits until it does nothing any more. The content of a paused job is up to date.
    fn pause(&mut self, rest: &Client) -> Result<()> {
        let Some(id) = self.job.clone() else { return Ok(()) };
        // Refused if the job has ended.
        rest.post(&format!("/jobs/{id}/pause"), b"{}")?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let job = rest.get_json(&format!("/jobs/{id}"))?;
            match job["State"].as_str() {
                Some("Paused") => return Ok(()),
                Some("Success" | "Failure") => {
                    self.handled += ended(self.kind, &job)?;
                    self.job = None;
                    return Ok(());
                }
                _ => ensure!(Instant::now() < deadline, "the job is not paused: {job:#}"),
            }
            thread::sleep(LOOK);
        }
    }

    fn handled_until_now(&self, rest: &Client) -> Result<u64> {
        let Some(id) = &self.job else { return Ok(self.handled) };
        Ok(self.handled + handled(self.kind, &rest.get_json(&format!("/jobs/{id}"))?))
    }
}

/// Starts the job again when it has handled everything.
struct Keeper {
    rest: Client,
    kind: Kind,
    study: String,
    job: Option<String>,
    /// What the jobs that have ended have handled.
    handled: u64,
}

impl Keeper {
    fn keep(&mut self, is_over: &AtomicBool) -> Result<()> {
        while !is_over.load(Ordering::Relaxed) {
            let id = self.job.clone().context("no job runs")?;
            let job = self.rest.get_json(&format!("/jobs/{id}"))?;
            if matches!(job["State"].as_str(), Some("Success" | "Failure")) {
                self.handled += ended(self.kind, &job)?;
                let repeats = self.kind.repeats();
                ensure!(repeats, "the archive is too small to {}; use fewer rounds", self.kind.name());
                self.job = Some(self.kind.start(&self.rest, &self.study)?);
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }
}

/// What a job that must have succeeded has handled. A verification finds what users delete, which is no failure.
fn ended(kind: Kind, job: &Value) -> Result<u64> {
    ensure!(job["State"] == "Success", "{} failed: {job:#}", kind.name());
    ensure!(job["Content"]["Failures"].as_u64().unwrap_or_default() == 0, "{} found {job:#}", kind.name());
    Ok(handled(kind, job))
}

fn handled(kind: Kind, job: &Value) -> u64 {
    job["Content"][kind.counter()].as_u64().unwrap_or_default()
}

/// The configuration that encrypts new files and reads those in clear.
fn reading_clear(cloud: &Cloud) -> Result<Builder> {
    cloud.builder_with(Some("A2"), |encryption| encryption["ReadUnencrypted"] = json!(true))
}
