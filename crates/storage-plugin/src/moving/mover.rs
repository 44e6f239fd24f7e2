//! Moves many attachments, or copies them to the cache, for jobs.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bucket::{Cause, Operation, Seeker, StorageError};
use futures_util::FutureExt as _;
use hybrid::{HybridStorage, MoveOutcome, Side, StoredForm, WriteBack};
use serde_json::{Map, Value, json};
use storage_layout::Attachment;

use super::turns::Turns;
use crate::catalog::{Indexed, Level};
use crate::context::Context;
use crate::jobs::{
    Batch, DELETED, Family, Finished, Handled, Host, Problem, Scope, StorageJob, Turn, Work, by_level_of,
    ids, resume,
};

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Moves attachments.
    Move,
    /// Copies attachments to the cache.
    Prefetch,
}

impl Task {
    /// The job's type in Orthanc. That of moves is the one of the C++ plugins.
    pub(crate) fn job_type(self) -> &'static str {
        match self {
            Self::Move => "MoveStorage",
            Self::Prefetch => "PrefetchStorage",
        }
    }

    /// The task of a job of this type.
    pub(crate) fn of(job_type: &str) -> Option<Self> {
        [Self::Move, Self::Prefetch].into_iter().find(|task| task.job_type() == job_type)
    }
}

/// The side with this name in requests.
pub(super) fn target(name: &str) -> Option<Side> {
    [Side::FileSystem, Side::ObjectStorage].into_iter().find(|side| side.as_str() == name)
}

/// Moves attachments between the bucket and the file system.
#[derive(Debug, Clone)]
pub(crate) struct Mover {
    pub(crate) context: Context,
    pub(crate) host: Host,
    storages: Storages,
    turns: Turns,
}

/// What a move needs. Tasks must not hold the whole [`Context`]: they would drop the runtime they run on.
#[derive(Debug, Clone)]
struct Storages {
    storage: HybridStorage,
    form: Arc<dyn StoredForm>,
}

/// Why the configuration has no job of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unavailable {
    #[error("HybridMode is Disabled: there is no second storage")]
    NotHybrid,
    #[error("there is no cache to copy attachments to: this requires \"HybridMode\": \"WriteBack\"")]
    NotWriteBack,
    #[error("there is no cache to copy attachments to, since MaxCacheMB is 0")]
    NoCache,
}

impl Mover {
    pub(crate) fn new(context: Context, host: Host, form: Arc<dyn StoredForm>) -> Self {
        let storages = Storages { storage: context.storage.clone(), form };
        Self { context, host, storages, turns: Turns::default() }
    }

    /// The work of a job with this target.
    pub(crate) fn work(&self, task: Task, target: Side) -> Arc<dyn Work> {
        Arc::new(Moving { mover: self.clone(), task, target })
    }

    /// Whether moves to `target` copy attachments to the cache, and delete nothing.
    pub(crate) fn only_copies_to(&self, target: Side) -> bool {
        target == Side::FileSystem && self.write_back().is_some()
    }

    /// Checks that the configuration has such jobs.
    pub(crate) fn check(&self, task: Task, target: Side) -> Result<(), Unavailable> {
        match self.write_back() {
            Some(local) if self.only_copies_to(target) && !local.has_cache() => Err(Unavailable::NoCache),
            None if task == Task::Prefetch => Err(Unavailable::NotWriteBack),
            None if self.context.storage.files().is_none() => Err(Unavailable::NotHybrid),
            _ => Ok(()),
        }
    }

    /// The pending and cached attachments, in the mode `WriteBack`.
    fn write_back(&self) -> Option<&Arc<WriteBack>> {
        self.context.storage.local().filter(|local| local.is_mode())
    }
}

/// Restores a job that this plugin or a C++ plugin saved. `work` returns what the job does with attachments; `None` if
/// what was saved is no such job.
pub(crate) fn resume_move(
    host: Host,
    saved: &Value,
    work: impl FnOnce(Side) -> Arc<dyn Work>,
) -> Option<StorageJob> {
    let target = target(saved["TargetStorage"].as_str()?)?;
    let content = &saved["Content"];
    let mut requested = by_level_of(content.get("Resources").unwrap_or(content));
    if requested.is_empty() {
        requested.insert(Level::Instance, ids(saved, Level::Instance));
    }
    Some(resume(host, work(target), Scope::Resources(requested), saved))
}

/// Moves attachments to one side.
#[derive(Debug)]
struct Moving {
    mover: Mover,
    task: Task,
    target: Side,
}

impl Work for Moving {
    fn job_type(&self) -> &'static str {
        self.task.job_type()
    }

    fn parameters(&self) -> Map<String, Value> {
        Map::from_iter([("TargetStorage".to_owned(), json!(self.target.as_str()))])
    }

    fn counters(&self) -> &'static [&'static str] {
        &["MovedAttachments", "MovedBytes", "AlreadyThere"]
    }

    fn aim(&self) -> String {
        match self.task {
            Task::Move => format!("move attachments to {}", self.target),
            Task::Prefetch => "prefetch attachments".to_owned(),
        }
    }

    fn outcome_of_problem(&self) -> String {
        match self.mover.only_copies_to(self.target) {
            true => "not copied to the cache".to_owned(),
            false => format!("not moved to {}", self.target),
        }
    }

    fn fails_with_problems(&self) -> bool {
        true
    }

    fn check(&self) -> Result<(), String> {
        self.mover.check(self.task, self.target).map_err(|unavailable| unavailable.to_string())
    }

    fn capacity(&self) -> Option<u64> {
        let local = self.mover.write_back().filter(|_| self.target == Side::FileSystem);
        local.map(|local| local.options().max_cache)
    }

    fn enter(&self, family: &Arc<Family>) -> Option<Turn> {
        Some(Arc::new(self.mover.turns.enter(self.target, family)?))
    }

    fn waiting_for(&self) -> String {
        format!("another job is moving some of these resources to {}", self.target.other())
    }

    fn begin(&self, attachments: Vec<Indexed>, at_once: usize, turn: Turn) -> Batch {
        let storages = self.mover.storages.clone();
        let target = self.target;
        let runtime = self.mover.context.runtime.handle();
        Batch::spawn(runtime, attachments, at_once, turn, move |indexed| {
            let storages = storages.clone();
            async move { storages.handle(indexed, target).await }.boxed()
        })
    }
}

impl Storages {
    /// Moves one attachment, and notes what became of it.
    async fn handle(&self, indexed: Indexed, target: Side) -> Finished {
        let attachment = &indexed.attachment;
        let moved = self.move_one(attachment, target, indexed.size).await;
        if let Ok(MoveOutcome::Moved { bytes }) = moved {
            let is_cached = target == Side::FileSystem && self.storage.first() == Side::Pending;
            let (done, side) = if is_cached { ("copied", Side::Cache) } else { ("moved", target) };
            let name = self.storage.place(side).name(attachment);
            tracing::info!("{done} {} to {name}: {bytes} bytes", attachment.uuid);
        }
        if let Ok(MoveOutcome::Missing) = moved
            && let Some(hint) = self.storage.objects().hint(attachment, Seeker::Move).await
        {
            tracing::warn!("{} is in no storage, but {hint}", attachment.uuid);
        }
        (indexed, handled(moved))
    }

    /// Moves one attachment. A panic becomes an error of this attachment, so that it does not cancel the
    /// other moves.
    async fn move_one(
        &self,
        attachment: &Attachment,
        target: Side,
        size: u64,
    ) -> Result<MoveOutcome, StorageError> {
        let Self { storage, form } = self;
        let moved = AssertUnwindSafe(storage.move_to(attachment, target, size, form)).catch_unwind().await;
        moved.unwrap_or_else(|_panic| {
            let name = storage.place(target.other()).name(attachment);
            Err(StorageError::new(Operation::Move, name, Cause::Panicked))
        })
    }
}

/// The counts and problems that follow from a move.
pub(super) fn handled(moved: Result<MoveOutcome, StorageError>) -> Handled {
    match moved {
        Ok(MoveOutcome::Moved { bytes }) => {
            Handled { counts: vec![("MovedAttachments", 1), ("MovedBytes", bytes)], ..Handled::default() }
        }
        Ok(MoveOutcome::AlreadyThere) => Handled::counted("AlreadyThere"),
        Ok(MoveOutcome::Removed) => Handled::counted(DELETED),
        Ok(MoveOutcome::Missing) => Handled::problem(Problem::missing()),
        Err(error) => Handled::problem(Problem::of("not-moved", &error)),
    }
}
