//! `cargo xtask bench --cloud`: the studies with which the authors of the C++ plugins measure, between clients, Orthanc
//! and a bucket that behaves like a cloud.
//!
//! The Orthancs of a round, one for each storage and build of the plugin, run at the same time, on the same disk, and
//! take turns with each figure, so that the ratios within a round are meaningful on a noisy machine too.

mod report;
mod study;
mod variant;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fake_cloud::SharedAzurite;
use real_orthanc::dicom::Study;
use real_orthanc::{Builder, Client, NO_DELAY, dicom_send_folder, plugin_of_debian};
use xtask::options::cloud::{Choice, CloudBench, Storage, Transfer};
use xtask::options::{Bench, Server};

use self::report::{Report, load_average};
use self::study::Files;
use self::variant::Variant;
use super::candidate::{Setup, Traffic};
use super::line::Line;
use super::orthanc_options::OrthancOptions;
use super::reading::{DICOMWEB, described, entries};
use super::report::Sample;
use super::{Candidate, Operation, Phase, azurite, expect_disk, phase, settle_disk};
use crate::interrupt;

/// For archives and metadata of whole studies.
const TIMEOUT: Duration = Duration::from_secs(600);
/// A row that takes longer in the first round, with all storages, is not measured again.
const LONG: f64 = 60.0;
/// Clients that store and read where that is not measured.
const CLIENTS: usize = 10;

/// One row of figures.
#[derive(Clone, Copy, Debug)]
struct Row {
    transfer: Transfer,
    clients: usize,
}

impl Row {
    /// The rows of a run.
    fn all(options: &CloudBench) -> Vec<Self> {
        let clients = |transfer| match transfer {
            Transfer::Upload | Transfer::Download => &options.clients[..],
            _ => &[1],
        };
        let rows =
            |transfer| clients(transfer).iter().map(move |clients| Self { transfer, clients: *clients });
        options.transfers.iter().copied().flat_map(rows).collect()
    }

    fn name(self) -> String {
        let what = match self.transfer {
            Transfer::Upload => "upload",
            Transfer::Download => "download",
            Transfer::CStore => return "C-STORE, one association".to_owned(),
            Transfer::Archive => return "archive (ZIP)".to_owned(),
            Transfer::Metadata => return "DICOMweb metadata".to_owned(),
        };
        format!("{what}, {} {}", self.clients, if self.clients == 1 { "client" } else { "clients" })
    }

    /// The least time of a transfer with one connection to the bucket for each client.
    fn bound(self, files: &Files, line: &Line) -> Duration {
        let sizes = files.bytes.iter().map(Vec::len);
        match self.transfer {
            // Headers only.
            Transfer::Metadata => line.carries(sizes.map(|_| 0), self.clients),
            _ => line.carries(sizes, self.clients),
        }
    }
}

/// Runs the benchmark.
pub(super) fn run(options: &Bench, cloud: &CloudBench) -> Result<()> {
    expect_disk(&env::temp_dir())?;
    if let Some(folder) = &cloud.charts {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    let setting = Setting::new(options, cloud)?;
    for workload in &cloud.workloads {
        eprintln!("{}: generating files", workload.name());
        let needs_folder = cloud.transfers.contains(&Transfer::CStore);
        let files = Files::generate(*workload, needs_folder)?;
        let mut report = Report::new(&setting, &files);
        for number in 0..options.rounds {
            eprintln!("{}: round {} of {}", workload.name(), number + 1, options.rounds);
            let azurite = azurite(options)?;
            Round::start(&setting, number, azurite.as_ref())?.run(&files, &mut report)?;
        }
        println!("{}", report.text());
        if let Some(folder) = &cloud.charts {
            let file = folder.join(format!("{}-{}.svg", workload.name(), setting.orthanc_options.version));
            fs::write(&file, report.chart().svg()).with_context(|| format!("writing {}", file.display()))?;
        }
    }
    Ok(())
}

/// What a run measures.
struct Setting<'a> {
    plugin: &'static str,
    /// Another build of the plugin.
    against: Option<&'a Path>,
    variants: Vec<Variant>,
    rows: Vec<Row>,
    /// `None` with Azurite.
    line: Option<Line>,
    orthanc_options: OrthancOptions,
    /// The plugin for DICOMweb, if it is installed and needed.
    dicomweb: Option<PathBuf>,
}

impl<'a> Setting<'a> {
    fn new(options: &'a Bench, cloud: &CloudBench) -> Result<Self> {
        let CloudBench { latency, bandwidth, loss, .. } = *cloud;
        let mut rows = Row::all(cloud);
        let mut dicomweb = None;
        if cloud.transfers.contains(&Transfer::Metadata) {
            let library = plugin_of_debian(DICOMWEB);
            dicomweb = library.is_file().then_some(library);
            if dicomweb.is_none() {
                eprintln!("without DICOMweb metadata: {DICOMWEB} is not installed");
                rows.retain(|row| row.transfer != Transfer::Metadata);
            }
        }
        let against = options.against.as_deref();
        Ok(Self {
            plugin: options.plugin,
            against,
            variants: Variant::all(&cloud.storages, against.is_some()),
            rows,
            line: (options.server == Server::Fake).then_some(Line { latency, bandwidth, loss }),
            orthanc_options: OrthancOptions::ask()?,
            dicomweb,
        })
    }

    fn start(&self, variant: Variant, azurite: Option<&Rc<SharedAzurite>>) -> Result<Candidate> {
        let configure = |builder| self.configure(builder);
        let library = self.against.filter(|_| variant.is_before);
        let setup = Setup { library, azurite, line: self.line.as_ref(), ..Setup::of(self.plugin) };
        match variant.storage {
            Storage::BuiltIn => Candidate::built_in(configure),
            Storage::Clear => setup.start(configure),
            Storage::A1 => Setup { encryption: Some("A1"), ..setup }.start(configure),
            Storage::A2 => Setup { encryption: Some("A2"), ..setup }.start(configure),
            Storage::WriteBack => Setup { mode: "WriteBack", ..setup }.start(configure),
        }
    }

    fn configure(&self, builder: Builder) -> Builder {
        let builder = self.orthanc_options.add_to(builder);
        // Orthanc prepares no answers in the background while others are measured.
        let builder = builder.section("StableAge", 3600).environment(NO_DELAY.0, NO_DELAY.1);
        match &self.dicomweb {
            Some(library) => builder.plugin(library),
            None => builder,
        }
    }
}

/// The Orthancs of one round.
struct Round<'a> {
    number: usize,
    setting: &'a Setting<'a>,
    turns: Vec<Turn>,
}

impl<'a> Round<'a> {
    fn start(setting: &'a Setting<'a>, number: usize, azurite: Option<&Rc<SharedAzurite>>) -> Result<Self> {
        let start = |variant: &Variant| -> Result<Turn> {
            Ok(Turn { variant: *variant, candidate: setting.start(*variant, azurite)? })
        };
        let turns = setting.variants.iter().map(start).collect::<Result<_>>()?;
        Ok(Self { number, setting, turns })
    }

    fn run(&mut self, files: &Files, report: &mut Report<'_>) -> Result<()> {
        report.begin_round()?;
        self.turns.iter_mut().try_for_each(Turn::warm_up)?;
        for (index, row) in self.setting.rows.iter().enumerate() {
            if report.first_round(index) > LONG {
                continue;
            }
            for turn in order(self.turns.len(), self.number, index) {
                let what = format!("{}, {}", row.name(), self.turns[turn].variant.title());
                let sample = self.turns[turn].measure(*row, files).with_context(|| what.clone())?;
                eprintln!("{what}: {:.2} s (load average {})", sample.seconds, load_average()?);
                report.add(index, turn, sample);
            }
        }
        Ok(())
    }
}

/// The order of the turns for one row: each one comes first in some row, and of two neighbours, each follows the other
/// in every second round.
fn order(turns: usize, round: usize, row: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..turns).map(|turn| (round + row + turn) % turns).collect();
    if !round.is_multiple_of(2) {
        order.reverse();
    }
    order
}

/// One storage in a round.
struct Turn {
    variant: Variant,
    candidate: Candidate,
}

impl Turn {
    /// Opens connections and fills caches.
    fn warm_up(&mut self) -> Result<()> {
        let files = Study(1).ct_series(20, 256, 256).collect::<Result<Vec<_>>>()?;
        for operation in [Operation::Upload, Operation::Read] {
            self.candidate.run(&phase("warm-up", operation, true, CLIENTS), &files, 0)?;
        }
        self.delete()
    }

    fn measure(&mut self, row: Row, files: &Files) -> Result<Sample> {
        self.prepare(row, files)?;
        settle_disk()?;
        let traffic = self.candidate.traffic();
        let mut sample = match row.transfer {
            Transfer::Upload => self.candidate.run(&row.phase(Operation::Upload), &files.bytes, 0)?,
            Transfer::Download => self.candidate.run(&row.phase(Operation::Read), &files.bytes, 0)?,
            Transfer::CStore => self.send(files)?,
            Transfer::Archive => self.ask(files, &format!("{}/archive", self.study()?), |body| {
                entries(body).context("the answer is not an archive")
            })?,
            Transfer::Metadata => {
                let study = self.candidate.orthanc.rest().get_json(&self.study()?)?;
                let uid = study["MainDicomTags"]["StudyInstanceUID"].as_str().context("no UID")?;
                self.ask(files, &format!("/dicom-web/studies/{uid}/metadata"), described)?
            }
        };
        if self.variant.storage == Storage::WriteBack {
            sample.cpu_seconds += self.candidate.flush()?;
            sample.peak_memory = self.candidate.orthanc.peak_memory_bytes()?;
            sample.traffic = Traffic::between(traffic, self.candidate.traffic());
        }
        Ok(sample)
    }

    /// Deletes the study before it is stored, and stores it before it is read.
    fn prepare(&mut self, row: Row, files: &Files) -> Result<()> {
        let is_stored = self.studies()? > 0;
        match row.transfer {
            Transfer::Upload | Transfer::CStore if is_stored => self.delete(),
            Transfer::Upload | Transfer::CStore => Ok(()),
            _ if is_stored => Ok(()),
            _ => {
                let store = Row { transfer: Transfer::Upload, clients: CLIENTS };
                self.measure(store, files).map(drop)
            }
        }
    }

    fn send(&self, files: &Files) -> Result<Sample> {
        let folder = files.folder.as_ref().context("the files are not in a folder")?;
        let Self { candidate, .. } = self;
        let (sample, ()) = candidate.measure(files.bytes.len(), files.total(), || {
            let start = Instant::now();
            dicom_send_folder(&candidate.orthanc, folder.path())?;
            Ok((start.elapsed(), ()))
        })?;
        let stored = &candidate.orthanc.rest().get_json("/statistics")?["CountInstances"];
        ensure!(*stored == files.bytes.len(), "{stored} of {} instances were stored", files.bytes.len());
        Ok(sample)
    }

    /// Sends a request for the whole study, and counts the instances of the answer.
    fn ask(&self, files: &Files, path: &str, count: impl Fn(&[u8]) -> Result<usize>) -> Result<Sample> {
        let client = Client::with_timeout(self.candidate.orthanc.url(), TIMEOUT);
        let (sample, answer) = self.candidate.measure(files.bytes.len(), files.total(), || {
            let start = Instant::now();
            let answer = client.get(path)?.ok()?;
            Ok((start.elapsed(), answer))
        })?;
        let count = count(&answer.body)?;
        ensure!(count == files.bytes.len(), "{path} has {count} of {} instances", files.bytes.len());
        Ok(sample)
    }

    fn studies(&self) -> Result<usize> {
        Ok(self.candidate.orthanc.rest().get_json("/studies")?.as_array().map_or(0, Vec::len))
    }

    /// The path of the only study in Orthanc's REST API.
    fn study(&self) -> Result<String> {
        let studies = self.candidate.orthanc.rest().get_json("/studies")?;
        Ok(format!("/studies/{}", studies[0].as_str().context("Orthanc has no study")?))
    }

    fn delete(&mut self) -> Result<()> {
        interrupt::check()?;
        let rest = self.candidate.orthanc.rest();
        rest.delete(&self.study()?)?.ok()?;
        self.candidate.finish_deletions()
    }
}

impl Row {
    /// One pass over all files.
    fn phase(self, operation: Operation) -> Phase {
        phase(self.transfer.name(), operation, true, self.clients)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_change_their_order() {
        let orders = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(round, row)| order(3, round, row));
        assert_eq!(orders, [[0, 1, 2], [1, 2, 0], [0, 2, 1], [1, 0, 2]]);
        assert_eq!(order(1, 1, 1), [0]);
    }

    #[test]
    fn only_uploads_and_downloads_have_several_clients() {
        let names: Vec<_> = Row::all(&CloudBench::default()).into_iter().map(Row::name).collect();
        let expected = [
            "upload, 1 client",
            "upload, 10 clients",
            "download, 1 client",
            "download, 10 clients",
            "C-STORE, one association",
            "archive (ZIP)",
            "DICOMweb metadata",
        ];
        assert_eq!(names, expected);
    }
}
