//! `cargo xtask bench`: Orthanc's own file storage and a plugin side by side, or two configurations of a plugin. A
//! report, without pass or fail.
//!
//! Both Orthancs run at the same time and take turns of about a second, over several rounds, so that other load on the
//! machine affects both. The result is the ratio within each round.

mod chart;
mod cloud;
mod jobs;
mod key_service;
mod line;
mod reading;
mod report;
mod stow;
mod write_back;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use real_orthanc::dicom::Study;
use real_orthanc::{Builder, Orthanc};
use xtask::options::Bench;

use crate::cloud::Cloud;
use crate::{interrupt, load};

use self::line::Line;
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

/// One of the two Orthancs that are compared.
struct Candidate {
    orthanc: Orthanc,
    /// `None` for Orthanc's own file storage.
    cloud: Option<Cloud>,
    /// Orthanc's ids of the instances of the last upload, in the order of the files.
    ids: Vec<String>,
}

impl Candidate {
    fn built_in() -> Result<Self> {
        Ok(Self { orthanc: Orthanc::builder().start()?, cloud: None, ids: Vec::new() })
    }

    fn with_plugin(plugin: &str) -> Result<Self> {
        let cloud = Cloud::start(plugin)?;
        Ok(Self { orthanc: cloud.orthanc(None)?, cloud: Some(cloud), ids: Vec::new() })
    }

    /// An Orthanc with a plugin in a hybrid mode, and a line to its bucket. `change` adds to Orthanc's configuration.
    fn on_line(
        plugin: &str,
        mode: &str,
        encryption: Option<&str>,
        line: &Line,
        change: impl FnOnce(Builder) -> Builder,
    ) -> Result<Self> {
        let mut cloud = Cloud::start(plugin)?;
        cloud.set("HybridMode", mode);
        let orthanc = change(cloud.builder(encryption)?).start()?;
        line.lay(&cloud.server);
        Ok(Self { orthanc, cloud: Some(cloud), ids: Vec::new() })
    }

    fn requests(&self) -> u64 {
        self.cloud.as_ref().map_or(0, |cloud| cloud.server.requests().total)
    }

    /// Number of connections that the bucket's server has accepted.
    fn connections(&self) -> u64 {
        self.cloud.as_ref().map_or(0, |cloud| cloud.server.connections_accepted())
    }

    /// Measures what `work` does to Orthanc. `work` returns how long it took.
    fn measure<T>(
        &self,
        operations: usize,
        bytes: usize,
        work: impl FnOnce() -> Result<(Duration, T)>,
    ) -> Result<(Sample, T)> {
        self.orthanc.reset_peak_memory()?;
        let cpu_before = self.orthanc.cpu_seconds()?;
        let requests_before = self.requests();
        let connections_before = self.connections();
        let (time, result) = work()?;
        let sample = Sample {
            operations,
            bytes,
            seconds: time.as_secs_f64(),
            cpu_seconds: self.orthanc.cpu_seconds()? - cpu_before,
            peak_memory: self.orthanc.peak_memory_bytes()?,
            requests: self.requests() - requests_before,
            connections: self.connections() - connections_before,
        };
        Ok((sample, result))
    }

    /// Waits until everything stored is in the bucket, in the mode `WriteBack`. Returns the CPU time of Orthanc in
    /// seconds.
    fn flush(&self) -> Result<f64> {
        interrupt::check()?;
        if self.cloud.is_none() {
            return Ok(0.0);
        }
        let cpu_before = self.orthanc.cpu_seconds()?;
        self.orthanc.rest().post("/object-storage/flush", b"")?.ok()?;
        Ok(self.orthanc.cpu_seconds()? - cpu_before)
    }

    /// Runs a part of a phase and measures it: `files`, which begin at number `offset` of their set.
    fn run(&mut self, phase: &Phase, files: &[Vec<u8>], offset: usize) -> Result<Sample> {
        let known = self.ids.get(offset..).unwrap_or_default();
        let operations = files.len() * phase.passes();
        let bytes = files.iter().map(Vec::len).sum::<usize>() * phase.passes();
        let job = |client: &mut load::Connection, index: usize| {
            interrupt::check()?;
            let index = index % files.len();
            match phase.operation {
                Operation::Upload => {
                    let answer = client.upload(&files[index])?;
                    ensure!(answer["Status"] == "Success", "upload: {answer}");
                    return Ok(answer["ID"].as_str().context("upload: no id")?.to_owned());
                }
                Operation::Read => client.read(&known[index], &files[index])?,
                Operation::Delete => client.delete(&known[index])?,
            }
            Ok(String::new())
        };
        let work = || load::run(self.orthanc.http_port(), phase.clients, operations, job);
        let (sample, ids) = self.measure(operations, bytes, work).context(phase.name)?;
        if phase.operation == Operation::Upload {
            self.ids.truncate(offset);
            self.ids.extend(ids);
        }
        Ok(sample)
    }
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
    let mut report = Report::default();
    for number in 0..options.rounds {
        eprintln!("round {} of {}", number + 1, options.rounds);
        // New processes for each round: when two equal candidates were compared, one process took 10 % more CPU in
        // every round, for an unknown reason. This way, such a difference affects one round only.
        let mut candidates = start(options, number)?;
        round(number, &mut candidates, &warm_up, &mut Report::default())?;
        round(number, &mut candidates, &files, &mut report)?;
    }
    println!("{}", report.table(options));
    Ok(())
}

/// Starts both candidates, in turns of which is first.
fn start(options: &Bench, round: usize) -> Result<[Candidate; 2]> {
    let first = || if options.key_service { key_service::of_file() } else { Candidate::built_in() };
    let second = || match options.key_service {
        true => key_service::of_service(),
        false => Candidate::with_plugin(options.plugin),
    };
    if round.is_multiple_of(2) {
        return Ok([first()?, second()?]);
    }
    let second = second()?;
    Ok([first()?, second])
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
