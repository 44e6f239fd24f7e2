//! Uploads of objects whose bytes arrive one after another, and whose sizes are not known before the end.

use std::pin::Pin;
use std::sync::atomic::AtomicBool;

use bytes::{Bytes, BytesMut};
use cloud_http::Hasher;
use futures_util::stream::try_unfold;
use futures_util::{Stream, StreamExt, TryStreamExt};
use object_store::MultipartId;
use object_store::multipart::PartId;
use object_store::path::Path;
use parking_lot::Mutex;

use crate::bucket::Bucket;
use crate::confirm::Sent;
use crate::error::{Cause, Operation, StorageError};
use crate::multipart::{MOST_PARTS, MultipartUpload};
use crate::task::in_place;

/// Size of the parts of an object, in bytes, unless the server accepts only smaller ones. Smaller objects are stored with
/// one request.
const PART: usize = 8 * 1024 * 1024;
/// Usual size of the chunks of a stream, in bytes. Larger ones are accepted.
const CHUNK: usize = 1 << 20;
/// Maximum number of parts of an object that are sent at once.
const CONNECTIONS: usize = 3;

impl Bucket {
    /// Maximum memory for the content of an object in [`put_stream`](Self::put_stream), in bytes: the parts that are being
    /// sent, and a buffer for the next one, which may be twice as large.
    pub const STREAM_MEMORY: usize = (CONNECTIONS + 2) * PART;

    /// Stores the bytes of `content` as the object `name`, which may have up to 80 GB. If `content` ends with an error, the
    /// bucket keeps nothing of it, and an earlier object with this name remains.
    ///
    /// Each request has its own deadline, since the sender may be slow. If the confirmation of a large object is lost, the
    /// size and checksum of the object decide, as with [`put`](Self::put). An object without a checksum is read back.
    ///
    /// Returns the number of bytes.
    ///
    /// # Errors
    ///
    /// The error of `content`, or the reason why the object is not stored.
    pub async fn put_stream<E: From<StorageError>>(
        &self,
        name: &str,
        content: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<u64, E> {
        let path = self.path(Operation::Create, name)?;
        // Each part is gathered until the end, so the last ones ask for more after it.
        let mut content: Chunks<'_, E> = Box::pin(content.fuse());
        let mut buffer = BytesMut::new();
        gather(&mut content, &mut buffer, PART + 1).await?;
        if buffer.len() <= PART {
            let size = buffer.len() as u64;
            Box::pin(self.upload(name, &path, buffer.freeze().into())).await?;
            return Ok(size);
        }
        let mut hasher = Hasher::new(None, false);
        in_place(|| hasher.update(&buffer));
        let hasher = Mutex::new(hasher);
        let content: Chunks<'_, E> = Box::pin(content.inspect_ok(|chunk| hasher.lock().update(chunk)));
        let start = self.begin_parts(name, &path, buffer.split_to(PART).freeze()).await?;
        let mut rest = BytesMut::from(&start.rest[..]);
        rest.unsplit(buffer);
        let result = self.send_parts(&start, content, rest, &hasher, (name, &path)).await;
        self.parts(name, &path).end(&start.id, result.is_ok()).await;
        result
    }

    /// The requests of an upload in parts, whose deadline begins now.
    fn parts<'a>(&'a self, name: &'a str, path: &'a Path) -> MultipartUpload<'a> {
        let deadline = self.attempts(Operation::Create, name);
        MultipartUpload {
            bucket: self,
            name,
            path,
            deadline,
            transfer: None,
            was_repeated: AtomicBool::default(),
        }
    }

    /// Begins an upload and sends its first part. Begins again if the server turns out to understand another dialect, or
    /// smaller parts only: later, the first part is gone.
    async fn begin_parts(&self, name: &str, path: &Path, first: Bytes) -> Result<Start, StorageError> {
        loop {
            let dialect = self.dialect_changes();
            let part_size = self.part_size();
            match self.try_first(name, path, &first, part_size).await {
                Ok(start) => return Ok(start),
                Err(error) if self.part_size() < part_size || self.dialect_changes() != dialect => {
                    tracing::info!("{error}; the upload begins again");
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn part_size(&self) -> usize {
        usize::try_from(self.learnt.request_size.part(PART as u64)).unwrap_or(PART)
    }

    async fn try_first(
        &self,
        name: &str,
        path: &Path,
        first: &Bytes,
        part_size: usize,
    ) -> Result<Start, StorageError> {
        let upload = self.parts(name, path);
        let id = upload.create().await?;
        match upload.put_part(&id, 0, first.slice(..part_size).into()).await {
            Ok((part, _)) => Ok(Start { id, part_size, part, rest: first.slice(part_size..) }),
            Err(error) => {
                upload.end(&id, false).await;
                Err(error)
            }
        }
    }

    /// Sends the parts after the first, and completes the upload.
    async fn send_parts<E: From<StorageError>>(
        &self,
        start: &Start,
        content: Chunks<'_, E>,
        rest: BytesMut,
        hasher: &Mutex<Hasher>,
        (name, path): (&str, &Path),
    ) -> Result<u64, E> {
        let parts = parts(content, rest, start.part_size);
        let send = |(index, part): (usize, Bytes)| async move {
            if index as u64 >= MOST_PARTS {
                return Err(self.too_large(name, start.part_size).into());
            }
            let size = part.len() as u64;
            let (part, _) = self.parts(name, path).put_part(&start.id, index, part.into()).await?;
            Ok((index, part, size))
        };
        let mut sent: Vec<(usize, PartId, u64)> =
            parts.map_ok(send).try_buffer_unordered(CONNECTIONS).try_collect().await?;
        sent.sort_unstable_by_key(|(index, ..)| *index);
        let size = start.part_size as u64 + sent.iter().map(|(_, _, size)| size).sum::<u64>();
        let ids: Vec<PartId> =
            std::iter::once(start.part.clone()).chain(sent.into_iter().map(|(_, part, _)| part)).collect();
        let mut attempts = self.attempts(Operation::Create, name);
        let completed =
            attempts.run(|| self.multipart().complete_multipart(path, &start.id, ids.clone())).await;
        match completed {
            Ok(_) => Ok(size),
            Err(error) => {
                let hasher = hasher.lock().clone();
                let sent = Sent::Sums { size, hasher: &hasher };
                Box::pin(self.settle(name, path, sent, &attempts, error)).await?;
                Ok(size)
            }
        }
    }

    fn too_large(&self, name: &str, part_size: usize) -> StorageError {
        let limit = MOST_PARTS * part_size as u64;
        let cause = Cause::Other(format!("objects that arrive as a stream may have up to {limit} bytes"));
        StorageError::new(Operation::Create, self.object_url(name), cause)
    }
}

type Chunks<'a, E> = Pin<Box<dyn Stream<Item = Result<Bytes, E>> + Send + 'a>>;

/// An upload whose first part is in the bucket.
struct Start {
    id: MultipartId,
    /// Size of each part but the last, in bytes: some servers accept no others.
    part_size: usize,
    part: PartId,
    /// What remains of the first bytes, if parts are smaller than [`PART`].
    rest: Bytes,
}

/// Appends chunks to `buffer` until it has at least `wanted` bytes, or all there are.
async fn gather<E>(content: &mut Chunks<'_, E>, buffer: &mut BytesMut, wanted: usize) -> Result<(), E> {
    // Growing step by step would need up to three times the memory, and copy most bytes twice.
    buffer.reserve((wanted + CHUNK).saturating_sub(buffer.len()));
    while buffer.len() < wanted
        && let Some(chunk) = content.try_next().await?
    {
        buffer.extend_from_slice(&chunk);
    }
    Ok(())
}

/// Returns the bytes of `rest` and `content` in parts of `size` bytes, with their numbers. The number of the first is 1.
fn parts<E>(
    content: Chunks<'_, E>,
    rest: BytesMut,
    size: usize,
) -> impl Stream<Item = Result<(usize, Bytes), E>> {
    try_unfold((content, rest, 1), move |(mut content, mut buffer, index)| async move {
        gather(&mut content, &mut buffer, size).await?;
        let part = buffer.split_to(size.min(buffer.len())).freeze();
        Ok((!part.is_empty()).then_some(((index, part), (content, buffer, index + 1))))
    })
}
