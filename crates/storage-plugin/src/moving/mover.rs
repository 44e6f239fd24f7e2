//! What routes, jobs and the background share.

use std::sync::Arc;
use std::time::Duration;

use bucket::StorageError;
use futures_util::StreamExt as _;
use hybrid::{HybridStorage, MoveOutcome, Side, StoredForm};
use orthanc_ffi::Orthanc;
use storage_layout::Attachment;
use tokio::sync::watch;

use crate::catalog::{Catalog, CatalogError, Indexed};
use crate::runtime::{Panicked, Runtime};

/// Orthanc deletes files before its database tells that they are gone.
const LOOKS: usize = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// The storages, Orthanc, and the threads.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    pub(crate) orthanc: Orthanc,
    pub(crate) storage: HybridStorage,
    pub(crate) runtime: Arc<Runtime>,
    form: Arc<dyn StoredForm>,
    stopping: watch::Receiver<bool>,
}

/// Ends what goes on in the background.
#[derive(Debug)]
pub(crate) struct Stop(watch::Sender<bool>);

impl Stop {
    pub(crate) fn now(&self) {
        self.0.send_replace(true);
    }
}

/// What a number of moves came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) moved: u64,
    pub(crate) bytes: u64,
    /// On the target before.
    pub(crate) there: u64,
    /// Deleted by Orthanc in the meantime.
    pub(crate) deleted: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.moved += other.moved;
        self.bytes += other.bytes;
        self.there += other.there;
        self.deleted += other.deleted;
    }
}

/// Why attachments could not be moved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MoveError {
    #[error("attachment {} ({}) of {}: {error}", .indexed.attachment.uuid, .indexed.name, .indexed.resource)]
    Storage { indexed: Box<Indexed>, error: StorageError },
    #[error("attachment {} ({}) of {}: it is on neither storage", .0.attachment.uuid, .0.name, .0.resource)]
    Missing(Box<Indexed>),
    #[error(transparent)]
    Unindexed(#[from] StorageError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("a task of the plugin ended unexpectedly")]
    Panicked,
    #[error("HybridMode is Disabled: there is no second storage")]
    NotHybrid,
    /// Orthanc stops: what is not done yet is done later.
    #[error("Orthanc stops")]
    Stopped,
}

impl Engine {
    pub(crate) fn new(
        orthanc: Orthanc,
        storage: HybridStorage,
        runtime: Arc<Runtime>,
        form: Arc<dyn StoredForm>,
    ) -> (Self, Stop) {
        let (sender, stopping) = watch::channel(false);
        (Self { orthanc, storage, runtime, form, stopping }, Stop(sender))
    }

    pub(crate) fn catalog(&self) -> Catalog {
        Catalog::new(self.orthanc.clone())
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow() || self.stopping.has_changed().is_err()
    }

    /// Waits until Orthanc stops.
    pub(crate) async fn stopped(&self) {
        // An error means that whoever stops is gone already.
        let _ = self.stopping.clone().wait_for(|stopping| *stopping).await;
    }

    /// Moves attachments to `target`, several at once, and waits for them.
    ///
    /// # Errors
    ///
    /// The first failure; the others are moved nevertheless.
    pub(crate) fn relocate(
        &self,
        attachments: Vec<Indexed>,
        target: Side,
        at_once: usize,
    ) -> Result<Tally, MoveError> {
        let engine = self.clone();
        let moves = async move { engine.relocate_all(attachments, target, at_once).await };
        let (tally, failures) = self.unless_stopped(moves)?;
        self.judge(tally, failures)
    }

    /// Moves attachments to the file system, of which Orthanc has told nothing but that it reads them.
    ///
    /// # Errors
    ///
    /// The first failure; the others are moved nevertheless.
    pub(crate) fn bring_back(
        &self,
        attachments: Vec<Attachment>,
        at_once: usize,
    ) -> Result<Tally, MoveError> {
        let engine = self.clone();
        let moves = async move {
            let moves = attachments.into_iter().map(|attachment| engine.bring_one_back(attachment));
            futures_util::stream::iter(moves).buffer_unordered(at_once).collect::<Vec<_>>().await
        };
        let mut tally = Tally::default();
        for moved in self.unless_stopped(moves)? {
            if let MoveOutcome::Moved { bytes } = moved? {
                tally.add(Tally { moved: 1, bytes, ..Tally::default() });
            }
        }
        Ok(tally)
    }

    async fn bring_one_back(&self, attachment: Attachment) -> Result<MoveOutcome, StorageError> {
        let copies = self.storage.locate(&attachment, 1).await?;
        let size = copies.first().map_or(0, |copy| copy.size);
        self.storage.relocate(&attachment, Side::FileSystem, size, &self.form).await
    }

    /// Waits for `moves`, and breaks them off when Orthanc stops, which is safe at any moment.
    fn unless_stopped<T: Send + 'static>(
        &self,
        moves: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, MoveError> {
        let engine = self.clone();
        let moves = async move {
            tokio::select! {
                done = moves => Some(done),
                () = engine.stopped() => None,
            }
        };
        match self.runtime.run(moves) {
            Ok(done) => done.ok_or(MoveError::Stopped),
            Err(Panicked) => Err(MoveError::Panicked),
        }
    }

    /// What each of the moves came to that did not succeed.
    async fn relocate_all(
        &self,
        attachments: Vec<Indexed>,
        target: Side,
        at_once: usize,
    ) -> (Tally, Vec<(Indexed, Option<StorageError>)>) {
        let moves = attachments.into_iter().map(|indexed| async move {
            let size = indexed.size;
            let done = self.storage.relocate(&indexed.attachment, target, size, &self.form).await;
            (indexed, done)
        });
        let mut moves = futures_util::stream::iter(moves).buffer_unordered(at_once);
        let (mut tally, mut failures) = (Tally::default(), Vec::new());
        while let Some((indexed, done)) = moves.next().await {
            match done {
                Ok(MoveOutcome::Moved { bytes }) => {
                    tally.moved += 1;
                    tally.bytes += bytes;
                    let name = self.storage.name(&indexed.attachment, target);
                    tracing::info!("moved {} to {name}: {bytes} bytes", indexed.attachment.uuid);
                }
                Ok(MoveOutcome::AlreadyThere) => tally.there += 1,
                Ok(MoveOutcome::Removed) => tally.deleted += 1,
                Ok(MoveOutcome::Missing) => failures.push((indexed, None)),
                Err(error) => failures.push((indexed, Some(error))),
            }
        }
        (tally, failures)
    }

    /// Tells what was deleted by Orthanc in the meantime from what is really missing.
    fn judge(
        &self,
        mut tally: Tally,
        failures: Vec<(Indexed, Option<StorageError>)>,
    ) -> Result<Tally, MoveError> {
        for (indexed, error) in failures {
            if self.is_deleted(&indexed, error.is_none())? {
                tally.deleted += 1;
                continue;
            }
            let indexed = Box::new(indexed);
            return Err(match error {
                Some(error) => MoveError::Storage { indexed, error },
                None => MoveError::Missing(indexed),
            });
        }
        Ok(tally)
    }

    /// Whether Orthanc has deleted the attachment. With `patience`, a transaction that is about to do so is waited for.
    fn is_deleted(&self, indexed: &Indexed, patience: bool) -> Result<bool, CatalogError> {
        let catalog = self.catalog();
        for _ in 0..if patience { LOOKS } else { 0 } {
            if !catalog.is_current(indexed)? {
                return Ok(true);
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
        Ok(!catalog.is_current(indexed)?)
    }
}
