//! Medians and ratios of the benchmark, as a table.

use xtask::options::{Bench, Server};

use super::candidate::Traffic;
use super::orthanc_options::OrthancOptions;
use super::{Operation, PHASES, Phase};

const BUILT_IN: &str =
    "A: Orthanc's own storage, which syncs each file to the disk: its default. B: the plugin.";
const BUILDS: &str = "A: another build of the plugin. B: the plugin.";
const SERVICE: &str = "A: the plugin with A2 and a key file. B: the same with a key service, which answers after 5 ms, and \
                       a KeyDecayCount of 1,000.";

/// Figures of one phase of one candidate in one round.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) operations: usize,
    pub(crate) bytes: usize,
    pub(crate) seconds: f64,
    /// Of the Orthanc process.
    pub(crate) cpu_seconds: f64,
    /// Resident, of the Orthanc process, in bytes.
    pub(crate) peak_memory: u64,
    /// To the bucket; `None` if the server does not count, or there is none.
    pub(crate) traffic: Option<Traffic>,
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
impl Sample {
    /// MB/s for large instances, operations a second for the others and for deletes.
    pub(crate) fn rate(&self, phase: &Phase) -> f64 {
        let done = if unit(phase) == "MB/s" { self.bytes as f64 / 1e6 } else { self.operations as f64 };
        done / self.seconds
    }

    /// CPU time for each operation.
    pub(crate) fn cpu_milliseconds(&self) -> f64 {
        self.cpu_seconds * 1e3 / self.operations as f64
    }

    /// Adds another part of the same phase.
    pub(crate) fn add(&mut self, part: &Self) {
        self.operations += part.operations;
        self.bytes += part.bytes;
        self.seconds += part.seconds;
        self.cpu_seconds += part.cpu_seconds;
        self.peak_memory = self.peak_memory.max(part.peak_memory);
        self.traffic = Traffic::sum(self.traffic, part.traffic);
    }
}

pub(crate) fn unit(phase: &Phase) -> &'static str {
    if phase.large && phase.operation != Operation::Delete { "MB/s" } else { "1/s" }
}

/// Samples of a run by phase and candidate, one for each round.
#[derive(Debug, Default)]
pub(crate) struct Report([[Vec<Sample>; 2]; PHASES.len()]);

impl Report {
    pub(crate) fn add(&mut self, phase: usize, samples: [Sample; 2]) {
        for (all, sample) in self.0[phase].iter_mut().zip(samples) {
            all.push(sample);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub(crate) fn table(&self, options: &Bench, orthanc: &OrthancOptions) -> String {
        let candidates = match &options.against {
            _ if options.key_service => SERVICE,
            Some(_) => BUILDS,
            None => BUILT_IN,
        };
        let server = if options.server == Server::Azurite { ", which stores in one Azurite" } else { "" };
        let encryption = options.encryption.map(|format| format!(", and encrypts with {format}"));
        let mut text = format!(
            "{candidates}\n\
             Orthanc {}, options: {}.\n\
             The plugin is {}{server}{}. Medians of {} rounds with {} instances of 130 kB, each read ten times, and {} of 100 MB.\n\
             B/A compares speeds within a round: median (lowest to highest); above 1, B is faster.\n\
             CPU: milliseconds of the Orthanc process for each operation. Memory: its peak in the phase, in MB.\n\n\
             | | unit | A | B | B/A | CPU A | CPU B | CPU B/A | memory A | memory B | requests A | requests B |\n\
             |---|---|---:|---:|---|---:|---:|---|---:|---:|---:|---:|\n",
            orthanc.version,
            orthanc.text(),
            options.plugin,
            encryption.unwrap_or_default(),
            options.rounds,
            options.instances,
            options.large
        );
        for (phase, [a, b]) in PHASES.iter().zip(&self.0) {
            let (low, ratio, high) = ratios(phase, a, b);
            let rate = |samples: &[Sample]| median(samples.iter().map(|sample| sample.rate(phase)));
            let memory = |sample: &Sample| sample.peak_memory as f64 / 1e6;
            text += &format!(
                "| {} | {} | {:.1} | {:.1} | {ratio:.2} ({low:.2} to {high:.2}) | {:.2} | {:.2} | {} | {:.0} | {:.0} | {} | {} |\n",
                phase.name,
                unit(phase),
                rate(a),
                rate(b),
                median(a.iter().map(Sample::cpu_milliseconds)),
                median(b.iter().map(Sample::cpu_milliseconds)),
                number(cpu_ratio(a, b), 2),
                median(a.iter().map(memory)),
                median(b.iter().map(memory)),
                number(requests(a), 2),
                number(requests(b), 2),
            );
        }
        text
    }
}

/// The median of the ratios of CPU time in one round, unless an operation takes less than a tick of the clock.
fn cpu_ratio(a: &[Sample], b: &[Sample]) -> f64 {
    let ratio = |(a, b): (&Sample, &Sample)| b.cpu_milliseconds() / a.cpu_milliseconds();
    median(a.iter().zip(b).map(ratio).filter(|ratio| ratio.is_finite()))
}

/// The median of the requests for each operation.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn requests(samples: &[Sample]) -> f64 {
    let each = |sample: &Sample| Some(sample.traffic?.requests as f64 / sample.operations as f64);
    median(samples.iter().filter_map(each))
}

/// A figure with this many decimals, if there is one.
pub(crate) fn number(value: f64, decimals: usize) -> String {
    if value.is_finite() { format!("{value:.decimals$}") } else { "–".to_owned() }
}

/// Lowest, median and highest ratio of the rates in one round.
pub(crate) fn ratios(phase: &Phase, a: &[Sample], b: &[Sample]) -> (f64, f64, f64) {
    let ratios = || a.iter().zip(b).map(|(a, b)| b.rate(phase) / a.rate(phase));
    (lowest(ratios()), median(ratios()), highest(ratios()))
}

/// A median with its range, which are given as lowest, median and highest.
pub(crate) fn range((low, median, high): (f64, f64, f64)) -> String {
    format!("{median:.2} ({low:.2} to {high:.2})")
}

pub(crate) fn lowest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(f64::INFINITY, f64::min)
}

pub(crate) fn highest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, f64::max)
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_numbers_of_values() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert!(median(std::iter::empty()).is_nan());
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let sample = |seconds| Sample { operations: 10, seconds, ..Sample::default() };
        let a = [sample(1.0), sample(10.0), sample(4.0)];
        let b = [sample(2.0), sample(20.0), sample(4.0)];
        assert_eq!(ratios(&PHASES[0], &a, &b), (0.5, 0.5, 1.0));
    }
}
