//! Counts the storage area's requests since the start, for `GET /object-storage/status`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A kind of request to the storage area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Create,
    Read,
    ReadRange,
    Remove,
}

impl Request {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Create, "Create"),
        (Self::Read, "Read"),
        (Self::ReadRange, "ReadRange"),
        (Self::Remove, "Remove"),
    ];
}

/// Counts of one kind of request.
#[derive(Debug, Default)]
struct Counters {
    count: AtomicU64,
    failures: AtomicU64,
    bytes: AtomicU64,
    microseconds: AtomicU64,
    longest: AtomicU64,
}

/// Counts since the start of the plugin.
#[derive(Debug)]
pub(crate) struct Metrics {
    since: Instant,
    requests: [Counters; Request::ALL.len()],
}

impl Default for Metrics {
    fn default() -> Self {
        Self { since: Instant::now(), requests: Default::default() }
    }
}

impl Metrics {
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

    /// Seconds since the start.
    pub(crate) fn uptime(&self) -> u64 {
        self.since.elapsed().as_secs()
    }

    /// All counts, as the route returns them.
    pub(crate) fn to_json(&self) -> Value {
        let shown = Request::ALL.map(|(request, name)| {
            let counters = &self.requests[request as usize];
            let count = counters.count.load(Ordering::Relaxed);
            let total = counters.microseconds.load(Ordering::Relaxed);
            let value = json!({
                "Count": count,
                "Failures": counters.failures.load(Ordering::Relaxed),
                "Bytes": counters.bytes.load(Ordering::Relaxed),
                "MeanMilliseconds": milliseconds(total / count.max(1)),
                "MaxMilliseconds": milliseconds(counters.longest.load(Ordering::Relaxed)),
            });
            (name.to_owned(), value)
        });
        Value::Object(shown.into_iter().collect())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rounded figure")]
fn milliseconds(microseconds: u64) -> f64 {
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
        let expected =
            json!({"Count": 2, "Failures": 1, "Bytes": 5, "MeanMilliseconds": 20.0, "MaxMilliseconds": 30.0});
        assert_eq!(shown["Read"], expected);
        assert_eq!(shown["Create"]["Count"], 0);
    }
}
