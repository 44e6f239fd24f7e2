//! The storage area that Orthanc sees.

pub(crate) mod deletion;
pub(crate) mod encryption;
mod memory_budget;
mod read;

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bucket::{Cause, Payload, StorageError};
use bytes::Bytes;
use crypto_envelope::DecryptError;
use hybrid::{HybridStorage, Side};
use orthanc_ffi::{ContentType, ErrorCode, StorageArea, Target, WholeTarget};
use storage_layout::Attachment;

use crate::area::deletion::{Removals, Removed};
use crate::area::encryption::Encryption;
use crate::area::read::{ReadError, Reading};
use crate::offload::Offload;
use crate::operations::metrics::{Metrics, Request};
use crate::runtime::{Panicked, Runtime};

/// Orthanc's attachments in the bucket, and in files beside it.
#[derive(Debug)]
pub(crate) struct Area {
    pub(crate) storage: HybridStorage,
    pub(crate) encryption: Option<Arc<Encryption>>,
    pub(crate) removals: Removals,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) offload: Option<Arc<Offload>>,
}

impl Area {
    fn reading(&self, attachment: Attachment) -> Reading<'_> {
        let (encryption, found) = (self.encryption.as_deref(), Cell::new(None));
        Reading { runtime: &self.runtime, storage: &self.storage, encryption, attachment, found }
    }

    fn store(&self, attachment: Attachment, content: Bytes) -> Result<(), ErrorCode> {
        let sealed = match &self.encryption {
            None => None,
            Some(encryption) => Some(encryption.seal(&attachment, &content).map_err(|error| {
                let name = self.storage.name(&attachment, self.storage.first());
                tracing::error!("cannot store {name}: {error}");
                ErrorCode::STORAGE_AREA_PLUGIN
            })?),
        };
        let stored = match (self.storage.first(), self.storage.files()) {
            (Side::FileSystem, Some(files)) => {
                files.create(&attachment.uuid, sealed.as_ref().unwrap_or(&content))
            }
            _ => {
                let content = sealed.map_or_else(|| Payload::Lent(content), Payload::Owned);
                let objects = self.storage.objects().clone();
                self.runtime.run(async move { objects.create(&attachment, content).await })?
            }
        };
        stored.map_err(|error| report(&error))
    }

    /// Does and counts what Orthanc asks for, and logs it at info level.
    fn timed(
        &self,
        request: Request,
        attachment: Attachment,
        work: impl FnOnce() -> Result<Done, ErrorCode>,
    ) -> Result<(), ErrorCode> {
        let start = Instant::now();
        let result = work();
        let time = start.elapsed();
        self.metrics.count(request, time, result.as_ref().ok().map(|done| done.bytes));
        let Done { what, bytes, side } = result?;
        let (name, content_type) = (self.storage.name(&attachment, side), attachment.content_type);
        let (milliseconds, speed) = (time.as_millis(), megabytes_per_second(bytes, time));
        tracing::info!("{what} {name} ({content_type}): {bytes} bytes in {milliseconds} ms, {speed:.1} MB/s");
        Ok(())
    }

    /// Reads by `read`, and logs what failed.
    fn read(
        &self,
        what: &'static str,
        attachment: Attachment,
        read: impl FnOnce(&Reading<'_>) -> Result<u64, ReadError>,
    ) -> Result<Done, ErrorCode> {
        let reading = self.reading(attachment);
        let bytes = read(&reading).map_err(|error| report_read(&error))?;
        let side = reading.side();
        if let (Side::ObjectStorage, Some(offload)) = (side, &self.offload) {
            offload.was_read_from_bucket(attachment);
        }
        Ok(Done { what, bytes, side })
    }
}

/// What was done for Orthanc.
struct Done {
    what: &'static str,
    bytes: u64,
    side: Side,
}

impl StorageArea for Area {
    fn create(&self, uuid: &str, content_type: ContentType, content: Bytes) -> Result<(), ErrorCode> {
        let attachment = attachment(uuid, content_type)?;
        self.timed(Request::Create, attachment, || {
            let bytes = content.len() as u64;
            self.store(attachment, content)?;
            Ok(Done { what: "stored", bytes, side: self.storage.first() })
        })
    }

    fn read_whole(
        &self,
        uuid: &str,
        content_type: ContentType,
        target: &mut WholeTarget<'_>,
    ) -> Result<(), ErrorCode> {
        let attachment = attachment(uuid, content_type)?;
        self.timed(Request::Read, attachment, || {
            self.read("read", attachment, |reading| reading.whole(target))
        })
    }

    fn read_range(
        &self,
        uuid: &str,
        content_type: ContentType,
        start: u64,
        target: &mut Target<'_>,
    ) -> Result<(), ErrorCode> {
        let attachment = attachment(uuid, content_type)?;
        if target.is_empty() {
            return Ok(());
        }
        self.timed(Request::ReadRange, attachment, || {
            self.read("read a range of", attachment, |reading| reading.range(start, target))
        })
    }

    fn remove(&self, uuid: &str, content_type: ContentType) -> Result<(), ErrorCode> {
        let attachment = attachment(uuid, content_type)?;
        self.timed(Request::Remove, attachment, || {
            let removals = self.removals.clone();
            let removed = self.runtime.run(async move { removals.remove(attachment).await })?;
            let what = match removed.map_err(|error| report(&error))? {
                Removed::Now => "deleted",
                Removed::Later => "began to delete",
            };
            Ok(Done { what, bytes: 0, side: self.storage.first() })
        })
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
        ReadError::Storage(error) | ReadError::Interrupted(error) => code(error),
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
        Cause::Damaged(_) | Cause::Changed => ErrorCode::CORRUPTED_FILE,
        Cause::DiskFull => ErrorCode::FULL_STORAGE,
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
