//! Transfers over several connections: multipart uploads, and downloads in parallel ranges.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use futures_util::{StreamExt, TryStreamExt};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartId, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;

use crate::bucket::Bucket;
use crate::confirm::{Receipt, Sent};
use crate::content::Content;
use crate::download::{Download, ReadRange};
use crate::error::StorageError;
use crate::request_size::Breaks;
use crate::retry::{Attempts, RetryPolicy};
use crate::task::hashing;
use crate::throughput::TransferOptions;
use crate::verification::Verification;

/// Maximum number of parts of an object on S3.
pub(crate) const MOST_PARTS: u64 = 10_000;
/// Memory that a parallel download may use, in bytes.
const DOWNLOAD_MEMORY: u64 = 20 * 1024 * 1024;
/// Smallest range that a parallel download asks for, in bytes.
const SMALLEST_RANGE: u64 = 1024 * 1024;

/// Memory for the parts of a bucket's uploads that are made as they are sent, in MiB: enough for the usual parts on all
/// connections. More would only wait for a connection.
const MADE_PARTS: u32 = 128;

/// Limits the parts that are made as they are sent, first come, first served.
#[derive(Debug)]
pub(crate) struct MadeParts(Semaphore);

impl Default for MadeParts {
    fn default() -> Self {
        Self(Semaphore::new(MADE_PARTS as usize))
    }
}

impl MadeParts {
    /// Waits until there is memory for a part of `size` bytes, or nothing else in memory.
    async fn begin(&self, size: u64) -> Option<SemaphorePermit<'_>> {
        let wanted = u32::try_from(size.div_ceil(1024 * 1024)).unwrap_or(u32::MAX).clamp(1, MADE_PARTS);
        // Never fails: the semaphore is never closed.
        self.0.acquire_many(wanted).await.ok()
    }
}

/// One multipart upload.
pub(crate) struct MultipartUpload<'a> {
    pub(crate) bucket: &'a Bucket,
    pub(crate) name: &'a str,
    pub(crate) path: &'a Path,
    /// Has the deadline of the whole upload.
    pub(crate) deadline: Attempts,
}

impl MultipartUpload<'_> {
    /// Uploads `content`. Begins again if the server turns out to understand another dialect, or smaller parts only.
    pub(crate) async fn run(&self, content: &Content) -> Result<Receipt, StorageError> {
        let mut may_remain = false;
        loop {
            let dialect = self.bucket.dialect_changes();
            let part_size = self.part_size(content);
            let error = match self.attempt(content, part_size).await {
                Ok(receipt) => return Ok(receipt),
                Err(error) => error,
            };
            may_remain |= error.may_remain;
            let is_smaller = self.part_size(content) < part_size;
            if !is_smaller && self.bucket.dialect_changes() == dialect {
                return Err(StorageError { may_remain, ..error });
            }
            tracing::info!("{error}; the upload begins again");
        }
    }

    /// Uploads `content` once. Aborts the upload if it fails, since the cloud would charge for its parts forever.
    async fn attempt(&self, content: &Content, part_size: u64) -> Result<Receipt, StorageError> {
        let id = self.create().await?;
        let result = self.upload(content, &id, part_size).await;
        self.end(&id, result.is_ok()).await;
        result
    }

    /// Begins an upload of parts, and notes that in the journal.
    pub(crate) async fn create(&self) -> Result<MultipartId, StorageError> {
        let PutOptions { tags, attributes, .. } = self.bucket.options.put_options.clone();
        let options = PutMultipartOptions { tags, attributes, ..PutMultipartOptions::default() };
        let begin = || self.store().create_multipart_opts(self.path, options.clone());
        // With the patience that a single request has left: there was no progress since.
        let (id, _) = self.deadline.again(self.bucket.retry()).run(begin).await?;
        self.bucket.note(|journal, name, id| journal.began(name, id), self.name, &id).await;
        Ok(id)
    }

    /// Removes an upload from the journal. Aborts it unless it `is_complete`.
    ///
    /// An upload whose confirmation was lost is complete if the bucket has an equal object, even if that may be an earlier
    /// one and the parts remain. An abort could delete an object that counts as stored: some releases of Ceph and SeaweedFS
    /// delete the parts of an object if its upload is aborted while the completion is still being carried out, or has left
    /// the upload behind.
    pub(crate) async fn end(&self, id: &MultipartId, is_complete: bool) {
        let aborted = match is_complete {
            true => Ok(()),
            false => self.bucket.abort(self.name, self.path, id).await,
        };
        match aborted {
            Ok(()) => self.bucket.note(|journal, name, id| journal.ended(name, id), self.name, id).await,
            Err(error) => tracing::warn!("{error}"),
        }
    }

    async fn upload(
        &self,
        content: &Content,
        id: &MultipartId,
        part_size: u64,
    ) -> Result<Receipt, StorageError> {
        let connections = self.bucket.transfer().connections;
        let count = usize::try_from(content.size().div_ceil(part_size)).unwrap_or(usize::MAX);
        let mut waiting = 0..count;
        let mut running = FuturesUnordered::new();
        let mut done: Vec<Option<PartId>> = vec![None; count];
        loop {
            while running.len() < connections.max(1)
                && let Some(index) = waiting.next()
            {
                let start = (index as u64).saturating_mul(part_size);
                let part = content.slice(start..start.saturating_add(part_size));
                running.push(async move { Ok((index, self.put_part(id, index, part).await?)) });
            }
            match running.try_next().await? {
                Some((index, part)) => done[index] = Some(part),
                None => break,
            }
        }
        self.bucket.request_size.note_upload_in_parts(part_size.min(content.size()));
        let parts: Vec<PartId> = done.into_iter().flatten().collect();
        let mut attempts = self.attempts();
        match attempts.run(|| self.store().complete_multipart(self.path, id, parts.clone())).await {
            Ok(_) => Ok(Receipt::None),
            Err(error) => {
                let sent = Sent::Content(content);
                self.bucket.settle(self.name, self.path, sent, &attempts, error).await
            }
        }
    }

    pub(crate) async fn put_part(
        &self,
        id: &MultipartId,
        index: usize,
        part: Content,
    ) -> Result<PartId, StorageError> {
        let size = part.size();
        // Before its time begins.
        let _memory = if part.is_made() { self.bucket.made_parts.begin(size).await } else { None };
        let breaks = Breaks::new(&self.bucket.request_size, size);
        let put = async || self.store().put_part(self.path, id, index, part.payload()?).await;
        let result = self.attempts().run(async || breaks.count(hashing(size, put()).await)).await;
        result.map(|(part, _)| part).inspect_err(|error| {
            breaks.note(error);
        })
    }

    /// Returns the size of the parts of `content`.
    fn part_size(&self, content: &Content) -> u64 {
        let wanted = self.bucket.transfer().part_size;
        self.bucket.request_size.part(wanted).max(content.size().div_ceil(MOST_PARTS))
    }

    pub(crate) fn store(&self) -> &dyn MultipartStore {
        self.bucket.multipart()
    }

    /// Returns the attempts for one request after the first.
    pub(crate) fn attempts(&self) -> Attempts {
        let mut attempts = self.deadline.again(self.bucket.retry());
        attempts.made_progress();
        attempts
    }
}

/// The rest of a download, in ranges that arrive in parallel and are returned in order.
pub(crate) struct ParallelDownload {
    store: Arc<dyn ObjectStore>,
    path: Path,
    policy: RetryPolicy,
    object: ObjectMeta,
    connections: usize,
    /// The bytes that no range asks for yet, and the size of the next ranges.
    waiting: Range<u64>,
    range_size: u64,
    running: FuturesOrdered<JoinedRange>,
    ready: VecDeque<Bytes>,
}

type JoinedRange = futures_util::future::BoxFuture<'static, Result<Vec<Bytes>, StorageError>>;

/// Aborts the task when dropped.
struct AbortOnDrop(JoinHandle<Result<Vec<Bytes>, StorageError>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ParallelDownload {
    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        path: Path,
        range: Range<u64>,
        object: ObjectMeta,
        policy: RetryPolicy,
        options: TransferOptions,
    ) -> Self {
        let connections = options.connections.clamp(1, 16);
        let range_size = (DOWNLOAD_MEMORY / connections as u64).max(SMALLEST_RANGE);
        Self {
            store,
            path,
            policy,
            object,
            connections,
            waiting: range,
            range_size,
            running: FuturesOrdered::new(),
            ready: VecDeque::new(),
        }
    }

    /// The next bytes; `None` after the last ones.
    pub(crate) async fn next(&mut self, attempts: &Attempts) -> Result<Option<Bytes>, StorageError> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Ok(Some(bytes));
            }
            while self.running.len() < self.connections
                && let Some(range) = self.next_range()
            {
                self.running.push_back(self.start(range, attempts));
            }
            match tokio::time::timeout_at(attempts.deadline(), self.running.next()).await {
                Ok(Some(part)) => self.ready.extend(part?),
                Ok(None) => return Ok(None),
                Err(_elapsed) => return Err(attempts.timed_out()),
            }
        }
    }

    fn next_range(&mut self) -> Option<Range<u64>> {
        let Range { start, end } = self.waiting;
        let next = end.min(start.saturating_add(self.range_size));
        self.waiting.start = next;
        (start < end).then_some(start..next)
    }

    /// Reads a range in a separate task, so that it arrives while the reader is busy with another.
    fn start(&self, range: Range<u64>, attempts: &Attempts) -> JoinedRange {
        let store = Arc::clone(&self.store);
        let path = self.path.clone();
        let object = self.object.clone();
        let mut attempts = attempts.again(self.policy);
        attempts.made_progress();
        let mut task = AbortOnDrop(tokio::spawn(async move {
            let mut download =
                Download::start(store, path, ReadRange::Range(range), Verification::default(), attempts)
                    .await?;
            download.expect_version(&object)?;
            let mut chunks = Vec::new();
            while let Some(chunk) = download.next().await? {
                chunks.push(chunk);
            }
            Ok(chunks)
        }));
        Box::pin(async move {
            (&mut task.0).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
        })
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[test]
    fn ranges_of_an_absurd_size_take_no_memory() {
        let object = ObjectMeta {
            location: Path::from("object"),
            last_modified: std::time::SystemTime::UNIX_EPOCH.into(),
            size: u64::MAX,
            e_tag: None,
            version: None,
        };
        let options = TransferOptions { connections: 10, ..TransferOptions::default() };
        let policy = RetryPolicy::default();
        let store = Arc::new(InMemory::new());
        let path = object.location.clone();
        let range = 7..u64::MAX;
        let mut download = ParallelDownload::new(store, path, range, object, policy, options);
        let size = DOWNLOAD_MEMORY / 10;
        assert_eq!(download.next_range(), Some(7..7 + size));
        assert_eq!(download.next_range(), Some(7 + size..7 + 2 * size));
        download.waiting.start = u64::MAX - 1;
        assert_eq!(download.next_range(), Some(u64::MAX - 1..u64::MAX));
        assert_eq!(download.next_range(), None);
    }
}
