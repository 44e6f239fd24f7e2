//! `cargo xtask bench --jobs`: users' requests with and without a running job, in turns.
//!
//! Each job has an Orthanc of its own with an archive. In a turn with the job, it runs while clients store, read and
//! delete other files; before a turn without it, the job is paused. The result is the ratio within a pair of turns, so
//! that other load on the machine affects both.

mod report;

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
use crate::{interrupt, load};

/// Clients of the users.
const CLIENTS: usize = 8;
/// Instances of 130 kB in the archive that a job handles, for each instance that the users store.
const ARCHIVE: u32 = 20;
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

    /// Starts a job for the archive's study. Returns its id. Each move is the opposite of the one before.
    fn start(self, rest: &Client, study: &str, earlier: usize) -> Result<String> {
        let target = if earlier.is_multiple_of(2) { "object-storage" } else { "file-system" };
        let (path, body) = match self {
            Self::Verify => ("/object-storage/verify", json!({"Depth": "content"})),
            Self::Reencrypt => ("/object-storage/reencrypt", json!({})),
            Self::Orphans => ("/object-storage/orphans", json!({})),
            Self::Move => (
                "/move-storage",
                json!({"Resources": [study], "TargetStorage": target, "Asynchronous": true}),
            ),
        };
        let answer = rest.post_json(path, &body)?.ok()?.json()?;
        Ok(answer["ID"].as_str().context("no id of the job")?.to_owned())
    }

    /// What a job has handled.
    fn handled(self, job: &Value) -> u64 {
        job["Content"][self.counter()].as_u64().unwrap_or_default()
    }
}

/// Runs the benchmark.
pub(crate) fn run(options: &Bench) -> Result<()> {
    interrupt::catch()?;
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
            turn(&mut round.candidate, &files[..files.len().min(100)])?;
            for pair in 0..PAIRS {
                report.add(index, round.pair(&files, (number + pair).is_multiple_of(2))?);
            }
        }
    }
    println!("{}", report.table(options));
    Ok(())
}

/// An Orthanc with an archive, and the jobs for it.
struct Round {
    candidate: Candidate,
    jobs: Jobs,
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
            interrupt::check()?;
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
        let rest = orthanc.rest().clone();
        let candidate = Candidate::on(orthanc, cloud);
        Ok(Self { candidate, jobs: Jobs { rest, kind, study, running: None, started: 0, handled: 0 } })
    }

    /// Runs a turn with the job and one without it.
    fn pair(&mut self, files: &[Vec<u8>], is_job_first: bool) -> Result<Pair> {
        if is_job_first {
            let with_job = self.turn_with_job(files)?;
            return Ok(Pair { without: turn(&mut self.candidate, files)?, with_job });
        }
        let without = turn(&mut self.candidate, files)?;
        Ok(Pair { without, with_job: self.turn_with_job(files)? })
    }

    /// Runs a turn alongside the job, which is paused at the end. Returns also how many attachments it handled a second.
    fn turn_with_job(&mut self, files: &[Vec<u8>]) -> Result<([Sample; MEASURED], f64)> {
        let Self { candidate, jobs } = self;
        let before = jobs.handled_until_now()?;
        let begun = Instant::now();
        jobs.resume()?;
        let is_over = AtomicBool::new(false);
        let (samples, kept) = thread::scope(|scope| {
            let keeper = scope.spawn(|| jobs.keep_running(&is_over));
            let samples = turn(candidate, files);
            is_over.store(true, Ordering::Relaxed);
            (samples, keeper.join())
        });
        let Ok(kept) = kept else { bail!("the thread that watches the job panicked") };
        kept?;
        jobs.pause()?;
        let seconds = begun.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let rate = (jobs.handled_until_now()? - before) as f64 / seconds;
        Ok((samples?, rate))
    }
}

/// Runs all phases. Returns the samples of those that are measured.
fn turn(candidate: &mut Candidate, files: &[Vec<u8>]) -> Result<[Sample; MEASURED]> {
    let mut samples = PHASES.iter().map(|phase| candidate.run(phase, files, 0));
    let mut next = || samples.next().context("too few phases")?;
    let measured = [next()?, next()?];
    next()?;
    // What this turn leaves behind must not slow down the next one.
    candidate.orthanc.rest().wait_for_deletions(TIMEOUT)?;
    Ok(measured)
}

/// The jobs of one kind, one after the other.
struct Jobs {
    rest: Client,
    kind: Kind,
    /// The archive's study.
    study: String,
    running: Option<String>,
    /// Number of jobs.
    started: usize,
    /// What those that have ended have handled.
    handled: u64,
}

impl Jobs {
    fn start(&mut self) -> Result<()> {
        self.running = Some(self.kind.start(&self.rest, &self.study, self.started)?);
        self.started += 1;
        Ok(())
    }

    fn resume(&mut self) -> Result<()> {
        match &self.running {
            None => self.start(),
            Some(id) => self.rest.post(&format!("/jobs/{id}/resume"), b"{}")?.ok().map(drop),
        }
    }

    /// Starts another job whenever one has handled everything.
    fn keep_running(&mut self, is_over: &AtomicBool) -> Result<()> {
        while !is_over.load(Ordering::Relaxed) {
            if self.look()? == State::Ended {
                let repeats = self.kind != Kind::Reencrypt;
                ensure!(repeats, "the archive is too small to {}", self.kind.name());
                self.start()?;
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Pauses the job, and waits until it does nothing any more. The content of a paused job is up to date.
    fn pause(&mut self) -> Result<()> {
        if let Some(id) = &self.running {
            // Refused if the job has ended.
            self.rest.post(&format!("/jobs/{id}/pause"), b"{}")?;
        }
        let deadline = Instant::now() + TIMEOUT;
        while self.look()? == State::Running {
            ensure!(Instant::now() < deadline, "the job is not paused after {TIMEOUT:?}");
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Looks at the job. One that has ended must have succeeded without failures.
    fn look(&mut self) -> Result<State> {
        let Some(id) = &self.running else { return Ok(State::Ended) };
        let job = self.rest.get_json(&format!("/jobs/{id}"))?;
        match job["State"].as_str() {
            Some("Success" | "Failure") => {
                let is_clean = job["State"] == "Success" && job["Content"]["Failures"] == 0;
                ensure!(is_clean, "{}: {job:#}", self.kind.name());
                self.handled += self.kind.handled(&job);
                self.running = None;
                Ok(State::Ended)
            }
            Some("Paused") => Ok(State::Paused),
            _ => Ok(State::Running),
        }
    }

    fn handled_until_now(&self) -> Result<u64> {
        let Some(id) = &self.running else { return Ok(self.handled) };
        Ok(self.handled + self.kind.handled(&self.rest.get_json(&format!("/jobs/{id}"))?))
    }
}

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Paused,
    Ended,
}

/// The configuration that encrypts new files and reads those in clear.
fn reading_clear(cloud: &Cloud) -> Result<Builder> {
    cloud.builder_with(Some("A2"), |encryption| encryption["ReadUnencrypted"] = json!(true))
}
