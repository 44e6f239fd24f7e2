//! Searches for the best number of connections.
//!
//! Two connections carry twice as much where each is limited (by the server, or by its share of a long line), and no
//! more than one where the server or the line is the bottleneck. So the number is doubled while the sum of what the
//! connections carry rises by a worthwhile part of what the further ones should bring. After that, the numbers between
//! the last one that was worth it and the first one that was not are tried.

use std::time::Duration;

/// At or above this rate, in bytes per second, a single connection is fast enough.
const FAST: f64 = 100e6;
/// Further connections are worth it if they bring this part of what they would without a common bottleneck.
const WORTH: f64 = 0.4;
/// A transfer is split if it would take less time by at least this factor.
pub(crate) const GAIN: f64 = 1.2;

/// The search for the best number of connections. Rates are in bytes per second.
#[derive(Debug, Clone)]
pub(crate) struct Climb {
    most: usize,
    /// The number in use.
    trying: usize,
    /// The numbers that were worth it so far, in ascending order, and what these connections carry together. The first one
    /// is where the search began.
    good: Vec<(usize, f64)>,
    /// The smallest number that was not worth it.
    bad: Option<usize>,
    /// The connections measured so far with the number in use.
    sum: f64,
    measured: usize,
    /// Whether the first number needs no splitting. Then, a smaller gain than that of twice the number is not worth it.
    is_unsplit: bool,
}

impl Climb {
    /// Begins with `first` connections, and tries up to `most`.
    pub(crate) fn new(first: usize, most: usize) -> Self {
        let trying = first.clamp(1, most.max(1));
        Self { most, trying, good: Vec::new(), bad: None, sum: 0.0, measured: 0, is_unsplit: false }
    }

    /// Begins with one connection for each of some `transfers`, and tries up to `most`.
    pub(crate) fn unsplit(transfers: usize, most: usize) -> Self {
        Self { is_unsplit: true, ..Self::new(transfers, most) }
    }

    /// The number of connections to use now.
    pub(crate) fn connections(&self) -> usize {
        self.trying
    }

    /// The best number of connections so far, and what they carry together.
    pub(crate) fn best(&self) -> Option<(usize, f64)> {
        self.good.last().copied()
    }

    /// The number that the search began with, unless a larger one was worth it.
    pub(crate) fn only(&self) -> Option<usize> {
        match self.good[..] {
            [] => Some(self.trying),
            [(first, _)] => Some(first),
            _ => None,
        }
    }

    /// Whether there is nothing left to try.
    pub(crate) fn is_done(&self) -> bool {
        self.best().is_some_and(|(good, _)| good == self.trying)
    }

    /// Forgets what was measured with the number in use, since something else changed.
    pub(crate) fn disturb(&mut self) {
        self.sum = 0.0;
        self.measured = 0;
    }

    /// Records the rate of a connection with the first number of connections again. The new one counts: by then, the
    /// connections are past a slow start or a burst.
    pub(crate) fn correct_first(&mut self, rate: f64) {
        if let [(first, flow)] = &mut self.good[..] {
            *flow = rate * float(*first);
        }
    }

    /// Records the rate of one connection while `connections` were in use.
    pub(crate) fn record(&mut self, connections: usize, rate: f64) {
        if connections != self.trying || self.is_done() {
            return;
        }
        // Other connections cannot make this one faster; a higher rate means that bytes were buffered.
        let most = self.best().map_or(f64::INFINITY, |(good, flow)| flow / float(good));
        self.sum += rate.min(most);
        self.measured += 1;
        if self.measured < connections / 2 + 1 {
            return;
        }
        let flow = self.sum / float(self.measured) * float(connections);
        self.disturb();
        self.judge(connections, flow);
    }

    fn judge(&mut self, connections: usize, flow: f64) {
        if self.best().is_none_or(|good| is_worth(good, connections, flow)) {
            self.good.push((connections, flow));
        } else {
            self.bad = Some(connections);
            // More connections carry at least as much as fewer. If they did not, the fewer were measured in a lucky moment.
            while let [.., before, (good, lucky)] = self.good[..]
                && !is_worth(before, good, lucky.min(flow))
            {
                self.bad = Some(good);
                self.good.pop();
            }
        }
        let good = self.best().map_or(1, |(good, _)| good);
        self.trying = match self.bad {
            None => (2 * good).min(self.most.max(good)),
            Some(_) if self.is_unsplit && self.good.len() == 1 => good,
            Some(bad) => usize::midpoint(good, bad),
        };
    }
}

/// Whether `connections` that carry `flow` are worth it, compared with fewer.
fn is_worth((fewer, before): (usize, f64), connections: usize, flow: f64) -> bool {
    flow >= before * (1.0 + WORTH * (float(connections) / float(fewer) - 1.0))
}

/// Whether parts of `memory` bytes in total, over `connections` that carry `rate` each, are faster than one connection.
/// Each part waits for the `latency` first.
pub(crate) fn pays(connections: usize, rate: f64, latency: Duration, memory: u64) -> bool {
    let bytes = float_bytes(memory);
    let time = bytes / (float(connections) * rate) + latency.as_secs_f64();
    bytes / time >= GAIN * rate
}

/// Whether a connection with this rate is fast enough alone.
pub(crate) fn is_fast(rate: f64) -> bool {
    rate >= FAST
}

/// The time of a request without the time until the server answers, which is at most a half.
pub(crate) fn without_latency(time: Duration, latency: Duration) -> Duration {
    time - latency.min(time / 2)
}

/// In bytes per second.
pub(crate) fn rate(bytes: u64, time: Duration) -> f64 {
    float_bytes(bytes) / time.as_secs_f64().max(1e-6)
}

#[expect(clippy::cast_precision_loss, reason = "a number of connections")]
pub(crate) fn float(connections: usize) -> f64 {
    connections as f64
}

#[expect(clippy::cast_precision_loss, reason = "a rate, compared with others")]
fn float_bytes(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: f64 = 1e6;

    /// A line whose connections carry `each`, and `all` together.
    fn rate_of(connections: usize, each: f64, all: f64) -> f64 {
        each.min(all / float(connections))
    }

    /// The numbers that a search tries on such a line, and the best one.
    fn climb(mut climb: Climb, each: f64, all: f64) -> (Vec<usize>, usize) {
        let mut tried = vec![climb.connections()];
        for _ in 0..100 {
            let connections = climb.connections();
            climb.record(connections, rate_of(connections, each, all));
            if climb.is_done() {
                break;
            }
            if tried.last() != Some(&climb.connections()) {
                tried.push(climb.connections());
            }
        }
        (tried, climb.best().map_or(1, |(best, _)| best))
    }

    #[test]
    fn busy_server_is_asked_for_one_further_part() {
        let (tried, best) = climb(Climb::new(1, 10), 60.0 * MB, 60.0 * MB);
        assert_eq!((tried, best), (vec![1, 2], 1));
    }

    #[test]
    fn slow_connections_are_all_used() {
        let (tried, best) = climb(Climb::new(1, 10), 20.0 * MB, 10_000.0 * MB);
        assert_eq!((tried, best), (vec![1, 2, 4, 8, 10], 10));
        assert_eq!(climb(Climb::new(1, 3), 20.0 * MB, 10_000.0 * MB).1, 3);
    }

    #[test]
    fn line_of_several_connections_is_filled() {
        for (full, tried, best) in
            [(3.0, vec![1, 2, 4, 8, 6, 5], 4), (5.0, vec![1, 2, 4, 8, 6, 7], 6), (2.0, vec![1, 2, 4, 3], 2)]
        {
            assert_eq!(climb(Climb::new(1, 10), 20.0 * MB, full * 20.0 * MB), (tried, best), "{full}");
        }
    }

    #[test]
    fn known_number_is_confirmed_or_reduced() {
        assert_eq!(climb(Climb::new(5, 10), 20.0 * MB, 10_000.0 * MB), (vec![5, 10], 10));
        assert_eq!(climb(Climb::new(5, 10), 20.0 * MB, 20.0 * MB), (vec![5, 10, 7, 6], 5));
    }

    #[test]
    fn further_connections_of_several_transfers_must_be_worth_it() {
        assert_eq!(climb(Climb::unsplit(2, 10), 20.0 * MB, 10_000.0 * MB), (vec![2, 4, 8, 10], 10));
        assert_eq!(climb(Climb::unsplit(2, 10), 20.0 * MB, 40.0 * MB), (vec![2, 4], 2));
    }

    #[test]
    fn bytes_that_waited_in_a_buffer_do_not_count() {
        let mut climb = Climb::new(1, 10);
        climb.record(1, 50.0 * MB);
        climb.record(2, 1.0 * MB);
        climb.record(2, 4000.0 * MB);
        assert!(climb.is_done());
        assert_eq!(climb.best(), Some((1, 50.0 * MB)));
    }

    #[test]
    fn slow_moment_of_the_first_connection_does_not_count() {
        let mut climb = Climb::new(1, 10);
        climb.record(1, 20.0 * MB);
        climb.correct_first(50.0 * MB);
        climb.record(2, 25.0 * MB);
        climb.record(2, 25.0 * MB);
        assert_eq!((climb.is_done(), climb.best()), (true, Some((1, 50.0 * MB))));
    }

    #[test]
    fn lucky_moment_of_two_connections_does_not_count() {
        let mut climb = Climb::new(1, 10);
        climb.record(1, 50.0 * MB);
        (0..2).for_each(|_| climb.record(2, 45.0 * MB));
        assert_eq!((climb.best(), climb.connections()), (Some((2, 90.0 * MB)), 4));
        (0..3).for_each(|_| climb.record(4, 13.0 * MB));
        assert_eq!((climb.is_done(), climb.best()), (true, Some((1, 50.0 * MB))));
    }

    #[test]
    fn parts_of_an_earlier_number_do_not_count() {
        let mut climb = Climb::new(1, 10);
        climb.record(1, 20.0 * MB);
        climb.record(1, 1.0 * MB);
        climb.record(2, 20.0 * MB);
        climb.disturb();
        climb.record(2, 20.0 * MB);
        assert_eq!(climb.connections(), 2);
        climb.record(2, 20.0 * MB);
        assert_eq!(climb.connections(), 4);
    }

    #[test]
    fn long_latency_may_take_what_connections_bring() {
        let memory = 20_000_000;
        assert!(pays(10, 80.0 * MB, Duration::from_millis(20), memory));
        assert!(!pays(10, 80.0 * MB, Duration::from_millis(250), memory));
        assert!(pays(10, 20.0 * MB, Duration::from_millis(250), memory));
    }
}
