//! What is known of the line in one direction, and the transfers of large objects that share it.
//!
//! One transfer at a time searches for the best number of connections of all transfers together ([`Climb`]). What it finds
//! holds for later ones, and is checked again after a while.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::climb::{Climb, GAIN, float, is_fast, rate};

/// Objects of at least this size may be split, in bytes.
pub(crate) const LARGE: u64 = 16 * 1024 * 1024;
/// Number of uploads in parts after which larger requests are tried again.
pub(crate) const FORGET_AFTER: u32 = 50;
/// Time after which the best number of connections is checked again. It doubles with each confirmation.
const FIRST_CHECK: Duration = Duration::from_secs(20);
/// Time until a check that could not be completed is repeated. It doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// A check may take as long as a transfer, so it is postponed by this number of transfers.
const TRANSFERS: u32 = 16;
/// Maximum time between two checks.
const LAST_CHECK: Duration = Duration::from_secs(600);
/// Maximum number of transfers at once while one of them searches. More of them keep many connections busy anyway.
const COMPANY: usize = 4;

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
    /// The transfers in progress, the oldest first.
    active: BTreeSet<u64>,
    begun: u64,
    /// How often a transfer began or ended.
    changes: u64,
    /// The connections that they use.
    used: usize,
    /// The number of the transfer that searches.
    searching: Option<u64>,
    /// An unfinished search, and when it began.
    climb: Option<(Climb, Instant)>,
    /// When the best number is to be checked.
    due: Option<Instant>,
    /// The time between the last two checks, and the next pause after one that could not be completed.
    check_after: Duration,
    pause: Duration,
}

impl Default for State {
    fn default() -> Self {
        Self {
            best: 1,
            one: None,
            latency: None,
            active: BTreeSet::new(),
            begun: 0,
            changes: 0,
            used: 0,
            searching: None,
            climb: None,
            due: None,
            check_after: FIRST_CHECK,
            pause: FIRST_PAUSE,
        }
    }
}

impl State {
    /// Ends a search after a transfer that took `time`, or discards its result.
    fn conclude(&mut self, best: usize, before: usize, time: Duration, now: Instant) {
        let check_after = if best == before { (self.check_after * 2).min(LAST_CHECK) } else { FIRST_CHECK };
        self.check_after = check_after.max(time * TRANSFERS).min(LAST_CHECK);
        self.best = best;
        self.pause = FIRST_PAUSE;
        self.end_search(now + self.check_after);
    }

    fn end_search(&mut self, due: Instant) {
        self.due = Some(due);
        self.climb = None;
        self.searching = None;
    }

    /// Lets the oldest transfer search if none does. The transfers in progress have just changed.
    fn changed(&mut self, most: usize, now: Instant) {
        self.changes += 1;
        self.climb.take_if(|(_, begun)| now.duration_since(*begun) >= LAST_CHECK);
        let is_due = self.due.is_none_or(|due| now >= due);
        let transfers = self.active.len();
        if transfers == 0 {
            return;
        }
        if transfers > COMPANY || 2 * transfers > most || !(is_due || self.climb.is_some()) {
            self.searching = None;
            return;
        }
        self.searching = self.searching.or(self.active.first().copied());
        let half = self.best.div_ceil(2);
        let begin =
            || if half > transfers { Climb::new(half, most) } else { Climb::unsplit(transfers, most) };
        let (climb, _) = self.climb.get_or_insert_with(|| (begin(), now));
        climb.disturb();
        let is_outdated = self.best == 1 && climb.only().is_some_and(|only| only != transfers);
        if is_outdated || climb.connections() < transfers {
            *climb = begin();
        }
    }
}

impl Line {
    /// Begins a transfer over at most `most` connections. `now` is the time of its first byte.
    pub(crate) fn begin(self: &Arc<Self>, most: usize, now: Instant) -> Transfer {
        let mut state = self.0.lock();
        state.begun += 1;
        let number = state.begun;
        state.active.insert(number);
        state.used += 1;
        state.changed(most, now);
        let before = state.best;
        let first = match &state.climb {
            // A search over two connections may begin with one.
            Some((climb, _)) if state.searching == Some(number) => climb.connections() - 1,
            _ => before,
        };
        Transfer {
            line: Arc::clone(self),
            number,
            most,
            before,
            used: AtomicUsize::new(1),
            company: state.active.len(),
            begins_split: first / state.active.len() > 1,
            begun: now,
        }
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
    /// The number of transfers when this one began.
    company: usize,
    /// Whether this transfer begins with several connections.
    begins_split: bool,
    begun: Instant,
}

impl Transfer {
    /// The number of connections that this transfer should use now: those of the line are shared.
    pub(crate) fn connections(&self) -> usize {
        let state = self.line.0.lock();
        let others = self.others(&state);
        if let Some((climb, _)) = self.search(&state)
            && climb.connections() > others
        {
            return (climb.connections() - others).min(self.most.max(1));
        }
        // A search tries a number for all transfers together.
        let all = match &state.climb {
            Some((climb, _)) if state.searching.is_some() => state.best.min(climb.connections()),
            _ => state.best,
        };
        let share = (all / state.active.len().max(1)).min(all.saturating_sub(others));
        share.clamp(1, self.most.max(1))
    }

    /// The connections that other transfers use.
    fn others(&self, state: &State) -> usize {
        state.used - self.used.load(Ordering::Relaxed)
    }

    /// Notes how many connections this transfer uses now.
    pub(crate) fn note_use(&self, connections: usize) {
        let mut state = self.line.0.lock();
        let before = self.used.swap(connections, Ordering::Relaxed);
        state.used = state.used - before + connections;
    }

    /// The share of this transfer if `connections` are used for all.
    pub(crate) fn share_of(&self, connections: usize) -> usize {
        connections.div_ceil(self.line.0.lock().active.len().max(1))
    }

    /// Whether this transfer searches for the best number of connections.
    pub(crate) fn is_searching(&self) -> bool {
        self.search(&self.line.0.lock()).is_some()
    }

    /// Whether this transfer searches, and nothing shows yet that more than one connection for each transfer is worth it.
    pub(crate) fn must_try(&self) -> bool {
        let state = self.line.0.lock();
        self.search(&state).is_some_and(|(climb, _)| climb.only() == Some(state.active.len()))
    }

    /// How often transfers began or ended. A rate counts only if this number is the same before and afterwards.
    pub(crate) fn changes(&self) -> u64 {
        self.line.0.lock().changes
    }

    /// The search, if this transfer does it.
    fn search<'a>(&self, state: &'a State) -> Option<&'a (Climb, Instant)> {
        state.climb.as_ref().filter(|_| state.searching == Some(self.number))
    }

    /// Records the rate of one connection, in bytes per second, while this transfer used `connections`.
    pub(crate) fn record(&self, connections: usize, rate: f64, now: Instant) {
        let mut state = self.line.0.lock();
        if self.search(&state).is_none() || (connections == 1 && is_fast(rate)) {
            return;
        }
        let all = connections + self.others(&state);
        let transfers = state.active.len();
        let Some((climb, _)) = &mut state.climb else { return };
        climb.record(all, rate);
        let Some((best, flow)) = climb.best() else { return };
        let is_done = climb.is_done();
        let is_split = climb.only() != Some(transfers);
        if !is_split {
            state.one = Some(flow / float(transfers));
        }
        let best = if is_split { best } else { 1 };
        if is_done {
            state.conclude(best, self.before, now.duration_since(self.begun), now);
            tracing::debug!("the best number of connections is {best}");
        } else {
            // A search that is interrupted has not shown that fewer connections are better.
            state.best = state.best.max(best);
        }
    }

    /// Records the rate of the first connection after a second one was tried. What it was before does not count.
    pub(crate) fn correct_first(&self, rate: f64) {
        let mut state = self.line.0.lock();
        if self.search(&state).is_some()
            && let Some((climb, _)) = &mut state.climb
        {
            climb.correct_first(rate);
        }
    }

    /// Ends the search with the best number of connections so far.
    pub(crate) fn give_up(&self, now: Instant) {
        let mut state = self.line.0.lock();
        if self.search(&state).is_some() {
            let best = state.best;
            state.conclude(best, self.before, now.duration_since(self.begun), now);
        }
    }

    /// Ends the search without a result.
    pub(crate) fn postpone(&self, now: Instant) {
        let mut state = self.line.0.lock();
        if self.search(&state).is_some() {
            let due = now + state.pause;
            state.pause = (state.pause * 2).min(LAST_PAUSE);
            state.end_search(due);
        }
    }

    /// Records the end of a transfer of `bytes`. If the transfers in progress are not faster than one connection, later ones
    /// use one each.
    pub(crate) fn finish(&self, bytes: u64, now: Instant) {
        let mut state = self.line.0.lock();
        let was_alone = self.company == 1 && state.begun == self.number;
        let is_same = was_alone || (self.company > 1 && self.company == state.active.len());
        if !self.begins_split || !is_same {
            return;
        }
        let time = now.duration_since(self.begun);
        let reached = rate(bytes, time) * float(self.company);
        if state.one.is_some_and(|one| reached < one * GAIN) {
            let before = state.best;
            state.conclude(1, before, time, now);
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let mut state = self.line.0.lock();
        state.active.remove(&self.number);
        state.used -= self.used.load(Ordering::Relaxed);
        state.searching.take_if(|number| *number == self.number);
        state.changed(self.most, Instant::now());
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
            transfer.record(connections, each.min(all / float(connections)), now);
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
    fn fast_connection_stays_alone() {
        let (line, start) = line();
        assert_eq!(search(&line, 200.0 * MB, 10_000.0 * MB, start), 1);
        assert_eq!(line.begin(10, start).connections(), 1);
    }

    #[test]
    fn oldest_transfer_searches_for_all() {
        let (line, start) = line();
        let first = line.begin(10, start);
        first.record(1, 20.0 * MB, start);
        assert_eq!(first.connections(), 2);
        // Without further requests, there are two connections now.
        let second = line.begin(10, start);
        assert_eq!((first.connections(), second.connections()), (1, 1));
        assert_eq!((first.is_searching(), second.is_searching()), (true, false));
        drop(first);
        assert!(second.is_searching());
        let third = line.begin(10, start);
        (0..2).for_each(|_| second.record(1, 20.0 * MB, start));
        assert_eq!((second.connections(), third.connections()), (3, 1), "4 in total");
        second.note_use(3);
        (0..3).for_each(|_| second.record(3, 20.0 * MB, start));
        assert_eq!((second.connections(), third.connections()), (7, 1), "8 in total");
        // The others do not disturb what is known already.
        let fourth = line.begin(10, start);
        assert_eq!(second.connections(), 6);
        drop((third, fourth));
        assert_eq!(second.connections(), 8);
    }

    #[test]
    fn two_transfers_are_not_split_on_a_busy_server() {
        let (line, start) = line();
        let first = line.begin(10, start);
        let second = line.begin(10, start);
        (0..2).for_each(|_| first.record(1, 30.0 * MB, start));
        first.note_use(3);
        (0..3).for_each(|_| first.record(3, 15.0 * MB, start));
        assert_eq!((first.is_searching(), second.is_searching()), (false, false));
        drop((first, second));
        assert_eq!(line.begin(10, start).connections(), 1);
    }

    #[test]
    fn interrupted_check_changes_nothing() {
        let (line, mut now) = line();
        assert_eq!(search(&line, 20.0 * MB, 10_000.0 * MB, now), 10);
        for _ in 0..5 {
            now += LAST_CHECK;
            let transfer = line.begin(10, now);
            assert_eq!(transfer.connections(), 5);
            (0..3).for_each(|_| transfer.record(5, 20.0 * MB, now));
            let others: Vec<_> = (0..9).map(|_| line.begin(10, now)).collect();
            drop((transfer, others));
            assert_eq!(line.0.lock().best, 10);
        }
    }

    #[test]
    fn one_late_answer_does_not_count() {
        let (line, _) = line();
        line.note_latency(Duration::from_millis(20));
        line.note_latency(Duration::from_secs(3));
        assert_eq!(line.latency(), Duration::from_millis(40));
    }
}
