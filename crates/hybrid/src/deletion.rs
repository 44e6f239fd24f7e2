//! The worker that deletes what is marked in the state directory.
//!
//! Orthanc deletes inside a database transaction and never retries a deletion. So its callback only creates
//! a marker, and this worker deletes the attachments later: many with one request, one request at a time, and
//! again until the bucket has confirmed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use std::{io, mem};

use bucket::{Cause, Operation, StorageError, blocking};
use storage_layout::Attachment;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::claims::Claim;
use crate::files::FileStorage;
use crate::state::{Marker, StateDirectory};
use crate::storage::HybridStorage;

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
/// How often a lasting failure is logged, and unfinished uploads that could not be aborted are tried again.
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Deletes the marked attachments.
#[derive(Debug, Clone)]
pub struct DeletionWorker {
    storage: HybridStorage,
    files: FileStorage,
    state: Arc<StateDirectory>,
    delay: Duration,
}

/// What one pass over all markers has found.
#[derive(Debug, Default)]
struct Pass {
    removed: u64,
    /// Attachments that are being moved.
    moving: bool,
    /// Why attachments could not be deleted.
    failure: Option<StorageError>,
    /// Why the bucket cannot be asked for now. Files are deleted nevertheless.
    outage: Option<StorageError>,
    /// When the oldest of the markers that are left was created.
    oldest: Option<SystemTime>,
    /// When the next marker becomes due.
    next: Option<SystemTime>,
}

/// Attachments that are being deleted together.
#[derive(Debug, Default)]
struct Batch {
    markers: Vec<Marker>,
    /// Those whose objects may have other names than the present configuration says.
    inherited: Vec<Marker>,
}

type Results = Vec<(Marker, Result<(), StorageError>)>;

impl DeletionWorker {
    /// A worker for the markers in `state`. Each attachment is kept for `delay` after its deletion. `files` are
    /// those of Orthanc's `StorageDirectory`, where attachments may be even if `storage` has no files now.
    pub fn new(
        storage: HybridStorage,
        files: FileStorage,
        state: Arc<StateDirectory>,
        delay: Duration,
    ) -> Self {
        Self { storage, files, state, delay }
    }

    /// Works until the future is dropped. Markers whose attachments have not been deleted by then remain.
    pub async fn run(self) {
        tokio::join!(self.sync_markers(), self.adopt(), self.delete());
    }

    /// Syncs new markers to the disk, and those that an earlier process may not have synced.
    async fn sync_markers(&self) {
        let mut added = self.state.markers().subscribe();
        loop {
            let state = Arc::clone(&self.state);
            match blocking(move || state.markers().sync()).await {
                Ok(()) => {
                    if added.changed().await.is_err() {
                        return;
                    }
                    sleep(SYNC).await;
                }
                Err(error) => {
                    tracing::warn!("{error}; a power failure could lose recent deletions");
                    sleep(LONGEST_PAUSE).await;
                }
            }
        }
    }

    async fn delete(&self) {
        let mut added = self.state.markers().subscribe();
        let mut pause = FIRST_PAUSE;
        let mut complaint = Complaint::default();
        let mut next_abort = Instant::now();
        loop {
            if Instant::now() >= next_abort && !self.abort_uploads().await {
                next_abort = Instant::now() + HOUR;
            }
            added.mark_unchanged();
            let pass = self.pass().await;
            complaint.report(&pass, self.state.markers().pending());
            if pass.failed() && pass.removed == 0 {
                let jittered = pause.mul_f64(rand::random_range(0.5..=1.0));
                pause = (pause * 2).min(LONGEST_PAUSE);
                if pass.outage.is_some() {
                    sleep(jittered).await;
                } else if timeout(jittered, added.changed()).await.is_ok() {
                    // Objects that cannot be deleted must not delay others.
                    settle(&mut added).await;
                }
                continue;
            }
            pause = FIRST_PAUSE;
            if pass.failed() || pass.moving {
                sleep(FIRST_PAUSE).await;
            } else if !self.delay.is_zero() {
                sleep(pass.idle()).await;
            } else if timeout(pass.idle(), added.changed()).await.is_ok() {
                settle(&mut added).await;
            }
        }
    }

    /// Takes over the work of Orthancs that have ended.
    async fn adopt(&self) {
        loop {
            let state = Arc::clone(&self.state);
            let local = self.storage.local().cloned();
            let adopt =
                move || state.adopt(|folder| local.as_ref().map_or(Ok(()), |local| local.take_over(folder)));
            if let Err(error) = blocking(adopt).await {
                tracing::info!(
                    "cannot look for unfinished work in {}: {error}",
                    self.state.folder().display()
                );
            }
            sleep(TICK).await;
        }
    }

    /// Aborts uploads that an earlier process has left. Returns `false` if that fails.
    async fn abort_uploads(&self) -> bool {
        while let Some(upload) = self.state.uploads().take_left() {
            match self.storage.objects().abort_upload(&upload.name, &upload.id).await {
                Ok(object) => tracing::info!("aborted an unfinished upload of {object}"),
                Err(error) => {
                    tracing::warn!("{error}; the parts of an unfinished upload remain for now");
                    self.state.uploads().put_back(upload);
                    return false;
                }
            }
            upload.forget();
        }
        true
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
        let mut batch = Batch::default();
        let state = Arc::clone(&self.state);
        for folder in self.file_work(move || state.markers().folders()).await? {
            let markers = self.read(folder).await.unwrap_or_else(|error| {
                pass.failure = Some(error);
                Vec::new()
            });
            for marker in markers {
                let due = marker.since.checked_add(self.delay).unwrap_or(marker.since);
                // Without a delay, a clock that was set back must not make one.
                if !self.delay.is_zero() && due > start {
                    pass.keep(&marker);
                    pass.next = Some(pass.next.map_or(due, |next| next.min(due)));
                    continue;
                }
                let inherited = self.state.is_inherited(&marker);
                (if inherited { &mut batch.inherited } else { &mut batch.markers }).push(marker);
                if batch.markers.len() + batch.inherited.len() == BATCH {
                    self.remove(mem::take(&mut batch), pass).await;
                }
            }
        }
        self.remove(batch, pass).await;
        // Markers created during the pass may not have been seen.
        pass.oldest = Some(pass.oldest.map_or(start, |oldest| oldest.min(start)));
        Ok(())
    }

    async fn read(&self, folder: PathBuf) -> Result<Vec<Marker>, StorageError> {
        let state = Arc::clone(&self.state);
        self.file_work(move || state.markers().read(&folder)).await
    }

    /// Deletes attachments, first their files and then their objects, and removes the markers.
    async fn remove(&self, batch: Batch, pass: &mut Pass) {
        let Batch { markers, inherited } = batch;
        let in_files = self.storage.files().is_some() || self.storage.local().is_some();
        let mut results = Results::new();
        for (markers, inherited) in [(markers, false), (inherited, true)] {
            let claimed = self.claim(markers, pass);
            if claimed.is_empty() {
                continue;
            }
            let (claimed, from_files) =
                if in_files || inherited { self.remove_files(claimed).await } else { (claimed, Vec::new()) };
            let from_objects = self.remove_objects(&claimed, inherited, pass).await;
            let mut from_files = from_files.into_iter();
            results.extend(
                claimed.iter().zip(from_objects).map(|((marker, _), objects)| {
                    (*marker, from_files.next().unwrap_or(Ok(())).and(objects))
                }),
            );
        }
        self.finish(results, pass).await;
    }

    /// Takes the attachments that are not being moved.
    fn claim(&self, markers: Vec<Marker>, pass: &mut Pass) -> Vec<(Marker, Claim)> {
        let mut claimed = Vec::with_capacity(markers.len());
        for marker in markers {
            match self.storage.claims.try_for_removal(marker.attachment.uuid) {
                Some(claim) => claimed.push((marker, claim)),
                None => {
                    pass.moving = true;
                    pass.keep(&marker);
                }
            }
        }
        claimed
    }

    async fn remove_files(
        &self,
        claimed: Vec<(Marker, Claim)>,
    ) -> (Vec<(Marker, Claim)>, Vec<Result<(), StorageError>>) {
        let files = self.files.clone();
        let local = self.storage.local().cloned();
        // The thread keeps the claims while it works, even if this future is dropped.
        blocking(move || {
            let remove = |(marker, _): &(Marker, Claim)| {
                let pending = local.as_ref().map_or(Ok(()), |local| local.remove(&marker.attachment));
                files.remove(&marker.attachment.uuid).map(drop).and(pending)
            };
            let removed = claimed.iter().map(remove).collect();
            (claimed, removed)
        })
        .await
    }

    /// Deletes the objects of attachments, unless the bucket has failed in this pass.
    async fn remove_objects(
        &self,
        claimed: &[(Marker, Claim)],
        inherited: bool,
        pass: &mut Pass,
    ) -> Vec<Result<(), StorageError>> {
        if let Some(outage) = &pass.outage {
            return vec![Err(outage.clone()); claimed.len()];
        }
        let attachments: Vec<Attachment> = claimed.iter().map(|(marker, _)| marker.attachment).collect();
        let objects = self.storage.objects();
        let results = match inherited {
            true => objects.remove_everywhere(&attachments).await,
            false => objects.remove_many(&attachments).await,
        };
        // Servers can fail with 500 for one object only.
        let is_outage = |error: &StorageError| error.transient && error.status() != Some(500);
        if results.iter().all(|result| result.as_ref().is_err_and(is_outage)) {
            pass.outage = results.iter().find_map(|result| result.as_ref().err().cloned());
        }
        results
    }

    /// Removes the markers of what has been deleted.
    async fn finish(&self, results: Results, pass: &mut Pass) {
        let mut removed = Vec::with_capacity(results.len());
        for (marker, result) in results {
            match result {
                Ok(()) => removed.push(marker.attachment),
                Err(error) => {
                    pass.keep(&marker);
                    pass.failure = Some(error);
                }
            }
        }
        let state = Arc::clone(&self.state);
        let unmark = move || {
            let results = removed.iter().map(|attachment| state.markers().remove(attachment));
            let (removed, failed): (Vec<_>, Vec<_>) = results.partition(io::Result::is_ok);
            (removed.len() as u64, failed.into_iter().find_map(Result::err))
        };
        let (count, failed) = blocking(unmark).await;
        pass.removed += count;
        if count > 0 {
            tracing::info!("attachments deleted: {count}");
        }
        if let Some(error) = failed {
            pass.failure = Some(self.file_error(&error));
        }
    }

    /// Runs `work` on files of the state directory.
    async fn file_work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        blocking(work).await.map_err(|error| self.file_error(&error))
    }

    fn file_error(&self, error: &io::Error) -> StorageError {
        let folder = self.state.folder().display().to_string();
        StorageError::new(Operation::Remove, folder, Cause::Other(error.to_string()))
    }
}

impl Pass {
    fn keep(&mut self, marker: &Marker) {
        self.oldest = Some(self.oldest.map_or(marker.since, |oldest| oldest.min(marker.since)));
    }

    fn failed(&self) -> bool {
        self.failure.is_some()
    }

    /// How long there is nothing to do if no marker is added.
    fn idle(&self) -> Duration {
        let next = self.next.and_then(|next| next.duration_since(SystemTime::now()).ok());
        // With a delay, there can be very many markers, which must not be read all the time.
        next.map_or(TICK, |next| next.clamp(TICK, HOUR))
    }
}

/// Waits until no more markers are added.
async fn settle(added: &mut watch::Receiver<u64>) {
    let start = Instant::now();
    while start.elapsed() < LONGEST_WAIT && matches!(timeout(QUIET, added.changed()).await, Ok(Ok(()))) {}
}

/// Logs a lasting failure once an hour.
#[derive(Debug, Default)]
struct Complaint(Option<(mem::Discriminant<Cause>, Instant)>);

impl Complaint {
    fn report(&mut self, pass: &Pass, pending: u64) {
        let Some(error) = &pass.failure else {
            if !pass.moving && self.0.take().is_some() {
                tracing::warn!("the deletions that failed before have been completed");
            }
            return;
        };
        let cause = mem::discriminant(&error.cause);
        if self.0.is_some_and(|(known, at)| known == cause && at.elapsed() < HOUR) {
            tracing::info!("{error}; deletions pending: {pending}");
            return;
        }
        tracing::warn!("{error}; deletions pending: {pending}, which are retried until they succeed");
        self.0 = Some((cause, Instant::now()));
    }
}
