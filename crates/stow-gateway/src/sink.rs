//! Where instances are stored: traits that the caller implements.

use std::fmt::Debug;

use bytes::Bytes;

use crate::uid::Uid;

/// Identity of an instance, all of it safe in object names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Instance {
    /// Study Instance UID (0020,000D).
    pub study: Uid,
    /// Series Instance UID (0020,000E).
    pub series: Uid,
    /// SOP Instance UID (0008,0018).
    pub sop_instance: Uid,
    /// SOP Class UID (0008,0016).
    pub sop_class: Uid,
}

impl Instance {
    /// The object's name without prefix: `{study}/{series}/{instance}.dcm`.
    pub fn object_name(&self) -> String {
        format!("{}/{}/{}.dcm", self.study, self.series, self.sop_instance)
    }

    /// Shares the memory of UIDs that are equal in `other`.
    pub(crate) fn share(&mut self, other: &Self) {
        self.study.share(&other.study);
        self.series.share(&other.series);
        self.sop_class.share(&other.sop_class);
    }
}

/// Maximum number of bytes in one call of [`Upload::write`].
pub const MAX_WRITE: usize = 1 << 20;

/// Stores instances. Uploads run in the background while the request is being received.
///
/// The sink bounds their number and memory: [`begin`](Sink::begin) and [`write`](Upload::write) block the
/// caller, and with it the sender of the request, until there is room. Room becomes free when uploads end,
/// whether or not anybody calls [`Receipt::wait`].
///
/// Of each request, at most one upload is incomplete, the last one. If several requests share one bound, the
/// bytes that an upload needs to make progress, such as a whole part, must not wait for another request: its
/// upload may be incomplete for the same reason.
pub trait Sink: Debug {
    /// An upload of this sink.
    type Upload: Upload;

    /// Starts to store an instance, replacing one of the same study, series and SOP instance once the upload
    /// has been confirmed. Uploads of the same instance in one request never overlap.
    ///
    /// # Errors
    ///
    /// The instance cannot be stored. The following instances are tried nevertheless.
    fn begin(&self, instance: &Instance) -> Result<Self::Upload, UploadError>;
}

/// An instance whose bytes are being received. Dropping it aborts the upload: nothing is stored or left
/// behind, and an instance stored earlier under the same name remains.
pub trait Upload: Debug {
    /// The confirmation of this upload.
    type Receipt: Receipt;

    /// Adds bytes, at most [`MAX_WRITE`]. They are a part of a buffer of up to that size, which remains in
    /// memory as long as one of its parts.
    ///
    /// # Errors
    ///
    /// The upload has failed. It is dropped afterwards.
    fn write(&mut self, bytes: Bytes) -> Result<(), UploadError>;

    /// Marks the end of the instance, and returns without waiting for the upload to end.
    fn finish(self) -> Self::Receipt;
}

/// The outcome of an upload. Dropping it lets the upload continue.
pub trait Receipt: Debug {
    /// Blocks until the instance is stored, or the upload has failed.
    ///
    /// # Errors
    ///
    /// The instance is not stored, and an earlier one under the same name remains.
    fn wait(self) -> Result<(), UploadError>;
}

/// An instance could not be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UploadError {
    /// What it means for the answer.
    pub kind: UploadErrorKind,
    /// The reason, for the log: no secret, no patient data.
    pub message: String,
}

/// What a failed upload means for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UploadErrorKind {
    /// The storage cannot be reached, is full, or is shutting down: the client should repeat the request later.
    Unavailable,
    /// Any other failure.
    Failed,
}
