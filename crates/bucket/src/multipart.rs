//! Uploads in parts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::stream::FuturesUnordered;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartId, PutMultipartOptions, PutOptions};
use tokio::time::Instant;

use crate::bucket::Bucket;
use crate::climb::{rate, without_latency};
use crate::confirm::{Receipt, Sent};
use crate::content::Content;
use crate::error::StorageError;
use crate::request_size::Breaks;
use crate::retry::Attempts;
use crate::task::hashing;
use crate::throughput::Transfer;

/// Maximum number of parts of an object on S3.
pub(crate) const MOST_PARTS: u64 = 10_000;

/// One multipart upload.
pub(crate) struct MultipartUpload<'a> {
    pub(crate) bucket: &'a Bucket,
    pub(crate) name: &'a str,
    pub(crate) path: &'a Path,
    /// Has the deadline of the whole upload.
    pub(crate) deadline: Attempts,
    /// Shares and measures the line; `None` for streams.
    pub(crate) transfer: Option<&'a Transfer>,
    /// Whether a part was sent more than once.
    pub(crate) was_repeated: AtomicBool,
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
        let begun = Instant::now();
        let id = self.create().await?;
        let known = self.bucket.latency();
        let latency = if known.is_zero() { begun.elapsed() } else { known };
        let result = self.upload(content, &id, part_size, latency).await;
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
        latency: Duration,
    ) -> Result<Receipt, StorageError> {
        let is_forced = self.bucket.must_split(content.size());
        let count = usize::try_from(content.size().div_ceil(part_size)).unwrap_or(usize::MAX);
        let mut waiting = 0..count;
        let mut running = FuturesUnordered::new();
        let mut done: Vec<Option<PartId>> = vec![None; count];
        loop {
            let connections = self.connections(is_forced);
            while running.len() < connections
                && let Some(index) = waiting.next()
            {
                let start = (index as u64).saturating_mul(part_size);
                let part = content.slice(start..start.saturating_add(part_size));
                running.push(async move {
                    let begun = Instant::now();
                    let (part, is_first) = self.put_part(id, index, part).await?;
                    Ok((index, part, connections, is_first.then(|| begun.elapsed())))
                });
            }
            if let Some(transfer) = self.transfer {
                transfer.note_use(running.len());
            }
            let Some((index, part, connections, time)) = running.try_next().await? else { break };
            done[index] = Some(part);
            let Some(time) = time else {
                // Pauses between attempts say nothing about the line.
                self.was_repeated.store(true, Ordering::Relaxed);
                continue;
            };
            // Towards the end, there are fewer connections than before.
            if let Some(transfer) = self.transfer.filter(|_| !is_forced && !waiting.is_empty()) {
                transfer.record(connections, rate(part_size, without_latency(time, latency)), Instant::now());
            }
        }
        self.bucket.learnt.request_size.note_upload_in_parts(part_size.min(content.size()));
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

    /// The number of parts to send at once. If several connections are not faster, two still hide the latency.
    fn connections(&self, is_forced: bool) -> usize {
        let most = self.bucket.transfer().connections.max(1);
        match self.transfer {
            Some(transfer) if is_forced => transfer.share_of(most),
            Some(transfer) => transfer.connections().max(2).min(most),
            None => most,
        }
    }

    /// Also returns whether the first attempt has succeeded.
    pub(crate) async fn put_part(
        &self,
        id: &MultipartId,
        index: usize,
        part: Content,
    ) -> Result<(PartId, bool), StorageError> {
        let size = part.size();
        let breaks = Breaks::new(&self.bucket.learnt.request_size, size);
        let put = async || self.store().put_part(self.path, id, index, part.payload()?).await;
        let mut attempts = self.attempts();
        let result = attempts.run(async || breaks.count(hashing(size, put()).await)).await;
        result.map(|(part, _)| (part, attempts.is_first())).inspect_err(|error| {
            breaks.note(error);
        })
    }

    /// Returns the size of the parts of `content`.
    fn part_size(&self, content: &Content) -> u64 {
        let wanted = self.bucket.transfer().part_size;
        self.bucket.learnt.request_size.part(wanted).max(content.size().div_ceil(MOST_PARTS))
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
