//! Batches that have ended, until it is certain which of their attachments are missing.
//!
//! Orthanc deletes files before its database says so. An attachment that is in no storage is therefore looked up in the
//! index at once, and again after a pause. The job goes on during this pause. Its saved position stays before the first
//! batch that is not settled, so that an interrupted job handles such batches again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::error::JobError;
use super::recorder::Recorder;
use super::run::{BATCH, Bench, Progress};
use super::work::{Failure, Handled};
use crate::catalog::{Catalog, CatalogError};
use crate::walk::Cursor;

/// The time between the two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Maximum number of batches that are not settled. If everything is missing, the job handles this many in a [`PAUSE`].
const CAPACITY: usize = 64;

/// A batch that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Number of its attachments.
    pub(super) size: usize,
    pub(super) handled: Vec<Handled>,
    pub(super) failures: Vec<Failure>,
    /// The position after the batch.
    pub(super) cursor: Cursor,
    /// Number of its instances.
    pub(super) instances: u64,
}

/// A batch whose attachments were looked up once.
#[derive(Debug)]
struct Unsettled {
    batch: Ended,
    /// Number of attachments that Orthanc has deleted in the meantime.
    deleted: u64,
    /// When its missing attachments are looked up again; `None` if none is missing.
    due: Option<Instant>,
}

/// Batches that are not settled, in their order.
#[derive(Debug, Default)]
pub(super) struct Settling(VecDeque<Unsettled>);

impl Settling {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether no further batch should begin before one is settled.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= CAPACITY || self.0.back().is_some_and(Unsettled::is_hopeless)
    }

    /// Adds a batch, and looks up its failed attachments.
    pub(super) fn add(&mut self, batch: Ended, catalog: &Catalog) -> Result<(), CatalogError> {
        let mut unsettled = Unsettled { batch, deleted: 0, due: None };
        unsettled.look(catalog, |_| true)?;
        let is_missing = unsettled.batch.failures.iter().any(Failure::is_missing);
        unsettled.due = is_missing.then(|| Instant::now() + PAUSE);
        self.0.push_back(unsettled);
        Ok(())
    }

    /// How long to wait until a batch can be settled.
    pub(super) fn rest(&self) -> Duration {
        let due = self.0.front().and_then(|batch| batch.due);
        due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now()))
    }

    /// Settles all batches that can be, and adds them to what the job has achieved.
    pub(super) fn settle(&mut self, bench: &Bench<'_>, progress: &mut Progress) -> Result<(), JobError> {
        // The position must not pass a batch that was not settled.
        self.settle_due(bench, progress).inspect_err(|_| self.0.clear())
    }

    fn settle_due(&mut self, bench: &Bench<'_>, progress: &mut Progress) -> Result<(), JobError> {
        while !self.is_empty() && self.rest().is_zero() {
            let Some(mut first) = self.0.pop_front() else { break };
            if first.due.is_some() {
                first.look(&bench.host.catalog, Failure::is_missing)?;
            }
            first.finish(bench, progress)?;
        }
        Ok(())
    }
}

impl Unsettled {
    /// Removes those of the failures to be looked up whose attachments are not in the index any more.
    fn look(&mut self, catalog: &Catalog, is_looked_up: fn(&Failure) -> bool) -> Result<(), CatalogError> {
        for failure in std::mem::take(&mut self.batch.failures) {
            if !is_looked_up(&failure) || catalog.is_current(&failure.indexed)? {
                self.batch.failures.push(failure);
            } else {
                self.deleted += 1;
            }
        }
        Ok(())
    }

    /// Whether a storage works for none of the attachments.
    fn is_hopeless(&self) -> bool {
        let Ended { size, failures, .. } = &self.batch;
        failures.len() >= BATCH && failures.len() == *size && failures.iter().all(Failure::concerns_storage)
    }

    fn finish(self, bench: &Bench<'_>, progress: &mut Progress) -> Result<(), JobError> {
        let is_hopeless = self.is_hopeless();
        let Ended { size, handled, mut failures, cursor, instances } = self.batch;
        let outcome = bench.work.outcome_of_problem();
        for failure in &failures {
            tracing::warn!("{outcome}: {failure}");
        }
        if is_hopeless {
            return Err(JobError::GaveUp {
                done: progress.done,
                instances: progress.instances.unwrap_or_default(),
                count: size,
                first: Box::new(failures.swap_remove(0)),
            });
        }
        if let Some(recorder) = bench.recorder {
            for Failure { indexed, problems } in &failures {
                problems.iter().try_for_each(|problem| recorder.add(Some(indexed), problem))?;
            }
        }
        progress.reported = bench.recorder.map(Recorder::position).unwrap_or_default();
        handled.iter().for_each(|handled| progress.tally.add(handled));
        progress.tally.add_deleted(self.deleted);
        progress.tally.add_failures(&failures);
        progress.cursor = cursor;
        progress.done += instances;
        Ok(())
    }
}
