//! The table and the chart of one study of `cargo xtask bench --cloud`.

use std::fs;

use anyhow::{Context, Result};
use real_orthanc::Orthanc;
use xtask::options::cloud::{Choice, Storage, Transfer};

use super::super::chart::{Bar, Chart, Group};
use super::super::report::{Sample, highest, lowest, median, range};
use super::study::Files;
use super::{Row, Setting};

const HEAD: &str = "| | storage | seconds | MB/s | speed / built-in | speed / clear | time / bound | CPU s | peak MB \
                    | requests | connections |\n| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n";

/// The samples of one study. Figures are medians, and memory is the highest.
pub(super) struct Report<'a> {
    setting: &'a Setting<'a>,
    files: &'a Files,
    /// By row, storage and round.
    samples: Vec<Vec<Vec<Sample>>>,
    /// Of Orthanc.
    version: String,
    /// Load average of the machine at the start of each round.
    loads: Vec<String>,
}

impl<'a> Report<'a> {
    pub(super) fn new(setting: &'a Setting<'a>, files: &'a Files) -> Self {
        let samples = vec![vec![Vec::new(); setting.storages.len()]; setting.rows.len()];
        Self { setting, files, samples, version: String::new(), loads: Vec::new() }
    }

    /// Notes the version of Orthanc, and how busy the machine is.
    pub(super) fn begin_round(&mut self, orthanc: &Orthanc) -> Result<()> {
        let system = orthanc.rest().get_json("/system")?;
        system["Version"].as_str().context("Orthanc does not say its version")?.clone_into(&mut self.version);
        self.loads.push(load_average()?);
        Ok(())
    }

    pub(super) fn add(&mut self, row: usize, storage: usize, sample: Sample) {
        self.samples[row][storage].push(sample);
    }

    /// Seconds that a row took in the first round, with all storages.
    pub(super) fn first_round(&self, row: usize) -> f64 {
        self.samples[row].iter().filter_map(|samples| samples.first()).map(|sample| sample.seconds).sum()
    }

    /// The version of Orthanc.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn title(&self) -> String {
        let megabytes = self.files.total() as f64 / 1e6;
        format!("{}: {} files, {megabytes:.0} MB", self.files.title, self.files.bytes.len())
    }

    /// The line to the bucket in words.
    fn line(&self) -> String {
        let line = &self.setting.line;
        let lost = format!(", answers lost: {}", line.loss);
        let lost = if line.loss > 0.0 { &lost } else { "" };
        format!("{} ms, {} MB/s a connection{lost}", line.latency.as_millis(), line.bandwidth / 1_000_000)
    }

    /// The column of a storage.
    fn of(&self, row: usize, storage: Storage) -> Option<&[Sample]> {
        let index = self.setting.storages.iter().position(|other| *other == storage)?;
        Some(&self.samples[row][index])
    }

    /// The seconds of all storages side by side, and a table with all figures.
    pub(super) fn text(&self) -> String {
        format!(
            "### {}\n\nOrthanc {}, plugin {}, {}, rounds: {}, load average at the start of each: {}.\n\n{}\n{}",
            self.title(),
            self.version,
            self.setting.plugin,
            self.line(),
            self.loads.len(),
            self.loads.join(", "),
            self.summary(),
            self.table(),
        )
    }

    /// Median seconds, and in brackets their ratio to the bound.
    fn summary(&self) -> String {
        let storages: Vec<_> = self.setting.storages.iter().map(|storage| title(*storage)).collect();
        let mut text = format!("| seconds (time / bound) | bound | {} |\n", storages.join(" | "));
        text += &format!("| --- |{}\n", " ---: |".repeat(1 + storages.len()));
        for (index, row) in self.setting.rows.iter().enumerate() {
            let bound = self.bound(*row);
            let cell = |storage: &Storage| {
                let time = self.median(index, *storage, |sample| sample.seconds);
                let ratio = format!(" ({:.2})", time / bound);
                let ratio = if *storage == Storage::BuiltIn { "" } else { &ratio };
                format!("{}{ratio}", seconds(time))
            };
            let cells: Vec<_> = self.setting.storages.iter().map(cell).collect();
            text += &format!("| {} | {} | {} |\n", row.name(), seconds(bound), cells.join(" | "));
        }
        text
    }

    fn table(&self) -> String {
        let mut text = HEAD.to_owned();
        for (index, row) in self.setting.rows.iter().enumerate() {
            let mut name = row.name();
            for storage in self.setting.storages {
                text += &format!("| {name} | {} | {} |\n", title(*storage), self.cells(index, *storage));
                name.clear();
            }
        }
        text
    }

    /// In seconds.
    fn bound(&self, row: Row) -> f64 {
        row.bound(self.files, &self.setting.line).as_secs_f64()
    }

    /// The median of a figure.
    fn median(&self, row: usize, storage: Storage, figure: fn(&Sample) -> f64) -> f64 {
        median(self.of(row, storage).unwrap_or_default().iter().map(figure))
    }

    /// The figures of one storage.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn cells(&self, row: usize, storage: Storage) -> String {
        let samples = self.of(row, storage).unwrap_or_default();
        let figure = |of: fn(&Sample) -> f64| self.median(row, storage, of);
        let time = figure(|sample| sample.seconds);
        let bound = self.bound(self.setting.rows[row]);
        let ratio = |to: Storage| Some(speeds(samples, self.of(row, to)?));
        let is_built_in = storage == Storage::BuiltIn;
        let is_encrypted = matches!(storage, Storage::A1 | Storage::A2);
        let is_whole = self.setting.rows[row].transfer != Transfer::Metadata;
        let cells = [
            Some(seconds(time)),
            is_whole.then(|| format!("{:.0}", figure(|sample| sample.bytes as f64 / 1e6 / sample.seconds))),
            ratio(Storage::BuiltIn).filter(|_| !is_built_in),
            ratio(Storage::Clear).filter(|_| is_encrypted),
            (!is_built_in).then(|| format!("{:.2}", time / bound)),
            Some(format!("{:.2}", figure(|sample| sample.cpu_seconds))),
            Some(format!("{:.0}", highest(samples.iter().map(|sample| sample.peak_memory as f64 / 1e6)))),
            (!is_built_in).then(|| format!("{:.0}", figure(|sample| sample.requests as f64))),
            (!is_built_in).then(|| format!("{:.0}", figure(|sample| sample.connections as f64))),
        ];
        cells.map(|cell| cell.unwrap_or_else(|| "–".to_owned())).join(" | ")
    }

    pub(super) fn chart(&self) -> Chart {
        let group = |(index, row): (usize, &Row)| {
            let bar = |storage: &Storage| {
                let value = self.median(index, *storage, |sample| sample.seconds);
                let label = format!("{} s", seconds(value));
                Bar { name: title(*storage).to_owned(), series: *storage as usize, value, label }
            };
            let bars = self.setting.storages.iter().map(bar).collect();
            Group { name: row.name(), bars, mark: Some(self.bound(*row)) }
        };
        Chart {
            title: format!("{}, Orthanc {}", self.title(), self.version),
            description: [
                "Seconds, shorter is better. The dashed line is the least time with one connection for each client."
                    .to_owned(),
                format!("Plugin: {}. Bucket: {}.", self.setting.plugin, self.line()),
            ],
            groups: self.setting.rows.iter().enumerate().map(group).collect(),
        }
    }
}

/// How many processes were running or waiting for the processor or the disk in the last minute.
pub(super) fn load_average() -> Result<String> {
    let averages = fs::read_to_string("/proc/loadavg").context("reading the load average")?;
    Ok(averages.split(' ').next().unwrap_or_default().to_owned())
}

/// A storage in tables.
fn title(storage: Storage) -> &'static str {
    match storage {
        Storage::WriteBack => "WriteBack",
        other => other.name(),
    }
}

/// The ratio of speeds within a round, with its range if there were several.
fn speeds(samples: &[Sample], others: &[Sample]) -> String {
    let ratios = || samples.iter().zip(others).map(|(sample, other)| other.seconds / sample.seconds);
    match samples.len() {
        0 | 1 => format!("{:.2}", median(ratios())),
        _ => range((lowest(ratios()), median(ratios()), highest(ratios()))),
    }
}

/// With as many digits as mean something.
fn seconds(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Line;
    use super::*;

    const STORAGES: [Storage; 3] = [Storage::BuiltIn, Storage::Clear, Storage::A2];

    /// Two rounds of a study of 4 files of 1.6 MB, with these seconds by storage.
    fn with_report<T>(transfer: Transfer, rounds: [[f64; 3]; 2], check: impl FnOnce(&Report<'_>) -> T) -> T {
        let line = Line { latency: Duration::from_millis(20), bandwidth: 80_000_000, loss: 0.0 };
        let rows = vec![Row { transfer, clients: 2 }];
        let setting = Setting { plugin: "aws-s3", storages: &STORAGES, rows, line, dicomweb: None };
        let files = Files { title: "TEST", bytes: vec![vec![0; 1_600_000]; 4], folder: None };
        let mut report = Report::new(&setting, &files);
        "1.2.3".clone_into(&mut report.version);
        for round in rounds {
            report.loads.push("0.1".to_owned());
            for (storage, seconds) in round.into_iter().enumerate() {
                let sample = Sample { operations: 4, bytes: files.total(), seconds, ..Sample::default() };
                let sample = Sample { cpu_seconds: 0.25, peak_memory: 50_000_000, requests: 4, ..sample };
                report.add(0, storage, sample);
            }
        }
        check(&report)
    }

    #[test]
    fn table_compares_within_rounds_and_with_the_bound() {
        let rounds = [[0.1, 0.1, 0.2], [0.2, 0.1, 0.1]];
        let table = with_report(Transfer::Download, rounds, |report| report.text());
        let expected = [
            "### TEST: 4 files, 6 MB",
            "| download, 2 clients | 0.08 | 0.15 | 0.10 (1.25) | 0.15 (1.88) |",
            "| download, 2 clients | built-in | 0.15 | 48 | – | – | – | 0.25 | 50 | – | – |",
            "|  | clear | 0.10 | 64 | 1.50 (1.00 to 2.00) | – | 1.25 | 0.25 | 50 | 4 | 0 |",
            "|  | A2 | 0.15 | 48 | 1.25 (0.50 to 2.00) | 0.75 (0.50 to 1.00) | 1.88 | 0.25 | 50 | 4 | 0 |",
            "20 ms, 80 MB/s a connection, rounds: 2, load average at the start of each: 0.1, 0.1.",
        ];
        for line in expected {
            assert!(table.contains(line), "{line}\n{table}");
        }
    }

    #[test]
    fn long_rows_are_known_by_the_first_round() {
        let rounds = [[30.0, 20.0, 11.0], [1.0; 3]];
        assert_eq!(with_report(Transfer::Upload, rounds, |report| report.first_round(0)), 61.0);
    }

    #[test]
    fn metadata_has_no_bandwidth() {
        let table = with_report(Transfer::Metadata, [[0.1; 3]; 2], |report| report.text());
        assert!(table.contains("| built-in | 0.10 | – |"), "{table}");
    }

    #[test]
    fn chart_has_a_bar_for_each_storage_and_the_bound() {
        let chart = with_report(Transfer::Upload, [[0.1, 0.2, 12.0]; 2], |report| report.chart());
        let bars: Vec<_> = chart.groups[0].bars.iter().map(|bar| (&*bar.name, &*bar.label)).collect();
        assert_eq!(bars, [("built-in", "0.10 s"), ("clear", "0.20 s"), ("A2", "12.0 s")]);
        assert_eq!((chart.groups[0].mark, chart.groups.len()), (Some(0.08), 1));
    }
}
