//! Moves many attachments, for jobs and for offloading.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bucket::{Cause, Operation, StorageError};
use futures_util::{FutureExt as _, StreamExt as _};
use hybrid::{MoveOutcome, Side, StoredForm};
use storage_layout::Attachment;

use crate::catalog::{CatalogError, Indexed};
use crate::context::Context;

/// How many times to look for an attachment in the index that is in neither place: Orthanc deletes files
/// before its database says so.
const LOOKS: usize = 5;
/// The pause between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// Moves attachments between the bucket and the file system.
#[derive(Debug, Clone)]
pub(crate) struct Mover {
    pub(crate) context: Context,
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
    #[error("attachment {} ({}) of {}: {error}", .indexed.attachment.uuid, .indexed.name, .indexed.resource)]
    Storage { indexed: Box<Indexed>, error: StorageError },
    #[error("attachment {} ({}) of {} is in neither storage", .0.attachment.uuid, .0.name, .0.resource)]
    Missing(Box<Indexed>),
    #[error(transparent)]
    Unindexed(#[from] StorageError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("HybridMode is Disabled: there is no second storage")]
    NotHybrid,
    /// The remaining attachments are moved when the job resumes.
    #[error("Orthanc is shutting down")]
    Stopped,
}

/// An attachment that could not be moved: with the error, or `None` if it is in neither place.
struct Failure {
    indexed: Indexed,
    error: Option<StorageError>,
}

impl Mover {
    pub(crate) fn new(context: Context, form: Arc<dyn StoredForm>) -> Self {
        Self { context, form }
    }

    /// Moves attachments to `target`, at most `at_once` at a time, and waits for them.
    ///
    /// # Errors
    ///
    /// The first failure. The other attachments are moved nevertheless.
    pub(crate) fn move_all(
        &self,
        attachments: Vec<Indexed>,
        target: Side,
        at_once: usize,
    ) -> Result<Tally, MoveError> {
        let mover = self.clone();
        let moves = async move { mover.try_to_move_all(attachments, target, at_once).await };
        let (tally, failures) = self.context.run_until_stopped(moves).ok_or(MoveError::Stopped)?;
        self.count_deleted(tally, failures)
    }

    /// Moves attachments to the file system that are known only from reads of them.
    ///
    /// # Errors
    ///
    /// The first failure. The other attachments are moved nevertheless.
    pub(crate) fn bring_back(
        &self,
        attachments: Vec<Attachment>,
        at_once: usize,
    ) -> Result<Tally, MoveError> {
        let mover = self.clone();
        let moves = async move {
            let moves = attachments.into_iter().map(|attachment| mover.bring_one_back(attachment));
            futures_util::stream::iter(moves).buffer_unordered(at_once).collect::<Vec<_>>().await
        };
        let mut tally = Tally::default();
        for moved in self.context.run_until_stopped(moves).ok_or(MoveError::Stopped)? {
            if let MoveOutcome::Moved { bytes } = moved? {
                tally.add(Tally { moved: 1, bytes, ..Tally::default() });
            }
        }
        Ok(tally)
    }

    async fn bring_one_back(&self, attachment: Attachment) -> Result<MoveOutcome, StorageError> {
        let copies = self.context.storage.locate(&attachment, 1).await?;
        let size = copies.first().map_or(0, |copy| copy.head.size);
        self.move_one(&attachment, Side::FileSystem, size).await
    }

    /// Moves one attachment. A panic becomes an error of this attachment, so that it does not cancel the
    /// other moves.
    async fn move_one(
        &self,
        attachment: &Attachment,
        target: Side,
        size: u64,
    ) -> Result<MoveOutcome, StorageError> {
        let storage = &self.context.storage;
        let moved =
            AssertUnwindSafe(storage.move_to(attachment, target, size, &self.form)).catch_unwind().await;
        moved.unwrap_or_else(|_panic| {
            let name = storage.place(target.other()).name(attachment);
            Err(StorageError::new(Operation::Move, name, Cause::Panicked))
        })
    }

    async fn try_to_move_all(
        &self,
        attachments: Vec<Indexed>,
        target: Side,
        at_once: usize,
    ) -> (Tally, Vec<Failure>) {
        let storage = &self.context.storage;
        let moves = attachments.into_iter().map(|indexed| async move {
            let moved = self.move_one(&indexed.attachment, target, indexed.size).await;
            (indexed, moved)
        });
        let mut moves = futures_util::stream::iter(moves).buffer_unordered(at_once);
        let mut tally = Tally::default();
        let mut failures = Vec::new();
        while let Some((indexed, moved)) = moves.next().await {
            match moved {
                Ok(MoveOutcome::Moved { bytes }) => {
                    tally.moved += 1;
                    tally.bytes += bytes;
                    let name = storage.place(target).name(&indexed.attachment);
                    tracing::info!("moved {} to {name}: {bytes} bytes", indexed.attachment.uuid);
                }
                Ok(MoveOutcome::AlreadyThere) => tally.already_there += 1,
                Ok(MoveOutcome::Removed) => tally.deleted += 1,
                Ok(MoveOutcome::Missing) => failures.push(Failure { indexed, error: None }),
                Err(error) => failures.push(Failure { indexed, error: Some(error) }),
            }
        }
        (tally, failures)
    }

    /// Adds to `tally` the failures of attachments that Orthanc has deleted in the meantime; fails with the
    /// first other one.
    fn count_deleted(&self, tally: Tally, failures: Vec<Failure>) -> Result<Tally, MoveError> {
        let mut total = tally;
        for Failure { indexed, error } in failures {
            if self.is_deleted(&indexed, error.is_none())? {
                total.deleted += 1;
                continue;
            }
            let indexed = Box::new(indexed);
            return Err(match error {
                Some(error) => MoveError::Storage { indexed, error },
                None => MoveError::Missing(indexed),
            });
        }
        Ok(total)
    }

    /// Whether Orthanc has deleted the attachment. With `patience`, waits for a transaction that may be about
    /// to delete it.
    fn is_deleted(&self, indexed: &Indexed, patience: bool) -> Result<bool, CatalogError> {
        let catalog = self.context.catalog();
        for _ in 0..if patience { LOOKS } else { 0 } {
            if !catalog.is_current(indexed)? {
                return Ok(true);
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
        Ok(!catalog.is_current(indexed)?)
    }
}
