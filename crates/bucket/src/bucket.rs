//! One bucket: objects by name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cloud_http::{ArchiveState, Checksum, with_lent_payload};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::time::Instant;

use crate::climb::{rate, without_latency};
use crate::confirm::{Receipt, Sent};
use crate::content::{Content, Payload};
use crate::download::{Download, ReadRange, without_placeholder};
use crate::error::{Cause, Operation, StorageError, found};
use crate::health::Health;
use crate::journal::UploadJournal;
use crate::learnt::Learnt;
use crate::multipart::MultipartUpload;
use crate::options::BucketOptions;
use crate::request_size::Breaks;
use crate::retry::{Attempts, RetryPolicy};
use crate::task::hashing;
use crate::throughput::{LARGE, Transfer, TransferOptions};
use crate::verification::{ETags, Verification};

/// How long to wait until a bucket is deleted. Azure takes half a minute or more.
const BUCKET_DELETION: RetryPolicy = RetryPolicy {
    max_retries: u32::MAX,
    deadline: Duration::from_secs(60),
    patience: Duration::from_secs(60),
    first_pause: Duration::from_secs(1),
    longest_pause: Duration::from_secs(5),
};

/// The result of [`Bucket::check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketCheck {
    /// The bucket exists.
    Found,
    /// The bucket was missing and has been created.
    Created,
}

/// What a server says of an object without sending it.
#[derive(Debug)]
pub(crate) struct ObjectHead {
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) e_tag: Option<String>,
    /// Of the whole object, as the server says.
    pub(crate) md5: Option<[u8; 16]>,
    /// See [`Described::possible_md5`](crate::Described::possible_md5).
    pub(crate) possible_md5: Option<[u8; 16]>,
    pub(crate) archive: ArchiveState,
}

/// Objects in one bucket, by name.
#[derive(Debug, Clone)]
pub struct Bucket {
    pub(crate) options: Arc<BucketOptions>,
    retry: RetryPolicy,
    pub(crate) learnt: Arc<Learnt>,
    journal: Option<Arc<dyn UploadJournal>>,
    pub(crate) health: Arc<Health>,
    e_tags: Arc<ETags>,
    /// Whether messages name the bucket only.
    hides_names: bool,
}

impl Bucket {
    /// The bucket behind `options.store`.
    pub fn new(options: BucketOptions) -> Self {
        Self {
            retry: options.retry,
            health: Arc::new(Health::new(&options.url)),
            options: Arc::new(options),
            learnt: Arc::default(),
            journal: None,
            e_tags: Arc::default(),
            hides_names: false,
        }
    }

    /// Notes multipart uploads in `journal`.
    ///
    /// An upload whose future is dropped stays in the journal, and so does one that cannot be aborted.
    #[must_use]
    pub fn with_journal(self, journal: Arc<dyn UploadJournal>) -> Self {
        Self { journal: Some(journal), ..self }
    }

    /// The same bucket with another retry policy than that of its options, for other work. What that shows of `ETag`s does
    /// not matter here: a verification reads all damaged objects.
    #[must_use]
    pub fn with_retry(self, retry: RetryPolicy) -> Self {
        Self { retry, e_tags: Arc::default(), ..self }
    }

    /// The same bucket, whose messages do not name objects: the names have UIDs of studies, for example.
    #[must_use]
    pub fn with_hidden_names(self) -> Self {
        Self { hides_names: true, ..self }
    }

    /// Tells the bucket apart from all others, unlike its name: `s3://bucket at s3.example.org/`.
    pub fn identity(&self) -> String {
        format!("{} at {}", self.options.url, self.options.server)
    }

    /// The bucket's name in messages.
    pub fn url(&self) -> &str {
        &self.options.url
    }

    /// Number of retries since the start.
    pub fn retries(&self) -> u64 {
        self.health.retries()
    }

    /// The name of an object in messages.
    pub fn object_url(&self, name: &str) -> String {
        if self.hides_names {
            return format!("{}/…", self.url());
        }
        [self.url(), "/", name].concat()
    }

    /// Checks that the bucket exists and can be read, with one request for the object `name`, which need not exist,
    /// retried as `policy` says. Creates a missing bucket if [`BucketOptions::create`] is set. Waits up to a minute for
    /// the end of a bucket's deletion.
    ///
    /// # Errors
    ///
    /// [`Cause::BucketMissing`], [`Cause::Denied`], …; if the error is `transient`, the bucket may become
    /// available later.
    pub async fn check(&self, name: &str, policy: RetryPolicy) -> Result<BucketCheck, StorageError> {
        match self.probe(name, policy).await {
            Err(error) if error.cause == Cause::BucketBeingDeleted => {
                tracing::warn!("{error}; waiting up to {} s", BUCKET_DELETION.deadline.as_secs());
                self.probe(name, BUCKET_DELETION).await
            }
            result => result,
        }
    }

    async fn probe(&self, name: &str, policy: RetryPolicy) -> Result<BucketCheck, StorageError> {
        let path = self.path(Operation::Check, name)?;
        let start = Instant::now();
        let attempts = |operation| {
            let deadline = policy.deadline.saturating_sub(start.elapsed());
            Attempts::new(RetryPolicy { deadline, ..policy }, operation, self.options.url.clone())
        };
        let probed = attempts(Operation::Check).run(|| self.options.store.get(&path)).await;
        match (probed, &self.options.create) {
            (Err(error), Some(bucket)) if error.cause == Cause::BucketMissing => {
                attempts(Operation::CreateBucket).run(|| bucket.create_bucket()).await?;
                Ok(BucketCheck::Created)
            }
            (Err(error), _) if error.cause != Cause::NotFound => Err(error),
            _ => Ok(BucketCheck::Found),
        }
    }

    /// Stores `content` under `name`, replacing any previous object.
    ///
    /// # Errors
    ///
    /// If the server does not confirm the object within the limits of the retry policy, and the object is not
    /// found to be whole afterwards.
    pub async fn put(&self, name: &str, content: Payload) -> Result<(), StorageError> {
        let path = self.path(Operation::Create, name)?;
        let is_lent = matches!(content, Payload::Lent(_));
        let upload = self.upload(name, &path, content.into());
        let stored = if is_lent { with_lent_payload(upload).await } else { upload.await };
        stored.map(drop)
    }

    pub(crate) async fn upload(
        &self,
        name: &str,
        path: &Path,
        content: Content,
    ) -> Result<Receipt, StorageError> {
        let size = content.size();
        let options = self.options.put_options.clone();
        let mut attempts = self.attempts(Operation::Create, name).asking_for(&self.options.store, path);
        let most = self.options.transfer.connections;
        let must_split = self.must_split(size);
        let is_large = size >= LARGE || must_split;
        let transfer = is_large.then(|| self.learnt.uploads.begin(most, Instant::now()));
        let transfer = transfer.as_ref();
        if must_split || (size >= LARGE && transfer.is_some_and(|it| it.connections() > 1)) {
            return self.upload_in_parts(name, path, &content, attempts, transfer).await;
        }
        let changes = transfer.map(Transfer::changes);
        let start = Instant::now();
        let breaks = Breaks::new(&self.learnt.request_size, size);
        // Made for each attempt: a pause between two of them takes no memory.
        let put = async || self.options.store.put_opts(path, content.payload()?, options.clone()).await;
        let answer = attempts.run(async || breaks.count(hashing(size, put()).await)).await;
        let (stored, exchange) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let result = if breaks.note(&error) {
                    let how_long = if error.cause == Cause::TooLarge { "from now on" } else { "for a while" };
                    tracing::warn!("{error}; sending this and larger objects in parts {how_long}");
                    self.upload_in_parts(name, path, &content, attempts.again(self.retry), transfer).await
                } else {
                    Err(error)
                };
                return match result {
                    Ok(receipt) => Ok(receipt),
                    Err(error) => {
                        let sent = Sent::Content(&content);
                        Box::pin(self.settle(name, path, sent, &attempts, error)).await
                    }
                };
            }
        };
        self.learnt.request_size.note_accepted(size);
        if let Some(transfer) = transfer.filter(|it| attempts.is_first() && Some(it.changes()) == changes) {
            transfer.record(1, rate(size, without_latency(start.elapsed(), self.latency())), Instant::now());
        }
        Ok(Receipt::Sums { checksum: exchange.checksum, e_tag: stored.e_tag })
    }

    /// Whether an object of `size` bytes must be uploaded in parts, however fast one connection is.
    pub(crate) fn must_split(&self, size: u64) -> bool {
        let TransferOptions { part_size, always, .. } = self.options.transfer;
        size > self.options.largest_put
            || !self.learnt.request_size.allows(size)
            || (always && size > part_size)
    }

    async fn upload_in_parts(
        &self,
        name: &str,
        path: &Path,
        content: &Content,
        deadline: Attempts,
        transfer: Option<&Transfer>,
    ) -> Result<Receipt, StorageError> {
        let was_repeated = AtomicBool::default();
        let upload = MultipartUpload { bucket: self, name, path, deadline, transfer, was_repeated };
        // Rare, and large: Orthanc's threads, which create these futures, have stacks of 100 kB.
        let receipt = Box::pin(upload.run(content)).await?;
        if let Some(transfer) = transfer.filter(|_| !upload.was_repeated.load(Ordering::Relaxed)) {
            transfer.finish(content.size(), Instant::now());
        }
        Ok(receipt)
    }

    /// Begins to read `name`, or a range of it.
    ///
    /// # Errors
    ///
    /// [`Cause::NotFound`] if there is no such object, [`Cause::OutOfRange`] if it is smaller than the range.
    pub async fn get(&self, name: &str, range: ReadRange) -> Result<Download, StorageError> {
        let path = self.path(Operation::Read, name)?;
        let in_answer = self.options.verify_checksums;
        let answers = || self.options.dialect.as_ref().is_none_or(|dialect| dialect.returns_checksums());
        let has_more = in_answer && self.options.checksums_on_request;
        let e_tags = has_more.then(|| Arc::clone(&self.e_tags));
        let on_request = has_more && answers();
        let beginning = match &range {
            ReadRange::Range(range) if on_request && range.start == 0 => Some(range.end),
            _ => None,
        };
        let asks_for_whole = beginning.is_some_and(|length| self.learnt.beginnings.are_likely_whole(length));
        let verification = Verification { in_answer, on_request, e_tags, asks_for_whole };
        let download = self.download(path, range, verification, self.attempts(Operation::Read, name)).await?;
        if let Some(length) = beginning {
            if asks_for_whole && download.had_no_length() {
                self.learnt.beginnings.give_up();
            }
            self.learnt.beginnings.note(length, length == download.object_size(), asks_for_whole);
        }
        Ok(download)
    }

    /// Reads a whole object of at most `limit` bytes; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), or [`Cause::Damaged`] if it is larger.
    pub(crate) async fn get_small(&self, name: &str, limit: usize) -> Result<Option<Bytes>, StorageError> {
        let Some(mut download) = found(self.get(name, ReadRange::Whole).await)? else { return Ok(None) };
        let mut content = Vec::new();
        while let Some(chunk) = download.next().await? {
            content.extend_from_slice(&chunk);
            if content.len() > limit {
                let cause = Cause::Damaged(format!("it has more than {limit} bytes"));
                return Err(StorageError::new(Operation::Read, self.object_url(name), cause));
            }
        }
        Ok(Some(content.into()))
    }

    /// As [`get`](Self::get), for content that proves its own integrity: a range is not compared with a checksum.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn get_sealed(&self, name: &str, range: ReadRange) -> Result<Download, StorageError> {
        let path = self.path(Operation::Read, name)?;
        let in_answer = self.options.verify_checksums && range == ReadRange::Whole;
        let verification = Verification { in_answer, ..Verification::default() };
        self.download(path, range, verification, self.attempts(Operation::Read, name)).await
    }

    /// Returns what the server says of `name`, without its content.
    ///
    /// # Errors
    ///
    /// [`Cause::NotFound`] if there is no such object.
    pub(crate) async fn head(&self, name: &str) -> Result<ObjectHead, StorageError> {
        let path = self.path(Operation::Read, name)?;
        let mut attempts = self.attempts(Operation::Read, name);
        let (object, exchange) = attempts.run(|| self.options.store.head(&path)).await?;
        let size = object.size;
        let e_tag = without_placeholder(object).e_tag;
        let possible_md5 = match e_tag.as_deref().and_then(Checksum::of_e_tag) {
            Some(Checksum::Md5(md5)) if !exchange.has_other_e_tag => Some(md5),
            _ => None,
        };
        Ok(ObjectHead { size, e_tag, md5: exchange.md5, possible_md5, archive: exchange.archive })
    }

    pub(crate) async fn download(
        &self,
        path: Path,
        range: ReadRange,
        verification: Verification,
        attempts: Attempts,
    ) -> Result<Download, StorageError> {
        let store = Arc::clone(&self.options.store);
        let download = Download::start(store, path, range, verification, attempts).await?;
        Ok(download.split_if_faster(self.options.transfer.connections, self.retry, &self.learnt.downloads))
    }

    /// Deletes `name`. Succeeds if there is no such object.
    ///
    /// # Errors
    ///
    /// If the server does not confirm the deletion within the limits of the retry policy.
    pub async fn delete(&self, name: &str) -> Result<(), StorageError> {
        let path = self.path(Operation::Remove, name)?;
        self.delete_path(&path, self.retry).await
    }

    pub(crate) async fn delete_path(&self, path: &Path, policy: RetryPolicy) -> Result<(), StorageError> {
        let delete = || self.options.store.delete(path);
        match self.attempts_within(policy, Operation::Remove, path.as_ref()).run(delete).await {
            Err(error) if error.cause != Cause::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) fn store(&self) -> &dyn ObjectStore {
        &*self.options.store
    }

    pub(crate) fn multipart(&self) -> &dyn MultipartStore {
        &*self.options.multipart
    }

    /// See [`Dialect::changes`].
    pub(crate) fn dialect_changes(&self) -> usize {
        self.options.dialect.as_ref().map_or(0, |dialect| dialect.changes())
    }

    pub(crate) fn journal(&self) -> Option<Arc<dyn UploadJournal>> {
        self.journal.clone()
    }

    pub(crate) fn retry(&self) -> RetryPolicy {
        self.retry
    }

    /// The time until the server answers, as far as downloads have shown.
    pub(crate) fn latency(&self) -> Duration {
        self.learnt.downloads.latency()
    }

    pub(crate) fn transfer(&self) -> TransferOptions {
        self.options.transfer
    }

    pub(crate) fn attempts(&self, operation: Operation, name: &str) -> Attempts {
        self.attempts_within(self.retry, operation, name).reported_to(&self.health)
    }

    /// As [`attempts`](Self::attempts), but with another policy and nobody who waits.
    pub(crate) fn attempts_within(&self, policy: RetryPolicy, operation: Operation, name: &str) -> Attempts {
        let attempts = Attempts::new(policy, operation, self.object_url(name));
        if self.hides_names { attempts.hiding(name) } else { attempts }
    }

    /// `name` unchanged: `Path::from` would rewrite `#`, `%`, `~` and non-ASCII letters.
    pub(crate) fn path(&self, operation: Operation, name: &str) -> Result<Path, StorageError> {
        Path::parse(name).map_err(|error| {
            // The reason quotes the name.
            let reason =
                if self.hides_names { "its name is not valid".to_owned() } else { error.to_string() };
            StorageError::new(operation, self.object_url(name), Cause::Other(reason))
        })
    }
}
