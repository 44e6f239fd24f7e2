//! What is known of the line in one direction, and the transfers of large objects that share it.
//!
//! One transfer at a time searches for the best number of connections ([`Climb`]), while it has the line to itself.
//! What it finds holds for later ones, and is checked again after a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::climb::{Climb, GAIN, rate};

/// Objects of at least this size may be split, in bytes.
pub(crate) const LARGE: u64 = 16 * 1024 * 1024;
/// Size of the smallest upload whose rate counts, in bytes.
pub(crate) const SMALLEST_SAMPLE: u64 = 4 * 1024 * 1024;
/// Number of uploads in parts after which larger requests are tried again.
pub(crate) const FORGET_AFTER: u32 = 50;
/// Time after which the best number of connections is checked again. It doubles with each confirmation.
const FIRST_CHECK: Duration = Duration::from_secs(20);
/// A check may take as long as a transfer, so it is postponed by this number of transfers.
const TRANSFERS: u32 = 16;
/// Maximum time between two checks.
const LAST_CHECK: Duration = Duration::from_secs(600);

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

/// One direction of the line to a bucket.
#[derive(Debug, Default)]
pub(crate) struct Line(Mutex<State>);

#[derive(Debug)]
struct State {
    /// The best number of connections for all transfers together.
    best: usize,
    /// What one connection carries, in bytes per second.
    one: Option<f64>,
    /// The time until the server answers.
    latency: Option<Duration>,
    /// The transfers in progress, and those begun.
    active: usize,
    begun: u64,
    /// The connections that they use.
    used: usize,
    /// The number of the transfer that searches.
    searching: Option<u64>,
    /// An unfinished search, and when it began.
    climb: Option<(Climb, Instant)>,
    /// When and how the last search ended.
    checked: Option<Instant>,
    check_after: Duration,
}

impl Default for State {
    fn default() -> Self {
        Self {
            best: 1,
            one: None,
            latency: None,
            active: 0,
            begun: 0,
            used: 0,
            searching: None,
            climb: None,
            checked: None,
            check_after: FIRST_CHECK,
        }
    }
}

impl State {
    /// Ends a search after a transfer that took `time`, or notes what contradicts it.
    fn conclude(&mut self, best: usize, before: usize, time: Duration, now: Instant) {
        let check_after = if best == before { (self.check_after * 2).min(LAST_CHECK) } else { FIRST_CHECK };
        self.check_after = check_after.max(time * TRANSFERS).min(LAST_CHECK);
        self.best = best;
        self.checked = Some(now);
        self.climb = None;
        self.searching = None;
    }
}

impl Line {
    /// Begins a transfer over at most `most` connections. `now` is the time of its first byte.
    pub(crate) fn begin(self: &Arc<Self>, most: usize, now: Instant) -> Transfer {
        let mut state = self.0.lock();
        state.active += 1;
        state.begun += 1;
        let number = state.begun;
        let is_due = state.checked.is_none_or(|checked| now.duration_since(checked) >= state.check_after);
        let best = state.best;
        state.climb.take_if(|(_, begun)| now.duration_since(*begun) >= LAST_CHECK);
        if state.active == 1 && most > 1 && (state.climb.is_some() || is_due) {
            state.searching = Some(number);
            let (climb, _) = state.climb.get_or_insert_with(|| (Climb::new(best.div_ceil(2), most), now));
            climb.disturb();
        }
        let first = match &state.climb {
            // A search over two connections may begin with one.
            Some((climb, _)) if state.searching == Some(number) => climb.connections() - 1,
            _ => best,
        };
        let begins_split = first > 1 && state.active == 1;
        let used = AtomicUsize::new(1);
        state.used += 1;
        Transfer { line: Arc::clone(self), number, most, before: best, used, begins_split, begun: now }
    }

    /// Records the time until the server answered. A single late answer counts little.
    pub(crate) fn note_latency(&self, latency: Duration) {
        let mut state = self.0.lock();
        state.latency = Some(state.latency.map_or(latency, |last| latency.min(last * 2)));
    }

    /// The time until the server answers.
    pub(crate) fn latency(&self) -> Duration {
        self.0.lock().latency.unwrap_or_default()
    }
}

/// A transfer of a large object.
#[derive(Debug)]
pub(crate) struct Transfer {
    line: Arc<Line>,
    number: u64,
    most: usize,
    /// The best number of connections before this transfer.
    before: usize,
    /// The number of connections that this transfer uses.
    used: AtomicUsize,
    /// Whether this transfer begins with several connections.
    begins_split: bool,
    begun: Instant,
}

impl Transfer {
    /// The number of connections that this transfer should use now: those of the line are shared.
    pub(crate) fn connections(&self) -> usize {
        let state = self.line.0.lock();
        let others = state.used - self.used.load(Ordering::Relaxed);
        let share = (state.best / state.active.max(1)).min(state.best.saturating_sub(others));
        match &state.climb {
            Some((climb, _)) if self.searches(&state) => climb.connections(),
            _ => share.clamp(1, self.most.max(1)),
        }
    }

    /// Notes how many connections this transfer uses now.
    pub(crate) fn note_use(&self, connections: usize) {
        let mut state = self.line.0.lock();
        let before = self.used.swap(connections, Ordering::Relaxed);
        state.used = state.used - before + connections;
    }

    /// The share of this transfer if `connections` are used for all.
    pub(crate) fn share_of(&self, connections: usize) -> usize {
        connections.div_ceil(self.line.0.lock().active.max(1))
    }

    /// Whether this transfer searches for the best number of connections.
    pub(crate) fn is_searching(&self) -> bool {
        self.searches(&self.line.0.lock())
    }

    /// Whether this transfer is alone on the line, and searches.
    fn searches(&self, state: &State) -> bool {
        state.searching == Some(self.number) && state.begun == self.number
    }

    /// Records the rate of one connection, in bytes per second, while this transfer used `connections`.
    pub(crate) fn record(&self, connections: usize, rate: f64, now: Instant) {
        let mut state = self.line.0.lock();
        if !self.searches(&state) {
            return;
        }
        let Some((climb, _)) = &mut state.climb else { return };
        climb.record(connections, rate);
        let best = climb.best();
        let is_done = climb.is_done();
        if let Some((best, flow)) = best {
            state.best = best;
            if best == 1 {
                state.one = Some(flow);
            }
        }
        if is_done {
            let best = state.best;
            state.conclude(best, self.before, now.duration_since(self.begun), now);
            tracing::debug!("the best number of connections is {best}");
        }
    }

    /// Records the rate of the first connection after a second one was tried. A slow moment before that does not count.
    pub(crate) fn correct_one(&self, rate: f64) {
        let mut state = self.line.0.lock();
        if self.searches(&state)
            && let Some((climb, _)) = &mut state.climb
        {
            climb.correct_one(rate);
        }
    }

    /// Ends the search with the best number of connections so far.
    pub(crate) fn give_up(&self, now: Instant) {
        let mut state = self.line.0.lock();
        if self.searches(&state) {
            let best = state.best;
            state.conclude(best, self.before, now.duration_since(self.begun), now);
        }
    }

    /// Records the end of a transfer of `bytes`. If it was not faster than with one connection, later ones use one.
    pub(crate) fn finish(&self, bytes: u64, now: Instant) {
        let mut state = self.line.0.lock();
        if !self.begins_split || state.begun != self.number {
            return;
        }
        let time = now.duration_since(self.begun);
        let reached = rate(bytes, time);
        if state.one.is_some_and(|one| reached < one * GAIN) {
            state.conclude(1, 1, time, now);
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let mut state = self.line.0.lock();
        state.active -= 1;
        state.used -= self.used.load(Ordering::Relaxed);
        if state.searching == Some(self.number) {
            state.searching = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: f64 = 1e6;

    fn line() -> (Arc<Line>, Instant) {
        (Arc::default(), Instant::now())
    }

    /// Lets a transfer search on a line whose connections carry `each`, and `all` together. Returns the best number.
    fn search(line: &Arc<Line>, each: f64, all: f64, now: Instant) -> usize {
        let transfer = line.begin(10, now);
        for _ in 0..100 {
            let connections = transfer.connections();
            #[expect(clippy::cast_precision_loss, reason = "at most 10")]
            transfer.record(connections, each.min(all / connections as f64), now);
        }
        drop(transfer);
        line.0.lock().best
    }

    #[test]
    fn what_was_found_holds_for_a_while() {
        let (line, start) = line();
        assert_eq!(search(&line, 60.0 * MB, 60.0 * MB, start), 1);
        let transfer = line.begin(10, start + FIRST_CHECK - Duration::from_secs(1));
        assert_eq!((transfer.connections(), transfer.is_searching()), (1, false));
        drop(transfer);
        // A faster server is found at the next check, which is postponed if nothing has changed.
        let next = start + FIRST_CHECK * 2;
        assert_eq!(search(&line, 60.0 * MB, 60.0 * MB, next), 1);
        let transfer = line.begin(10, next + FIRST_CHECK);
        assert!(!transfer.is_searching());
        drop(transfer);
        let later = next + FIRST_CHECK * 4;
        assert_eq!(search(&line, 20.0 * MB, 10_000.0 * MB, later), 10);
        assert_eq!(line.begin(10, later).connections(), 10);
    }

    #[test]
    fn checks_never_become_rare() {
        let (line, mut now) = line();
        for _ in 0..100 {
            search(&line, 60.0 * MB, 60.0 * MB, now);
            now += LAST_CHECK;
        }
        assert!(line.begin(10, now).is_searching());
    }

    #[test]
    fn line_that_became_full_is_noticed() {
        let (line, start) = line();
        assert_eq!(search(&line, 20.0 * MB, 10_000.0 * MB, start), 10);
        let mut now = start;
        let mut best = Vec::new();
        for _ in 0..4 {
            now += LAST_CHECK;
            best.push(search(&line, 20.0 * MB, 20.0 * MB, now));
        }
        assert_eq!(best, [5, 3, 2, 1]);
    }

    #[test]
    fn split_transfer_must_be_faster() {
        let (line, start) = line();
        assert_eq!(search(&line, 20.0 * MB, 10_000.0 * MB, start), 10);
        let transfer = line.begin(10, start);
        transfer.finish(100_000_000, start + Duration::from_secs(1));
        drop(transfer);
        assert_eq!(line.begin(10, start).connections(), 10);
        let transfer = line.begin(10, start);
        transfer.finish(100_000_000, start + Duration::from_secs(5));
        drop(transfer);
        assert_eq!(line.begin(10, start).connections(), 1);
    }

    #[test]
    fn transfers_share_the_line() {
        let (line, start) = line();
        assert_eq!(search(&line, 20.0 * MB, 10_000.0 * MB, start), 10);
        let mut transfers = vec![line.begin(10, start)];
        assert_eq!(transfers[0].connections(), 10);
        transfers.push(line.begin(10, start));
        assert_eq!(transfers[0].connections(), 5);
        transfers.extend((0..8).map(|_| line.begin(10, start)));
        assert_eq!(transfers[9].connections(), 1);
        transfers.truncate(1);
        assert_eq!(transfers[0].connections(), 10);
    }

    #[test]
    fn search_ends_when_another_transfer_begins() {
        let (line, start) = line();
        let first = line.begin(10, start);
        first.record(1, 20.0 * MB, start);
        assert_eq!(first.connections(), 2);
        let second = line.begin(10, start);
        assert_eq!((first.connections(), second.connections()), (1, 1));
        first.record(2, 20.0 * MB, start);
        first.record(2, 20.0 * MB, start);
        drop(second);
        drop(first);
        // The next one goes on where the first stopped.
        assert_eq!(line.begin(10, start).connections(), 2);
    }

    #[test]
    fn one_late_answer_does_not_count() {
        let (line, _) = line();
        line.note_latency(Duration::from_millis(20));
        line.note_latency(Duration::from_secs(3));
        assert_eq!(line.latency(), Duration::from_millis(40));
    }
}
