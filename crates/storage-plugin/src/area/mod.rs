//! The storage area that Orthanc calls: create, read and remove.

pub(crate) mod deletion;
mod direct;
pub(crate) mod encryption;
mod key_note;
pub(crate) mod keys;
mod read;
mod sealed;

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bucket::{Cause, ObjectStorage, Operation, Payload, Seeker, StorageError};
use bytes::Bytes;
use crypto_envelope::DecryptError;
use hybrid::{HybridStorage, MemoryPermit, NotPending, Place, Side, WriteBack};
use orthanc_ffi::{ContentType, ErrorCode, StorageArea, Target, WholeTarget};
use storage_layout::Attachment;

use self::deletion::{Deletion, Deletions};
pub(crate) use self::direct::DirectStores;
use self::encryption::{Encryption, Form, UnacceptableForm, form};
use self::keys::KeyError;
pub(crate) use self::read::{Copies, KnownClear, ReadError};
use self::read::{Reading, Served};
use crate::jobs::Courtesy;
use crate::operations::metrics::{Metrics, Request};
use crate::runtime::Runtime;

/// Orthanc's attachments, in the bucket and possibly in files.
#[derive(Debug)]
pub(crate) struct Area {
    pub(crate) storage: HybridStorage,
    pub(crate) encryption: Option<Arc<Encryption>>,
    pub(crate) clear: KnownClear,
    pub(crate) copies: Copies,
    pub(crate) deletions: Deletions,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) direct_stores: DirectStores,
    pub(crate) courtesy: Courtesy,
}

impl StorageArea for Area {
    fn create(&self, uuid: &str, content_type: ContentType, content: Bytes) -> Result<(), ErrorCode> {
        let attachment = attachment(uuid, content_type)?;
        self.measure(Request::Create, attachment, || {
            let bytes = content.len() as u64;
            let place = self.storage.first_place();
            let side = self.store(&place, attachment, content)?;
            Ok(Done { request: Request::Create, what: "stored", bytes, side })
        })
    }

    fn read_whole(
        &self,
        uuid: &str,
        content_type: ContentType,
        target: &mut WholeTarget<'_>,
    ) -> Result<(), ErrorCode> {
        let attachment = attachment(uuid, content_type)?;
        self.measure(Request::Read, attachment, || self.read(attachment, |reading| reading.whole(target)))
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
        self.measure(Request::ReadRange, attachment, || {
            self.read(attachment, |reading| reading.range(start, target))
        })
    }

    fn remove(&self, uuid: &str, content_type: ContentType) -> Result<(), ErrorCode> {
        let attachment = attachment(uuid, content_type)?;
        self.measure(Request::Remove, attachment, || {
            let what = match self.deletions.delete(attachment).map_err(|error| report(&error))? {
                Deletion::Done => "deleted",
                Deletion::Marked => "marked for deletion",
            };
            Ok(Done { request: Request::Remove, what, bytes: 0, side: self.storage.first() })
        })
    }
}

/// What to do about an object of which two downloads were wrong.
const RESTORE: &str = "a second download failed too, so the object is damaged, unless a key is wrong: restore it from the \
                       bucket's versions or a backup, and look for others with POST /object-storage/verify";

/// What to do about an object without the server's checksum.
const WRONG_CHECKSUM: &str = "the object is damaged, or the checksum is wrong: to read the object nevertheless, set \
                              \"VerifyChecksums\": false";

/// A request that has been served, for the log and the counts.
struct Done {
    request: Request,
    what: &'static str,
    bytes: u64,
    side: Side,
}

/// A request that has failed: what to log, and the code from which Orthanc derives an HTTP status.
struct Failure {
    error: String,
    code: ErrorCode,
    /// Whether the attachment is missing or damaged, which says nothing about others.
    is_about_one: bool,
}

impl Failure {
    fn new(error: &impl ToString, code: ErrorCode) -> Self {
        Self { error: error.to_string(), code, is_about_one: false }
    }

    fn with_advice(self, advice: &str) -> Self {
        Self { error: format!("{}; {advice}", self.error), ..self }
    }
}

impl Area {
    /// Encrypts new attachments; `None` if encryption is off.
    fn sealing(&self) -> Option<&Arc<Encryption>> {
        self.encryption.as_ref().filter(|encryption| encryption.writes())
    }

    /// Encrypts an attachment if encryption is on, and stores it. Returns where.
    fn store(&self, place: &Place, attachment: Attachment, content: Bytes) -> Result<Side, Failure> {
        // Before memory is reserved, which this store would hold while it waits for the server.
        if let Some(encryption) = self.sealing() {
            self.expect_right_keys(encryption, place, &attachment)?;
        }
        // Held until the upload has ended.
        let _memory = self.reserve(place, &attachment, content.len() as u64)?;
        let side = place.side();
        let stored = match place {
            Place::ObjectStorage(objects) => {
                let payload = self.payload(place, attachment, content)?;
                self.store_object(objects.clone(), attachment, payload)
            }
            Place::FileSystem { files, .. } => {
                let stored = self.stored_form(place, attachment, content)?;
                files.create(&attachment.uuid, &stored)
            }
            Place::Pending { files, .. } | Place::Cache { files, .. } => {
                let stored = self.stored_form(place, attachment, content)?;
                return self.store_pending(files, attachment, stored);
            }
        };
        stored.map(|()| side).map_err(|error| report(&error))
    }

    /// Waits for the memory of an attachment's envelope, if it is encrypted.
    fn reserve(
        &self,
        place: &Place,
        attachment: &Attachment,
        len: u64,
    ) -> Result<Option<MemoryPermit>, Failure> {
        let Some(encryption) = self.sealing() else { return Ok(None) };
        let stopping = || StorageError::new(Operation::Create, place.name(attachment), Cause::Stopping);
        let memory = encryption.reserve_upload(&self.runtime, len).ok_or_else(stopping);
        memory.map(Some).map_err(|error| report(&error))
    }

    /// Returns what to upload.
    fn payload(&self, place: &Place, attachment: Attachment, content: Bytes) -> Result<Payload, Failure> {
        match self.sealing() {
            None => self.expect_clear(place, &attachment, &content).map(|()| Payload::Lent(content)),
            Some(encryption) => encryption
                .payload(self.runtime.handle(), &attachment, content)
                .map_err(|error| not_stored(place, &attachment, &error)),
        }
    }

    /// As [`payload`](Self::payload), in one buffer, for a file.
    fn stored_form(&self, place: &Place, attachment: Attachment, content: Bytes) -> Result<Bytes, Failure> {
        match self.sealing() {
            None => self.expect_clear(place, &attachment, &content).map(|()| content),
            Some(encryption) => encryption
                .seal(self.runtime.handle(), &attachment, &content)
                .map_err(|error| not_stored(place, &attachment, &error)),
        }
    }

    /// Fails if content would be taken for an envelope in this place: reads would refuse it, so it must not be reported as
    /// stored.
    fn expect_clear(&self, place: &Place, attachment: &Attachment, content: &[u8]) -> Result<(), Failure> {
        let naming = place.naming();
        let expected = match form(self.encryption.as_deref(), naming, content) {
            // The error of a configuration without keys.
            Ok(Form::Envelope(_) | Form::KeyVault) => form(None, naming, content),
            result => result,
        };
        expected.map(drop).map_err(|cause| not_stored(place, attachment, &cause))
    }

    /// Stores an attachment in the state directory, or in the bucket if that is not possible.
    fn store_pending(
        &self,
        files: &WriteBack,
        attachment: Attachment,
        stored: Bytes,
    ) -> Result<Side, Failure> {
        let is_sealed = self.sealing().is_some();
        let reason = match files.create(&attachment, is_sealed, &stored) {
            Ok(()) => return Ok(Side::Pending),
            Err(reason) => reason,
        };
        self.direct_stores.warn(&reason);
        let payload = if is_sealed { Payload::Owned(stored) } else { Payload::Lent(stored) };
        self.store_directly(attachment, payload).map_err(|failure| match reason {
            NotPending::Limit => failure,
            NotPending::Disk(disk) => {
                Failure { error: format!("{}; before, {disk}", failure.error), ..failure }
            }
        })?;
        Ok(Side::ObjectStorage)
    }

    /// Stores an attachment in the bucket that cannot become pending.
    fn store_directly(&self, attachment: Attachment, payload: Payload) -> Result<(), Failure> {
        if let Some(encryption) = self.sealing() {
            // Pending attachments are encrypted while the bucket cannot be asked.
            let place = self.storage.place(Side::ObjectStorage);
            self.expect_right_keys(encryption, &place, &attachment)?;
        }
        let objects = self.storage.objects().clone();
        self.store_object(objects, attachment, payload).map_err(|error| report(&error))
    }

    /// Fails if an attachment must not be encrypted for this place.
    fn expect_right_keys(
        &self,
        encryption: &Encryption,
        place: &Place,
        attachment: &Attachment,
    ) -> Result<(), Failure> {
        let failed = |error| {
            let object = place.name(attachment);
            let error = match error {
                KeyError::Unknown(error) => StorageError { operation: Operation::Create, object, ..error },
                error => {
                    StorageError::new(Operation::Create, object, Cause::NotAcceptable(error.to_string()))
                }
            };
            report(&error)
        };
        encryption.keys.before_store(&self.runtime, place.side()).map_err(failed)
    }

    fn store_object(
        &self,
        objects: ObjectStorage,
        attachment: Attachment,
        payload: Payload,
    ) -> Result<(), StorageError> {
        let name = objects.object_url(&attachment);
        let stored = self.runtime.run_with_grace(async move { objects.create(&attachment, payload).await });
        let stopping = || Err(StorageError::new(Operation::Create, name, Cause::Stopping));
        let result = stored.unwrap_or_else(stopping);
        if let Err(error) = &result
            && (error.may_remain || error.cause == Cause::Stopping)
        {
            // The server may have stored the object nevertheless. Orthanc does not know it, so it must go.
            self.deletions.discard(&attachment);
        }
        result
    }

    /// Calls `read`.
    fn read(
        &self,
        attachment: Attachment,
        read: impl FnOnce(&Reading<'_>) -> Result<Served, ReadError>,
    ) -> Result<Done, Failure> {
        let reading = Reading::new(self, attachment);
        let Served { bytes, whole } = read(&reading).map_err(|error| {
            let failure = self.failed_read(&error, attachment);
            if error.is_wrong_checksum() {
                failure.with_advice(WRONG_CHECKSUM)
            } else if reading.is_repeated() && error.is_damage_of_object() {
                failure.with_advice(RESTORE)
            } else {
                failure
            }
        })?;
        let side = reading.side.get();
        let (request, what) =
            if whole { (Request::Read, "read") } else { (Request::ReadRange, "read a range of") };
        Ok(Done { request, what, bytes, side })
    }

    /// The failure of a read, with the name that another configuration gives to a missing object, if it has that.
    fn failed_read(&self, error: &ReadError, attachment: Attachment) -> Failure {
        let objects = self.storage.objects().clone();
        let search =
            || self.runtime.run_until_stopped(async move { objects.hint(&attachment, Seeker::Read).await });
        let code = read_code(error);
        let failure = match error.is_missing().then(search).flatten().flatten() {
            Some(hint) => Failure::new(&format!("{error}, but {hint}"), code),
            None => Failure::new(error, code),
        };
        Failure { is_about_one: error.is_about_one(), ..failure }
    }

    /// Serves a request with `serve`, counts it, and logs it at info level. A failure counts as `request`.
    fn measure(
        &self,
        request: Request,
        attachment: Attachment,
        serve: impl FnOnce() -> Result<Done, Failure>,
    ) -> Result<(), ErrorCode> {
        let start = Instant::now();
        let running = (self.metrics.begin(request), self.courtesy.user());
        let result = catch_unwind(AssertUnwindSafe(serve));
        drop(running);
        let time = start.elapsed();
        let served = result.as_ref().ok().and_then(|served| served.as_ref().ok());
        let counted = served.map_or(request, |done| done.request);
        self.metrics.count(counted, time, served.map(|done| done.bytes));
        let result = result.unwrap_or_else(|panic| resume_unwind(panic));
        let Done { what, bytes, side, .. } = result.map_err(|failure| {
            tracing::error!("{}", failure.error);
            self.metrics.failed(request, &failure.error, failure.is_about_one);
            failure.code
        })?;
        self.metrics.succeeded(request);
        tracing::info!(
            "{what} {} ({}): {bytes} bytes in {} ms, {:.1} MB/s",
            self.storage.name(side, &attachment),
            attachment.content_type,
            time.as_millis(),
            megabytes_per_second(bytes, time),
        );
        Ok(())
    }
}

fn attachment(uuid: &str, content_type: ContentType) -> Result<Attachment, ErrorCode> {
    Attachment::new(uuid, storage_layout::ContentType(content_type.as_raw())).map_err(|error| {
        tracing::error!("{error}");
        ErrorCode::PARAMETER_OUT_OF_RANGE
    })
}

/// The failure of a store before anything was sent or written.
fn not_stored(place: &Place, attachment: &Attachment, cause: &impl Display) -> Failure {
    let error = format!("cannot store {}: {cause}", place.name(attachment));
    Failure::new(&error, ErrorCode::STORAGE_AREA_PLUGIN)
}

/// The failure of a store or a deletion.
fn report(error: &StorageError) -> Failure {
    Failure::new(error, code(error))
}

/// As [`code`], for a read.
fn read_code(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::Storage(error) | ReadError::Interrupted(error) => code(error),
        ReadError::OutOfRange { .. } => ErrorCode::BAD_RANGE,
        ReadError::Form { cause: UnacceptableForm::Encrypted(_), .. } => ErrorCode::STORAGE_AREA_PLUGIN,
        ReadError::Envelope {
            cause: DecryptError::UnknownKeyId(_) | DecryptError::NotUnwrapped { .. },
            ..
        }
        | ReadError::Key { .. } => ErrorCode::STORAGE_AREA_PLUGIN,
        ReadError::Envelope { .. } | ReadError::Form { .. } | ReadError::Overflow { .. } => {
            ErrorCode::CORRUPTED_FILE
        }
        ReadError::NoMemory(_, code) => *code,
        ReadError::KeyAgain(error) => read_code(error),
    }
}

/// The code from which Orthanc derives an HTTP status.
fn code(error: &StorageError) -> ErrorCode {
    match error.cause {
        Cause::NotFound => ErrorCode::INEXISTENT_FILE,
        Cause::OutOfRange => ErrorCode::BAD_RANGE,
        Cause::Damaged(_) | Cause::WrongChecksum(_) | Cause::Changed => ErrorCode::CORRUPTED_FILE,
        Cause::DiskFull => ErrorCode::FULL_STORAGE,
        _ => ErrorCode::STORAGE_AREA_PLUGIN,
    }
}

/// Megabytes (10⁶ bytes) per second, for log lines.
#[expect(clippy::cast_precision_loss, reason = "a rounded figure in a log line")]
fn megabytes_per_second(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64().max(1e-6)
}
