//! The work of a job, in portions.

use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use super::error::JobError;
use super::host::Host;
use super::prepare::{Family, Preparation, Prepared, Roots};
use super::recorder::{Position, Recorder};
use super::scope::Scope;
use super::settling::{Ended, Settling};
use super::tally::Tally;
use super::work::{After, Batch, Failure, Finished, Handled, Turn, Work};
use crate::catalog::{Indexed, Level};
use crate::walk::{Cursor, Walk};

/// Attachments that are looked up before they are handled together. If a storage works for none of them, the job
/// gives up.
pub(super) const BATCH: usize = 16;
/// How often to check whether Orthanc stops.
const TICK: Duration = Duration::from_millis(100);
/// How long a job that must wait for another one waits in one step.
const WAIT: Duration = Duration::from_millis(250);
/// The pause before attachments are handled once more (see [`Handled::later`]) is this part of the time that the job has
/// waited for them, so that both the delay and the number of requests stay small.
const PART: u32 = 8;
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);
/// How long to wait for the attachments in progress when a job is paused.
const PAUSE: Duration = Duration::from_secs(1);
/// What a job has achieved, which is saved with it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) cursor: Cursor,
    /// 0, or 1 in the second pass.
    pub(super) pass: u64,
    /// Number of instances before the cursor.
    pub(super) done: u64,
    /// Number of all instances; `None` until they were counted.
    pub(super) instances: Option<u64>,
    pub(super) tally: Tally,
    /// The end of what has been reported of these.
    pub(super) reported: Position,
}

impl Progress {
    /// The beginning of a job with these counters.
    pub(super) fn new(counters: &[&str]) -> Self {
        Self { tally: Tally::new(counters), ..Self::default() }
    }

    /// Goes back to the first attachment.
    pub(super) fn begin_second_pass(&mut self) {
        self.pass = 1;
        self.cursor = Cursor::default();
        self.done = 0;
    }
}

/// What a portion of work needs.
pub(super) struct Bench<'a> {
    pub(super) host: &'a Host,
    pub(super) work: &'a dyn Work,
    pub(super) recorder: Option<&'a Recorder>,
}

impl Bench<'_> {
    fn begin(&self, pass: u64, attachments: Vec<Indexed>, turn: &Turn) -> Batch {
        let at_once = self.host.courtesy.at_once();
        let turn = Arc::clone(turn);
        match pass {
            0 => self.work.begin(attachments, at_once, turn),
            _ => self.work.begin_again(attachments, at_once, turn),
        }
    }
}

/// A running job.
#[derive(Debug)]
pub(super) struct Run {
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Preparing(Preparation),
    Entering {
        roots: Roots,
        family: Arc<Family>,
        /// Whether another job must end first.
        must_wait: bool,
    },
    Handling(Box<Handling>),
    After,
}

impl Run {
    pub(super) fn new(scope: &Scope, work: &dyn Work) -> Self {
        Self { stage: Stage::Preparing(Preparation::new(scope, work.capacity())) }
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Entering { must_wait: true, .. }) || self.rest().is_some()
    }

    /// How long there is nothing to do; `None` if there is.
    pub(super) fn rest(&self) -> Option<Duration> {
        let Stage::Handling(handling) = &self.stage else { return None };
        let running = handling.batch.as_ref().filter(|_| handling.settling.is_empty())?;
        running.due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Works until `until`, and rests in between if there are users. Returns whether everything is done.
    pub(super) fn advance(
        &mut self,
        bench: &Bench<'_>,
        progress: &mut Progress,
        until: Instant,
    ) -> Result<bool, JobError> {
        loop {
            if bench.host.stop.is_given() {
                return Err(JobError::Stopped);
            }
            let begin = Instant::now();
            if self.portion(bench, progress, until)? {
                return Ok(true);
            }
            let now = Instant::now();
            if now >= until || self.is_waiting() {
                return Ok(false);
            }
            let rest = bench.host.courtesy.rest(now - begin);
            thread::sleep(rest.min(until - now));
        }
    }

    /// Does one portion. Returns whether it was the last one.
    fn portion(
        &mut self,
        bench: &Bench<'_>,
        progress: &mut Progress,
        until: Instant,
    ) -> Result<bool, JobError> {
        match &mut self.stage {
            Stage::Preparing(preparation) => {
                if let Some(Prepared { roots, family, instances }) =
                    preparation.advance(&bench.host.catalog)?
                {
                    progress.instances = Some(instances);
                    self.stage = Stage::Entering { roots, family: Arc::new(family), must_wait: false };
                }
            }
            Stage::Entering { roots, family, must_wait } => {
                let Some(turn) = bench.work.enter(family) else {
                    *must_wait = true;
                    thread::sleep(WAIT);
                    return Ok(false);
                };
                let roots = std::mem::replace(roots, Roots::Resources(Vec::new()));
                self.stage = Stage::Handling(Box::new(Handling::new(turn, roots.walk(&progress.cursor))));
            }
            Stage::Handling(handling) => {
                if handling.advance(bench, progress, until)? {
                    self.stage = Stage::After;
                }
            }
            Stage::After => match bench.work.after()? {
                After::Done => return Ok(true),
                After::More(handled) => {
                    progress.tally.add(&handled);
                    for problem in &handled.problems {
                        if let Some(recorder) = bench.recorder {
                            recorder.add(None, problem)?;
                        }
                    }
                    progress.reported = bench.recorder.map(Recorder::position).unwrap_or_default();
                }
            },
        }
        Ok(false)
    }

    /// Ends the run before it is done. The attachments in progress are finished, unless Orthanc stops.
    pub(super) fn end(self, bench: &Bench<'_>, progress: &mut Progress) {
        let Stage::Handling(handling) = self.stage else { return };
        let Handling { mut settling, batch, .. } = *handling;
        let batch = batch.map(|running| running.batch);
        if bench.host.stop.is_given() {
            batch.into_iter().for_each(Batch::abort);
            return;
        }
        batch.into_iter().for_each(|batch| batch.end(PAUSE));
        while !settling.is_empty() {
            thread::sleep(settling.rest());
            if let Err(error) = settling.settle(bench, progress) {
                // What is not settled is handled again when the job continues.
                tracing::info!("a job ended early: {error}");
                return;
            }
        }
    }
}

/// Handles attachments, one batch after the other.
#[derive(Debug)]
struct Handling {
    turn: Turn,
    walk: Walk,
    planned: Vec<Indexed>,
    /// Number of instances that `planned` belongs to.
    instances: u64,
    batch: Option<Running>,
    settling: Settling,
}

/// Attachments that are handled together.
#[derive(Debug)]
struct Running {
    batch: Batch,
    size: usize,
    /// Number of results that are missing.
    left: usize,
    handled: Vec<Handled>,
    failures: Vec<Failure>,
    /// Attachments that must be handled once more.
    later: Vec<Indexed>,
    /// When the job began to wait for these.
    since: Option<Instant>,
    /// When they are handled once more, while there is nothing else to do.
    due: Option<Instant>,
    /// The position after the batch.
    cursor: Cursor,
    instances: u64,
}

impl Handling {
    fn new(turn: Turn, walk: Walk) -> Self {
        Self { turn, walk, planned: Vec::new(), instances: 0, batch: None, settling: Settling::default() }
    }

    /// Settles batches, and looks up the attachments of one resource, begins a batch, or waits for one result of the batch
    /// in progress. Returns whether everything is done.
    fn advance(
        &mut self,
        bench: &Bench<'_>,
        progress: &mut Progress,
        until: Instant,
    ) -> Result<bool, JobError> {
        let catalog = &bench.host.catalog;
        self.settling.settle(bench, progress)?;
        if let Some(running) = &mut self.batch {
            if let Some(due) = running.due {
                let left = due.saturating_duration_since(Instant::now());
                thread::sleep(left.min(WAIT));
                if left.is_zero() {
                    running.begin_again(bench, progress.pass, &self.turn);
                }
                return Ok(false);
            }
            running.wait(bench, until)?;
            if running.left > 0 {
                return Ok(false);
            }
            if !running.later.is_empty() {
                running.postpone();
            } else if let Some(running) = self.batch.take() {
                self.settling.add(running.ended(), catalog)?;
                self.settling.settle(bench, progress)?;
            }
            return Ok(false);
        }
        if self.settling.is_full() {
            thread::sleep(self.settling.rest().min(TICK));
            return Ok(false);
        }
        if self.planned.len() < BATCH
            && let Some(resource) = self.walk.next(catalog)?
        {
            self.planned.extend(catalog.attachments(&resource)?);
            self.instances += u64::from(resource.level == Level::Instance);
            return Ok(false);
        }
        if !self.planned.is_empty() {
            self.begin(bench, progress.pass);
            return Ok(false);
        }
        if !self.settling.is_empty() {
            thread::sleep(self.settling.rest().min(TICK));
            return Ok(false);
        }
        progress.cursor = self.walk.cursor().clone();
        progress.done += self.instances;
        Ok(true)
    }

    /// Begins to handle what is planned.
    fn begin(&mut self, bench: &Bench<'_>, pass: u64) {
        let planned = std::mem::take(&mut self.planned);
        self.batch = Some(Running {
            size: planned.len(),
            left: planned.len(),
            batch: bench.begin(pass, planned, &self.turn),
            later: Vec::new(),
            since: None,
            due: None,
            handled: Vec::new(),
            failures: Vec::new(),
            cursor: self.walk.cursor().clone(),
            instances: std::mem::take(&mut self.instances),
        });
    }
}

impl Running {
    /// Waits for one result, not longer than `until` or a moment.
    fn wait(&mut self, bench: &Bench<'_>, until: Instant) -> Result<(), JobError> {
        let limit = until.saturating_duration_since(Instant::now()).min(TICK);
        match self.batch.results.recv_timeout(limit) {
            Ok(finished) => {
                self.add(finished);
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) if bench.host.stop.is_given() => Err(JobError::Stopped),
            Err(RecvTimeoutError::Disconnected) => Err(JobError::Panicked),
        }
    }

    fn add(&mut self, (indexed, mut handled): Finished) {
        self.left -= 1;
        if handled.later {
            self.later.push(indexed);
            return;
        }
        let problems = std::mem::take(&mut handled.problems);
        if !problems.is_empty() {
            self.failures.push(Failure { indexed, problems });
        }
        self.handled.push(handled);
    }

    /// Waits before the rest is handled once more.
    fn postpone(&mut self) {
        let now = Instant::now();
        let waited = now - *self.since.get_or_insert(now);
        self.due = Some(now + (waited / PART).clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
    }

    fn begin_again(&mut self, bench: &Bench<'_>, pass: u64, turn: &Turn) {
        self.due = None;
        let later = std::mem::take(&mut self.later);
        self.left = later.len();
        self.batch = bench.begin(pass, later, turn);
    }

    fn ended(self) -> Ended {
        let Self { size, handled, failures, cursor, instances, .. } = self;
        Ended { size, handled, failures, cursor, instances }
    }
}
