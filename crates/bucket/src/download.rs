//! Downloads that resume where the connection broke.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cloud_http::{ArchiveState, Checksum, Exchange, NO_ETAG};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::time::Instant;

use crate::error::{Cause, StorageError};
use crate::ranges::Source;
use crate::retry::{Attempts, RetryPolicy};
use crate::split::{Next, Splitting};
use crate::throughput::{LARGE, Line};
use crate::verification::{Check, ETags, Verification};

/// The HTTP status for an object whose ETag is no longer the given one.
const PRECONDITION_FAILED: u16 = 412;

/// The beginning of an ETag that does not identify each byte.
const WEAK: &str = "W/";

/// The bytes of an object to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadRange {
    /// The whole object.
    Whole,
    /// Exactly these bytes. It is an error if the object is shorter.
    Range(Range<u64>),
    /// These bytes as far as the object has them, which must be at least one.
    UpTo(Range<u64>),
}

/// An object, or a range of it, being downloaded.
///
/// A broken connection is replaced, and the download resumes at the byte where it stopped. The bytes returned
/// are exactly those of [`Download::range`]. The end is reported only after the checksum of the whole object,
/// if the server has one, has been verified. Before [`Cause::WrongChecksum`], all bytes have been returned.
pub struct Download {
    store: Arc<dyn ObjectStore>,
    path: Path,
    attempts: Attempts,
    body: BoxStream<'static, object_store::Result<Bytes>>,
    /// The position up to which bytes of `body` are wanted: ranges have the others.
    body_end: u64,
    object: ObjectMeta,
    archive: ArchiveState,
    range: Range<u64>,
    /// The position of the next byte in the object.
    next: u64,
    check: Check,
    /// Whether the server sends more than a range, so that parallel ranges would be slower.
    ignores_ranges: bool,
    /// Time until the server answered.
    latency: Duration,
    /// Rare, and large.
    splitting: Option<Box<Splitting>>,
}

impl Download {
    /// Sends the request and waits for the answer's headers.
    pub(crate) async fn start(
        store: Arc<dyn ObjectStore>,
        path: Path,
        wanted: ReadRange,
        verification: Verification,
        mut attempts: Attempts,
    ) -> Result<Self, StorageError> {
        let mut range = match &wanted {
            ReadRange::Whole => None,
            ReadRange::Range(range) | ReadRange::UpTo(range) => Some(GetRange::Bounded(range.clone())),
        };
        let begun = Instant::now();
        let mut result = get(&store, &path, range.clone(), &mut attempts).await;
        let latency = begun.elapsed();
        if range.is_none() && result.as_ref().is_err_and(|error| error.cause == Cause::NoLength) {
            // The answer about a range contains the size.
            range = Some(GetRange::Offset(0));
            result = match get(&store, &path, range.clone(), &mut attempts).await {
                Err(error) if has_no_first_byte(&error) => return Ok(Self::empty(store, path, attempts)),
                result => result,
            };
        }
        let (answer, exchange) = result?;
        if let ReadRange::Range(range) = wanted
            && answer.range != range
        {
            return Err(attempts.error(Cause::OutOfRange, false));
        }
        Ok(Self {
            store,
            path,
            attempts,
            object: answer.meta.clone(),
            archive: exchange.archive,
            next: answer.range.start,
            range: answer.range.clone(),
            check: Check::new(&verification, &answer, &exchange, range.is_some()),
            ignores_ranges: exchange.ignores_ranges,
            latency,
            splitting: None,
            body_end: answer.range.end,
            body: answer.into_stream(),
        })
    }

    /// An object without bytes, of which no range can be read.
    fn empty(store: Arc<dyn ObjectStore>, path: Path, attempts: Attempts) -> Self {
        let last_modified = SystemTime::UNIX_EPOCH.into();
        Self {
            store,
            attempts,
            object: ObjectMeta { location: path.clone(), last_modified, size: 0, e_tag: None, version: None },
            archive: ArchiveState::Online,
            path,
            next: 0,
            range: 0..0,
            check: Check::Off,
            ignores_ranges: false,
            latency: Duration::ZERO,
            splitting: None,
            body_end: 0,
            body: futures_util::stream::empty().boxed(),
        }
    }

    /// Allows up to `most` connections if the download is large and that is faster.
    pub(crate) fn split_if_faster(mut self, most: usize, policy: RetryPolicy, line: &Arc<Line>) -> Self {
        line.note_latency(self.latency);
        if self.range.end - self.range.start >= LARGE && most > 1 && !self.ignores_ranges {
            let source = Source {
                store: Arc::clone(&self.store),
                path: self.path.clone(),
                object: self.object.clone(),
                policy,
            };
            let transfer = line.begin(most, Instant::now());
            let splitting = Splitting::new(transfer, most, source, self.range.clone(), line.latency());
            self.splitting = Some(Box::new(splitting));
        }
        self
    }

    /// Fails unless this is the object version `begun` that another request began to read.
    pub(crate) fn expect_version(&self, begun: &ObjectMeta) -> Result<(), StorageError> {
        if is_same_version(&self.object, begun) { Ok(()) } else { Err(self.changed()) }
    }

    /// The size of the whole object, in bytes.
    pub fn object_size(&self) -> u64 {
        self.object.size
    }

    /// Identifies this version of the object (its ETag); `None` if the server sent none.
    pub fn version(&self) -> Option<&str> {
        self.object.e_tag.as_deref()
    }

    /// Whether the bytes are those of an archived object's copy.
    pub fn archive(&self) -> ArchiveState {
        self.archive
    }

    /// The range of the object that is read.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// The next bytes; `None` after the last ones.
    ///
    /// # Errors
    ///
    /// If the connection broke and could not be replaced, the object changed in the meantime, time ran out,
    /// or the content is corrupted. Discard the bytes returned before.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        let Some(splitting) = &mut self.splitting else { return self.next_sequential().await };
        self.body_end = splitting.steer(self.next, self.body_end, &self.attempts)?;
        if self.next < self.body_end {
            return self.next_sequential().await;
        }
        if self.next == self.range.end {
            splitting.finish();
            self.splitting = None;
            return self.next_sequential().await;
        }
        // Ends the first request, whose remaining bytes come in ranges.
        self.body = futures_util::stream::empty().boxed();
        let bytes = splitting.next(self.next, &self.attempts).await?;
        match bytes {
            Next::Bytes(bytes) => self.accept(bytes).map(Some),
            Next::Alone(end) => {
                self.body_end = end;
                self.resume().await?;
                self.next_sequential().await
            }
        }
    }

    fn count(&mut self, waited: Duration, bytes: &Bytes) {
        if let Some(splitting) = &mut self.splitting {
            splitting.count(waited, bytes.len());
        }
    }

    async fn next_sequential(&mut self) -> Result<Option<Bytes>, StorageError> {
        loop {
            let start = Instant::now();
            let frame = match tokio::time::timeout_at(self.attempts.deadline(), self.body.next()).await {
                Ok(frame) => frame,
                Err(_elapsed) => return Err(self.attempts.timed_out()),
            };
            let failure = match frame {
                Some(Ok(mut bytes)) => {
                    // Pauses between attempts do not count: they do not make the connection slow.
                    self.count(start.elapsed(), &bytes);
                    if self.body_end < self.range.end {
                        let wanted = usize::try_from(self.body_end - self.next).unwrap_or(usize::MAX);
                        bytes.truncate(wanted);
                    }
                    return self.accept(bytes).map(Some);
                }
                // All bytes have arrived, so a connection that breaks now does not matter.
                _ if self.next == self.range.end => return self.verify().await.map(|()| None),
                Some(Err(error)) => self.attempts.broken(&error),
                None => self.attempts.error(Cause::Network("the answer ended early".to_owned()), true),
            };
            self.attempts.pause_after(failure).await?;
            self.resume().await?;
        }
    }

    fn accept(&mut self, bytes: Bytes) -> Result<Bytes, StorageError> {
        let next = self.next + bytes.len() as u64;
        if next > self.range.end {
            return Err(self.damaged("the server sent more than requested"));
        }
        self.check.update(&bytes);
        self.next = next;
        self.attempts.made_progress();
        Ok(bytes)
    }

    /// Compares the bytes with the checksum of the whole object, if there is one.
    async fn verify(&mut self) -> Result<(), StorageError> {
        // Whatever happens now, a caller that asks again must not take the bytes for right.
        let check = std::mem::replace(&mut self.check, Check::Failed);
        if let Some(checksum) = self.wrong_checksum(check).await? {
            return Err(self.attempts.error(Cause::WrongChecksum(checksum), false));
        }
        self.check = Check::Off;
        Ok(())
    }

    /// The name of the checksum that the bytes do not have; `None` if nothing shows that they are wrong.
    async fn wrong_checksum(&mut self, check: Check) -> Result<Option<&'static str>, StorageError> {
        let (checksum, is_right) = match check {
            Check::Off => return Ok(None),
            Check::Failed => ("server's", false),
            Check::Known(verifier) => (verifier.expected().name(), verifier.is_right()),
            Check::Late { hasher, .. } if hasher.fits_e_tag() => return Ok(None),
            Check::Late { hasher, asks, e_tags } => {
                // Ends the first request, whose connection the next one may need.
                self.body = futures_util::stream::empty().boxed();
                let asked = if asks { self.ask_for_checksum().await? } else { None };
                match (asked, hasher.md5()) {
                    (Some(checksum), _) => (checksum.name(), hasher.fits(checksum).unwrap_or(true)),
                    (None, Some(md5)) if e_tags.may_be_md5s() => ("MD5", self.is_again(md5, &e_tags).await?),
                    (None, _) => return Ok(None),
                }
            }
        };
        Ok((!is_right).then_some(checksum))
    }

    /// Asks for the checksum of the object; `None` if the server has none.
    async fn ask_for_checksum(&mut self) -> Result<Option<Checksum>, StorageError> {
        let mut attempts = self.attempts.again(self.attempts.policy());
        let (object, exchange) = match attempts.run(|| self.store.head(&self.path)).await {
            // Chunked answers do not say how large the object is, which is known.
            Err(error) if error.cause == Cause::NoLength => return Ok(None),
            Err(error) if error.cause == Cause::NotFound => return Err(self.changed()),
            result => result?,
        };
        if !is_same_version(&without_placeholder(object), &self.object) {
            return Err(self.changed());
        }
        Ok(exchange.checksum)
    }

    /// Whether another download has this MD5 as well, which is not the `ETag`, although that looks like one. Then the `ETag`
    /// may be something else. Nothing can be said if the other download fails: the bytes are taken for right.
    async fn is_again(&mut self, md5: [u8; 16], e_tags: &ETags) -> Result<bool, StorageError> {
        self.attempts.count_retry();
        let again = match self.md5_again(md5).await {
            Err(error) if error.cause == Cause::NotFound => return Err(self.changed()),
            Err(error) if error.cause == Cause::Changed => return Err(error),
            result => result,
        };
        match again {
            Ok(true) => e_tags.note_other(&self.attempts.object),
            Ok(false) => return Ok(false),
            Err(error) => tracing::info!(
                "{error}; this was a second download, so the bytes of the first one were not compared"
            ),
        }
        Ok(true)
    }

    /// Downloads the object once more. Returns whether it has this MD5.
    async fn md5_again(&mut self, md5: [u8; 16]) -> Result<bool, StorageError> {
        let mut attempts = self.attempts.again(self.attempts.policy());
        let (answer, _) = get(&self.store, &self.path, None, &mut attempts).await?;
        if !is_same_version(&answer.meta, &self.object) {
            return Err(self.changed());
        }
        let mut verifier = Checksum::Md5(md5).verifier();
        let mut body = answer.into_stream();
        let mut size = 0;
        loop {
            let frame = tokio::time::timeout_at(attempts.deadline(), body.next()).await;
            let Some(bytes) = frame.map_err(|_elapsed| attempts.timed_out())? else { break };
            let bytes = bytes.map_err(|error| attempts.broken(&error))?;
            size += bytes.len() as u64;
            verifier.update(&bytes);
        }
        if size < self.object.size {
            return Err(attempts.error(Cause::Network("the answer ended early".to_owned()), true));
        }
        Ok(verifier.is_right())
    }

    /// Requests the missing bytes of the same object version.
    async fn resume(&mut self) -> Result<(), StorageError> {
        let missing = self.next..self.body_end;
        let options = GetOptions {
            range: Some(GetRange::Bounded(missing.clone())),
            if_match: strong(&self.object).map(str::to_owned),
            ..GetOptions::default()
        };
        let store = &self.store;
        let path = &self.path;
        let resumed = self.attempts.run(|| store.get_opts(path, options.clone())).await;
        let (answer, _) = resumed.map_err(|error| {
            if error.status() == Some(PRECONDITION_FAILED) || error.cause == Cause::OutOfRange {
                StorageError { cause: Cause::Changed, ..error }
            } else {
                error
            }
        })?;
        if !is_same_version(&without_placeholder(answer.meta.clone()), &self.object)
            || answer.range != missing
        {
            return Err(self.changed());
        }
        self.body = answer.into_stream();
        Ok(())
    }

    fn changed(&self) -> StorageError {
        self.attempts.error(Cause::Changed, false)
    }

    fn damaged(&self, how: &str) -> StorageError {
        self.attempts.error(Cause::Damaged(how.to_owned()), false)
    }
}

async fn get(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    range: Option<GetRange>,
    attempts: &mut Attempts,
) -> Result<(GetResult, Exchange), StorageError> {
    let options = GetOptions { range, ..GetOptions::default() };
    let (mut answer, exchange) = attempts.run(|| store.get_opts(path, options.clone())).await?;
    answer.meta = without_placeholder(answer.meta);
    Ok((answer, exchange))
}

/// Whether a refused read of all bytes from the first one shows that there are none. Only the storage service can know.
fn has_no_first_byte(error: &StorageError) -> bool {
    let code = error.answer.as_ref().and_then(|answer| answer.code.as_deref());
    error.cause == Cause::OutOfRange && code == Some("InvalidRange")
}

/// Removes the ETag that stands for none.
pub(crate) fn without_placeholder(object: ObjectMeta) -> ObjectMeta {
    ObjectMeta { e_tag: object.e_tag.filter(|tag| tag != NO_ETAG), ..object }
}

/// Whether two answers are about one version of an object, as far as both describe it: by an ETag, which some proxies
/// make weak, the modification time, which is the epoch if there is none, and the size.
fn is_same_version(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    let tags = [a, b].map(|object| object.e_tag.as_deref().map(|tag| tag.trim_start_matches(WEAK)));
    let dates = [a, b].map(|object| Some(object.last_modified).filter(|date| date.timestamp() != 0));
    are_compatible(&tags) && are_compatible(&dates) && a.size == b.size
}

/// Whether two values are equal, if both are known.
fn are_compatible<T: PartialEq>([a, b]: &[Option<T>; 2]) -> bool {
    a.is_none() || b.is_none() || a == b
}

/// The ETag, unless it is weak and so would never match in a request.
fn strong(object: &ObjectMeta) -> Option<&str> {
    object.e_tag.as_deref().filter(|tag| !tag.starts_with(WEAK))
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download")
            .field("path", &self.path)
            .field("range", &self.range)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
