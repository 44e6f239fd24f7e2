//! `cargo xtask bench --write-back`: Orthanc's own file storage and the mode `WriteBack`, without and with encryption,
//! in front of a bucket that is 20 ms away.
//!
//! All Orthancs run at the same time, on the same disk, and take turns. A turn of `WriteBack` includes the uploads
//! while the clients store, and ends when everything is in the bucket, so that the others are not disturbed.

mod report;

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fake_cloud::Operation as Request;
use real_orthanc::dicom::Study;
use real_orthanc::{Release, use_release};
use xtask::options::Bench;

use self::report::{Backlog, Report};
use super::candidate::Setup;
use super::line::Line;
use super::report::Sample;
use super::{Candidate, LARGE_MEGABYTES, Operation, Phase, SMALL_AT_ONCE, expect_disk, phase, settle_disk};

/// The line to the bucket.
const LINE: Line = Line { latency: Duration::from_millis(20), bandwidth: 80_000_000, loss: 0.0 };
/// Clients, and uploads at once, which is the default of `Uploads`.
const CLIENTS: usize = 8;
/// A study of a CT and a PET scanner: this many instances of 218 kB, 356 MB in total.
const STUDY: u32 = 1635;
/// Rows and columns of these instances.
const STUDY_SIDE: u16 = 329;
/// How many instances of the study are pending when a backlog is measured: storing more could take as long as a request may wait for
/// the bucket's answer.
const BACKLOG: usize = 800;
/// How often the number of uploads is looked at.
const LOOK: Duration = Duration::from_millis(5);
const TIMEOUT: Duration = Duration::from_secs(60);

const MODE: &str = "WriteBack";
/// Orthanc's own storage, and `WriteBack` without and with encryption.
const CANDIDATES: usize = 3;

const STORE: usize = 0;
const READ: usize = 1;
const STORE_LARGE: usize = 2;

const PHASES: [Phase; 4] = [
    phase("store 130 kB, 8 clients", Operation::Upload, false, CLIENTS),
    phase("read 130 kB from the cache, 8 clients", Operation::Read, false, CLIENTS),
    phase("store 100 MB, 1 client", Operation::Upload, true, 1),
    phase("store a study of 1,635 files (356 MB), 1 client", Operation::Upload, false, 1),
];

/// The files, generated before anything is measured.
struct Files {
    warm_up: Vec<Vec<u8>>,
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
    study: Vec<Vec<u8>>,
}

impl Files {
    fn generate(options: &Bench) -> Result<Self> {
        let series = |number, count, side| Study(number).ct_series(count, side, side).collect::<Result<_>>();
        let large = (0..options.large).map(|index| Study(100 + index).multi_frame(LARGE_MEGABYTES));
        Ok(Self {
            warm_up: series(1, 40, 256)?,
            small: series(2, options.instances, 256)?,
            large: large.collect::<Result<_>>()?,
            study: series(3, STUDY, STUDY_SIDE)?,
        })
    }

    fn backlog(&self) -> &[Vec<u8>] {
        &self.study[..BACKLOG]
    }
}

/// Runs the benchmark.
pub(crate) fn run(options: &Bench) -> Result<()> {
    expect_disk(&env::temp_dir())?;
    if env::var_os("ORTHANC_PROGRAM").is_none() {
        use_release(Release::Sid);
    }
    eprintln!("generating files");
    let files = Files::generate(options)?;
    let mut report = Report::default();
    for number in 0..options.rounds {
        eprintln!("round {} of {}", number + 1, options.rounds);
        let mut round = Round::start(options.plugin, number)?;
        round.warm_up(&files.warm_up)?;
        for (index, phase) in PHASES.iter().enumerate() {
            let (set, at_once) = match index {
                STORE | READ => (&files.small, SMALL_AT_ONCE),
                STORE_LARGE => (&files.large, 1),
                _ => (&files.study, files.study.len()),
            };
            report.add(index, round.measure(phase, set, at_once)?);
        }
        report.backlogs.push(round.drain(files.backlog())?);
    }
    println!("{}", report.table(options, &files));
    Ok(())
}

/// The Orthancs of one round.
struct Round {
    number: usize,
    plugin: &'static str,
    candidates: [Candidate; CANDIDATES],
}

impl Round {
    fn start(plugin: &'static str, number: usize) -> Result<Self> {
        let built_in = Candidate::built_in(|builder| builder)?;
        let candidates = [built_in, with_bucket(plugin, MODE, None)?, with_bucket(plugin, MODE, Some("A2"))?];
        Ok(Self { number, plugin, candidates })
    }

    /// Fills the caches of the operating system, and opens connections.
    fn warm_up(&mut self, files: &[Vec<u8>]) -> Result<()> {
        PHASES[..=READ].iter().try_for_each(|phase| self.measure(phase, files, files.len()).map(drop))
    }

    /// Runs a phase, in parts for all candidates in turn, so that all see the same disturbances.
    fn measure(&mut self, phase: &Phase, files: &[Vec<u8>], at_once: usize) -> Result<[Sample; CANDIDATES]> {
        let mut samples = [Sample::default(); CANDIDATES];
        for (turn, files) in files.chunks(at_once).enumerate() {
            for index in 0..CANDIDATES {
                let index = (self.number + turn + index) % CANDIDATES;
                let candidate = &mut self.candidates[index];
                settle_disk()?;
                let mut sample = candidate.run(phase, files, turn * at_once)?;
                let requests = sample.traffic.unwrap_or_default().requests;
                ensure!(
                    phase.operation == Operation::Upload || requests == 0,
                    "{requests} requests to the bucket"
                );
                sample.cpu_seconds += candidate.flush()?;
                samples[index].add(&sample);
            }
        }
        Ok(samples)
    }

    /// Measures the time in which files are uploaded: by the two candidates with `WriteBack` when all of them are
    /// pending, and by the plugin without that mode while eight clients store them.
    fn drain(&mut self, files: &[Vec<u8>]) -> Result<Backlog> {
        let [_, clear, encrypted] = &mut self.candidates;
        let clear = drain(clear, files)?;
        let encrypted = drain(encrypted, files)?;
        let mut direct = with_bucket(self.plugin, "Disabled", None)?;
        let sample = direct.run(&PHASES[STORE], files, 0)?;
        Ok(Backlog { clear, encrypted, direct: Duration::from_secs_f64(sample.seconds) })
    }
}

/// An Orthanc with a plugin, far from its bucket.
fn with_bucket(plugin: &str, mode: &str, encryption: Option<&str>) -> Result<Candidate> {
    Setup { mode, encryption, line: Some(&LINE), ..Setup::of(plugin) }.start(|builder| builder)
}

/// Stores files anew while the bucket does not answer, and returns the time in which they are uploaded afterwards.
fn drain(candidate: &mut Candidate, files: &[Vec<u8>]) -> Result<Duration> {
    candidate.run(&Phase { operation: Operation::Delete, ..PHASES[STORE] }, files, 0)?;
    candidate.orthanc.rest().wait_for_deletions(TIMEOUT)?;
    let server = candidate.server().context("no bucket")?;
    let hold = server.hold(Request::PutObject);
    server.reset_counts();
    candidate.run(&PHASES[STORE], files, 0)?;
    let server = candidate.server().context("no bucket")?;
    let start = Instant::now();
    hold.release();
    let count = files.len() as u64;
    while server.requests().of(Request::PutObject) < count {
        ensure!(start.elapsed() < TIMEOUT, "the files are not in the bucket after {TIMEOUT:?}");
        thread::sleep(LOOK);
    }
    let time = start.elapsed() + LINE.latency;
    candidate.flush()?;
    Ok(time)
}
