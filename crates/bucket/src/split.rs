//! Splits a large download where several connections are faster than one.
//!
//! The first connection goes on up to where the ranges begin. Whether a second one brings anything is found out with the
//! last bytes of the object, so that no request is wasted if it does not.

use std::ops::{Range, RangeInclusive};
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
/// Size of the range that each further connection is tried with, in bytes; less if the memory has no room for so many. Its
/// first half does not count: connections begin slowly (TCP), or with a burst (shapers).
const TRIAL: RangeInclusive<u64> = SAMPLE..=6 * 1024 * 1024;

/// Error text for a gap between ranges.
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
    /// The bytes when its rate was last judged.
    judged: u64,
    /// The [changes](Transfer::changes) before.
    changes: u64,
}

impl First {
    fn new(transfer: &Transfer) -> Self {
        Self {
            begun: Instant::now(),
            waited: Duration::ZERO,
            bytes: 0,
            judged: 0,
            changes: transfer.changes(),
        }
    }
}

/// Further connections that are being tried.
#[derive(Debug)]
struct Trial {
    /// Their number.
    connections: usize,
    /// The size of their ranges, in bytes.
    size: u64,
    /// The [changes](Transfer::changes) before.
    changes: u64,
    state: TrialState,
}

#[derive(Debug, Clone, Copy)]
enum TrialState {
    Waiting,
    /// Since all of them have sent half of their bytes.
    Running(Mark),
    /// The rates of the first connection and of each other one until then. The first one is sampled again alone.
    Ended(Mark, [f64; 2]),
}

/// Time that the reader may take in any case: bytes can arrive within milliseconds, and be noticed together.
const MOMENT: Duration = Duration::from_millis(5);

/// What had arrived at a moment of a trial.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    /// Time that the first connection's reader spent waiting for the network.
    waited: Duration,
    /// Over the first connection, and over the others.
    bytes: u64,
    others: u64,
}

impl Mark {
    /// Whether the network took most of the time since `before`. Otherwise, the reader did, and bytes were buffered.
    fn is_steady(&self, before: &Self) -> bool {
        self.waited - before.waited + MOMENT >= (self.at - before.at) / 2
    }
}

impl Splitting {
    pub(crate) fn new(
        transfer: Transfer,
        most: usize,
        source: Source,
        range: Range<u64>,
        latency: Duration,
    ) -> Self {
        let first = First::new(&transfer);
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
            Some(_) if self.trial.is_some() => {
                self.judge(next, body_end);
                if self.trial.is_none() { self.split(next, body_end) } else { body_end }
            }
            Some(_) => self.split(next, body_end),
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
        if self.transfer.must_try() {
            if self.first.bytes >= self.first.judged + SAMPLE && self.judge_first() {
                return self.try_more(next, body_end, attempts);
            }
            return body_end;
        }
        self.split(next, body_end)
    }

    /// Lets the first connection go on up to where ranges begin, if several connections are faster. Otherwise, returns
    /// `body_end`.
    fn split(&mut self, next: u64, body_end: u64) -> u64 {
        let left = body_end.saturating_sub(next);
        let is_split = self.ranges.as_ref().is_some_and(|ranges| !ranges.waiting().is_empty());
        let connections = self.transfer.connections();
        if is_split || connections < 2 || left < LARGE / 2 {
            return body_end;
        }
        let split = next + self.size(connections, left);
        self.ranges(|ranges| ranges.wait(split..body_end));
        split
    }

    /// Whether the first connection is so slow that further ones are worth a try.
    fn judge_first(&mut self) -> bool {
        let now = Instant::now();
        let First { begun, waited, bytes, changes, .. } = self.first;
        if changes != self.transfer.changes() {
            self.first = First::new(&self.transfer);
            return false;
        }
        // All bytes so far: a fast connection has slow moments.
        self.first.judged = bytes;
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

    fn try_more(&mut self, next: u64, body_end: u64, attempts: &Attempts) -> u64 {
        let all = self.transfer.connections();
        let connections = all.saturating_sub(1);
        // The first connection goes on during the trial, and for a sample after it.
        let each = (self.range.end - next) / 3;
        let size = each.clamp(*TRIAL.start(), *TRIAL.end()).min(MEMORY / 2 / connections.max(1) as u64);
        let begin = self.range.end.saturating_sub(size * connections as u64);
        // Another transfer may have begun, and uses a connection.
        if connections == 0 || begin.saturating_sub(next) < SAMPLE {
            return body_end;
        }
        self.ranges(|ranges| {
            for index in 0..connections as u64 {
                let start = begin + index * size;
                ranges.start(start..start + size, all, attempts);
            }
        });
        let changes = self.first.changes;
        self.trial = Some(Trial { connections, size, changes, state: TrialState::Waiting });
        begin
    }

    /// Compares the connections of a trial with the first one alone, which reads up to `body_end`. A trial ends there.
    fn judge(&mut self, next: u64, body_end: u64) {
        let (Some(ranges), Some(trial)) = (&self.ranges, &mut self.trial) else { return };
        let now = Instant::now();
        let is_last = next >= body_end;
        let First { bytes, waited, .. } = self.first;
        let here = Mark { at: now, waited, bytes, others: ranges.received() };
        if trial.changes != self.transfer.changes() {
            return self.end_trial(Transfer::postpone);
        }
        match trial.state {
            TrialState::Waiting if is_last => self.end_trial(Transfer::postpone),
            TrialState::Waiting if ranges.have(trial.size / 2) => trial.state = TrialState::Running(here),
            TrialState::Running(since) if ranges.running() < trial.connections || is_last => {
                let time = here.at - since.at;
                let received = (here.others - since.others) / trial.connections as u64;
                if !here.is_steady(&since) || received < trial.size / 4 {
                    return self.end_trial(Transfer::postpone);
                }
                let rates = [here.bytes - since.bytes, received].map(|bytes| rate(bytes, time));
                trial.state = TrialState::Ended(here, rates);
                if is_last {
                    self.judge(next, body_end);
                }
            }
            TrialState::Ended(since, [own, other]) if here.bytes - since.bytes >= trial.size || is_last => {
                let connections = trial.connections;
                if !here.is_steady(&since) {
                    return self.end_trial(Transfer::postpone);
                }
                let bytes = here.bytes - since.bytes;
                // As the rates of the trial, with the reader's own time: otherwise, one connection alone would look faster.
                let alone = rate(bytes, here.at - since.at);
                let is_sample = bytes >= trial.size / 4;
                if is_sample && is_fast(alone) {
                    return self.end_trial(Transfer::give_up);
                }
                self.end_trial(|transfer, now| {
                    if is_sample {
                        transfer.correct_first(alone);
                    }
                    transfer.record(connections + 1, own, now);
                    (0..connections).for_each(|_| transfer.record(connections + 1, other, now));
                });
            }
            TrialState::Waiting | TrialState::Running(_) | TrialState::Ended(..) => {}
        }
    }

    fn end_trial(&mut self, note: impl FnOnce(&Transfer, Instant)) {
        self.trial = None;
        note(&self.transfer, Instant::now());
    }

    /// The size of ranges, which is the same for all numbers of connections while the best one is searched.
    fn size(&self, connections: usize, left: u64) -> u64 {
        size(if self.transfer.is_searching() { self.most } else { connections }, left)
    }

    fn ranges(&mut self, change: impl FnOnce(&mut Ranges)) {
        let source = &mut self.source;
        if self.ranges.is_none() {
            self.ranges = source.take().map(Ranges::new);
        }
        if let Some(ranges) = &mut self.ranges {
            change(ranges);
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
