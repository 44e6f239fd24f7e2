//! Looks whether an object is what was sent, after the server's confirmation was lost.

use std::time::Duration;

use bytes::Bytes;
use cloud_http::Checksum;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tokio::time::Instant;

use crate::bucket::Bucket;
use crate::download::{ReadRange, Verification};
use crate::error::{Cause, Operation, StorageError};
use crate::retry::{Attempts, RetryPolicy};
use crate::task::in_place;

/// Time limit for looking at an object after an upload has failed, even if the upload has used up its time. Half
/// of the upload's own limit if that is shorter.
const LOOK: Duration = Duration::from_secs(5);
/// Retries of that look.
const RETRIES: u32 = 2;
/// Bytes to hash at a time. The hash can be cancelled in between.
const PIECE: usize = 16 * 1024 * 1024;

impl Bucket {
    /// Whether the server has an object `name` with the size and checksum of `content`. `false` if the server
    /// keeps no checksums.
    ///
    /// # Errors
    ///
    /// If the server does not answer.
    pub async fn is_confirmed(&self, name: &str, content: &Bytes) -> Result<bool, StorageError> {
        let path = self.path(Operation::Read, name)?;
        let mut attempts = self.attempts(Operation::Read, name);
        Ok(self.compare(&path, content, &mut attempts).await? == Comparison::Equal)
    }

    /// Decides about an upload that failed with `error`: it has succeeded if the server may have carried out
    /// one of its `attempts`, and the object is whole.
    pub(crate) async fn settle(
        &self,
        name: &str,
        path: &Path,
        content: &Bytes,
        attempts: &Attempts,
        error: StorageError,
    ) -> Result<(), StorageError> {
        if !attempts.may_be_done() {
            return Err(error);
        }
        let found = match self.is_whole(name, path, content, attempts.deadline()).await {
            Ok(true) => {
                tracing::info!("{} is stored, although its confirmation was lost: {error}", error.object);
                return Ok(());
            }
            Ok(false) => "the object in the bucket is a different one".to_owned(),
            Err(look) if look.cause == Cause::NotFound => "the object is not in the bucket".to_owned(),
            Err(look) => format!("the object cannot be compared: {}", look.cause),
        };
        tracing::info!("{error}; {found}");
        // The server refuses to complete an upload twice, for example. That refusal alone would be misleading.
        let cause = if error.cause == Cause::Refused { Cause::Unconfirmed(found) } else { error.cause };
        Err(StorageError { cause, may_remain: true, ..error })
    }

    /// Whether the object is `content`. Without a checksum of the server, each byte is compared: an older
    /// object can have the same size.
    async fn is_whole(
        &self,
        name: &str,
        path: &Path,
        content: &Bytes,
        deadline: Instant,
    ) -> Result<bool, StorageError> {
        let retry = self.retry();
        let within = |deadline| RetryPolicy { deadline, ..retry };
        let look = LOOK.min(retry.deadline / 2);
        let end = deadline.max(Instant::now() + look);
        let short = RetryPolicy { max_retries: retry.max_retries.min(RETRIES), ..within(look) };
        let mut attempts = Attempts::new(short, Operation::Read, self.object_url(name));
        match self.compare(path, content, &mut attempts).await? {
            Comparison::Equal => return Ok(true),
            Comparison::Different => return Ok(false),
            Comparison::NoChecksum => {}
        }
        let left = within(end.saturating_duration_since(Instant::now()));
        let left = RetryPolicy { patience: LOOK.min(left.patience), ..left };
        let attempts = Attempts::new(left, Operation::Read, self.object_url(name));
        let mut download =
            self.download(path.clone(), ReadRange::Whole, Verification::default(), attempts).await?;
        let mut rest = &content[..];
        while let Some(chunk) = download.next().await? {
            match rest.strip_prefix(&chunk[..]) {
                Some(after) => rest = after,
                None => return Ok(false),
            }
        }
        Ok(rest.is_empty())
    }

    /// Compares the size and checksum of an object with `content`, with one request.
    async fn compare(
        &self,
        path: &Path,
        content: &Bytes,
        attempts: &mut Attempts,
    ) -> Result<Comparison, StorageError> {
        let (object, exchange) = match attempts.run(|| self.store().head(path)).await {
            Err(error) if error.cause == Cause::NoLength => return Ok(Comparison::NoChecksum),
            result => result?,
        };
        if object.size != content.len() as u64 {
            return Ok(Comparison::Different);
        }
        let checksum = exchange.checksum.filter(|_| self.options.verify_checksums);
        let Some(checksum) = checksum else { return Ok(Comparison::NoChecksum) };
        let is_equal = matches(checksum, content).await;
        Ok(if is_equal { Comparison::Equal } else { Comparison::Different })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    Different,
    /// The sizes are equal or not known, and the server has no checksum that counts.
    NoChecksum,
}

async fn matches(checksum: Checksum, content: &Bytes) -> bool {
    let mut verifier = checksum.verifier();
    for piece in content.chunks(PIECE) {
        in_place(|| verifier.update(piece));
        tokio::task::yield_now().await;
    }
    verifier.is_right()
}
