//! The engine's one error type.

use std::fmt;
use std::time::Duration;

/// What was attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// The check of the bucket at start.
    Check,
    /// Making a missing bucket.
    CreateBucket,
    /// Storing an attachment.
    Create,
    /// Reading an attachment or a range of it.
    Read,
    /// Deleting an attachment.
    Remove,
    /// Moving an attachment from one storage to the other.
    Move,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Check => "check",
            Self::CreateBucket => "create",
            Self::Create => "store",
            Self::Read => "read",
            Self::Remove => "delete",
            Self::Move => "move",
        })
    }
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The object does not exist.
    #[error("no such object")]
    NotFound,
    /// The bucket (or container) does not exist.
    #[error("the bucket does not exist: create it, or correct its name in the configuration")]
    BucketMissing,
    /// The server refuses these credentials, or they do not allow this.
    #[error("access denied: check the credentials and their permissions on the bucket")]
    Denied,
    /// There are no credentials to sign requests with.
    #[error("no credentials: {0}")]
    NoCredentials(String),
    /// The server could not be reached, or the connection broke.
    #[error("{0}")]
    Network(String),
    /// The server's TLS certificate is not trusted.
    #[error("{0}: if it is your own authority's, name its file in HttpsCACertificates")]
    Certificate(String),
    /// The server is overloaded or broken for now (429, 5xx).
    #[error("the server cannot serve the request now")]
    Busy,
    /// The server refuses the request for another reason.
    #[error("the server refused the request")]
    Refused,
    /// The time that the whole operation may take is over.
    #[error("not done within {} s (RequestTimeout)", .0.as_secs_f32())]
    TimedOut(Duration),
    /// What arrived is not what was stored.
    #[error("the content is damaged: {0}")]
    Damaged(String),
    /// It is not the object any more that was begun with.
    #[error("the content is damaged: the object changed while it was read")]
    Changed,
    /// The disk has no room.
    #[error("the disk is full: free some of its space, or name a larger one in StorageDirectory")]
    DiskFull,
    /// The operating system refuses it.
    #[error(
        "access denied: Orthanc's user needs to read and write the files and folders of StorageDirectory"
    )]
    FileDenied,
    /// Two copies of one attachment are not the same.
    #[error(
        "the two storages hold different contents, and neither was touched: keep the right one, and delete the other"
    )]
    CopiesDiffer,
    /// What was written is not what is read back.
    #[error("the copy is not what was written, and the original was kept")]
    CopyDamaged,
    /// The attachment must not be stored as it is.
    #[error("{0}")]
    NotAcceptable(String),
    /// The range lies outside of the attachment.
    #[error("the range is outside of the object")]
    OutOfRange,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// A server's refusal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The server's error code.
    pub code: Option<String>,
    /// The server's explanation, one short line.
    pub message: Option<String>,
    /// The server's name for the request.
    pub request_id: Option<String>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}", self.status)?;
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        if let Some(message) = &self.message {
            write!(f, ": {message}")?;
        }
        if let Some(request_id) = &self.request_id {
            write!(f, ", request {request_id}")?;
        }
        Ok(())
    }
}

/// An operation on the storage that failed, with everything a log line needs and no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct StorageError {
    /// What was attempted.
    pub operation: Operation,
    /// On which object: the bucket's URL and the object's name.
    pub object: String,
    /// Why it failed.
    pub cause: Cause,
    /// Whether the same operation may well succeed later.
    pub transient: bool,
    /// The server's refusal, where it answered.
    pub answer: Option<Box<Answer>>,
    /// Attempts made.
    pub attempts: u32,
}

impl StorageError {
    /// The HTTP status of the server's refusal, where it answered.
    pub fn status(&self) -> Option<u16> {
        self.answer.as_ref().map(|answer| answer.status)
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.operation, self.object, self.cause)?;
        if let Some(answer) = &self.answer {
            write!(f, " ({answer})")?;
        }
        if self.attempts > 1 {
            write!(f, ", after {} attempts", self.attempts)?;
        }
        Ok(())
    }
}
