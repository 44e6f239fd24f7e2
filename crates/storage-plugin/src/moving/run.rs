//! The work of a job, in portions.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};
use std::{thread, vec};

use hybrid::Side;

use super::mover::{Failure, JobContext, MoveError, Moves, Tally, count, forget_deleted};
use super::report::Report;
use super::turns::{Family, Turn};
use crate::catalog::{Catalog, CatalogError, Indexed, Level, Resource};
use crate::walk::{Cursor, Walk};

/// Attachments that are looked up before they are moved together. If a storage works for none of them, the job
/// gives up.
pub(super) const BATCH: usize = 16;
/// How often to check whether Orthanc stops.
const TICK: Duration = Duration::from_millis(100);
/// How long a job that must wait for another one waits in one step.
const WAIT: Duration = Duration::from_millis(250);
/// How long to wait for the moves in progress when a job is paused.
const PAUSE: Duration = Duration::from_secs(1);

/// What a job has achieved, which is saved with it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) cursor: Cursor,
    /// Number of instances before the cursor.
    pub(super) done: u64,
    /// Number of all instances; `None` until they were counted.
    pub(super) instances: Option<u64>,
    pub(super) report: Report,
}

/// A running job.
#[derive(Debug)]
pub(super) struct Run {
    context: Arc<dyn JobContext>,
    target: Side,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Preparing(Preparation),
    Entering {
        roots: Vec<Resource>,
        family: Arc<Family>,
        /// Whether another job moves some of the resources in the opposite direction.
        must_wait: bool,
    },
    Moving(Moving),
}

impl Run {
    pub(super) fn new(context: Arc<dyn JobContext>, target: Side, requested: Vec<Resource>) -> Self {
        let capacity = context.capacity(target);
        Self { context, target, stage: Stage::Preparing(Preparation::new(requested, capacity)) }
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Entering { must_wait: true, .. })
    }

    /// Works until `until`. Returns whether everything is done.
    pub(super) fn advance(&mut self, progress: &mut Progress, until: Instant) -> Result<bool, MoveError> {
        loop {
            if self.context.is_stopping() {
                return Err(MoveError::Stopped);
            }
            let catalog = self.context.catalog();
            match &mut self.stage {
                Stage::Preparing(preparation) => {
                    if preparation.advance(catalog)? {
                        progress.instances = Some(preparation.instances);
                        let family = Arc::new(preparation.family());
                        let roots = std::mem::take(&mut preparation.roots);
                        self.stage = Stage::Entering { roots, family, must_wait: false };
                    }
                }
                Stage::Entering { roots, family, must_wait } => {
                    let Some(turn) = self.context.turns().enter(self.target, family) else {
                        *must_wait = true;
                        thread::sleep(WAIT);
                        return Ok(false);
                    };
                    let walk = Walk::new(std::mem::take(roots), &progress.cursor);
                    self.stage = Stage::Moving(Moving::new(turn, walk));
                }
                Stage::Moving(moving) => {
                    if moving.advance(&*self.context, self.target, progress, until)? {
                        return Ok(true);
                    }
                }
            }
            if Instant::now() >= until {
                return Ok(false);
            }
        }
    }

    /// Ends the run before it is done. The moves in progress are finished, unless Orthanc stops.
    pub(super) fn end(self) {
        let is_stopping = self.context.is_stopping();
        let Stage::Moving(Moving { batch: Some(Batch { moves, .. }), .. }) = self.stage else { return };
        if is_stopping { moves.abort() } else { moves.end(PAUSE) }
    }
}

/// Looks up what a job consists of.
#[derive(Debug)]
struct Preparation {
    requested: HashSet<Resource>,
    left: vec::IntoIter<Resource>,
    /// The parent of each resource above a requested one.
    parents: HashMap<Resource, Option<Resource>>,
    /// The requested resources, without those that are below another one.
    roots: Vec<Resource>,
    counting: Option<Walk>,
    instances: u64,
    /// The size of everything below the roots, in bytes, if the target has a limit.
    bytes: u64,
    capacity: Option<u64>,
}

impl Preparation {
    fn new(requested: Vec<Resource>, capacity: Option<u64>) -> Self {
        Self {
            requested: requested.iter().cloned().collect(),
            left: requested.into_iter(),
            parents: HashMap::new(),
            roots: Vec::new(),
            counting: None,
            instances: 0,
            bytes: 0,
            capacity,
        }
    }

    /// Looks up one resource. Returns whether that was the last one.
    ///
    /// # Errors
    ///
    /// Also if the attachments are too many for the target.
    fn advance(&mut self, catalog: &Catalog) -> Result<bool, MoveError> {
        if let Some(resource) = self.left.next() {
            if !self.is_below_another(&resource, catalog)? {
                if let Some(capacity) = self.capacity {
                    self.bytes += catalog.size(&resource)?;
                    let bytes = self.bytes;
                    if bytes > capacity {
                        return Err(MoveError::TooLarge { bytes, capacity });
                    }
                }
                self.roots.push(resource);
            }
            return Ok(false);
        }
        let start = || Walk::new(self.roots.clone(), &Cursor::default());
        let next = self.counting.get_or_insert_with(start).next(catalog)?;
        self.instances += u64::from(next.as_ref().is_some_and(|next| next.level == Level::Instance));
        Ok(next.is_none())
    }

    fn is_below_another(&mut self, resource: &Resource, catalog: &Catalog) -> Result<bool, CatalogError> {
        let mut is_below = false;
        let mut next = catalog.parent(resource)?;
        while let Some(ancestor) = next {
            is_below |= self.requested.contains(&ancestor);
            next = match self.parents.get(&ancestor) {
                Some(parent) => parent.clone(),
                None => catalog.parent(&ancestor)?,
            };
            self.parents.insert(ancestor, next.clone());
        }
        Ok(is_below)
    }

    fn family(&mut self) -> Family {
        let ancestors = std::mem::take(&mut self.parents).into_keys().collect();
        Family { requested: std::mem::take(&mut self.requested), ancestors }
    }
}

/// Moves attachments, one batch after the other.
#[derive(Debug)]
struct Moving {
    turn: Arc<Turn>,
    walk: Walk,
    planned: Vec<Indexed>,
    /// Number of instances that `planned` belongs to.
    instances: u64,
    batch: Option<Batch>,
}

/// Attachments that are moved together.
#[derive(Debug)]
struct Batch {
    moves: Moves,
    size: usize,
    /// Number of results that are missing.
    left: usize,
    tally: Tally,
    failures: Vec<Failure>,
    /// The position after the batch.
    cursor: Cursor,
    instances: u64,
}

impl Moving {
    fn new(turn: Turn, walk: Walk) -> Self {
        Self { turn: Arc::new(turn), walk, planned: Vec::new(), instances: 0, batch: None }
    }

    /// Looks up the attachments of one resource, begins a batch, or waits for one result of the batch in
    /// progress. Returns whether everything is done.
    fn advance(
        &mut self,
        context: &dyn JobContext,
        target: Side,
        progress: &mut Progress,
        until: Instant,
    ) -> Result<bool, MoveError> {
        let catalog = context.catalog();
        if let Some(batch) = &mut self.batch {
            batch.wait(context, until)?;
            if batch.left == 0
                && let Some(batch) = self.batch.take()
            {
                batch.finish(context, target, progress)?;
            }
            return Ok(false);
        }
        if self.planned.len() < BATCH
            && let Some(resource) = self.walk.next(catalog)?
        {
            self.planned.extend(catalog.attachments(&resource)?);
            self.instances += u64::from(resource.level == Level::Instance);
            return Ok(false);
        }
        let is_done = self.planned.is_empty();
        if is_done {
            progress.cursor = self.walk.cursor().clone();
            progress.done += self.instances;
        } else {
            let planned = std::mem::take(&mut self.planned);
            self.batch = Some(Batch {
                size: planned.len(),
                left: planned.len(),
                moves: context.begin(planned, target, Arc::clone(&self.turn)),
                tally: Tally::default(),
                failures: Vec::new(),
                cursor: self.walk.cursor().clone(),
                instances: std::mem::take(&mut self.instances),
            });
        }
        Ok(is_done)
    }
}

impl Batch {
    /// Waits for one result, not longer than `until` or a moment.
    fn wait(&mut self, context: &dyn JobContext, until: Instant) -> Result<(), MoveError> {
        let limit = until.saturating_duration_since(Instant::now()).min(TICK);
        match self.moves.results.recv_timeout(limit) {
            Ok(finished) => {
                count(finished, &mut self.tally, &mut self.failures);
                self.left -= 1;
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) if context.is_stopping() => Err(MoveError::Stopped),
            Err(RecvTimeoutError::Disconnected) => Err(MoveError::Panicked),
        }
    }

    fn finish(
        mut self,
        context: &dyn JobContext,
        target: Side,
        progress: &mut Progress,
    ) -> Result<(), MoveError> {
        self.tally.deleted += forget_deleted(context.catalog(), &mut self.failures)?;
        for failure in &self.failures {
            match context.only_copies_to(target) {
                true => tracing::warn!("not copied to the cache: {failure}"),
                false => tracing::warn!("not moved to {target}: {failure}"),
            }
        }
        let is_hopeless = self.failures.len() >= BATCH && self.failures.len() == self.size;
        if is_hopeless && self.failures.iter().all(Failure::concerns_storage) {
            return Err(MoveError::GaveUp {
                done: progress.done,
                instances: progress.instances.unwrap_or_default(),
                count: self.size,
                first: Box::new(self.failures.swap_remove(0)),
            });
        }
        progress.report.add(self.tally, &self.failures);
        progress.cursor = self.cursor;
        progress.done += self.instances;
        Ok(())
    }
}
