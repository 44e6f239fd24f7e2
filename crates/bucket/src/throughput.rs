//! Decides whether one connection is too slow for a large object.
//!
//! Several connections are faster where each is limited (by the server, or by its share of a long line), and
//! slower where one already uses the whole line, since each part costs a request and a round trip. Only the
//! transfers themselves show which of the two applies, so they are timed and the faster way is taken.

use std::time::Duration;

use parking_lot::Mutex;

/// Objects of at least this size may be split, in bytes.
pub(crate) const LARGE: u64 = 16 * 1024 * 1024;
/// At or above this rate, in bytes per second, a single connection is fast enough.
const FAST: f64 = 100e6;
/// Several connections are worth their requests if they are faster than one by at least this factor.
const GAIN: f64 = 1.2;
/// Number of transfers after which a conclusion is drawn again, since network conditions change.
pub(crate) const FORGET_AFTER: u32 = 50;

/// How large objects are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferOptions {
    /// Maximum number of parts in transfer at once, at least 1.
    pub connections: usize,
    /// Size of a part of an upload, in bytes. S3 requires at least 5 MiB.
    pub part_size: u64,
    /// Whether everything that is larger than a part is uploaded in parts, and not only what one connection is too slow for.
    pub always: bool,
}

impl Default for TransferOptions {
    fn default() -> Self {
        Self { connections: 10, part_size: 5 * 1024 * 1024, always: false }
    }
}

/// The throughput measured in one direction.
#[derive(Debug, Default)]
pub(crate) struct Throughput(Mutex<Rates>);

/// Rates in bytes per second.
#[derive(Debug, Default)]
struct Rates {
    one: Option<f64>,
    several: Option<f64>,
    since_several: u32,
}

impl Throughput {
    /// Whether to split a large transfer from the start, judging by previous transfers.
    pub(crate) fn says_split(&self) -> bool {
        let one = self.0.lock().one;
        one.is_some_and(|rate| self.says_split_at(rate))
    }

    /// Whether to split a transfer whose single connection runs at `rate`.
    pub(crate) fn says_split_at(&self, rate: f64) -> bool {
        let mut rates = self.0.lock();
        if rate >= FAST {
            return false;
        }
        match rates.several {
            Some(several) if several < rate * GAIN => {
                rates.since_several += 1;
                if rates.since_several >= FORGET_AFTER {
                    rates.several = None;
                }
                false
            }
            _ => true,
        }
    }

    /// Records a transfer, or a stretch of one, on one connection.
    pub(crate) fn record_one(&self, bytes: u64, time: Duration) {
        self.0.lock().one = Some(rate(bytes, time));
    }

    /// Records a transfer on several connections.
    pub(crate) fn record_several(&self, bytes: u64, time: Duration) {
        let mut rates = self.0.lock();
        rates.several = Some(rate(bytes, time));
        rates.since_several = 0;
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate, compared with others")]
pub(crate) fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64().max(1e-6)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_a_slow_connection_leads_to_splitting() {
        let throughput = Throughput::default();
        assert!(!throughput.says_split());
        throughput.record_one(200_000_000, SECOND);
        assert!(!throughput.says_split());
        throughput.record_one(10_000_000, SECOND);
        assert!(throughput.says_split());
    }

    #[test]
    fn splitting_that_did_not_help_is_retried_later() {
        let throughput = Throughput::default();
        throughput.record_one(10_000_000, SECOND);
        throughput.record_several(11_000_000, SECOND);
        for _ in 0..FORGET_AFTER {
            assert!(!throughput.says_split());
        }
        assert!(throughput.says_split());
        throughput.record_several(40_000_000, SECOND);
        assert!(throughput.says_split(), "splitting helped");
    }
}
