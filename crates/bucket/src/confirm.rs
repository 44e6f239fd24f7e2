//! Checks that an object equals what was sent, after the server's confirmation was lost or where a copy depends on it.

use std::time::Duration;

use bytes::Bytes;
use cloud_http::{Checksum, Hasher};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tokio::time::Instant;

use crate::bucket::Bucket;
use crate::content::{Content, SourceError};
use crate::download::ReadRange;
use crate::error::{Cause, Operation, StorageError};
use crate::retry::{Attempts, RetryPolicy};
use crate::task::in_place;
use crate::verification::Verification;

/// Time limit for looking at an object after an upload has failed, even if the upload has used up its time. Half
/// of the upload's own limit if that is shorter.
const LOOK: Duration = Duration::from_secs(5);
/// Retries of that look.
const RETRIES: u32 = 2;
/// Bytes to hash at a time. The hash can be cancelled in between, and content that is made takes this much memory.
const STEP: u64 = 4 * 1024 * 1024;

/// What is known of an object after its upload.
#[derive(Debug)]
pub(crate) enum Receipt {
    /// The object was compared with what was sent.
    Compared,
    /// The sums in the server's answer, which are those of the whole object.
    Sums { checksum: Option<Checksum>, e_tag: Option<String> },
    /// Nothing about the content: the answer to an upload in parts.
    None,
}

/// What was sent, as far as it is still there.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sent<'a> {
    Content(&'a Content),
    /// Number and checksum of bytes that are gone.
    Sums {
        size: u64,
        hasher: &'a Hasher,
    },
}

impl Sent<'_> {
    fn size(self) -> u64 {
        match self {
            Self::Content(content) => content.size(),
            Self::Sums { size, .. } => size,
        }
    }
}

impl Bucket {
    /// As [`put`](Self::put), and compares the object with `content`: by the checksum in the server's answer or, with
    /// further requests, as [`has`](Self::has) does.
    ///
    /// # Errors
    ///
    /// [`Cause::CopyDamaged`] if the object is a different one, and the errors of [`put`](Self::put) and
    /// [`has`](Self::has).
    pub async fn put_confirmed(&self, name: &str, content: Bytes) -> Result<(), StorageError> {
        let path = self.path(Operation::Create, name)?;
        let sent = Content::Bytes(content.clone());
        let is_confirmed = match self.upload(name, &path, sent.clone()).await? {
            Receipt::Compared => true,
            Receipt::Sums { checksum, e_tag } => {
                self.compare_sums(checksum, e_tag.as_deref(), Sent::Content(&sent)).await == Likeness::Equal
            }
            Receipt::None => false,
        };
        // A sum that differs may be of something else: of the answer itself, for example.
        let may_remain = |error| StorageError { may_remain: true, ..error };
        if is_confirmed || Box::pin(self.has(name, &content)).await.map_err(may_remain)? {
            return Ok(());
        }
        let error = StorageError::new(Operation::Create, self.object_url(name), Cause::CopyDamaged);
        Err(StorageError { may_remain: true, ..error })
    }

    /// Whether the bucket has an object `name` with this content: by size and checksum, or byte for byte if the server
    /// has no checksum.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or refuses.
    pub async fn has(&self, name: &str, content: &Bytes) -> Result<bool, StorageError> {
        let path = self.path(Operation::Read, name)?;
        let attempts = || self.attempts(Operation::Read, name);
        let content = Content::Bytes(content.clone());
        let content = Sent::Content(&content);
        let is_equal = match self.compare(&path, content, &mut attempts()).await {
            Ok(Likeness::Equal) => Ok(true),
            Ok(Likeness::Different) => Ok(false),
            Ok(Likeness::NoChecksum) => self.reads_as(path, content, attempts()).await,
            Err(error) => Err(error),
        };
        match is_equal {
            Err(error) if error.cause == Cause::NotFound => Ok(false),
            result => result,
        }
    }

    /// Decides about an upload that failed with `error`: it has succeeded if the server may have carried out
    /// one of its `attempts`, and the object is whole.
    pub(crate) async fn settle(
        &self,
        name: &str,
        path: &Path,
        content: Sent<'_>,
        attempts: &Attempts,
        error: StorageError,
    ) -> Result<Receipt, StorageError> {
        if !attempts.may_be_done() {
            return Err(error);
        }
        let found = match self.is_whole(name, path, content, attempts.deadline()).await {
            Ok(true) => {
                tracing::info!("{} is stored, although its confirmation was lost: {error}", error.object);
                return Ok(Receipt::Compared);
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

    /// As [`has`](Self::has), within a short time. A missing object is an error.
    async fn is_whole(
        &self,
        name: &str,
        path: &Path,
        content: Sent<'_>,
        deadline: Instant,
    ) -> Result<bool, StorageError> {
        let retry = self.retry();
        let within = |deadline| RetryPolicy { deadline, ..retry };
        let look = LOOK.min(retry.deadline / 2);
        let end = deadline.max(Instant::now() + look);
        let short = RetryPolicy { max_retries: retry.max_retries.min(RETRIES), ..within(look) };
        let mut attempts = self.attempts_within(short, Operation::Read, name);
        match self.compare(path, content, &mut attempts).await? {
            Likeness::Equal => return Ok(true),
            Likeness::Different => return Ok(false),
            Likeness::NoChecksum => {}
        }
        let left = within(end.saturating_duration_since(Instant::now()));
        let left = RetryPolicy { patience: LOOK.min(left.patience), ..left };
        self.reads_as(path.clone(), content, self.attempts_within(left, Operation::Read, name)).await
    }

    /// Reads an object back and compares each byte, or the checksum: another object can have the same size.
    async fn reads_as(
        &self,
        path: Path,
        content: Sent<'_>,
        attempts: Attempts,
    ) -> Result<bool, StorageError> {
        let mut download =
            self.download(path.clone(), ReadRange::Whole, Verification::default(), attempts).await?;
        let content = match content {
            Sent::Content(content) => content,
            Sent::Sums { size, hasher } => {
                let mut read = 0;
                let mut verifier = hasher.checksum().verifier();
                while let Some(chunk) = download.next().await? {
                    read += chunk.len() as u64;
                    in_place(|| verifier.update(&chunk));
                }
                return Ok(read == size && verifier.is_right());
            }
        };
        let mut position = 0;
        while let Some(chunk) = download.next().await? {
            let end = position + chunk.len() as u64;
            let part = content.slice(position..end);
            let expected = in_place(|| part.read()).map_err(|error| {
                let object = self.object_url(path.as_ref());
                StorageError::new(Operation::Read, object, Cause::Other(error.to_string()))
            })?;
            if !is_equal(&chunk, &expected) {
                return Ok(false);
            }
            position = end;
        }
        Ok(position == content.size())
    }

    /// Compares the size and checksum of an object with `content`, with one request.
    async fn compare(
        &self,
        path: &Path,
        content: Sent<'_>,
        attempts: &mut Attempts,
    ) -> Result<Likeness, StorageError> {
        let (object, exchange) = match attempts.run(|| self.store().head(path)).await {
            Err(error) if error.cause == Cause::NoLength => return Ok(Likeness::NoChecksum),
            result => result?,
        };
        if object.size != content.size() {
            return Ok(Likeness::Different);
        }
        Ok(self.compare_sums(exchange.checksum, object.e_tag.as_deref(), content).await)
    }

    /// Compares what a server says about a whole object with `content`.
    async fn compare_sums(
        &self,
        checksum: Option<Checksum>,
        e_tag: Option<&str>,
        content: Sent<'_>,
    ) -> Likeness {
        if !self.options.verify_checksums {
            return Likeness::NoChecksum;
        }
        let content = match content {
            Sent::Content(content) => content,
            Sent::Sums { hasher, .. } => {
                return match checksum.and_then(|checksum| hasher.fits(checksum)) {
                    Some(true) => Likeness::Equal,
                    Some(false) => Likeness::Different,
                    None => Likeness::NoChecksum,
                };
            }
        };
        if let Some(checksum) = checksum {
            return match matches(checksum, content).await {
                Ok(true) => Likeness::Equal,
                Ok(false) => Likeness::Different,
                Err(_) => Likeness::NoChecksum,
            };
        }
        // The MD5 takes less time than reading the object back, which would be next.
        match e_tag.and_then(Checksum::of_e_tag) {
            Some(md5) if matches(md5, content).await.unwrap_or(false) => Likeness::Equal,
            _ => Likeness::NoChecksum,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Likeness {
    Equal,
    Different,
    /// The sizes are equal or not known, and the server has no checksum that counts.
    NoChecksum,
}

/// Fails if the content cannot be made again.
async fn matches(checksum: Checksum, content: &Content) -> Result<bool, SourceError> {
    let mut verifier = checksum.verifier();
    let mut position = 0;
    while position < content.size() {
        let step = content.slice(position..position + STEP);
        in_place(|| step.read().map(|pieces| pieces.iter().for_each(|piece| verifier.update(piece))))?;
        position += STEP;
        tokio::task::yield_now().await;
    }
    Ok(verifier.is_right())
}

/// Whether `pieces` together are `bytes`.
fn is_equal(bytes: &[u8], pieces: &[Bytes]) -> bool {
    let mut rest = bytes;
    for piece in pieces {
        match rest.strip_prefix(&piece[..]) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest.is_empty()
}
