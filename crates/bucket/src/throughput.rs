//! When one connection is too slow for a large object.
//!
//! Several connections are faster where each is held back (by the server, or by its share of a long line), and slower
//! where one already uses all there is: a part costs a request and a round trip. Which of the two it is shows only in
//! the transfers themselves, so they are timed, and the faster way is taken.

use std::time::Duration;

use parking_lot::Mutex;

/// Objects from this size on may be split, in bytes.
pub(crate) const LARGE: u64 = 16 * 1024 * 1024;
/// One connection that carries so many bytes a second is not in the way.
const FAST: f64 = 100e6;
/// Several connections have to be so much faster than one to be worth their requests.
const GAIN: f64 = 1.2;
/// After so many transfers on one connection, what was learnt of several is tried anew: lines change.
const FORGET_AFTER: u32 = 50;

/// How large objects are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferOptions {
    /// Parts in transfer at once. At least 1.
    pub connections: usize,
    /// Size of a part of an upload, in bytes. S3 wants 5 MiB at least.
    pub part_size: u64,
}

impl Default for TransferOptions {
    fn default() -> Self {
        Self { connections: 10, part_size: 5 * 1024 * 1024 }
    }
}

/// What was learnt from transfers in one direction.
#[derive(Debug, Default)]
pub(crate) struct Experience(Mutex<Rates>);

/// In bytes a second.
#[derive(Debug, Default)]
struct Rates {
    one: Option<f64>,
    several: Option<f64>,
    since_several: u32,
}

impl Experience {
    /// Whether a large transfer should be split from the start, as far as is known.
    pub(crate) fn says_split(&self) -> bool {
        let one = self.0.lock().one;
        one.is_some_and(|rate| self.says_split_at(rate))
    }

    /// Whether a transfer should be split whose one connection runs at `rate`.
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

    /// Learns from a transfer, or a part of one, on one connection.
    pub(crate) fn one(&self, bytes: u64, time: Duration) {
        self.0.lock().one = Some(rate(bytes, time));
    }

    /// Learns from a transfer on several connections.
    pub(crate) fn several(&self, bytes: u64, time: Duration) {
        let mut rates = self.0.lock();
        rates.several = Some(rate(bytes, time));
        rates.since_several = 0;
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate to compare with others")]
pub(crate) fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64().max(1e-6)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn nothing_is_split_before_one_connection_was_seen_to_be_slow() {
        let experience = Experience::default();
        assert!(!experience.says_split());
        experience.one(200_000_000, SECOND);
        assert!(!experience.says_split());
        experience.one(10_000_000, SECOND);
        assert!(experience.says_split());
    }

    #[test]
    fn what_did_not_help_is_left_alone_and_tried_anew_later() {
        let experience = Experience::default();
        experience.one(10_000_000, SECOND);
        experience.several(11_000_000, SECOND);
        for _ in 0..FORGET_AFTER {
            assert!(!experience.says_split());
        }
        assert!(experience.says_split());
        experience.several(40_000_000, SECOND);
        assert!(experience.says_split(), "it helped");
    }
}
