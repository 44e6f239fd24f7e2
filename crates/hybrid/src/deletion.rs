//! The worker that deletes what is marked in the state directory.
//!
//! Orthanc deletes inside a database transaction and never retries a deletion. So its callback only creates
//! a marker, and this worker deletes the attachments later: many with one request, a few requests at once,
//! and again until the bucket has confirmed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bucket::{Cause, Operation, StorageError, blocking};
use storage_layout::Attachment;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::state::{Marker, StateDirectory};
use crate::storage::{HybridStorage, Removal};

/// Attachments deleted together: as many as the largest bulk request takes.
const BATCH: usize = 1000;
/// The worker begins when no deletion has been requested for this long, so that one request deletes many.
const QUIET: Duration = Duration::from_millis(300);
/// The worker begins after this time, even if deletions are still being requested.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// How long a marker may stay in the system's memory before it is synced to the disk.
const SYNC: Duration = Duration::from_millis(100);
/// How often the worker looks for the work of Orthancs that have ended, and for deletions that are due.
const TICK: Duration = Duration::from_secs(60);
/// The pause after the first failure. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often a lasting failure is logged.
const COMPLAIN: Duration = Duration::from_secs(60 * 60);

/// Deletes the marked attachments.
#[derive(Debug, Clone)]
pub struct DeletionWorker {
    storage: HybridStorage,
    state: Arc<StateDirectory>,
    delay: Duration,
}

/// What one pass over all markers has found.
#[derive(Debug, Default)]
struct Pass {
    removed: u64,
    /// Attachments that are being moved.
    moving: bool,
    failure: Option<StorageError>,
    /// When the oldest of the markers that are left was created.
    oldest: Option<SystemTime>,
    /// When the next marker becomes due.
    next: Option<SystemTime>,
}

impl DeletionWorker {
    /// A worker for the markers in `state`. Each attachment is kept for `delay` after its deletion.
    pub fn new(storage: HybridStorage, state: Arc<StateDirectory>, delay: Duration) -> Self {
        Self { storage, state, delay }
    }

    /// Works until the future is dropped. Markers whose attachments have not been deleted by then remain.
    pub async fn run(self) {
        tokio::join!(self.sync_markers(), self.delete());
    }

    /// Syncs new markers to the disk.
    async fn sync_markers(&self) {
        let mut added = self.state.markers().subscribe();
        while added.changed().await.is_ok() {
            sleep(SYNC).await;
            let state = Arc::clone(&self.state);
            if let Err(error) = blocking(move || state.markers().sync()).await {
                tracing::warn!("{error}; a power failure could lose recent deletions");
            }
        }
    }

    async fn delete(&self) {
        let mut added = self.state.markers().subscribe();
        let mut pause = FIRST_PAUSE;
        let mut complaint = Complaint::default();
        loop {
            self.adopt().await;
            self.abort_uploads().await;
            added.mark_unchanged();
            let pass = self.pass().await;
            match &pass.failure {
                Some(error) => complaint.make(error, self.state.markers().pending()),
                None => complaint.withdraw(),
            }
            if pass.failure.is_some() && pass.removed == 0 {
                sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
            pause = FIRST_PAUSE;
            if pass.failure.is_some() || pass.moving {
                sleep(FIRST_PAUSE).await;
            } else if timeout(pass.idle(), added.changed()).await.is_ok() {
                settle(&mut added).await;
            }
        }
    }

    async fn adopt(&self) {
        let state = Arc::clone(&self.state);
        if let Err(error) = blocking(move || state.adopt()).await {
            tracing::warn!("cannot look for unfinished work in {}: {error}", self.state.folder().display());
        }
    }

    /// Aborts uploads that an earlier process has left.
    async fn abort_uploads(&self) {
        while let Some(upload) = self.state.uploads().take_left() {
            if let Err(error) = self.storage.objects().abort_upload(&upload.name, &upload.id).await {
                tracing::info!("{error}; the parts of an unfinished upload remain for now");
                self.state.uploads().put_back(upload);
                return;
            }
            tracing::info!("aborted an unfinished upload of {}", upload.name);
            upload.forget();
        }
    }

    /// Deletes everything that is due.
    async fn pass(&self) -> Pass {
        let mut pass = Pass::default();
        if self.state.markers().pending() == 0 {
            return pass;
        }
        match self.try_pass(&mut pass).await {
            Ok(()) => self.state.markers().set_oldest(pass.oldest),
            Err(error) => pass.failure = Some(error),
        }
        pass
    }

    async fn try_pass(&self, pass: &mut Pass) -> Result<(), StorageError> {
        let start = SystemTime::now();
        let mut batch = Vec::new();
        let state = Arc::clone(&self.state);
        for folder in self.file_work(move || state.markers().folders()).await? {
            for marker in self.read(folder).await? {
                let due = marker.since.checked_add(self.delay).unwrap_or(marker.since);
                if due > start {
                    pass.keep(&marker);
                    pass.next = Some(pass.next.map_or(due, |next| next.min(due)));
                    continue;
                }
                batch.push(marker);
                if batch.len() == BATCH {
                    self.remove(std::mem::take(&mut batch), pass).await?;
                }
            }
        }
        self.remove(batch, pass).await?;
        // Markers created during the pass may not have been seen.
        pass.oldest = Some(pass.oldest.map_or(start, |oldest| oldest.min(start)));
        Ok(())
    }

    async fn read(&self, folder: PathBuf) -> Result<Vec<Marker>, StorageError> {
        let state = Arc::clone(&self.state);
        self.file_work(move || state.markers().read(&folder)).await
    }

    /// Deletes attachments and removes their markers.
    ///
    /// # Errors
    ///
    /// If nothing could be deleted, so that trying others makes no sense for now.
    async fn remove(&self, batch: Vec<Marker>, pass: &mut Pass) -> Result<(), StorageError> {
        if batch.is_empty() {
            return Ok(());
        }
        let attachments: Vec<Attachment> = batch.iter().map(|marker| marker.attachment).collect();
        let mut removed = Vec::with_capacity(attachments.len());
        let mut transient = None;
        for (attachment, removal) in self.storage.remove_many(attachments).await {
            match removal {
                Removal::Removed => removed.push(attachment),
                Removal::Moving => pass.moving = true,
                Removal::Failed(error) if error.transient => transient = Some(error),
                Removal::Failed(error) => pass.failure = Some(error),
            }
        }
        let count = removed.len();
        pass.removed += count as u64;
        if count < batch.len() {
            let gone: std::collections::HashSet<&Attachment> = removed.iter().collect();
            batch
                .iter()
                .filter(|marker| !gone.contains(&marker.attachment))
                .for_each(|marker| pass.keep(marker));
        }
        let state = Arc::clone(&self.state);
        let unmark = move || removed.iter().try_for_each(|attachment| state.markers().remove(attachment));
        self.file_work(unmark).await?;
        tracing::info!("attachments deleted: {count}");
        match transient {
            Some(error) if count == 0 => Err(error),
            Some(error) => {
                pass.failure = Some(error);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Runs `work` on files of the state directory.
    async fn file_work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        blocking(work).await.map_err(|error| {
            let folder = self.state.folder().display().to_string();
            StorageError::new(Operation::Remove, folder, Cause::Other(error.to_string()))
        })
    }
}

impl Pass {
    fn keep(&mut self, marker: &Marker) {
        self.oldest = Some(self.oldest.map_or(marker.since, |oldest| oldest.min(marker.since)));
    }

    /// How long there is nothing to do, unless a marker is added.
    fn idle(&self) -> Duration {
        let next = self.next.and_then(|next| next.duration_since(SystemTime::now()).ok());
        next.unwrap_or(TICK).clamp(QUIET, TICK)
    }
}

/// Waits until no more markers are added.
async fn settle(added: &mut watch::Receiver<u64>) {
    let start = Instant::now();
    while start.elapsed() < LONGEST_WAIT && matches!(timeout(QUIET, added.changed()).await, Ok(Ok(()))) {}
}

/// Logs a lasting failure once in a while.
#[derive(Debug, Default)]
struct Complaint(Option<(Cause, Instant)>);

impl Complaint {
    fn make(&mut self, error: &StorageError, pending: u64) {
        let known = |(cause, at): &(Cause, Instant)| *cause == error.cause && at.elapsed() < COMPLAIN;
        if self.0.as_ref().is_some_and(known) {
            tracing::info!("{error}; deletions pending: {pending}");
            return;
        }
        tracing::warn!("{error}; deletions pending: {pending}, which are retried until they succeed");
        self.0 = Some((error.cause.clone(), Instant::now()));
    }

    fn withdraw(&mut self) {
        if self.0.take().is_some() {
            tracing::warn!("the pending deletions have been completed");
        }
    }
}
