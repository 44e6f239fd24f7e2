//! Moves many attachments, for jobs.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bucket::{Cause, Operation, Seeker, StorageError};
use futures_util::{FutureExt as _, StreamExt as _};
use hybrid::{HybridStorage, MoveOutcome, Side, StoredForm, WriteBack};
use storage_layout::Attachment;
use tokio::task::AbortHandle;

use super::job::Task;
use super::turns::{Turn, Turns};
use crate::catalog::{Catalog, CatalogError, Indexed};
use crate::context::Context;

/// How many times to look for an attachment in the index that is in no storage: Orthanc deletes files
/// before its database says so.
const LOOKS: usize = 5;
/// The pause between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);
/// Attachments that one job moves at once.
const AT_ONCE: usize = 8;

/// Moves attachments between the bucket and the file system.
#[derive(Debug, Clone)]
pub(crate) struct Mover {
    pub(crate) context: Context,
    storages: Storages,
    catalog: Catalog,
    turns: Turns,
}

/// What a move needs. Tasks must not hold the whole [`Context`]: they would drop the runtime they run on.
#[derive(Debug, Clone)]
struct Storages {
    storage: HybridStorage,
    form: Arc<dyn StoredForm>,
}

/// The results of several moves.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) moved: u64,
    pub(crate) bytes: u64,
    pub(crate) already_there: u64,
    /// Attachments that Orthanc deleted in the meantime.
    pub(crate) deleted: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.moved += other.moved;
        self.bytes += other.bytes;
        self.already_there += other.already_there;
        self.deleted += other.deleted;
    }
}

/// Why attachments could not be moved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MoveError {
    #[error(transparent)]
    Catalog(CatalogError),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error(
        "the attachments have {} MB together, but the cache holds at most {} MB (MaxCacheMB); prefetch fewer at once",
        .bytes >> 20, .capacity >> 20
    )]
    TooLarge { bytes: u64, capacity: u64 },
    #[error("attachments that failed: {count}; the first: {first}")]
    Several { count: u64, first: String },
    /// A storage does not work.
    #[error(
        "gave up after {done} of {instances} instances, since all of the next {count} attachments failed; the job \
         continues there when it is resubmitted; the first: {first}"
    )]
    GaveUp { done: u64, instances: u64, count: usize, first: Box<Failure> },
    #[error("an internal error occurred, which the log describes")]
    Panicked,
    /// The remaining attachments are moved when the job resumes.
    #[error("Orthanc is shutting down")]
    Stopped,
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

impl From<CatalogError> for MoveError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Stopped => Self::Stopped,
            error => Self::Catalog(error),
        }
    }
}

/// An attachment that could not be moved.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) indexed: Indexed,
    /// `None` if the attachment is in no storage.
    pub(crate) error: Option<StorageError>,
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Indexed { attachment, name, resource, .. } = &self.indexed;
        write!(f, "attachment {} ({name}) of {resource}: {}", attachment.uuid, self.reason())
    }
}

impl Failure {
    pub(crate) fn reason(&self) -> String {
        self.error.as_ref().map_or_else(|| "it is in no storage".to_owned(), ToString::to_string)
    }

    /// Whether other attachments would fail for the same reason, because a storage does not work.
    pub(crate) fn concerns_storage(&self) -> bool {
        self.error.as_ref().is_some_and(|error| {
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
        })
    }
}

/// One attachment, and what became of it.
pub(crate) type Finished = (Indexed, Result<MoveOutcome, StorageError>);

/// Adds a result to `tally` or to `failures`.
pub(crate) fn count((indexed, moved): Finished, tally: &mut Tally, failures: &mut Vec<Failure>) {
    match moved {
        Ok(MoveOutcome::Moved { bytes }) => {
            tally.moved += 1;
            tally.bytes += bytes;
        }
        Ok(MoveOutcome::AlreadyThere) => tally.already_there += 1,
        Ok(MoveOutcome::Removed) => tally.deleted += 1,
        Ok(MoveOutcome::Missing) => failures.push(Failure { indexed, error: None }),
        Err(error) => failures.push(Failure { indexed, error: Some(error) }),
    }
}

/// What a job needs from the plugin.
pub(crate) trait JobContext: fmt::Debug + Send + Sync {
    fn is_stopping(&self) -> bool;
    /// The index, until Orthanc stops.
    fn catalog(&self) -> &Catalog;
    fn turns(&self) -> &Turns;
    /// Whether moves to `target` copy attachments to the cache, and delete nothing.
    fn only_copies_to(&self, _target: Side) -> bool {
        false
    }
    /// How many bytes the target can hold at most, if there is a limit.
    fn capacity(&self, _target: Side) -> Option<u64> {
        None
    }
    /// Begins to move attachments to `target`. The turn ends with the last move, even if nobody waits for it.
    fn begin(&self, attachments: Vec<Indexed>, target: Side, turn: Arc<Turn>) -> Moves;
}

/// Moves in progress. When dropped, those that have begun are finished in the background.
#[derive(Debug)]
pub(crate) struct Moves {
    pub(crate) results: mpsc::Receiver<Finished>,
    pub(crate) ending: Arc<AtomicBool>,
    pub(crate) task: Option<AbortHandle>,
}

impl Moves {
    /// Begins no further moves, and waits for those in progress, at most for `limit`.
    pub(crate) fn end(self, limit: Duration) {
        self.ending.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + limit;
        while self.results.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
    }

    /// Drops the moves in progress, since Orthanc stops.
    pub(crate) fn abort(self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Drop for Moves {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
    }
}

impl JobContext for Mover {
    fn is_stopping(&self) -> bool {
        self.context.is_stopping()
    }

    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn turns(&self) -> &Turns {
        &self.turns
    }

    fn only_copies_to(&self, target: Side) -> bool {
        target == Side::FileSystem && self.write_back().is_some()
    }

    fn capacity(&self, target: Side) -> Option<u64> {
        let local = self.write_back().filter(|_| target == Side::FileSystem);
        local.map(|local| local.options().max_cache)
    }

    fn begin(&self, attachments: Vec<Indexed>, target: Side, turn: Arc<Turn>) -> Moves {
        let (sender, results) = mpsc::channel();
        let ending = Arc::new(AtomicBool::new(false));
        let has_ended = Arc::clone(&ending);
        let storages = self.storages.clone();
        let remaining = attachments.into_iter().take_while(move |_| !has_ended.load(Ordering::Relaxed));
        let task = self.context.runtime.handle().spawn(async move {
            // The job may have been interrupted, and nobody receives the results.
            storages.move_each(remaining, target, |finished| drop(sender.send(finished))).await;
            drop(turn);
        });
        Moves { results, ending, task: Some(task.abort_handle()) }
    }
}

impl Mover {
    pub(crate) fn new(context: Context, form: Arc<dyn StoredForm>) -> Self {
        let storages = Storages { storage: context.storage.clone(), form };
        let catalog = context.catalog();
        Self { context, storages, catalog, turns: Turns::default() }
    }

    /// What jobs with this target need.
    pub(crate) fn for_job(&self, task: Task, target: Side) -> Result<Arc<dyn JobContext>, Unavailable> {
        match self.write_back() {
            Some(local) if self.only_copies_to(target) && !local.has_cache() => Err(Unavailable::NoCache),
            None if task == Task::Prefetch => Err(Unavailable::NotWriteBack),
            None if self.context.storage.files().is_none() => Err(Unavailable::NotHybrid),
            _ => Ok(Arc::new(self.clone())),
        }
    }

    /// The pending and cached attachments, in the mode `WriteBack`.
    fn write_back(&self) -> Option<&Arc<WriteBack>> {
        self.context.storage.local().filter(|local| local.is_mode())
    }
}

impl Storages {
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

    /// Moves attachments, [`AT_ONCE`] at a time, and passes each to `report`.
    async fn move_each(
        &self,
        attachments: impl Iterator<Item = Indexed>,
        target: Side,
        mut report: impl FnMut(Finished),
    ) {
        let moves = attachments.map(|indexed| async move {
            let moved = self.move_one(&indexed.attachment, target, indexed.size).await;
            (indexed, moved)
        });
        let mut moves = futures_util::stream::iter(moves).buffer_unordered(AT_ONCE);
        while let Some((indexed, moved)) = moves.next().await {
            let Indexed { attachment, .. } = &indexed;
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
            report((indexed, moved));
        }
    }
}

/// Removes the failures of attachments that Orthanc has deleted in the meantime. Returns their number.
///
/// Attachments that are in no storage are looked up several times, since a transaction may be about to
/// delete them.
pub(crate) fn forget_deleted(catalog: &Catalog, failures: &mut Vec<Failure>) -> Result<u64, CatalogError> {
    let before = failures.len();
    for look in 0..=LOOKS {
        if look > 0 && failures.iter().all(|failure| failure.error.is_some()) {
            break;
        }
        if look > 0 {
            thread::sleep(BETWEEN_LOOKS);
        }
        let mut kept = Vec::new();
        for failure in std::mem::take(failures) {
            let is_settled = look > 0 && failure.error.is_some();
            if is_settled || catalog.is_current(&failure.indexed)? {
                kept.push(failure);
            }
        }
        *failures = kept;
    }
    Ok((before - failures.len()) as u64)
}
