//! The table of `cargo xtask bench --jobs`.

use xtask::options::Bench;

use super::super::report::{Sample, median, ratios, unit};
use super::{ARCHIVE, Kind, MEASURED, PAIRS, PHASES};

/// The goal for the speed of users' requests with a job, compared with that without it.
const GOAL: f64 = 0.8;

/// A turn with the job and one without it.
pub(super) struct Pair {
    pub(super) without: [Sample; MEASURED],
    /// Also how many attachments the job handled a second.
    pub(super) with_job: ([Sample; MEASURED], f64),
}

/// The pairs of each kind of job.
#[derive(Default)]
pub(super) struct Report([Vec<Pair>; Kind::ALL.len()]);

impl Report {
    pub(super) fn add(&mut self, kind: usize, pair: Pair) {
        self.0[kind].push(pair);
    }

    pub(super) fn table(&self, options: &Bench) -> String {
        let mut text = format!(
            "The {} plugin. Users' requests without a job (A) and alongside one (B), in turns: {} pairs of turns with {}\n\
             instances of 130 kB, each read ten times, and an archive of {} for the job. B/A compares speeds within a\n\
             pair: median (lowest to highest). The goal is {GOAL}. The last column is what the job handles meanwhile.\n\n\
             | job | users | A | B | B/A | attachments a second |\n\
             |---|---|---:|---:|---|---:|\n",
            options.plugin,
            options.rounds * PAIRS,
            options.instances,
            options.instances * ARCHIVE,
        );
        for (kind, pairs) in Kind::ALL.iter().zip(&self.0) {
            for (index, phase) in PHASES.iter().take(MEASURED).enumerate() {
                let a: Vec<Sample> = pairs.iter().map(|pair| pair.without[index]).collect();
                let b: Vec<Sample> = pairs.iter().map(|pair| pair.with_job.0[index]).collect();
                let (low, ratio, high) = ratios(phase, &a, &b);
                let rate = |samples: &[Sample]| median(samples.iter().map(|sample| sample.rate(phase)));
                text += &format!(
                    "| {} | {} | {:.0} {unit} | {:.0} {unit} | {ratio:.2} ({low:.2} to {high:.2}) | {:.0} |\n",
                    kind.name(),
                    phase.name,
                    rate(&a),
                    rate(&b),
                    median(pairs.iter().map(|pair| pair.with_job.1)),
                    unit = unit(phase),
                );
            }
        }
        text
    }
}
