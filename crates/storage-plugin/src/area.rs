//! The storage area that Orthanc sees.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hybrid::{AttachmentStorage, Cause, StorageError};
use orthanc_ffi::{ContentType, ErrorCode, StorageArea, Target, WholeTarget};
use storage_layout::Attachment;

use crate::removal::Removals;
use crate::runtime::{Batch, Incoming, Panicked, Runtime};

/// Orthanc's attachments in the bucket.
#[derive(Debug)]
pub(crate) struct Area {
    storage: AttachmentStorage,
    removals: Removals,
    runtime: Arc<Runtime>,
}

impl Area {
    pub(crate) fn new(storage: AttachmentStorage, removals: Removals, runtime: Arc<Runtime>) -> Self {
        Self { storage, removals, runtime }
    }

    fn download(&self, attachment: Attachment, range: Option<std::ops::Range<u64>>) -> Incoming {
        let storage = self.storage.clone();
        self.runtime.download(async move { storage.read(&attachment, range).await })
    }

    /// The line at info level about something that was done.
    fn done(&self, what: &str, attachment: &Attachment, bytes: u64, time: Duration) {
        let object = self.storage.object_url(attachment);
        let content_type = attachment.content_type;
        let (milliseconds, speed) = (time.as_millis(), megabytes_per_second(bytes, time));
        tracing::info!(
            "{what} {object} ({content_type}): {bytes} bytes in {milliseconds} ms, {speed:.1} MB/s"
        );
    }
}

impl StorageArea for Area {
    fn create(&self, uuid: &str, content_type: ContentType, content: Bytes) -> Result<(), ErrorCode> {
        let attachment = attachment(uuid, content_type)?;
        let (start, bytes) = (Instant::now(), content.len() as u64);
        let storage = self.storage.clone();
        self.runtime
            .run(async move { storage.create(&attachment, content).await })?
            .map_err(|e| report(&e))?;
        self.done("stored", &attachment, bytes, start.elapsed());
        Ok(())
    }

    fn read_whole(
        &self,
        uuid: &str,
        content_type: ContentType,
        target: &mut WholeTarget<'_>,
    ) -> Result<(), ErrorCode> {
        let attachment = attachment(uuid, content_type)?;
        let start = Instant::now();
        let mut incoming = self.download(attachment, None);
        let first = incoming.next()?.map_err(|error| report(&error))?;
        let mut target = target.allocate(first.length)?;
        let bytes = fill(&mut target, first, incoming)?;
        self.done("read", &attachment, bytes, start.elapsed());
        Ok(())
    }

    fn read_range(
        &self,
        uuid: &str,
        content_type: ContentType,
        start: u64,
        target: &mut Target<'_>,
    ) -> Result<(), ErrorCode> {
        let attachment = attachment(uuid, content_type)?;
        let begin = Instant::now();
        let length = target.len() as u64;
        if length == 0 {
            return Ok(());
        }
        let end = start.checked_add(length).ok_or(ErrorCode::BAD_RANGE)?;
        let mut incoming = self.download(attachment, Some(start..end));
        let first = incoming.next()?.map_err(|error| report(&error))?;
        let bytes = fill(target, first, incoming)?;
        self.done("read a range of", &attachment, bytes, begin.elapsed());
        Ok(())
    }

    fn remove(&self, uuid: &str, content_type: ContentType) -> Result<(), ErrorCode> {
        let attachment = attachment(uuid, content_type)?;
        let start = Instant::now();
        let removals = self.removals.clone();
        self.runtime
            .run(async move { removals.remove(attachment).await })?
            .map_err(|error| report(&error))?;
        self.done("deleted", &attachment, 0, start.elapsed());
        Ok(())
    }
}

/// Copies a download into `target`; returns its bytes.
fn fill(target: &mut Target<'_>, first: Batch, mut incoming: Incoming) -> Result<u64, ErrorCode> {
    let mut batch = first;
    loop {
        for chunk in &batch.chunks {
            target.append(chunk).map_err(|error| {
                tracing::error!("more arrived than was asked for: {error}");
                ErrorCode::CORRUPTED_FILE
            })?;
        }
        if batch.last {
            return Ok(target.filled() as u64);
        }
        batch = incoming.next()?.map_err(|error| report(&error))?;
    }
}

fn attachment(uuid: &str, content_type: ContentType) -> Result<Attachment, ErrorCode> {
    Attachment::new(uuid, storage_layout::ContentType(content_type.as_raw())).map_err(|error| {
        tracing::error!("{error}");
        ErrorCode::PARAMETER_OUT_OF_RANGE
    })
}

/// Logs `error`, and finds the code for Orthanc, which makes an HTTP status of it.
fn report(error: &StorageError) -> ErrorCode {
    tracing::error!("{error}");
    match error.cause {
        Cause::NotFound => ErrorCode::INEXISTENT_FILE,
        Cause::OutOfRange { .. } => ErrorCode::BAD_RANGE,
        Cause::Damaged(_) => ErrorCode::CORRUPTED_FILE,
        _ => ErrorCode::STORAGE_AREA_PLUGIN,
    }
}

impl From<Panicked> for ErrorCode {
    fn from(_: Panicked) -> Self {
        tracing::error!("a task of the plugin ended unexpectedly");
        Self::PLUGIN
    }
}

/// Of 1,000,000 bytes, for the log.
#[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
fn megabytes_per_second(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64().max(1e-6)
}
