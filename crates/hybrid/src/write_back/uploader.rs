//! The worker that uploads what is pending.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bucket::{Cause, Operation, StorageError, blocking};
use bytes::Bytes;
use storage_layout::Attachment;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::age::{AgeMessage, AgeWarnings};
use super::queue::{Job, Outcome};
use super::{WriteBack, checksum};
use crate::budget::MemoryBudget;
use crate::claims::Claim;
use crate::files::{file_error, is_missing};
use crate::moves::{MoveOutcome, StoredForm};
use crate::state::StoredName;
use crate::storage::HybridStorage;

/// Bytes that all uploads together may hold. A larger attachment is uploaded alone.
const UPLOADS: u64 = 128 * 1024 * 1024;
/// How often the age of the oldest attachment and the free space are checked.
const TICK: Duration = Duration::from_secs(10);
/// The pause between two looks at an upload in progress.
const TURN: Duration = Duration::from_millis(20);
/// The pause after a failure to read the folder of pending files.
const PAUSE: Duration = Duration::from_secs(60);

/// Uploads pending attachments, and keeps the cache within its limits.
#[derive(Debug, Clone)]
pub struct UploadWorker {
    upload: Upload,
    budget: MemoryBudget,
}

/// Uploads one pending attachment at a time.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    storage: HybridStorage,
    local: Arc<WriteBack>,
    form: Arc<dyn StoredForm>,
}

/// Ends work of threads that cannot be cancelled.
struct StopOnDrop(Arc<WriteBack>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop(true);
    }
}

impl UploadWorker {
    /// A worker for the pending attachments in `local`. `form` knows in which form they are stored.
    pub fn new(storage: HybridStorage, local: Arc<WriteBack>, form: Arc<dyn StoredForm>) -> Self {
        Self { upload: Upload { storage, local, form }, budget: MemoryBudget::new(UPLOADS) }
    }

    /// Works until the future is dropped. What has not been uploaded by then remains pending.
    pub async fn run(self) {
        self.upload.local.stop(false);
        let _stop = StopOnDrop(Arc::clone(&self.upload.local));
        tokio::join!(self.find_pending(), self.upload(), self.watch(), self.index_cache());
    }

    /// Finds the files that an earlier process left, and those that a failed search has left out.
    async fn find_pending(&self) {
        self.search().await;
        self.warn_of_other_mode();
        loop {
            sleep(PAUSE).await;
            self.search().await;
        }
    }

    /// Does nothing if everything has been found.
    async fn search(&self) {
        let local = Arc::clone(&self.upload.local);
        if let Err(error) = blocking(move || local.find_pending()).await {
            let folder = self.upload.local.folder();
            tracing::error!("cannot find all pending attachments in {}: {error}", folder.display());
        }
    }

    /// Warns of files that are pending although the mode is another one now.
    fn warn_of_other_mode(&self) {
        let local = &self.upload.local;
        let pending = local.queue.totals().files;
        if !local.is_mode && pending > 0 {
            tracing::warn!(
                "attachments still pending from the mode WriteBack: {pending}; they are being uploaded"
            );
        }
    }

    async fn upload(&self) {
        let queue = &self.upload.local.queue;
        let limit = self.upload.local.options.uploads;
        let mut uploads = JoinSet::new();
        loop {
            while uploads.len() < limit
                && let Some(job) = queue.next()
            {
                let attempt = Attempt { upload: self.upload.clone(), job, ended: false };
                let budget = self.budget.clone();
                uploads.spawn(async move {
                    let _memory = budget.acquire(job.size).await;
                    attempt.run().await;
                });
            }
            tokio::select! {
                Some(_ended) = uploads.join_next() => {}
                () = queue.wait(), if uploads.len() < limit => {}
            }
        }
    }

    /// Warns of attachments that are not uploaded, and keeps the cache within its limits.
    async fn watch(&self) {
        let local = &self.upload.local;
        let mut warnings = AgeWarnings::default();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let totals = local.queue.totals();
            let age = totals.oldest.map(|since| since.elapsed().unwrap_or_default());
            match warnings.next(age) {
                AgeMessage::Nothing => {}
                AgeMessage::Warning => tracing::warn!(
                    "attachments not yet in the bucket: {} ({} MB), the oldest for {} min; they are in {}{}",
                    totals.files,
                    totals.bytes / 1_000_000,
                    age.unwrap_or_default().as_secs() / 60,
                    local.folder().display(),
                    totals.last_error.map(|error| format!("; the last error: {error}")).unwrap_or_default(),
                ),
                AgeMessage::Over => tracing::warn!("no attachment is late any more"),
            }
            if local.has_cache() {
                let cache = Arc::clone(local);
                blocking(move || cache.cache.shrink()).await;
            }
        }
    }

    /// Builds the index of the cache, or empties the cache if the mode is not `WriteBack`.
    async fn index_cache(&self) {
        let local = Arc::clone(&self.upload.local);
        blocking(move || local.cache.scan(&|| local.cache.is_stopping())).await;
    }
}

/// How an attempt has ended without an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The attachment is in the bucket.
    Uploaded,
    /// The attachment is not pending any more.
    Gone,
    /// Orthanc has deleted the attachment, and the worker of deletions will remove its file.
    Removed,
    /// Encryption has been switched on: an encrypted file, in the queue as well, has taken the place of one in clear.
    Replaced,
    /// The file was damaged, for this reason.
    Damaged(String),
    /// The file must wait, for this reason.
    NotYet(String),
}

/// What to do with a file.
enum Prepared {
    Upload(Bytes),
    Quarantine(String),
    Nothing(Ended),
}

/// What has become of content that must perhaps be encrypted.
enum Encrypted {
    /// It goes up as it is.
    Not(Bytes),
    /// An encrypted file, in the queue as well, has taken its place. So a repeated upload sends the same bytes.
    InFile,
    /// There is no space for such a file.
    InMemory(Bytes),
}

impl Upload {
    pub(crate) fn new(storage: HybridStorage, local: Arc<WriteBack>, form: Arc<dyn StoredForm>) -> Self {
        Self { storage, local, form }
    }

    /// Uploads a file, and moves it into the cache.
    ///
    /// # Errors
    ///
    /// The step that failed. The file is still pending.
    pub(crate) async fn run(&self, job: &Job) -> Result<Ended, StorageError> {
        let name = job.name;
        let claim = Arc::new(self.storage.claims.for_move(name.attachment.uuid).await);
        if claim.is_removed() {
            return Ok(Ended::Removed);
        }
        let content = match self.prepare(*job, Arc::clone(&claim)).await? {
            Prepared::Upload(content) => content,
            Prepared::Quarantine(reason) => return self.quarantine(&name, reason, claim).await,
            Prepared::Nothing(ended) => return Ok(ended),
        };
        let objects = self.storage.objects();
        let stored = job.repeated && objects.has(&name.attachment, name.encrypted, &content).await?;
        if claim.is_removed() {
            return Ok(Ended::Removed);
        }
        let mut encrypted = name.encrypted;
        if !stored {
            let content = match self.encrypt(job, content, Arc::clone(&claim)).await? {
                Encrypted::Not(content) => content,
                Encrypted::InFile => return Ok(Ended::Replaced),
                Encrypted::InMemory(envelope) => {
                    encrypted = true;
                    envelope
                }
            };
            objects.create_confirmed(&name.attachment, encrypted, content).await?;
            tracing::info!("uploaded {}: {} bytes", self.object(&name), job.size);
        }
        self.leave(name, encrypted == name.encrypted, claim).await?;
        Ok(Ended::Uploaded)
    }

    /// Uploads an attachment out of its turn; `None` if it is not pending.
    pub(crate) async fn run_now(&self, attachment: &Attachment) -> Result<Option<MoveOutcome>, StorageError> {
        // What cannot be found now is uploaded in its turn.
        let _ = self.local.all_found().await;
        // Encryption may have been switched on; then there is a second file after the first.
        for name in [false, true].map(|encrypted| StoredName { attachment: *attachment, encrypted }) {
            while self.local.queue.contains(&name) {
                let Some(job) = self.local.queue.take(&name) else {
                    // It is being uploaded.
                    drop(self.storage.claims.for_move(attachment.uuid).await);
                    sleep(TURN).await;
                    continue;
                };
                let mut attempt = Attempt { upload: self.clone(), job, ended: false };
                let result = self.run(&job).await;
                attempt.finish(outcome(&self.object(&name), result.clone()));
                let path = || self.local.path(attachment, false);
                let refused =
                    |reason| StorageError::new(Operation::Move, path(), Cause::NotAcceptable(reason));
                match result? {
                    Ended::Uploaded => return Ok(Some(MoveOutcome::Moved { bytes: job.size })),
                    Ended::Removed => return Ok(Some(MoveOutcome::Removed)),
                    Ended::Damaged(reason) | Ended::NotYet(reason) => return Err(refused(reason)),
                    Ended::Gone | Ended::Replaced => {}
                }
            }
        }
        Ok(None)
    }

    fn object(&self, name: &StoredName) -> String {
        self.storage.objects().object_url(&name.attachment)
    }

    /// Reads a file and checks it.
    async fn prepare(&self, job: Job, claim: Arc<Claim>) -> Result<Prepared, StorageError> {
        let this = self.clone();
        blocking(move || {
            let _claim = claim;
            this.prepare_blocking(&job)
        })
        .await
    }

    fn prepare_blocking(&self, job: &Job) -> Result<Prepared, StorageError> {
        let Job { name, size, checksum: noted, .. } = *job;
        if let Err(reason) = self.form.may_upload() {
            return Ok(Prepared::Nothing(Ended::NotYet(reason)));
        }
        let content = match self.read(&name) {
            Ok(content) => content,
            Err(error) if is_missing(&error) => {
                // A deletion makes the queue forget the file. One of an earlier process may have been uploaded already.
                if noted.is_some() && self.local.queue.contains(&name) {
                    let path = self.local.pending.path(&name);
                    tracing::error!("{} has vanished before it was in the bucket", path.display());
                    self.local.damaged.fetch_add(1, Ordering::Relaxed);
                }
                return Ok(Prepared::Nothing(Ended::Gone));
            }
            Err(error) => return Err(file_error(Operation::Create, &self.local.pending.path(&name), &error)),
        };
        if content.len() as u64 != size {
            let reason = format!("it has {} bytes instead of {size}", content.len());
            return Ok(Prepared::Quarantine(reason));
        }
        match noted {
            Some(noted) if noted != checksum(&content) => {
                return Ok(Prepared::Quarantine("its bytes have changed since it was stored".to_owned()));
            }
            Some(_) => {}
            None if name.encrypted => {
                let verified = self.form.verify(&name.attachment, &content);
                let clear = StoredName { encrypted: false, ..name };
                match verified {
                    _ if self.local.pending.path(&clear).exists() => {
                        if !self.choose(job, clear, verified.is_ok())? {
                            return Ok(Prepared::Nothing(Ended::Replaced));
                        }
                    }
                    Ok(()) => {}
                    Err(reason) => return Ok(Prepared::Quarantine(reason)),
                }
            }
            None => {}
        }
        Ok(Prepared::Upload(content))
    }

    fn read(&self, name: &StoredName) -> io::Result<Bytes> {
        let mut file = File::open(self.local.pending.path(name))?;
        let mut content = Vec::new();
        let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        content.try_reserve_exact(size).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        file.read_to_end(&mut content)?;
        Ok(content.into())
    }

    /// Decides between an encrypted file and the one in clear that it was made from, whose process ended before it
    /// deleted the latter. Returns whether the encrypted one is kept. The other is deleted.
    fn choose(&self, job: &Job, clear: StoredName, is_right: bool) -> Result<bool, StorageError> {
        let Job { name, since, .. } = *job;
        let pending = &self.local.pending;
        if is_right {
            pending.sync_name(&name)?;
            pending.remove(&clear)?;
        } else {
            let path = pending.path(&clear);
            let metadata =
                fs::metadata(&path).map_err(|error| file_error(Operation::Create, &path, &error))?;
            pending.remove(&name)?;
            let job = Job { name: clear, size: metadata.len(), checksum: None, since, repeated: true };
            self.local.queue.replace(&name, job);
        }
        Ok(is_right)
    }

    /// Encrypts content in clear if encryption has been switched on since it was stored.
    async fn encrypt(&self, job: &Job, content: Bytes, claim: Arc<Claim>) -> Result<Encrypted, StorageError> {
        let Job { name: clear, since, .. } = *job;
        if clear.encrypted {
            return Ok(Encrypted::Not(content));
        }
        let this = self.clone();
        blocking(move || {
            let _claim = claim;
            let local = &this.local;
            let failed = |reason| {
                let path = local.pending.path(&clear).display().to_string();
                StorageError::new(Operation::Create, path, Cause::NotAcceptable(reason))
            };
            let sealed = this.form.seal(&clear.attachment, &content).map_err(failed)?;
            let Some(envelope) = sealed else { return Ok(Encrypted::Not(content)) };
            let name = StoredName { encrypted: true, ..clear };
            match local.create_file(&name, &envelope) {
                Ok(()) => {}
                // Waiting for space would be useless if files like this one have taken it.
                Err(error) if error.cause == Cause::DiskFull => {
                    return Ok(Encrypted::InMemory(envelope));
                }
                Err(error) => return Err(error),
            }
            let size = envelope.len() as u64;
            let job = Job { name, size, checksum: Some(checksum(&envelope)), since, repeated: false };
            local.pending.remove(&clear)?;
            local.queue.replace(&clear, job);
            Ok(Encrypted::InFile)
        })
        .await
    }

    async fn quarantine(
        &self,
        name: &StoredName,
        reason: String,
        claim: Arc<Claim>,
    ) -> Result<Ended, StorageError> {
        let local = Arc::clone(&self.local);
        let damaged = *name;
        let moved = blocking(move || {
            let _claim = claim;
            let path = local.pending.quarantine(&damaged)?;
            local.damaged.fetch_add(1, Ordering::Relaxed);
            Ok::<_, io::Error>(path)
        })
        .await;
        let path =
            moved.map_err(|error| file_error(Operation::Move, &self.local.pending.path(name), &error))?;
        tracing::error!(
            "attachment {} is damaged and was not uploaded: {reason}; the only copy is now {}",
            name.attachment.uuid,
            path.display()
        );
        Ok(Ended::Damaged(reason))
    }

    /// Moves a file that is in the bucket into the cache if `keep` is set, or deletes it.
    async fn leave(&self, name: StoredName, keep: bool, claim: Arc<Claim>) -> Result<(), StorageError> {
        let local = Arc::clone(&self.local);
        blocking(move || {
            let adopted = keep
                && !claim.is_removed()
                && local.pending.take_out(&name, |path| local.cache.adopt(path, &name)).is_ok();
            if adopted { Ok(()) } else { local.pending.remove(&name) }
        })
        .await
    }
}

/// An attempt to upload the file whose turn it is. Its end is always reported to the queue.
struct Attempt {
    upload: Upload,
    job: Job,
    ended: bool,
}

impl Attempt {
    async fn run(mut self) {
        let result = self.upload.run(&self.job).await;
        self.finish(outcome(&self.upload.object(&self.job.name), result));
    }

    fn finish(&mut self, outcome: Outcome) {
        self.ended = true;
        self.upload.local.queue.finish(&self.job.name, outcome);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.finish(match std::thread::panicking() {
            true => {
                let object = self.upload.object(&self.job.name);
                let error = StorageError::new(Operation::Create, object, Cause::Panicked).to_string();
                Outcome::Failed { error, outage: false }
            }
            false => Outcome::Later,
        });
    }
}

/// What the queue does after an attempt to upload `object`.
fn outcome(object: &str, result: Result<Ended, StorageError>) -> Outcome {
    match result {
        Ok(Ended::Uploaded) => Outcome::Uploaded,
        Ok(Ended::Gone | Ended::Replaced | Ended::Damaged(_)) => Outcome::Done,
        Ok(Ended::Removed) => Outcome::Later,
        Ok(Ended::NotYet(reason)) => {
            Outcome::Failed { error: format!("cannot store {object}: {reason}"), outage: true }
        }
        Err(error) => {
            tracing::info!("{error}; the attachment stays pending");
            // Servers can fail with 500 for one object only.
            let outage = error.transient && error.status() != Some(500);
            Outcome::Failed { error: error.to_string(), outage }
        }
    }
}
