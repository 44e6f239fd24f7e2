//! The order in which pending files are uploaded, and when. No I/O.
//!
//! Files are uploaded in the order of their arrival. Each has its own backoff, so that one bad file does not hold
//! up the others. While the bucket does not work, one file at a time is tried, until one succeeds. While attachments
//! arrive, files wait for a few seconds, since stores need the processor and the disk more urgently.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::state::StoredName;

/// The pause before the second attempt. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two attempts to upload a file.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// The longest pause between two attempts to reach a bucket that does not work.
const LONGEST_OUTAGE_PAUSE: Duration = Duration::from_secs(15);
/// The number of failures in a row after which it is the bucket that does not work, whatever their reasons are.
const FAILURES: u32 = 3;
/// Attachments have stopped arriving when none has arrived for this long.
const QUIET: Duration = Duration::from_millis(200);
/// How long a file that is due waits at most while attachments arrive.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Numbers of files of this process begin here. Those that were found on the disk are older.
const NEW: u64 = 1 << 40;

/// The pending files, about 300 bytes of memory each.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<u64, Entry>,
    numbers: HashMap<StoredName, u64>,
    /// All files by their age.
    ages: BTreeSet<(SystemTime, u64)>,
    /// The files that are being stored, which are not those of an earlier process.
    announced: HashSet<StoredName>,
    /// The files that are not being uploaded, by the time of their next attempt.
    waiting: BTreeSet<(Instant, u64)>,
    /// When an attachment arrived last.
    arrived: Option<Instant>,
    /// Numbers of files that were found, and of new ones.
    found: u64,
    new: u64,
    bytes: u64,
    uploading: usize,
    /// Number of files that have failed.
    failing: usize,
    failures_in_a_row: u32,
    outage: Option<Outage>,
    /// Number of failed attempts since the start.
    failed: u64,
    /// Number of successful ones.
    uploaded: u64,
    last_error: Option<String>,
}

#[derive(Debug)]
struct Entry {
    job: Job,
    /// When the next attempt may begin; `None` while the file is being uploaded.
    due: Option<Instant>,
    failures: u32,
    /// How often the file has failed again although the bucket had worked in the meantime.
    own_failures: u32,
    /// The value of `State::failed` after the last failed attempt.
    failed: u64,
    /// The value of `State::uploaded` then.
    uploaded: u64,
}

/// The bucket does not work.
#[derive(Debug)]
struct Outage {
    pauses: u32,
    next: Instant,
}

/// A file to be uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) name: StoredName,
    /// Size of the file, in bytes.
    pub(crate) size: u64,
    /// CRC-64/NVME of the content; `None` if an earlier process wrote the file.
    pub(crate) checksum: Option<u64>,
    /// When the attachment was stored.
    pub(crate) since: SystemTime,
    /// Whether an earlier attempt may have reached the bucket.
    pub(crate) repeated: bool,
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The file is not pending any more.
    Done,
    /// The bucket has confirmed the object, so it works. The file is not pending any more.
    Uploaded,
    /// The file cannot be uploaded now, for a reason that is not a failure.
    Later,
    /// The attempt failed.
    Failed {
        error: String,
        /// Whether the bucket is the reason, not the file.
        outage: bool,
    },
}

/// What is pending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) uploading: u64,
    /// When the oldest file was stored.
    pub(crate) oldest: Option<SystemTime>,
    pub(crate) is_outage: bool,
    /// The last failure since the last success.
    pub(crate) last_error: Option<String>,
}

/// The files that were pending at some time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Snapshot {
    pub(crate) files: u64,
    found: u64,
    new: u64,
    failed: u64,
}

/// What has become of a [`Snapshot`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// None of its files is pending any more.
    Done,
    Working,
    /// Each of its files that is left has failed since, or the bucket does not work.
    Failed {
        files: u64,
        error: String,
    },
}

impl Queue {
    /// Announces a file of this process before it appears on the disk. [`add`](Self::add) or
    /// [`withdraw`](Self::withdraw) it.
    pub(crate) fn announce(&self, name: StoredName) {
        let mut state = self.state.lock();
        state.announced.insert(name);
        state.arrived = Some(Instant::now());
    }

    /// The file could not be stored.
    pub(crate) fn withdraw(&self, name: &StoredName) {
        self.state.lock().announced.remove(name);
    }

    /// Adds a file of this process, to be uploaded after `delay`.
    pub(crate) fn add(&self, job: Job, delay: Duration) {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.announced.remove(&job.name);
        state.arrived = Some(now);
        let due = now + delay;
        // Otherwise the worker wakes up in time anyway, so that a store need not wake it.
        let is_next = state.waiting.first().is_none_or(|(first, _)| *first > due);
        state.new += 1;
        let number = NEW + state.new;
        state.insert(number, job, due);
        drop(state);
        if is_next {
            self.changed.notify_one();
        }
    }

    /// Puts a file of this process in the place of another, which is being uploaded: in the order of arrival, and in
    /// the snapshots that have it.
    pub(crate) fn replace(&self, other: &StoredName, job: Job) {
        let mut state = self.state.lock();
        state.announced.remove(&job.name);
        if !state.replace(other, job) {
            state.new += 1;
            let number = NEW + state.new;
            state.insert(number, job, Instant::now());
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Adds a file that an earlier process left, to be uploaded after `delay`; call in the order of their age. Ignores
    /// those that are known.
    pub(crate) fn add_found(&self, job: Job, delay: Duration) {
        let mut state = self.state.lock();
        if state.announced.contains(&job.name) {
            return;
        }
        state.found += 1;
        let number = state.found;
        state.insert(number, job, Instant::now() + delay);
        drop(state);
        self.changed.notify_one();
    }

    pub(crate) fn contains(&self, name: &StoredName) -> bool {
        self.state.lock().numbers.contains_key(name)
    }

    /// The size of a pending file; `None` if it is not in the queue.
    pub(crate) fn size(&self, name: &StoredName) -> Option<u64> {
        let state = self.state.lock();
        let number = state.numbers.get(name)?;
        state.entries.get(number).map(|entry| entry.job.size)
    }

    pub(crate) fn totals(&self) -> Totals {
        let state = self.state.lock();
        Totals {
            files: state.entries.len() as u64,
            bytes: state.bytes,
            uploading: state.uploading as u64,
            oldest: state.ages.first().map(|(since, _)| *since),
            is_outage: state.outage.is_some(),
            last_error: state.last_error.clone(),
        }
    }

    /// The size of all pending files, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    /// The next file to upload now, if there is one. Report the end of the attempt with
    /// [`finish`](Self::finish).
    pub(crate) fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        let number = state.due(Instant::now())?;
        state.begin(number)
    }

    /// Takes a file out of its turn; `None` if it is not pending, or being uploaded.
    pub(crate) fn take(&self, name: &StoredName) -> Option<Job> {
        let mut state = self.state.lock();
        let number = *state.numbers.get(name)?;
        state.begin(number)
    }

    /// Ends an attempt.
    pub(crate) fn finish(&self, name: &StoredName, outcome: Outcome) {
        self.state.lock().finish(name, outcome);
        self.changed.notify_one();
    }

    /// Forgets a file that is not pending any more.
    pub(crate) fn forget(&self, name: &StoredName) {
        self.state.lock().forget(name);
        self.changed.notify_one();
    }

    /// Waits until there may be something to do.
    pub(crate) async fn wait(&self) {
        let next = self.state.lock().wake_up();
        let sleep = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {}
            () = self.changed.notified() => {}
        }
    }

    /// Makes everything that is pending due now, and returns a snapshot of it.
    pub(crate) fn hurry(&self) -> Snapshot {
        let mut state = self.state.lock();
        let now = Instant::now();
        // Due for so long that arriving attachments do not hold up these files.
        let due = now.checked_sub(LONGEST_WAIT).unwrap_or(now);
        let waiting = std::mem::take(&mut state.waiting);
        for (_, number) in waiting {
            state.wait_until(number, due);
        }
        if let Some(outage) = &mut state.outage {
            outage.next = now;
        }
        let State { found, new, .. } = *state;
        let files = state.entries.len() as u64;
        // The failure of an attempt that has begun already says nothing about what is tried now.
        let failed = state.failed + state.uploading as u64;
        drop(state);
        self.changed.notify_one();
        Snapshot { files, found, new, failed }
    }

    /// What has become of a snapshot. Takes time in proportion to the number of pending files.
    pub(crate) fn progress(&self, snapshot: Snapshot) -> Progress {
        let state = self.state.lock();
        let found = state.entries.range(..=snapshot.found);
        let new = state.entries.range(NEW..=NEW + snapshot.new);
        let (mut files, mut untried) = (0, false);
        for (_, entry) in found.chain(new) {
            files += 1;
            untried |= entry.due.is_none() || entry.failed <= snapshot.failed;
        }
        let since = state.failed > snapshot.failed;
        match &state.last_error {
            _ if files == 0 => Progress::Done,
            Some(error) if since && (!untried || state.outage.is_some()) => {
                Progress::Failed { files, error: error.clone() }
            }
            _ => Progress::Working,
        }
    }
}

impl State {
    fn insert(&mut self, number: u64, job: Job, due: Instant) {
        if self.numbers.contains_key(&job.name) {
            return;
        }
        self.numbers.insert(job.name, number);
        self.ages.insert((job.since, number));
        self.bytes += job.size;
        self.entries.insert(
            number,
            Entry { job, due: Some(due), failures: 0, own_failures: 0, failed: 0, uploaded: 0 },
        );
        self.waiting.insert((due, number));
    }

    /// Returns `false` if the other file is not known any more.
    fn replace(&mut self, other: &StoredName, job: Job) -> bool {
        let Some(number) = self.numbers.remove(other) else { return false };
        let Some(entry) = self.entries.get_mut(&number) else { return false };
        self.bytes = self.bytes - entry.job.size + job.size;
        self.failing -= usize::from(entry.failures > 0);
        self.ages.remove(&(entry.job.since, number));
        self.ages.insert((job.since, number));
        entry.job = job;
        entry.failures = 0;
        self.numbers.insert(job.name, number);
        self.wait_until(number, Instant::now());
        true
    }

    /// The file whose turn it is.
    fn due(&self, now: Instant) -> Option<u64> {
        match &self.outage {
            None => {
                let (due, number) = *self.waiting.first()?;
                (self.begins(due) <= now).then_some(number)
            }
            Some(outage) if self.uploading > 0 || outage.next > now => None,
            // Files take turns, since the one tried last may be the reason.
            Some(_) => {
                let may_be_tried = |(due, number): &&(Instant, u64)| {
                    *due <= now || self.entries.get(number).is_some_and(|entry| entry.failures > 0)
                };
                self.waiting.iter().find(may_be_tried).map(|(_, number)| *number)
            }
        }
    }

    /// When [`due`](Self::due) may find something. With an attempt in progress, its end is the next event of an
    /// outage.
    fn wake_up(&self) -> Option<Instant> {
        let first = self.waiting.first().map(|(due, _)| *due)?;
        match &self.outage {
            None => Some(self.begins(first)),
            Some(_) if self.uploading > 0 => None,
            // Files that have failed need not be due.
            Some(outage) if self.failing > 0 => Some(outage.next),
            Some(outage) => Some(outage.next.max(first)),
        }
    }

    /// When the upload of a file that is due at `due` may begin. Arriving attachments postpone it.
    fn begins(&self, due: Instant) -> Instant {
        self.arrived.map_or(due, |arrived| (arrived + QUIET).clamp(due, due + LONGEST_WAIT))
    }

    fn begin(&mut self, number: u64) -> Option<Job> {
        let entry = self.entries.get_mut(&number)?;
        let due = entry.due.take()?;
        self.waiting.remove(&(due, number));
        self.uploading += 1;
        Some(entry.job)
    }

    fn wait_until(&mut self, number: u64, due: Instant) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.due = Some(due);
            self.waiting.insert((due, number));
        }
    }

    fn finish(&mut self, name: &StoredName, outcome: Outcome) {
        self.uploading = self.uploading.saturating_sub(1);
        let now = Instant::now();
        match outcome {
            Outcome::Done => self.forget(name),
            Outcome::Uploaded => {
                self.forget(name);
                self.works(now);
            }
            Outcome::Later => {
                if let Some(number) = self.numbers.get(name).copied() {
                    self.wait_until(number, now + FIRST_PAUSE);
                }
            }
            Outcome::Failed { error, outage } => self.fail(name, error, outage, now),
        }
    }

    fn fail(&mut self, name: &StoredName, error: String, outage: bool, now: Instant) {
        self.last_error = Some(error);
        self.failed += 1;
        // A file that fails again and again says nothing about the bucket.
        let mut is_new = outage;
        let State { failed, uploaded, .. } = *self;
        if let Some(number) = self.numbers.get(name).copied()
            && let Some(entry) = self.entries.get_mut(&number)
        {
            let pause = backoff(entry.failures, LONGEST_PAUSE);
            self.failing += usize::from(entry.failures == 0);
            is_new |= entry.failures == 0;
            entry.own_failures += u32::from(entry.failures > 0 && entry.uploaded < uploaded);
            entry.failures += 1;
            entry.job.repeated = true;
            entry.failed = failed;
            entry.uploaded = uploaded;
            self.wait_until(number, now + pause);
        }
        self.failures_in_a_row += u32::from(is_new);
        if outage || self.failures_in_a_row >= FAILURES {
            let pauses = self.outage.as_ref().map_or(0, |outage| outage.pauses + 1);
            self.outage = Some(Outage { pauses, next: now + backoff(pauses, LONGEST_OUTAGE_PAUSE) });
        }
    }

    /// The bucket works, so what has failed may be tried again: files that have failed on their own only after a pause.
    fn works(&mut self, now: Instant) {
        self.uploaded += 1;
        self.failures_in_a_row = 0;
        let was_outage = self.outage.take().is_some();
        if was_outage || self.failing == 0 {
            self.last_error = None;
        }
        if !was_outage {
            return;
        }
        let failed = self.entries.iter().filter(|(_, entry)| entry.failures > 0);
        let failed: Vec<_> =
            failed.filter_map(|(number, entry)| Some((*number, entry.due?, entry.own_failures))).collect();
        for (number, due, own_failures) in failed {
            let pause = own_failures.checked_sub(1).map_or(Duration::ZERO, |n| backoff(n, LONGEST_PAUSE));
            self.waiting.remove(&(due, number));
            self.wait_until(number, due.min(now + pause));
        }
    }

    fn forget(&mut self, name: &StoredName) {
        let Some(number) = self.numbers.remove(name) else { return };
        if let Some(entry) = self.entries.remove(&number) {
            self.bytes -= entry.job.size;
            self.failing -= usize::from(entry.failures > 0);
            self.ages.remove(&(entry.job.since, number));
            if let Some(due) = entry.due {
                self.waiting.remove(&(due, number));
            }
        }
        if self.entries.is_empty() {
            self.outage = None;
            self.last_error = None;
        }
    }
}

/// The pause after `failures` earlier ones.
fn backoff(failures: u32, longest: Duration) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(longest)
}

#[cfg(test)]
mod tests;
