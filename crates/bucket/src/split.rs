//! Splits a large download where several connections are faster than one.
//!
//! The first connection goes on up to where the ranges begin. Whether a second one brings anything is found out with the
//! last bytes of the object, so that nothing was read for nothing if it does not.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::climb::{is_fast, pays, rate};
use crate::error::{Cause, StorageError};
use crate::ranges::{Arrival, MEMORY, Ranges, Source, size};
use crate::retry::Attempts;
use crate::throughput::{LARGE, Transfer};

/// Bytes to sample before judging a connection slow.
const SAMPLE: u64 = 4 * 1024 * 1024;
/// Size of the range that a second connection is tried with, in bytes.
const TRIAL: u64 = 3 * 1024 * 1024;

/// Why a download fails whose ranges do not follow each other.
const GAP: &str = "the ranges do not add up to the whole";

/// The splitting of one download.
pub(crate) struct Splitting {
    transfer: Transfer,
    most: usize,
    range: Range<u64>,
    latency: Duration,
    /// What the first connection carried.
    first: First,
    trial: Option<Trial>,
    source: Option<Source>,
    ranges: Option<Ranges>,
}

/// What follows the bytes of the first connection.
pub(crate) enum Next {
    Bytes(Bytes),
    /// One connection goes on, up to this position.
    Alone(u64),
}

/// The first connection of a download.
#[derive(Debug)]
struct First {
    begun: Instant,
    /// Time spent waiting for the network, excluding the reader.
    waited: Duration,
    bytes: u64,
}

/// A second connection that is being tried.
#[derive(Debug)]
enum Trial {
    Waiting,
    /// Since its first bytes.
    Running {
        since: Instant,
        first: u64,
        second: u64,
    },
    /// The rates of both connections, and what the first one had carried at the end. It is sampled again alone.
    Ended {
        rates: [f64; 2],
        first: u64,
        waited: Duration,
    },
}

impl Splitting {
    pub(crate) fn new(
        transfer: Transfer,
        most: usize,
        source: Source,
        range: Range<u64>,
        latency: Duration,
    ) -> Self {
        let first = First { begun: Instant::now(), waited: Duration::ZERO, bytes: 0 };
        let source = Some(source);
        Self { transfer, most, range, latency, first, trial: None, source, ranges: None }
    }

    /// Counts bytes of the first connection.
    pub(crate) fn count(&mut self, waited: Duration, bytes: usize) {
        self.first.waited += waited;
        self.first.bytes += bytes as u64;
    }

    /// Asks for ranges as far as they are worth it. `next` is the position of the reader, and `body_end` that of the first
    /// connection's last byte. Returns that position, which may be another one now.
    pub(crate) fn steer(
        &mut self,
        next: u64,
        body_end: u64,
        attempts: &Attempts,
    ) -> Result<u64, StorageError> {
        let arrivals = self.ranges.as_mut().map_or(Ok(Vec::new()), Ranges::events)?;
        arrivals.into_iter().for_each(|arrival| self.note(arrival));
        let end = match &self.ranges {
            None => self.begin(next, body_end, attempts),
            Some(_) if self.trial.is_some() => self.judge(next, body_end),
            Some(_) => body_end,
        };
        if next < end {
            self.fill(next, end, attempts);
        }
        Ok(end)
    }

    /// Records how a range arrived.
    pub(crate) fn note(&mut self, arrival: Arrival) {
        self.latency = self.latency.min(arrival.latency);
        // Towards the end, there are fewer connections than before.
        let is_full = self.ranges.as_ref().is_some_and(|ranges| !ranges.waiting().is_empty());
        if let Some(rate) = arrival.rate.filter(|_| is_full && self.trial.is_none()) {
            self.transfer.record(arrival.connections, rate, Instant::now());
        }
    }

    fn begin(&mut self, next: u64, body_end: u64, attempts: &Attempts) -> u64 {
        if self.range.end - next < LARGE / 2 {
            return body_end;
        }
        let is_searching = self.transfer.is_searching();
        if is_searching && self.transfer.connections() <= 2 {
            if self.first.bytes >= SAMPLE && self.judge_first() {
                return self.try_second(attempts);
            }
            return body_end;
        }
        let connections = self.transfer.connections();
        if connections < 2 {
            return body_end;
        }
        let body_end = next + self.size(connections, self.range.end - next);
        self.ranges(|ranges, end| ranges.wait(body_end..end));
        body_end
    }

    /// Whether the first connection is so slow that a second one is worth a try.
    fn judge_first(&mut self) -> bool {
        let First { begun, waited, bytes } = self.first;
        let now = Instant::now();
        self.first = First { begun: now, waited: Duration::ZERO, bytes: 0 };
        // Otherwise, the reader is what takes the time.
        if waited < now.duration_since(begun) / 2 {
            return false;
        }
        let rate = rate(bytes, waited);
        self.transfer.record(1, rate, now);
        if self.transfer.connections() < 2 || is_fast(rate) {
            return false;
        }
        let pays = pays(self.most, rate, self.latency, MEMORY);
        if !pays {
            self.transfer.give_up(now);
        }
        pays
    }

    fn try_second(&mut self, attempts: &Attempts) -> u64 {
        let body_end = self.range.end - TRIAL;
        self.ranges(|ranges, end| ranges.start(body_end..end, 2, attempts));
        self.trial = Some(Trial::Waiting);
        body_end
    }

    /// Compares the two connections of a trial with the first one alone. Continues with several if that is worth it.
    fn judge(&mut self, next: u64, body_end: u64) -> u64 {
        let (Some(ranges), Some(trial)) = (&mut self.ranges, &self.trial) else { return body_end };
        let now = Instant::now();
        match *trial {
            Trial::Waiting if ranges.received() > 0 => {
                let second = ranges.received();
                self.trial = Some(Trial::Running { since: now, first: self.first.bytes, second });
                return body_end;
            }
            Trial::Running { since, first, second } if ranges.running() == 0 => {
                let time = now.duration_since(since);
                let rates = [self.first.bytes - first, ranges.received() - second].map(|it| rate(it, time));
                let First { bytes, waited, .. } = self.first;
                self.trial = Some(Trial::Ended { rates, first: bytes, waited });
                return body_end;
            }
            Trial::Ended { rates, first, waited } if self.first.bytes - first >= SAMPLE => {
                let alone = rate(self.first.bytes - first, self.first.waited - waited);
                self.transfer.correct_one(alone);
                rates.iter().for_each(|rate| self.transfer.record(2, *rate, now));
                self.trial = None;
            }
            Trial::Waiting | Trial::Running { .. } | Trial::Ended { .. } => return body_end,
        }
        let connections = self.transfer.connections();
        if connections < 2 || body_end.saturating_sub(next) < LARGE / 2 {
            return body_end;
        }
        let split = next + self.size(connections, body_end - next);
        self.ranges(|ranges, _| ranges.wait(split..body_end));
        split
    }

    /// The size of ranges, which is the same for all numbers of connections while the best one is searched.
    fn size(&self, connections: usize, left: u64) -> u64 {
        size(if self.transfer.is_searching() { self.most } else { connections }, left)
    }

    fn ranges(&mut self, change: impl FnOnce(&mut Ranges, u64)) {
        let source = &mut self.source;
        if self.ranges.is_none() {
            self.ranges = source.take().map(Ranges::new);
        }
        if let Some(ranges) = &mut self.ranges {
            change(ranges, self.range.end);
        }
    }

    fn fill(&mut self, next: u64, body_end: u64, attempts: &Attempts) {
        let connections = self.transfer.connections();
        let size = self.size(connections, self.range.end - next);
        if let Some(ranges) = &mut self.ranges {
            let others = if next < body_end { connections - 1 } else { connections };
            ranges.fill(others, connections, size, attempts);
            self.transfer.note_use(ranges.running() + usize::from(next < body_end));
        }
    }

    /// Waits for the bytes at `next`, which is not below the first connection's last byte.
    pub(crate) async fn next(&mut self, next: u64, attempts: &Attempts) -> Result<Next, StorageError> {
        loop {
            if let Some(bytes) = self.ranges.as_mut().and_then(|ranges| ranges.take(next)) {
                return Ok(Next::Bytes(bytes));
            }
            if let Some(end) = self.rejoin(next) {
                return Ok(Next::Alone(end));
            }
            self.fill(next, next, attempts);
            let arrival = match &mut self.ranges {
                Some(ranges) if ranges.has(next) => ranges.event(attempts).await?,
                _ => return Err(attempts.error(Cause::Damaged(GAP.to_owned()), false)),
            };
            if let Some(arrival) = arrival {
                self.note(arrival);
            }
        }
    }

    /// The end of the bytes to go on with over one connection, if more do not pay any more.
    fn rejoin(&mut self, next: u64) -> Option<u64> {
        let connections = self.transfer.connections();
        let ranges = self.ranges.as_mut()?;
        let waiting = ranges.waiting();
        if waiting.start != next || waiting.is_empty() || connections > 1 {
            return None;
        }
        Some(ranges.take_waiting().end)
    }

    /// Records the end of the download.
    pub(crate) fn finish(&self) {
        self.transfer.finish(self.range.end - self.range.start, Instant::now());
    }
}
