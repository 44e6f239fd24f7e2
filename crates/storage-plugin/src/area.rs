//! The storage area that Orthanc sees.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crypto_envelope::DecryptError;
use hybrid::{AttachmentStorage, Cause, Content, StorageError};
use orthanc_ffi::{ContentType, ErrorCode, StorageArea, Target, WholeTarget};
use storage_layout::Attachment;

use crate::encryption::Encryption;
use crate::reading::{ReadError, Reading};
use crate::removal::{Removals, Removed};
use crate::runtime::{Panicked, Runtime};

/// Orthanc's attachments in the bucket.
#[derive(Debug)]
pub(crate) struct Area {
    storage: AttachmentStorage,
    encryption: Option<Encryption>,
    removals: Removals,
    runtime: Arc<Runtime>,
}

impl Area {
    pub(crate) fn new(
        storage: AttachmentStorage,
        encryption: Option<Encryption>,
        removals: Removals,
        runtime: Arc<Runtime>,
    ) -> Self {
        Self { storage, encryption, removals, runtime }
    }

    fn reading(&self, attachment: Attachment) -> Reading<'_> {
        let encryption = self.encryption.as_ref();
        Reading { runtime: &self.runtime, storage: &self.storage, encryption, attachment }
    }

    /// What is to be uploaded.
    fn content(&self, attachment: &Attachment, content: Bytes) -> Result<Content, ErrorCode> {
        let Some(encryption) = &self.encryption else { return Ok(Content::Lent(content)) };
        encryption.seal(attachment, &content).map(Content::Owned).map_err(|error| {
            tracing::error!("cannot store {}: {error}", self.storage.object_url(attachment));
            ErrorCode::STORAGE_AREA_PLUGIN
        })
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
        let content = self.content(&attachment, content)?;
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
        let bytes = self.reading(attachment).whole(target).map_err(|error| report_read(&error))?;
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
        if target.is_empty() {
            return Ok(());
        }
        let bytes = self.reading(attachment).range(start, target).map_err(|error| report_read(&error))?;
        self.done("read a range of", &attachment, bytes, begin.elapsed());
        Ok(())
    }

    fn remove(&self, uuid: &str, content_type: ContentType) -> Result<(), ErrorCode> {
        let attachment = attachment(uuid, content_type)?;
        let start = Instant::now();
        let removals = self.removals.clone();
        let removed = self
            .runtime
            .run(async move { removals.remove(attachment).await })?
            .map_err(|error| report(&error))?;
        if removed == Removed::Now {
            self.done("deleted", &attachment, 0, start.elapsed());
        }
        Ok(())
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
    code(error)
}

/// As [`report`], of a read.
fn report_read(error: &ReadError) -> ErrorCode {
    tracing::error!("{error}");
    match error {
        ReadError::Storage(error) => code(error),
        ReadError::Envelope { cause: DecryptError::Range(_), .. } => ErrorCode::BAD_RANGE,
        ReadError::Envelope { cause: DecryptError::UnknownKeyId(_), .. } => ErrorCode::STORAGE_AREA_PLUGIN,
        ReadError::Envelope { .. } | ReadError::Unencrypted { .. } | ReadError::Overflow { .. } => {
            ErrorCode::CORRUPTED_FILE
        }
        ReadError::Panicked => ErrorCode::PLUGIN,
        ReadError::NoMemory(_, code) => *code,
    }
}

fn code(error: &StorageError) -> ErrorCode {
    match error.cause {
        Cause::NotFound => ErrorCode::INEXISTENT_FILE,
        Cause::OutOfRange => ErrorCode::BAD_RANGE,
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
