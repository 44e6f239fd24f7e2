//! `cargo xtask bench`: Orthanc's own file storage and a plugin side by side, or two builds or configurations of a
//! plugin. A report, without pass or fail.
//!
//! Both Orthancs run at the same time and take turns of about a second, over several rounds, so that other load on the
//! machine affects both. The result is the ratio within each round.

mod candidate;
mod chart;
mod cloud;
mod jobs;
mod key_service;
mod line;
mod orthanc_options;
mod reading;
mod report;
mod stow;
mod write_back;

use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use anyhow::{Result, ensure};
use fake_cloud::SharedAzurite;
use real_orthanc::dicom::Study;
use xtask::options::{Bench, Server};

use crate::interrupt;

use self::candidate::{Candidate, Setup};
use self::orthanc_options::OrthancOptions;
use self::report::{Report, Sample};

/// Size of the large instances in MB.
const LARGE_MEGABYTES: u32 = 100;
/// Small instances that one candidate gets before the other takes its turn.
const SMALL_AT_ONCE: usize = 100;

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
    /// Passes over the files. One pass of fast reads would take only some clock ticks of CPU time.
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

/// The files, generated before anything is measured, since the clients share the processor with both Orthancs.
struct Files {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

/// Runs the benchmark.
pub(crate) fn run(options: &Bench) -> Result<()> {
    interrupt::catch()?;
    if let Some(cloud) = &options.cloud {
        return cloud::run(options, cloud);
    }
    if options.reading {
        return reading::run(options);
    }
    if options.jobs {
        return jobs::run(options);
    }
    if options.stow {
        return stow::run(options);
    }
    if options.write_back {
        return write_back::run(options);
    }
    eprintln!("generating files");
    let small = Study(1).ct_series(options.instances, 256, 256).collect::<Result<Vec<_>, _>>()?;
    let large = (0..options.large).map(|index| Study(100 + index).multi_frame(LARGE_MEGABYTES));
    let warm_up = Files { small: small.iter().take(20).cloned().collect(), large: Vec::new() };
    let files = Files { small, large: large.collect::<Result<_, _>>()? };
    let orthanc_options = OrthancOptions::ask()?;
    let mut report = Report::default();
    for number in 0..options.rounds {
        eprintln!("round {} of {}", number + 1, options.rounds);
        // New processes for each round: when two equal candidates were compared, one process took 10 % more CPU in
        // every round, for an unknown reason. This way, such a difference affects one round only.
        let mut candidates = start(options, &orthanc_options, number)?;
        round(number, &mut candidates, &warm_up, &mut Report::default())?;
        round(number, &mut candidates, &files, &mut report)?;
    }
    println!("{}", report.table(options, &orthanc_options));
    Ok(())
}

/// Starts both candidates, in turns of which is first.
fn start(options: &Bench, orthanc_options: &OrthancOptions, round: usize) -> Result<[Candidate; 2]> {
    let azurite = azurite(options)?;
    let setup =
        Setup { azurite: azurite.as_ref(), encryption: options.encryption, ..Setup::of(options.plugin) };
    let configure = |builder| orthanc_options.add_to(builder);
    let first = || match &options.against {
        _ if options.key_service => key_service::of_file(orthanc_options),
        Some(file) => Setup { library: Some(file), ..setup }.start(configure),
        None => Candidate::built_in(configure),
    };
    let second = || match options.key_service {
        true => key_service::of_service(orthanc_options),
        false => setup.start(configure),
    };
    if round.is_multiple_of(2) {
        return Ok([first()?, second()?]);
    }
    let second = second()?;
    Ok([first()?, second])
}

/// The Azurite of one round, if it is to be the server.
fn azurite(options: &Bench) -> Result<Option<Rc<SharedAzurite>>> {
    match options.server {
        Server::Fake => Ok(None),
        Server::Azurite => Ok(Some(Rc::new(SharedAzurite::start()?))),
    }
}

/// Runs all phases, in small parts for both candidates in turn, so that both see the same disturbances.
fn round(number: usize, candidates: &mut [Candidate; 2], files: &Files, report: &mut Report) -> Result<()> {
    for (index, phase) in PHASES.iter().enumerate() {
        let files = if phase.large { &files.large } else { &files.small };
        let at_once = if phase.large { 1 } else { SMALL_AT_ONCE };
        let mut samples = [Sample::default(); 2];
        for (turn, files) in files.chunks(at_once).enumerate() {
            let first = (number + turn) % 2;
            for candidate in [first, 1 - first] {
                samples[candidate].add(&candidates[candidate].run(phase, files, turn * at_once)?);
            }
        }
        report.add(index, samples);
        if phase.operation == Operation::Delete {
            // They would slow down what follows, on a shared server also for the other candidate.
            candidates.iter().try_for_each(Candidate::finish_deletions)?;
        }
    }
    Ok(())
}

/// Fails if a folder is in memory, where a sync costs nothing.
fn expect_disk(folder: &Path) -> Result<()> {
    let output = Command::new("stat").args(["--file-system", "--format=%T"]).arg(folder).output()?;
    let is_in_memory = output.stdout.trim_ascii() == b"tmpfs";
    ensure!(!is_in_memory, "{} is in memory; set TMPDIR to a folder on a disk", folder.display());
    Ok(())
}

/// Waits until everything is on the disk, so that no candidate is slowed down by what another has left behind.
fn settle_disk() -> Result<()> {
    ensure!(Command::new("sync").status()?.success(), "sync failed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_in_memory_is_refused() {
        assert!(expect_disk(Path::new("/proc/self")).is_ok());
        let error = expect_disk(Path::new("/dev/shm")).unwrap_err().to_string();
        assert!(error.starts_with("/dev/shm is in memory"), "{error}");
    }
}
