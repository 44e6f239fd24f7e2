//! Orthanc's own file storage and a plugin side by side: a report, no pass or fail.
//!
//! Both Orthancs run at the same time and take turns, in parts of about a second, over several rounds, so that
//! whatever else slows the machine down meets both. What counts is the ratio within a round.

mod load;
mod report;

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use lexopt::prelude::{Long, ValueExt};
use real_orthanc::dicom::Study;

use crate::storage::{self, Cloud, Launched, Storage};
use crate::{install, interrupt};

use self::report::{Report, Sample};

/// Size of the large instances in MB.
const LARGE_MEGABYTES: u32 = 100;
/// Small instances that one candidate gets before it is the other's turn.
const SMALL_AT_ONCE: usize = 100;

/// The command's options; see the usage text.
#[derive(Debug)]
pub(crate) struct Options {
    rounds: usize,
    instances: u32,
    large: u64,
    storage: Storage,
}

impl Options {
    pub(crate) fn parse(mut arguments: lexopt::Parser) -> Result<Self> {
        let mut options = Self { rounds: 5, instances: 400, large: 3, storage: Storage::Cloud(Cloud::S3) };
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("rounds") => options.rounds = arguments.value()?.parse()?,
                Long("instances") => options.instances = arguments.value()?.parse()?,
                Long("large") => options.large = arguments.value()?.parse()?,
                Long("quick") => (options.rounds, options.instances, options.large) = (2, 100, 1),
                // Not in the usage text: two equals, to see the noise.
                Long("provider") => options.storage = arguments.value()?.parse()?,
                other => bail!(other.unexpected()),
            }
        }
        ensure!(options.rounds > 0 && options.instances > 0 && options.large > 0, "numbers must not be 0");
        Ok(options)
    }
}

/// What is done to all instances of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Upload,
    Read,
    Delete,
}

/// One line of the report.
#[derive(Clone, Copy, Debug)]
struct Phase {
    name: &'static str,
    operation: Operation,
    large: bool,
    clients: usize,
}

impl Phase {
    /// How often each instance is met. Reads are so fast that one pass would be over within some clock ticks of the
    /// CPU time.
    fn passes(&self) -> usize {
        if self.operation == Operation::Read && !self.large { 10 } else { 1 }
    }
}

const fn phase(name: &'static str, operation: Operation, large: bool, clients: usize) -> Phase {
    Phase { name, operation, large, clients }
}

/// A set is uploaded, read and deleted before it is uploaded again.
const PHASES: [Phase; 9] = [
    phase("upload 130 kB, 1 client", Operation::Upload, false, 1),
    phase("read 130 kB, 1 client", Operation::Read, false, 1),
    phase("delete 130 kB, 1 client", Operation::Delete, false, 1),
    phase("upload 130 kB, 8 clients", Operation::Upload, false, 8),
    phase("read 130 kB, 8 clients", Operation::Read, false, 8),
    phase("delete 130 kB, 8 clients", Operation::Delete, false, 8),
    phase("upload 100 MB, 1 client", Operation::Upload, true, 1),
    phase("read 100 MB, 1 client", Operation::Read, true, 1),
    phase("delete 100 MB, 1 client", Operation::Delete, true, 1),
];

/// The files, generated once: the load generator shares the processor with what it measures.
struct Files {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

impl Files {
    fn of(&self, phase: &Phase) -> &[Vec<u8>] {
        if phase.large { &self.large } else { &self.small }
    }
}

/// One of the two that are compared.
struct Candidate {
    storage: Storage,
    launched: Launched,
    /// Orthanc's ids of what the last upload stored, in the order of the files.
    ids: Vec<String>,
}

impl Candidate {
    fn start(storage: Storage) -> Result<Self> {
        Ok(Self { storage, launched: storage::launch(storage, None)?, ids: Vec::new() })
    }

    /// Runs a part of a phase and measures it: `files`, which begin at number `offset` of their set.
    fn run(&mut self, phase: &Phase, files: &[Vec<u8>], offset: usize) -> Result<Sample> {
        let orthanc = &self.launched.orthanc;
        orthanc.reset_peak_memory()?;
        let (cpu, requests) = (orthanc.cpu_seconds()?, self.launched.bucket.request_count());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, orthanc.http_port()));
        let known = self.ids.get(offset..).unwrap_or_default();
        let operations = files.len() * phase.passes();
        let (time, ids) = load::run(address, phase.clients, operations, |connection, index| {
            interrupt::check()?;
            let index = index % files.len();
            match phase.operation {
                Operation::Upload => return connection.upload(&files[index]),
                Operation::Read => connection.read(&known[index], &files[index])?,
                Operation::Delete => connection.delete(&known[index])?,
            }
            Ok(String::new())
        })
        .with_context(|| format!("{}: {}", self.storage.name(), phase.name))?;
        let sample = Sample {
            operations,
            bytes: files.iter().map(Vec::len).sum::<usize>() * phase.passes(),
            seconds: time.as_secs_f64(),
            cpu_seconds: orthanc.cpu_seconds()? - cpu,
            peak_memory: orthanc.peak_memory_bytes()?,
            requests: self.launched.bucket.request_count() - requests,
        };
        if phase.operation == Operation::Upload {
            self.ids.truncate(offset);
            self.ids.extend(ids);
        }
        Ok(sample)
    }
}

/// `cargo xtask bench`.
pub(crate) fn run(options: &Options) -> Result<()> {
    install::install_missing()?;
    interrupt::catch()?;
    eprintln!("generating files");
    let files = generate(options)?;
    let warm_up = Files { small: files.small.iter().take(20).cloned().collect(), large: Vec::new() };
    let mut report = Report::new([Storage::BuiltIn.name(), options.storage.name()]);
    for number in 0..options.rounds {
        eprintln!("round {} of {}", number + 1, options.rounds);
        // Fresh ones for each round: in one run of two equals, one process took 10 % more CPU in every round. The
        // cause is not known; so it is at least not in every round of a run.
        let mut candidates = start(options.storage, number)?;
        round(number, &mut candidates, &warm_up, |_, _, _| ())?;
        round(number, &mut candidates, &files, |phase, candidate, sample| {
            report.add(phase, candidate, sample);
        })?;
    }
    report.publish(options)
}

fn generate(options: &Options) -> Result<Files> {
    let small = Study(1).ct_series(options.instances, 256, 256).collect::<Result<_, _>>()?;
    let large = (0..options.large).map(|index| Study(100 + index).multi_frame(LARGE_MEGABYTES));
    Ok(Files { small, large: large.collect::<Result<_, _>>()? })
}

/// Both candidates; they take turns in being started first.
fn start(storage: Storage, round: usize) -> Result<[Candidate; 2]> {
    if round.is_multiple_of(2) {
        Ok([Candidate::start(Storage::BuiltIn)?, Candidate::start(storage)?])
    } else {
        let second = Candidate::start(storage)?;
        Ok([Candidate::start(Storage::BuiltIn)?, second])
    }
}

/// All phases, in small parts for both candidates in turn: both see the same disturbances.
fn round(
    number: usize,
    candidates: &mut [Candidate; 2],
    files: &Files,
    mut keep: impl FnMut(&Phase, usize, Sample),
) -> Result<()> {
    for phase in &PHASES {
        let part = if phase.large { 1 } else { SMALL_AT_ONCE };
        let mut samples = [Sample::default(); 2];
        for (index, files) in files.of(phase).chunks(part).enumerate() {
            let first = (number + index) % 2;
            for candidate in [first, 1 - first] {
                samples[candidate].add(&candidates[candidate].run(phase, files, index * part)?);
            }
        }
        for (candidate, sample) in samples.into_iter().enumerate() {
            keep(phase, candidate, sample);
        }
    }
    Ok(())
}
