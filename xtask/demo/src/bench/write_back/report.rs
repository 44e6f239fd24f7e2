//! The table of `cargo xtask bench --write-back`.

use std::time::Duration;

use xtask::options::Bench;

use super::super::report::{Sample, highest, lowest, median, range, ratios, unit};
use super::{CANDIDATES, CLIENTS, Files, LINE, PHASES};

/// Goals for the speed of `WriteBack`, compared with Orthanc's own storage, by phase. A study may take 1.1 times as
/// long.
const GOALS: [f64; PHASES.len()] = [0.9, 0.9, 0.9, 1.0 / 1.1];
/// For a backlog, compared with what the line carries.
const BACKLOG_GOAL: f64 = 0.8;

/// How long it takes to upload a backlog.
pub(super) struct Backlog {
    /// With `WriteBack`, if all files are pending.
    pub(super) clear: Duration,
    /// The same with encryption.
    pub(super) encrypted: Duration,
    /// Without the mode, if eight clients store them.
    pub(super) direct: Duration,
}

/// Samples of a run, one for each round.
#[derive(Default)]
pub(super) struct Report {
    samples: [[Vec<Sample>; CANDIDATES]; PHASES.len()],
    pub(super) backlogs: Vec<Backlog>,
}

impl Report {
    pub(super) fn add(&mut self, phase: usize, samples: [Sample; CANDIDATES]) {
        for (all, sample) in self.samples[phase].iter_mut().zip(samples) {
            all.push(sample);
        }
    }

    pub(super) fn table(&self, options: &Bench, files: &Files) -> String {
        let mut text = format!(
            "A: Orthanc's own storage. B: the {} plugin, WriteBack. C: the same with encryption (A2).\n\
             The bucket is {} ms away and carries {} MB/s on each connection. Medians of {} rounds with {} instances\n\
             of 130 kB, each read ten times, and {} of 100 MB. B/A and C/A compare speeds within a round: median\n\
             (lowest to highest); above 1, the plugin is faster.\n\
             CPU: milliseconds of the Orthanc process for each operation, including the upload.\n\n\
             | | unit | A | B | C | goal | B/A | C/A | CPU A | CPU B | CPU C |\n\
             |---|---|---:|---:|---:|---:|---|---|---:|---:|---:|\n",
            options.plugin,
            LINE.latency.as_millis(),
            LINE.bandwidth / 1_000_000,
            options.rounds,
            options.instances,
            options.large,
        );
        for ((phase, samples), goal) in PHASES.iter().zip(&self.samples).zip(GOALS) {
            let [a, b, c] = samples;
            let rates =
                samples.each_ref().map(|samples| median(samples.iter().map(|sample| sample.rate(phase))));
            let cpu = samples.each_ref().map(|samples| median(samples.iter().map(Sample::cpu_milliseconds)));
            text += &format!(
                "| {} | {} | {:.0} | {:.0} | {:.0} | {goal:.2} | {} | {} | {:.2} | {:.2} | {:.2} |\n",
                phase.name,
                unit(phase),
                rates[0],
                rates[1],
                rates[2],
                range(ratios(phase, a, b)),
                range(ratios(phase, a, c)),
                cpu[0],
                cpu[1],
                cpu[2],
            );
        }
        text + &self.backlog(files.backlog())
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn backlog(&self, files: &[Vec<u8>]) -> String {
        let line = LINE.carries(files.iter().map(Vec::len), CLIENTS).as_secs_f64();
        let bytes: usize = files.iter().map(Vec::len).sum();
        let rate = |time: f64| bytes as f64 / 1e6 / time;
        let rates = |time: fn(&Backlog) -> Duration| {
            let times = || self.backlogs.iter().map(|backlog| time(backlog).as_secs_f64());
            let ratios = || times().map(|time| line / time);
            let ratios = (lowest(ratios()), median(ratios()), highest(ratios()));
            format!("{:.0} MB/s, {}", median(times().map(rate)), range(ratios))
        };
        format!(
            "\n{CLIENTS} connections carry {:.0} MB/s of {} files of the study. The speed of their upload, and the ratio to \
             that (goal {BACKLOG_GOAL}):\n\
             - WriteBack, all pending: {}\n\
             - WriteBack with encryption, all pending: {}\n\
             - without WriteBack, {CLIENTS} clients: {}\n",
            rate(line),
            files.len(),
            rates(|backlog| backlog.clear),
            rates(|backlog| backlog.encrypted),
            rates(|backlog| backlog.direct),
        )
    }
}
