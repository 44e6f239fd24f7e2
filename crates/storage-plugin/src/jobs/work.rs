//! What a kind of job must provide.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bucket::{Cause, StorageError};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::error::JobError;
use super::prepare::Family;
use super::tally::{Form, Tally};
use crate::catalog::Indexed;

/// The right to work on the resources of a job while it lives; see [`Work::enter`].
pub(crate) type Turn = Arc<dyn Any + Send + Sync>;

/// What jobs of one kind do with attachments.
pub(crate) trait Work: fmt::Debug + Send + Sync {
    /// The job's type in Orthanc.
    fn job_type(&self) -> &'static str;

    /// What the request asked for besides the resources, by field. It is shown in the content of the job, and saved.
    fn parameters(&self) -> Map<String, Value>;

    /// The counts in the content of the job.
    fn counters(&self) -> &'static [&'static str];

    /// What the job is to do, for messages: "move attachments to the bucket".
    fn aim(&self) -> String;

    /// What has happened to an attachment with a problem, for the log: "not moved to the bucket".
    fn outcome_of_problem(&self) -> String;

    /// Whether the job has failed if there were problems with attachments. Otherwise, to find them is its purpose.
    fn fails_with_problems(&self) -> bool;

    /// Whether the job is of no use without its report. Otherwise, it goes on when the report cannot be written: it may be
    /// what makes room on a full disk.
    fn needs_report(&self) -> bool {
        false
    }

    /// Why the configuration has no such job: it may have been changed after the job was saved.
    ///
    /// # Errors
    ///
    /// The reason.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Whether an interrupted job must start again from the beginning.
    fn starts_again(&self) -> bool {
        false
    }

    /// How many bytes the resources of the job may have together, if there is a limit.
    fn capacity(&self) -> Option<u64> {
        None
    }

    /// The right to begin, which is dropped with the last attachment; `None` while another job must end first.
    fn enter(&self, _family: &Arc<Family>) -> Option<Turn> {
        Some(Arc::new(()))
    }

    /// What the job waits for while [`enter`](Self::enter) returns `None`, or attachments must be handled later.
    fn waiting_for(&self) -> String {
        String::new()
    }

    /// Begins to handle attachments, at most `at_once` at a time.
    fn begin(&self, attachments: Vec<Indexed>, at_once: usize, turn: Turn) -> Batch;

    /// Called when the job leaves the running state: what it holds in memory is not needed any more.
    fn release(&self) {}

    /// Whether all attachments must be handled once more, with [`begin_again`](Self::begin_again). `tally` has the counts of
    /// the first pass.
    fn has_second_pass(&self, _tally: &Tally) -> bool {
        false
    }

    /// As [`begin`](Self::begin), in the second pass.
    fn begin_again(&self, attachments: Vec<Indexed>, at_once: usize, turn: Turn) -> Batch {
        self.begin(attachments, at_once, turn)
    }

    /// Called when all attachments have been handled, until the result is not [`After::More`].
    ///
    /// # Errors
    ///
    /// Why the job cannot go on.
    fn after(&self) -> Result<After, JobError> {
        Ok(After::Done)
    }
}

/// What follows after all attachments.
#[derive(Debug)]
pub(crate) enum After {
    /// Nothing: the job is done.
    Done,
    /// A portion of further work is done, and more is left.
    More(Handled),
}

/// What became of an attachment, or of a portion of other work.
#[derive(Debug, Default)]
pub(crate) struct Handled {
    /// To be added to the counts with these names.
    pub(crate) counts: Vec<(&'static str, u64)>,
    /// The form of each copy, and its size in bytes.
    pub(crate) forms: Vec<(Form, u64)>,
    /// What is wrong.
    pub(crate) problems: Vec<Problem>,
    /// Whether the attachment must be handled once more after a while, and the rest does not count yet.
    pub(crate) later: bool,
}

impl Handled {
    /// An attachment that must be handled once more after a while.
    pub(crate) fn later() -> Self {
        Self { later: true, ..Self::default() }
    }

    /// An attachment that is counted under one name.
    pub(crate) fn counted(name: &'static str) -> Self {
        Self { counts: vec![(name, 1)], ..Self::default() }
    }

    /// An attachment with a problem.
    pub(crate) fn problem(problem: Problem) -> Self {
        Self { problems: vec![problem], ..Self::default() }
    }
}

/// What is wrong with an attachment, or with an object that belongs to none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// A short name for programs: "missing".
    pub(crate) kind: &'static str,
    /// The object or file; `None` if no particular one is concerned.
    pub(crate) object: Option<String>,
    /// What was found, or attempted.
    pub(crate) error: String,
    /// What the user can do, unless the error says so.
    pub(crate) advice: Option<String>,
    /// Further facts in the report, by field.
    pub(crate) facts: Map<String, Value>,
    /// Whether other attachments have the same problem because a storage does not work.
    pub(crate) concerns_storage: bool,
    /// Whether the attachment is in no storage, which is no problem if Orthanc is deleting it.
    pub(crate) is_missing: bool,
}

impl Problem {
    pub(crate) fn new(kind: &'static str, error: impl Into<String>) -> Self {
        Self {
            kind,
            object: None,
            error: error.into(),
            advice: None,
            facts: Map::new(),
            concerns_storage: false,
            is_missing: false,
        }
    }

    /// An attachment that is in no storage.
    pub(crate) fn missing() -> Self {
        Self { is_missing: true, ..Self::new("missing", "it is in no storage") }
    }

    /// The error of a storage.
    pub(crate) fn of(kind: &'static str, error: &StorageError) -> Self {
        Self {
            object: Some(error.object.clone()),
            concerns_storage: concerns_storage(error),
            ..Self::new(kind, error.to_string())
        }
    }
}

/// Whether other attachments would fail for the same reason, because a storage does not work.
fn concerns_storage(error: &StorageError) -> bool {
    error.transient
        || matches!(
            error.cause,
            Cause::BucketMissing
                | Cause::Denied
                | Cause::NoCredentials(_)
                | Cause::Network(_)
                | Cause::Certificate(_)
                | Cause::WrongScheme(_)
                | Cause::Busy
                | Cause::TimedOut(_)
                | Cause::DiskFull
                | Cause::FileDenied
        )
}

/// An attachment with problems.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) indexed: Indexed,
    /// At least one.
    pub(crate) problems: Vec<Problem>,
}

impl Failure {
    /// Whether other attachments would fail for the same reason.
    pub(crate) fn concerns_storage(&self) -> bool {
        self.problems.iter().all(|problem| problem.concerns_storage)
    }

    pub(crate) fn is_missing(&self) -> bool {
        self.problems.iter().any(|problem| problem.is_missing)
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Indexed { attachment, name, resource, .. } = &self.indexed;
        write!(f, "attachment {} ({name}) of {resource}: ", attachment.uuid)?;
        for (position, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{}", if position == 0 { "" } else { "; " }, problem.error)?;
        }
        Ok(())
    }
}

/// One attachment, and what became of it.
pub(crate) type Finished = (Indexed, Handled);

/// Attachments in progress. When dropped, those that have begun are finished in the background.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) results: mpsc::Receiver<Finished>,
    pub(crate) ending: Arc<AtomicBool>,
    pub(crate) task: Option<AbortHandle>,
}

impl Batch {
    /// Handles attachments in a task, at most `at_once` at a time. The turn ends with the last one, even if nobody waits
    /// for it.
    pub(crate) fn spawn(
        runtime: &Handle,
        attachments: Vec<Indexed>,
        at_once: usize,
        turn: Turn,
        handle: impl Fn(Indexed) -> BoxFuture<'static, Finished> + Send + 'static,
    ) -> Self {
        let (sender, results) = mpsc::channel();
        let ending = Arc::new(AtomicBool::new(false));
        let has_ended = Arc::clone(&ending);
        let remaining = attachments.into_iter().take_while(move |_| !has_ended.load(Ordering::Relaxed));
        let task = runtime.spawn(async move {
            let mut handled = futures_util::stream::iter(remaining.map(handle)).buffer_unordered(at_once);
            while let Some(finished) = handled.next().await {
                // The job may have been interrupted, and nobody receives the results.
                drop(sender.send(finished));
            }
            drop(turn);
        });
        Self { results, ending, task: Some(task.abort_handle()) }
    }

    /// Begins no further attachments, and waits for those in progress, at most for `limit`.
    pub(crate) fn end(self, limit: Duration) {
        self.ending.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + limit;
        while self.results.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
    }

    /// Drops the attachments in progress, since Orthanc stops.
    pub(crate) fn abort(self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
    }
}
