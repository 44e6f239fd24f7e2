//! `GET /object-storage/history`: what has happened in each minute of the last day, for charts.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use orthanc_ffi::{RestAnswer, RestFailure, RestRequest};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::metrics::{iso_8601, milliseconds};
use super::query::number;

/// The time from one sample to the next.
pub(crate) const STEP: Duration = Duration::from_secs(60);
/// Minutes that are kept, and the most that a request can ask for: a day.
const KEPT: usize = 24 * 60;
/// Minutes in an answer, unless the request says otherwise.
const DEFAULT_MINUTES: usize = 180;
/// Maximum number of samples in an answer, which then has less than 100 kB.
const MOST_SAMPLES: u64 = 720;

/// Requests of one kind since the start, or in one sample.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestTotals {
    pub(crate) count: u64,
    pub(crate) failures: u64,
    pub(crate) bytes: u64,
    pub(crate) microseconds: u64,
}

/// What only grows since the start, or how much it has grown in one sample.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) stores: RequestTotals,
    /// Whole and ranges.
    pub(crate) reads: RequestTotals,
    pub(crate) removals: RequestTotals,
    pub(crate) retries: u64,
    pub(crate) cache_hits: u64,
    pub(crate) cache_misses: u64,
}

/// What is measured at the end of a sample.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Levels {
    pub(crate) pending_files: u64,
    pub(crate) pending_bytes: u64,
    pub(crate) cache_bytes: u64,
    pub(crate) deletions: u64,
    pub(crate) is_outage: bool,
}

/// One minute, or several in an answer.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Minutes from the start of the plugin to the end of the sample, at least 1. Those in which the machine was suspended
    /// do not count.
    minute: u64,
    /// Unix time at the end of the sample, later than that of the sample before it.
    time: u64,
    grown: Totals,
    levels: Levels,
}

/// The samples of the last day. Nothing survives a restart.
#[derive(Debug)]
pub(crate) struct History {
    started: SystemTime,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The totals at the end of the last sample.
    last: Totals,
    samples: VecDeque<Sample>,
}

impl History {
    pub(crate) fn new(started: SystemTime) -> Self {
        Self { started, kept: Mutex::default() }
    }

    /// Adds the sample that ends at `now`, `uptime` after the start. A second one in the same minute is added to the next.
    pub(crate) fn add(&self, uptime: Duration, now: SystemTime, totals: Totals, levels: Levels) {
        // The timer can be early or late by a moment.
        let minute = (uptime + STEP / 2).as_secs() / STEP.as_secs();
        let mut kept = self.kept.lock();
        let last = kept.samples.back().copied();
        if last.map_or(0, |last| last.minute) >= minute {
            return;
        }
        // If the clock was set back, a client that asks for later samples still gets this one.
        let earliest = last.map_or(0, |last| last.time + 1);
        let time = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().max(earliest);
        let grown = totals.since(&kept.last);
        kept.last = totals;
        if kept.samples.len() == KEPT {
            kept.samples.pop_front();
        }
        kept.samples.push_back(Sample { minute, time, grown, levels });
    }

    /// Answers a request.
    ///
    /// # Errors
    ///
    /// If the query is not valid.
    pub(super) fn answer(&self, request: &RestRequest<'_>) -> Result<RestAnswer, RestFailure> {
        let minutes = number(request, "minutes", DEFAULT_MINUTES, 1..=KEPT)?;
        let since = number(request, "since", 0, 0..=usize::MAX)?;
        let history = self.to_json(minutes as u64, since as u64);
        // Without indents, which would double the size.
        Ok(RestAnswer::bytes("application/json", format!("{history}\n")))
    }

    /// The samples of the last `minutes` that end after the Unix time `since`.
    pub(super) fn to_json(&self, minutes: u64, since: u64) -> Value {
        let step = minutes.div_ceil(MOST_SAMPLES);
        let mut samples = self.merged(minutes, step);
        samples.retain(|sample| sample.time > since);
        let column = |value: fn(&Sample) -> Value| samples.iter().map(value).collect::<Value>();
        json!({
            "Since": iso_8601(self.started),
            "StepSeconds": step * STEP.as_secs(),
            "Times": column(|sample| json!(sample.time)),
            "Create": {
                "Requests": column(|sample| json!(sample.grown.stores.count)),
                "Failures": column(|sample| json!(sample.grown.stores.failures)),
                "Bytes": column(|sample| json!(sample.grown.stores.bytes)),
                "MeanMilliseconds": column(|sample| sample.grown.stores.mean()),
            },
            "Read": {
                "Requests": column(|sample| json!(sample.grown.reads.count)),
                "Failures": column(|sample| json!(sample.grown.reads.failures)),
                "Bytes": column(|sample| json!(sample.grown.reads.bytes)),
                "MeanMilliseconds": column(|sample| sample.grown.reads.mean()),
            },
            "Remove": {
                "Requests": column(|sample| json!(sample.grown.removals.count)),
                "Failures": column(|sample| json!(sample.grown.removals.failures)),
                "MeanMilliseconds": column(|sample| sample.grown.removals.mean()),
            },
            "Retries": column(|sample| json!(sample.grown.retries)),
            "Pending": {
                "Files": column(|sample| json!(sample.levels.pending_files)),
                "Bytes": column(|sample| json!(sample.levels.pending_bytes)),
            },
            "Cache": {
                "Bytes": column(|sample| json!(sample.levels.cache_bytes)),
                "Hits": column(|sample| json!(sample.grown.cache_hits)),
                "Misses": column(|sample| json!(sample.grown.cache_misses)),
            },
            "Deletions": {"Pending": column(|sample| json!(sample.levels.deletions))},
            "Outage": column(|sample| json!(u8::from(sample.levels.is_outage))),
        })
    }

    /// The samples of the last `minutes`, each of `step` minutes. Leaves out the last one while it is not complete, so that
    /// a sample never changes.
    fn merged(&self, minutes: u64, step: u64) -> Vec<Sample> {
        let kept = self.kept.lock();
        let last = kept.samples.back().map_or(0, |sample| sample.minute);
        let first = last.saturating_sub(minutes);
        let mut merged: Vec<Sample> = Vec::new();
        for sample in kept.samples.iter().filter(|sample| sample.minute > first) {
            let end = sample.minute.div_ceil(step) * step;
            if end > last {
                break;
            }
            match merged.last_mut().filter(|merged| merged.minute == end) {
                Some(merged) => merged.append(sample),
                None => merged.push(Sample { minute: end, ..*sample }),
            }
        }
        merged
    }
}

impl Sample {
    fn append(&mut self, next: &Self) {
        self.grown = self.grown.with(&next.grown);
        let is_outage = self.levels.is_outage || next.levels.is_outage;
        self.levels = Levels { is_outage, ..next.levels };
        self.time = next.time;
    }
}

impl Totals {
    fn since(&self, earlier: &Self) -> Self {
        self.combined(earlier, u64::saturating_sub)
    }

    fn with(&self, other: &Self) -> Self {
        self.combined(other, u64::saturating_add)
    }

    fn combined(&self, other: &Self, combine: fn(u64, u64) -> u64) -> Self {
        Self {
            stores: self.stores.combined(&other.stores, combine),
            reads: self.reads.combined(&other.reads, combine),
            removals: self.removals.combined(&other.removals, combine),
            retries: combine(self.retries, other.retries),
            cache_hits: combine(self.cache_hits, other.cache_hits),
            cache_misses: combine(self.cache_misses, other.cache_misses),
        }
    }
}

impl RequestTotals {
    pub(crate) fn with(&self, other: &Self) -> Self {
        self.combined(other, u64::saturating_add)
    }

    fn combined(&self, other: &Self, combine: fn(u64, u64) -> u64) -> Self {
        Self {
            count: combine(self.count, other.count),
            failures: combine(self.failures, other.failures),
            bytes: combine(self.bytes, other.bytes),
            microseconds: combine(self.microseconds, other.microseconds),
        }
    }

    /// `null` without requests.
    fn mean(&self) -> Value {
        let mean = self.microseconds.checked_div(self.count);
        // To a tenth of a millisecond: an answer has many of them.
        mean.map_or(Value::Null, |mean| json!(milliseconds(mean.div_ceil(100) * 100)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(count: u64) -> RequestTotals {
        RequestTotals { count, failures: count / 10, bytes: count * 1000, microseconds: count * 1540 }
    }

    fn started() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000)
    }

    /// A history of `minutes`, with one store more in each minute than in the one before it.
    fn history(minutes: u64) -> History {
        let history = History::new(started());
        for minute in 1..=minutes {
            let totals = Totals { stores: requests(minute * (minute + 1) / 2), ..Totals::default() };
            let levels = Levels { pending_files: minute, is_outage: minute % 3 == 1, ..Levels::default() };
            let uptime = STEP * u32::try_from(minute).unwrap();
            history.add(uptime, started() + uptime, totals, levels);
        }
        history
    }

    #[test]
    fn samples_are_differences() {
        let history = history(5);
        // The timer came twice in a minute, and then late.
        let uptime = STEP * 5 + Duration::from_secs(3);
        history.add(uptime, started() + uptime, Totals::default(), Levels::default());
        let totals = Totals { stores: requests(20), ..Totals::default() };
        history.add(STEP * 8, started() + STEP * 8, totals, Levels::default());
        let shown = history.to_json(180, 0);
        assert_eq!((&shown["Since"], &shown["StepSeconds"]), (&json!("1970-01-12T13:46:40Z"), &json!(60)));
        assert_eq!(shown["Times"], json!([1_000_060, 1_000_120, 1_000_180, 1_000_240, 1_000_300, 1_000_480]));
        assert_eq!(shown["Create"]["Requests"], json!([1, 2, 3, 4, 5, 5]));
        assert_eq!(shown["Create"]["Bytes"], json!([1000, 2000, 3000, 4000, 5000, 5000]));
        assert_eq!(shown["Create"]["MeanMilliseconds"], json!([1.6, 1.6, 1.6, 1.6, 1.6, 1.6]));
        assert_eq!(shown["Pending"]["Files"], json!([1, 2, 3, 4, 5, 0]));
        assert_eq!(shown["Outage"], json!([1, 0, 0, 1, 0, 0]));
        assert_eq!(shown["Read"]["MeanMilliseconds"][0], Value::Null);
        assert_eq!(history.to_json(3, 0)["Times"], json!([1_000_480]));
        assert_eq!(history.to_json(180, 1_000_240)["Times"], json!([1_000_300, 1_000_480]));
        assert_eq!(history.to_json(180, 1_000_480)["Times"], json!([]));
    }

    #[test]
    fn times_are_those_of_the_clock() {
        let history = history(2);
        let add = |minute, seconds| {
            let now = UNIX_EPOCH + Duration::from_secs(seconds);
            history.add(STEP * minute, now, Totals::default(), Levels::default());
        };
        // The machine was suspended for an hour, in which the uptime did not grow.
        add(3, 1_003_780);
        // The clock was set back.
        add(4, 1_000_240);
        add(5, 1_003_900);
        assert_eq!(
            history.to_json(180, 1_000_060)["Times"],
            json!([1_000_120, 1_003_780, 1_003_781, 1_003_900])
        );
        assert_eq!(history.to_json(180, 1_003_780)["Times"], json!([1_003_781, 1_003_900]));
        assert_eq!(history.to_json(1440, 0)["Times"], json!([1_000_120, 1_003_781]));
    }

    #[test]
    fn long_time_has_longer_samples() {
        let shown = |minutes| history(minutes).to_json(1440, 0);
        let odd = shown(7);
        assert_eq!(odd["StepSeconds"], 120);
        assert_eq!(odd["Times"], json!([1_000_120, 1_000_240, 1_000_360]), "the last one is not complete");
        assert_eq!(odd["Create"]["Requests"], json!([3, 7, 11]));
        assert_eq!(odd["Pending"]["Files"], json!([2, 4, 6]));
        assert_eq!(odd["Outage"], json!([1, 1, 0]));
        let even = shown(8);
        assert_eq!(even["Times"].as_array().unwrap().len(), 4);
        assert_eq!(even["Times"][2], odd["Times"][2]);
        // Only the last day is kept.
        let longest = shown(3000);
        let first = 1_000_000 + (3000 - 1440 + 2) * 60;
        assert_eq!((longest["Times"].as_array().unwrap().len(), &longest["Times"][0]), (720, &json!(first)));
    }

    #[test]
    fn whole_day_of_a_busy_archive_has_less_than_100_kb() {
        let started = UNIX_EPOCH + Duration::from_secs(1_795_000_000);
        let history = History::new(started);
        // 100 stores and reads of 10 MB a second.
        for minute in 1..=1440 {
            let requests = RequestTotals {
                count: 6000 * minute,
                failures: minute,
                bytes: 60_123_456_789 * minute,
                microseconds: 6000 * 234_567 * minute,
            };
            let totals = Totals {
                stores: requests,
                reads: requests,
                removals: requests,
                retries: 10 * minute,
                cache_hits: 5000 * minute,
                cache_misses: 1000 * minute,
            };
            let levels = Levels {
                pending_files: 12345,
                pending_bytes: 123_456_789_012,
                cache_bytes: 1_234_567_890_123,
                deletions: 12345,
                is_outage: false,
            };
            let uptime = STEP * u32::try_from(minute).unwrap();
            history.add(uptime, started + uptime, totals, levels);
        }
        let size = history.to_json(1440, 0).to_string().len();
        assert!((60_000..100_000).contains(&size), "{size}");
    }
}
