//! Downloads that resume where the connection broke.

mod comparison;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cloud_http::{ArchiveState, Exchange, NO_ETAG};
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore};
use tokio::time::Instant;

use crate::error::{Cause, StorageError};
use crate::ranges::{MOST, Source};
use crate::retry::{Attempts, RetryPolicy};
use crate::split::{Next, Splitting};
use crate::task::in_place;
use crate::throughput::{LARGE, Line};
use crate::verification::{Check, Verification};

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
    /// Whether the answer to a request without a range had no length.
    had_no_length: bool,
    /// Time until the server answered.
    latency: Duration,
    /// Rare, and large.
    splitting: Option<Box<Splitting>>,
}

/// Bytes whose MD5 takes long enough that the other transfers of the thread must go on meanwhile.
const LONG_MD5: usize = 64 * 1024;

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
            ReadRange::Range(_) if verification.asks_for_whole => None,
            ReadRange::Range(range) | ReadRange::UpTo(range) => Some(GetRange::Bounded(range.clone())),
        };
        let begun = Instant::now();
        let mut result = get(&store, &path, range.clone(), &mut attempts).await;
        let latency = begun.elapsed();
        let had_no_length =
            range.is_none() && result.as_ref().is_err_and(|error| error.cause == Cause::NoLength);
        if had_no_length {
            // The answer about a range contains the size.
            range = Some(GetRange::Offset(0));
            result = match get(&store, &path, range.clone(), &mut attempts).await {
                Err(error) if has_no_first_byte(&error) && wanted == ReadRange::Whole => {
                    return Ok(Self::empty(store, path, attempts));
                }
                result => result,
            };
        }
        let (answer, exchange) = result?;
        let check = Check::new(&verification, &answer, &exchange, range.is_some());
        let sent = answer.range.clone();
        let wanted = match wanted {
            ReadRange::Range(wanted) => wanted,
            ReadRange::Whole | ReadRange::UpTo(_) => sent.clone(),
        };
        let is_more = verification.asks_for_whole && sent.end > wanted.end;
        if sent != wanted && !is_more {
            return Err(attempts.error(Cause::OutOfRange, false));
        }
        Ok(Self {
            store,
            path,
            attempts,
            object: answer.meta.clone(),
            archive: exchange.archive,
            next: wanted.start,
            check: if is_more { Check::Off } else { check },
            ignores_ranges: exchange.ignores_ranges,
            had_no_length,
            latency,
            splitting: None,
            body_end: wanted.end,
            body: match is_more {
                true => first_bytes(answer.into_stream(), wanted.end - wanted.start),
                false => answer.into_stream(),
            },
            range: wanted,
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
            had_no_length: false,
            latency: Duration::ZERO,
            splitting: None,
            body_end: 0,
            body: futures_util::stream::empty().boxed(),
        }
    }

    /// Allows up to `most` connections if the download is large and that is faster.
    pub(crate) fn split_if_faster(mut self, most: usize, policy: RetryPolicy, line: &Arc<Line>) -> Self {
        line.note_latency(self.latency);
        let most = most.min(MOST);
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

    pub(crate) fn had_no_length(&self) -> bool {
        self.had_no_length
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
        if self.check.is_costly() && bytes.len() >= LONG_MD5 {
            in_place(|| self.check.update(&bytes));
        } else {
            self.check.update(&bytes);
        }
        self.next = next;
        self.attempts.made_progress();
        Ok(bytes)
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

/// The first `length` bytes of a body, after which its connection is closed.
fn first_bytes(
    body: BoxStream<'static, object_store::Result<Bytes>>,
    length: u64,
) -> BoxStream<'static, object_store::Result<Bytes>> {
    let next = |(mut body, left): (BoxStream<'static, object_store::Result<Bytes>>, u64)| async move {
        if left == 0 {
            return None;
        }
        let chunk = body.next().await?.map(|mut chunk| {
            chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            chunk
        });
        let taken = chunk.as_ref().map_or(0, Bytes::len) as u64;
        Some((chunk, (body, left - taken)))
    };
    unfold((body, length), next).boxed()
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
