//! The table and the chart of one study of `cargo xtask bench --cloud`.

use std::fs;

use anyhow::{Context, Result};
use xtask::options::cloud::{Storage, Transfer};

use super::super::candidate::Traffic;
use super::super::chart::{Bar, Chart, Group};
use super::super::report::{Sample, highest, lowest, median, number, range};
use super::study::Files;
use super::variant::Variant;
use super::{Row, Setting};

const COLUMNS: [&str; 10] = [
    "seconds",
    "MB/s",
    "speed / built-in",
    "speed / clear",
    BEFORE,
    "time / bound",
    "CPU s",
    "peak MB",
    "requests",
    "connections",
];
/// The column for another build of the plugin, if there is one.
const BEFORE: &str = "speed / before";

/// The samples of one study. Figures are medians, and memory is the highest.
pub(super) struct Report<'a> {
    setting: &'a Setting<'a>,
    files: &'a Files,
    /// By row, variant and round.
    samples: Vec<Vec<Vec<Sample>>>,
    /// Load average of the machine at the start of each round.
    loads: Vec<String>,
}

impl<'a> Report<'a> {
    pub(super) fn new(setting: &'a Setting<'a>, files: &'a Files) -> Self {
        let samples = vec![vec![Vec::new(); setting.variants.len()]; setting.rows.len()];
        Self { setting, files, samples, loads: Vec::new() }
    }

    /// Notes how busy the machine is.
    pub(super) fn begin_round(&mut self) -> Result<()> {
        self.loads.push(load_average()?);
        Ok(())
    }

    pub(super) fn add(&mut self, row: usize, variant: usize, sample: Sample) {
        self.samples[row][variant].push(sample);
    }

    /// Seconds that a row took in the first round, with all storages.
    pub(super) fn first_round(&self, row: usize) -> f64 {
        self.samples[row].iter().filter_map(|samples| samples.first()).map(|sample| sample.seconds).sum()
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn title(&self) -> String {
        let megabytes = self.files.total() as f64 / 1e6;
        format!("{}: {} files, {megabytes:.0} MB", self.files.title, self.files.bytes.len())
    }

    /// The line to the bucket in words.
    fn line(&self) -> String {
        let Some(line) = &self.setting.line else { return "one Azurite for all".to_owned() };
        let bandwidth = match line.bandwidth {
            0 => "any bandwidth".to_owned(),
            bandwidth => format!("{} MB/s a connection", bandwidth / 1_000_000),
        };
        let lost = format!(", answers lost: {}", line.loss);
        let lost = if line.loss > 0.0 { &lost } else { "" };
        format!("{} ms, {bandwidth}{lost}", line.latency.as_millis())
    }

    /// The samples of a variant.
    fn of(&self, row: usize, variant: Variant) -> Option<&[Sample]> {
        let index = self.setting.variants.iter().position(|other| *other == variant)?;
        Some(&self.samples[row][index])
    }

    /// The seconds of all variants side by side, and a table with all figures.
    pub(super) fn text(&self) -> String {
        format!(
            "### {}\n\nOrthanc {}, plugin {}, {}, rounds: {}, load average at the start of each: {}. Options of Orthanc: \
             {}.\n\n{}\n{}",
            self.title(),
            self.setting.orthanc_options.version,
            self.setting.plugin,
            self.line(),
            self.loads.len(),
            self.loads.join(", "),
            self.setting.orthanc_options.text(),
            self.summary(),
            self.table(),
        )
    }

    /// Median seconds, and in brackets their ratio to the bound.
    fn summary(&self) -> String {
        let titles: Vec<_> = self.setting.variants.iter().map(|variant| variant.title()).collect();
        let mut text = format!("| seconds (time / bound) | bound | {} |\n", titles.join(" | "));
        text += &format!("| --- |{}\n", " ---: |".repeat(1 + titles.len()));
        for (index, row) in self.setting.rows.iter().enumerate() {
            let bound = self.bound(*row);
            let cell = |variant: &Variant| {
                let time = self.median(index, *variant, |sample| sample.seconds);
                let bound = bound.filter(|_| !variant.is_built_in());
                let ratio = bound.map(|bound| format!(" ({:.2})", time / bound));
                format!("{}{}", seconds(time), ratio.unwrap_or_default())
            };
            let cells: Vec<_> = self.setting.variants.iter().map(cell).collect();
            let bound = bound.map_or_else(|| "–".to_owned(), seconds);
            text += &format!("| {} | {bound} | {} |\n", row.name(), cells.join(" | "));
        }
        text
    }

    fn table(&self) -> String {
        let columns: Vec<_> = COLUMNS.into_iter().filter(|column| self.has(column)).collect();
        let mut text = format!("| | storage | {} |\n", columns.join(" | "));
        text += &format!("| --- | --- |{}\n", " ---: |".repeat(columns.len()));
        for (index, row) in self.setting.rows.iter().enumerate() {
            let mut name = row.name();
            for variant in &self.setting.variants {
                text += &format!("| {name} | {} | {} |\n", variant.title(), self.cells(index, *variant));
                name.clear();
            }
        }
        text
    }

    fn has(&self, column: &str) -> bool {
        column != BEFORE || self.setting.against.is_some()
    }

    /// In seconds; `None` if there is no line, or one that takes no time.
    fn bound(&self, row: Row) -> Option<f64> {
        let bound = row.bound(self.files, self.setting.line.as_ref()?).as_secs_f64();
        (bound > 0.0).then_some(bound)
    }

    /// The median of a figure.
    fn median(&self, row: usize, variant: Variant, figure: fn(&Sample) -> f64) -> f64 {
        median(self.of(row, variant).unwrap_or_default().iter().map(figure))
    }

    /// The figures of one variant.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn cells(&self, row: usize, variant: Variant) -> String {
        let samples = self.of(row, variant).unwrap_or_default();
        let figure = |of: fn(&Sample) -> f64| self.median(row, variant, of);
        let count = |of: fn(&Traffic) -> u64| {
            number(median(samples.iter().filter_map(|sample| Some(of(&sample.traffic?) as f64))), 0)
        };
        let time = figure(|sample| sample.seconds);
        let bound = self.bound(self.setting.rows[row]).filter(|_| !variant.is_built_in());
        let ratio = |to: Variant| Some(speeds(samples, self.of(row, to)?));
        let is_whole = self.setting.rows[row].transfer != Transfer::Metadata;
        let cells = [
            Some(seconds(time)),
            is_whole.then(|| format!("{:.0}", figure(|sample| sample.bytes as f64 / 1e6 / sample.seconds))),
            ratio(Variant::now(Storage::BuiltIn)).filter(|_| !variant.is_built_in()),
            ratio(variant.in_clear()).filter(|_| variant.is_encrypted()),
            ratio(Variant::before(variant.storage)).filter(|_| !variant.is_before),
            bound.map(|bound| format!("{:.2}", time / bound)),
            Some(format!("{:.2}", figure(|sample| sample.cpu_seconds))),
            Some(format!("{:.0}", highest(samples.iter().map(|sample| sample.peak_memory as f64 / 1e6)))),
            Some(count(|traffic| traffic.requests)),
            Some(count(|traffic| traffic.connections)),
        ];
        let shown = COLUMNS.into_iter().zip(cells).filter(|(column, _)| self.has(column));
        let shown: Vec<_> = shown.map(|(_, cell)| cell.unwrap_or_else(|| "–".to_owned())).collect();
        shown.join(" | ")
    }

    pub(super) fn chart(&self) -> Chart {
        let group = |(index, row): (usize, &Row)| {
            let bar = |variant: &Variant| {
                let value = self.median(index, *variant, |sample| sample.seconds);
                let label = format!("{} s", seconds(value));
                let series = variant.storage as usize;
                Bar { name: variant.title(), series, is_pale: variant.is_before, value, label }
            };
            let bars = self.setting.variants.iter().map(bar).collect();
            Group { name: row.name(), bars, mark: self.bound(*row) }
        };
        let bound = "The dashed line is the least time with one connection for each client.";
        Chart {
            title: format!("{}, Orthanc {}", self.title(), self.setting.orthanc_options.version),
            description: [
                format!(
                    "Seconds, shorter is better. {}",
                    if self.setting.line.is_some() { bound } else { "" }
                ),
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
    use std::path::Path;
    use std::time::Duration;

    use super::super::{Line, OrthancOptions};
    use super::*;

    const LINE: Line = Line { latency: Duration::from_millis(20), bandwidth: 80_000_000, loss: 0.0 };

    /// Built-in, clear and A2.
    fn setting(transfer: Transfer) -> Setting<'static> {
        Setting {
            plugin: "aws-s3",
            against: None,
            variants: Variant::all(&[Storage::BuiltIn, Storage::Clear, Storage::A2], false),
            rows: vec![Row { transfer, clients: 2 }],
            line: Some(LINE),
            orthanc_options: OrthancOptions::default(),
            dicomweb: None,
        }
    }

    /// Two rounds of a study of 4 files of 1.6 MB, with these seconds by storage.
    fn with_report<T>(transfer: Transfer, rounds: [[f64; 3]; 2], check: impl FnOnce(&Report<'_>) -> T) -> T {
        with_setting(&setting(transfer), rounds, check)
    }

    /// The same with these seconds by variant. The server of all but the built-in storage counts if there is a line.
    fn with_setting<const VARIANTS: usize, T>(
        setting: &Setting<'_>,
        rounds: [[f64; VARIANTS]; 2],
        check: impl FnOnce(&Report<'_>) -> T,
    ) -> T {
        let files = Files { title: "TEST", bytes: vec![vec![0; 1_600_000]; 4], folder: None };
        let mut report = Report::new(setting, &files);
        for round in rounds {
            report.loads.push("0.1".to_owned());
            for (index, seconds) in round.into_iter().enumerate() {
                let counts = setting.line.is_some() && !setting.variants[index].is_built_in();
                let traffic = counts.then_some(Traffic { requests: 4, connections: 0 });
                let sample = Sample { operations: 4, bytes: files.total(), seconds, ..Sample::default() };
                let sample = Sample { cpu_seconds: 0.25, peak_memory: 50_000_000, traffic, ..sample };
                report.add(0, index, sample);
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
    fn builds_are_compared_within_their_storage() {
        let against = Some(Path::new("/before.so"));
        let variants = Variant::all(&[Storage::Clear, Storage::A2], true);
        let setting = Setting { against, variants, ..setting(Transfer::Upload) };
        let table = with_setting(&setting, [[0.1, 0.2, 0.2, 0.1]; 2], |report| report.text());
        let expected = [
            "| MB/s | speed / built-in | speed / clear | speed / before | time / bound |",
            "| clear | 0.10 | 64 | – | – | 2.00 (2.00 to 2.00) | 1.25 |",
            "| before | 0.20 | 32 | – | – | – | 2.50 |",
            "| A2 | 0.20 | 32 | – | 0.50 (0.50 to 0.50) | 0.50 (0.50 to 0.50) | 2.50 |",
            "| A2 before | 0.10 | 64 | – | 2.00 (2.00 to 2.00) | – | 1.25 |",
        ];
        for line in expected {
            assert!(table.contains(line), "{line}\n{table}");
        }
    }

    #[test]
    fn azurite_has_no_bound_and_no_counts() {
        let setting = Setting { line: None, ..setting(Transfer::Upload) };
        let rounds = [[0.1, 0.2, 0.2]; 2];
        let table = with_setting(&setting, rounds, |report| report.text());
        let expected = [
            "plugin aws-s3, one Azurite for all, rounds: 2",
            "| upload, 2 clients | – | 0.10 | 0.20 | 0.20 |",
            "| clear | 0.20 | 32 | 0.50 (0.50 to 0.50) | – | – | 0.25 | 50 | – | – |",
        ];
        for line in expected {
            assert!(table.contains(line), "{line}\n{table}");
        }
        let chart = with_setting(&setting, rounds, |report| report.chart());
        assert_eq!(chart.groups[0].mark, None);
        assert!(!chart.description[0].contains("dashed"), "{}", chart.description[0]);
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
