//! Counts the storage area's requests since the start, for `GET /object-storage/status` and Orthanc's metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::history::RequestTotals;

/// The time after which the failure of a request says nothing about the present, if none has failed since. Otherwise,
/// the failure of a single request would be a problem until somebody tries another one.
pub(super) const PASSED: Duration = Duration::from_secs(30 * 60);

/// A kind of request to the storage area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Create,
    Read,
    ReadRange,
    Remove,
}

impl Request {
    /// All kinds, with their names in `status` and in metrics.
    const ALL: [(Self, &'static str, &'static str); 4] = [
        (Self::Create, "Create", "create"),
        (Self::Read, "Read", "read"),
        (Self::ReadRange, "ReadRange", "read_range"),
        (Self::Remove, "Remove", "remove"),
    ];
}

/// Counts of one kind of request.
#[derive(Debug, Default)]
struct Counters {
    running: AtomicU64,
    count: AtomicU64,
    failures: AtomicU64,
    bytes: AtomicU64,
    microseconds: AtomicU64,
    longest: AtomicU64,
}

/// When requests of a kind last succeeded and failed, and how.
#[derive(Debug, Default)]
struct Last {
    success: Option<SystemTime>,
    failure: Option<(SystemTime, String)>,
    /// When the last request failed; `None` if it succeeded.
    failing: Option<Instant>,
    /// Whether it failed since the attachment is missing or damaged.
    is_about_one: bool,
}

/// The last request of a kind, which has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failing {
    /// In UTC.
    pub(super) time: String,
    /// As it was logged.
    pub(super) error: String,
    /// Whether the attachment is missing or damaged, which says nothing about others.
    pub(super) is_about_one: bool,
}

/// Counts since the start of the plugin.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// When the plugin was started.
    pub(super) since: Instant,
    /// Of all reads, of stores, and of deletions.
    last: [Mutex<Last>; 3],
    requests: [Counters; Request::ALL.len()],
}

impl Default for Metrics {
    fn default() -> Self {
        Self { since: Instant::now(), last: Default::default(), requests: Default::default() }
    }
}

/// A request that is being served.
#[derive(Debug)]
pub(crate) struct Running<'a>(&'a AtomicU64);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts a request that begins, until the returned value is dropped.
    pub(crate) fn begin(&self, request: Request) -> Running<'_> {
        let running = &self.requests[request as usize].running;
        running.fetch_add(1, Ordering::Relaxed);
        Running(running)
    }

    /// Notes that a request has succeeded.
    pub(crate) fn succeeded(&self, request: Request) {
        let mut last = self.last_of(request).lock();
        last.success = Some(SystemTime::now());
        last.failing = None;
    }

    /// Notes the error of a request that has failed, as it was logged, and whether its attachment is missing or damaged.
    pub(crate) fn failed(&self, request: Request, error: &str, is_about_one: bool) {
        let mut last = self.last_of(request).lock();
        last.failure = Some((SystemTime::now(), error.to_owned()));
        last.failing = Some(Instant::now());
        last.is_about_one = is_about_one;
    }

    /// The last store and the last read, if they have failed; a read only if that was not long ago.
    pub(super) fn failing(&self) -> [Option<Failing>; 2] {
        [Request::Create, Request::Read].map(|request| {
            let last = self.last_of(request).lock();
            let failing = last.failing?;
            if request == Request::Read && failing.elapsed() >= PASSED {
                return None;
            }
            let (time, error) = last.failure.as_ref()?;
            Some(Failing { time: iso_8601(*time), error: error.clone(), is_about_one: last.is_about_one })
        })
    }

    /// The totals of stores, reads and deletions since the start.
    pub(super) fn totals(&self) -> [RequestTotals; 3] {
        let of = |request: Request| {
            let counters = &self.requests[request as usize];
            RequestTotals {
                count: counters.count.load(Ordering::Relaxed),
                failures: counters.failures.load(Ordering::Relaxed),
                bytes: counters.bytes.load(Ordering::Relaxed),
                microseconds: counters.microseconds.load(Ordering::Relaxed),
            }
        };
        let reads = of(Request::Read).with(&of(Request::ReadRange));
        [of(Request::Create), reads, of(Request::Remove)]
    }

    fn last_of(&self, request: Request) -> &Mutex<Last> {
        let [reads, stores, deletions] = &self.last;
        match request {
            Request::Create => stores,
            Request::Read | Request::ReadRange => reads,
            Request::Remove => deletions,
        }
    }

    /// The last successes and failures, as the route returns them.
    pub(crate) fn last(&self) -> Value {
        let shown = |last: &Mutex<Last>| {
            let last = last.lock();
            json!({
                "Success": last.success.map(iso_8601),
                "Failure": last.failure.as_ref().map(|(time, _)| iso_8601(*time)),
                "Error": last.failure.as_ref().map(|(_, error)| error),
            })
        };
        let [reads, stores, deletions] = self.last.each_ref().map(shown);
        json!({"Read": reads, "Create": stores, "Remove": deletions})
    }

    /// Counts one request that took `time`. `bytes` is the size of its attachment or range; `None` if the
    /// request failed.
    pub(crate) fn count(&self, request: Request, time: Duration, bytes: Option<u64>) {
        let counters = &self.requests[request as usize];
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        counters.count.fetch_add(1, Ordering::Relaxed);
        counters.failures.fetch_add(u64::from(bytes.is_none()), Ordering::Relaxed);
        counters.bytes.fetch_add(bytes.unwrap_or_default(), Ordering::Relaxed);
        counters.microseconds.fetch_add(time, Ordering::Relaxed);
        counters.longest.fetch_max(time, Ordering::Relaxed);
    }

    /// The time since the start.
    pub(crate) fn uptime(&self) -> Duration {
        self.since.elapsed()
    }

    /// All counts, as the route returns them.
    pub(crate) fn to_json(&self) -> Value {
        let shown = Request::ALL.map(|(request, name, _)| {
            let counters = &self.requests[request as usize];
            let count = counters.count.load(Ordering::Relaxed);
            let total = counters.microseconds.load(Ordering::Relaxed);
            let value = json!({
                "Count": count,
                "Running": counters.running.load(Ordering::Relaxed),
                "Failures": counters.failures.load(Ordering::Relaxed),
                "Bytes": counters.bytes.load(Ordering::Relaxed),
                "MeanMilliseconds": milliseconds(total / count.max(1)),
                "MaxMilliseconds": milliseconds(counters.longest.load(Ordering::Relaxed)),
            });
            (name.to_owned(), value)
        });
        Value::Object(shown.into_iter().collect())
    }

    /// All counts, with their names in metrics.
    pub(super) fn values(&self) -> Vec<(String, u64)> {
        let values = Request::ALL.map(|(request, _, name)| {
            let counters = &self.requests[request as usize];
            let value =
                |kind: &str, value: &AtomicU64| (format!("{name}_{kind}"), value.load(Ordering::Relaxed));
            [
                value("requests", &counters.count),
                value("running", &counters.running),
                value("failures", &counters.failures),
                value("bytes", &counters.bytes),
                value("microseconds", &counters.microseconds),
            ]
        });
        values.into_iter().flatten().collect()
    }
}

/// In UTC, to the second: `2026-11-26T16:20:00Z`.
pub(crate) fn iso_8601(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[expect(clippy::cast_precision_loss, reason = "a rounded figure")]
pub(super) fn milliseconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_times_add_up() {
        let metrics = Metrics::default();
        metrics.count(Request::Read, Duration::from_millis(10), Some(5));
        metrics.count(Request::Read, Duration::from_millis(30), None);
        let shown = metrics.to_json();
        let expected = json!({"Count": 2, "Running": 0, "Failures": 1, "Bytes": 5, "MeanMilliseconds": 20.0, "MaxMilliseconds": 30.0});
        assert_eq!(shown["Read"], expected);
        assert_eq!(shown["Create"]["Count"], 0);
        let read: Vec<_> = metrics
            .values()
            .into_iter()
            .filter(|(name, _)| name.starts_with("read_") && !name.contains("range"))
            .collect();
        let expected = [
            ("read_requests", 2),
            ("read_running", 0),
            ("read_failures", 1),
            ("read_bytes", 5),
            ("read_microseconds", 40_000),
        ];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn last_error_of_reads_is_shown_with_its_time() {
        let metrics = Metrics::default();
        assert_eq!(metrics.last()["Read"], json!({"Success": null, "Failure": null, "Error": null}));
        metrics.failed(Request::ReadRange, "cannot read", true);
        metrics.succeeded(Request::Create);
        let last = metrics.last();
        assert_eq!((&last["Read"]["Success"], &last["Read"]["Error"]), (&json!(null), &json!("cannot read")));
        assert_eq!((&last["Create"]["Failure"], &last["Create"]["Error"]), (&json!(null), &json!(null)));
        let [store, read] = metrics.failing();
        let read = read.unwrap();
        assert_eq!((store, &*read.error, read.is_about_one), (None, "cannot read", true));
        metrics.succeeded(Request::Read);
        assert_eq!(metrics.failing(), [None, None]);
        let time = last["Create"]["Success"].as_str().unwrap();
        assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
        assert_eq!(iso_8601(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00Z");
    }

    #[tokio::test(start_paused = true)]
    async fn failed_read_passes() {
        let metrics = Metrics::default();
        metrics.failed(Request::Create, "cannot store", false);
        metrics.failed(Request::Read, "cannot read", false);
        let failing = || metrics.failing().map(|failing| failing.is_some());
        tokio::time::advance(PASSED / 2).await;
        metrics.failed(Request::ReadRange, "cannot read", false);
        tokio::time::advance(PASSED / 2).await;
        assert_eq!(failing(), [true, true], "the last one failed half of the time ago");
        tokio::time::advance(PASSED / 2).await;
        assert_eq!(failing(), [true, false]);
        assert_eq!(metrics.last()["Read"]["Error"], "cannot read");
    }

    #[test]
    fn running_requests_are_counted_until_they_end() {
        let metrics = Metrics::default();
        let running = || metrics.to_json()["Read"]["Running"].clone();
        let first = metrics.begin(Request::Read);
        let second = metrics.begin(Request::Read);
        assert_eq!(running(), 2);
        drop((first, second));
        assert_eq!(running(), 0);
    }
}
