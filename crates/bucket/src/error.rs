//! The error type of all storage operations, on the bucket and, in crate `hybrid`, on files.

use std::fmt;
use std::time::Duration;

/// The operation that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// Checking the bucket at start.
    Check,
    /// Creating a missing bucket.
    CreateBucket,
    /// Storing an attachment.
    Create,
    /// Reading an attachment or a range of it.
    Read,
    /// Deleting an attachment.
    Remove,
    /// Listing objects.
    List,
    /// Aborting an upload in parts.
    Abort,
    /// Restoring an attachment from an archive tier.
    Restore,
    /// Moving an attachment from one storage to the other.
    Move,
    /// Storing an attachment again, in another form or under another key.
    Rewrite,
    /// Wrapping a file key in a key service.
    WrapKey,
    /// Unwrapping a file key in a key service.
    UnwrapKey,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Check => "check",
            Self::CreateBucket => "create",
            Self::Create => "store",
            Self::Read => "read",
            Self::Remove => "delete",
            Self::List => "list the objects in",
            Self::Abort => "delete the parts of an unfinished upload of",
            Self::Restore => "restore",
            Self::Move => "move",
            Self::Rewrite => "re-encrypt",
            Self::WrapKey => "wrap a file key with",
            Self::UnwrapKey => "unwrap a file key with",
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
    /// The bucket (or container) is being deleted. Its name can be used again afterwards.
    #[error("the bucket is being deleted, and its name cannot be used yet")]
    BucketBeingDeleted,
    /// The server refuses these credentials, or they lack a permission.
    #[error("access denied: check the credentials and their permissions on the bucket")]
    Denied,
    /// There are no credentials to sign requests with.
    #[error("no credentials: {0}")]
    NoCredentials(String),
    /// The server could not be reached, or the connection broke.
    #[error("{0}")]
    Network(String),
    /// The server's TLS certificate is not trusted.
    #[error("{0}")]
    Certificate(String),
    /// The server was addressed as `http://` and accepts only `https://`, or the reverse.
    #[error("{0}")]
    WrongScheme(String),
    /// The server is overloaded or failing for now (429, 5xx).
    #[error("the server is temporarily unavailable")]
    Busy,
    /// The answer does not come from the storage service: a web page, or a 404 that does not say what is missing.
    #[error(
        "the answer does not come from the storage server, but from a proxy or another server: check the address, \
         and what is between it and this machine"
    )]
    Foreign,
    /// The object is in an archive tier.
    #[error(
        "the object is in an archive tier: restore it with POST /object-storage/restore, and read it again when that is \
         complete"
    )]
    Archived,
    /// The server refuses the request for another reason.
    #[error("the server refused the request")]
    Refused,
    /// The request is larger than the server, or a proxy in front of it, accepts.
    #[error(
        "the server, or a proxy in front of it, refuses requests of this size: raise its limit, to 6 MB at least (nginx: client_max_body_size)"
    )]
    TooLarge,
    /// The server refuses to repeat an upload whose first answer was lost, and the object is not whole.
    #[error("the server's confirmation was lost, and {0}")]
    Unconfirmed(String),
    /// The whole operation took too long.
    #[error("not completed within {} s (RequestTimeout)", .0.as_secs_f32())]
    TimedOut(Duration),
    /// The server did not answer in time.
    #[error("no answer for {} s (OutageTimeout)", .0.as_secs_f32())]
    Unanswered(Duration),
    /// The content that arrived differs from what was stored.
    #[error("the content is corrupted: {0}")]
    Damaged(String),
    /// The answer to a read does not say how large the object is.
    #[error(
        "the server's answers do not say how large the object is (neither Content-Length nor Content-Range)"
    )]
    NoLength,
    /// All bytes have arrived, and do not have the checksum that the server keeps of the object.
    #[error("the content does not have the {0} checksum that the server keeps of it")]
    WrongChecksum(&'static str),
    /// The object was replaced during the read.
    #[error("the object changed while it was being read")]
    Changed,
    /// The disk has no room.
    #[error("the disk is full: free some space, or move the folder to a larger disk")]
    DiskFull,
    /// The operating system denies access to a file.
    #[error("access denied: Orthanc's user needs read and write access to the folder and everything in it")]
    FileDenied,
    /// The two storages hold different contents under one UUID.
    #[error(
        "the two storages hold different contents, and neither was changed: keep the correct one and delete the other"
    )]
    CopiesDiffer,
    /// Two objects of one attachment, in different forms, have different contents.
    #[error(
        "the bucket has two objects of this attachment with different contents, and neither was changed: keep the \
         correct one and delete the other"
    )]
    ObjectsDiffer,
    /// A copy, read back, differs from what was written.
    #[error("the copy differs from what was written, and the original was kept")]
    CopyDamaged,
    /// The attachment must not be stored as it is.
    #[error("{0}")]
    NotAcceptable(String),
    /// An earlier step of the operation was cancelled.
    #[error("an earlier step was cancelled")]
    Cancelled,
    /// Orthanc is shutting down, and the operation was interrupted.
    #[error("Orthanc is shutting down")]
    Stopping,
    /// A task of the operation panicked. The panic hook has logged where.
    #[error("an internal error occurred, which the log describes")]
    Panicked,
    /// The range lies outside the object.
    #[error("the range is outside the object")]
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

impl Answer {
    /// Whether the refusal is about a permission, not about the credentials: the codes of S3 and of Google's XML,
    /// of Azure, of Google's JSON.
    fn is_about_permission(&self) -> bool {
        const CODES: [&str; 4] = [
            "AccessDenied",
            "AuthorizationPermissionMismatch",
            "InsufficientAccountPermissions",
            "forbidden",
        ];
        // Garage answers so to wrong credentials.
        const CREDENTIALS: [&str; 3] = ["invalid signature", "no such key", "no such access key"];
        let message = self.message.as_deref().unwrap_or_default().to_lowercase();
        self.status == 403
            && self.code.as_deref().is_some_and(|code| CODES.contains(&code))
            && !CREDENTIALS.iter().any(|text| message.contains(text))
    }
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

/// A failed storage operation, with everything that a log line needs and no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct StorageError {
    /// The operation.
    pub operation: Operation,
    /// The object or file: the bucket's URL and the object's name, or a path.
    pub object: String,
    /// Why the operation failed.
    pub cause: Cause,
    /// Whether the same operation may succeed later.
    pub transient: bool,
    /// The server's refusal, if it answered.
    pub answer: Option<Box<Answer>>,
    /// Attempts made.
    pub attempts: u32,
    /// After a failed upload: whether the object may be in the bucket nevertheless.
    pub may_remain: bool,
}

impl StorageError {
    /// A permanent failure of `operation` on `object`, without an answer from a server.
    pub fn new(operation: Operation, object: impl Into<String>, cause: Cause) -> Self {
        Self {
            operation,
            object: object.into(),
            cause,
            transient: false,
            answer: None,
            attempts: 1,
            may_remain: false,
        }
    }

    /// Whether the server knows the credentials, which lack a permission for the request.
    pub fn lacks_permission(&self) -> bool {
        self.cause == Cause::Denied && self.answer.as_ref().is_some_and(|answer| answer.is_about_permission())
    }

    /// The HTTP status of the server's refusal, if it answered.
    pub fn status(&self) -> Option<u16> {
        self.answer.as_ref().map(|answer| answer.status)
    }
}

/// `None` for what does not exist.
///
/// # Errors
///
/// All other errors.
pub fn found<T>(result: Result<T, StorageError>) -> Result<Option<T>, StorageError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.cause == Cause::NotFound => Ok(None),
        Err(error) => Err(error),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every cause. The `match` does not compile when a new one is missing here.
    fn causes() -> Vec<Cause> {
        let text = || "REASON".to_owned();
        let causes = vec![
            Cause::NotFound,
            Cause::BucketMissing,
            Cause::BucketBeingDeleted,
            Cause::Foreign,
            Cause::Archived,
            Cause::NoLength,
            Cause::WrongChecksum("MD5"),
            Cause::Denied,
            Cause::NoCredentials(text()),
            Cause::Network(text()),
            Cause::Certificate(text()),
            Cause::WrongScheme(text()),
            Cause::Busy,
            Cause::Refused,
            Cause::TooLarge,
            Cause::Unconfirmed(text()),
            Cause::TimedOut(Duration::from_secs(1200)),
            Cause::Unanswered(Duration::from_secs(20)),
            Cause::Damaged(text()),
            Cause::Changed,
            Cause::DiskFull,
            Cause::FileDenied,
            Cause::CopiesDiffer,
            Cause::ObjectsDiffer,
            Cause::CopyDamaged,
            Cause::NotAcceptable(text()),
            Cause::Cancelled,
            Cause::Stopping,
            Cause::Panicked,
            Cause::OutOfRange,
            Cause::Other(text()),
        ];
        for cause in &causes {
            match cause {
                Cause::NotFound | Cause::BucketMissing | Cause::Denied | Cause::NoCredentials(_) => {}
                Cause::Network(_) | Cause::Certificate(_) | Cause::Busy | Cause::Refused => {}
                Cause::WrongScheme(_) => {}
                Cause::Unconfirmed(_) | Cause::TooLarge => {}
                Cause::BucketBeingDeleted | Cause::Foreign | Cause::Archived => {}
                Cause::NoLength | Cause::WrongChecksum(_) => {}
                Cause::TimedOut(_) | Cause::Unanswered(_) => {}
                Cause::Damaged(_) | Cause::Changed | Cause::DiskFull => {}
                Cause::FileDenied | Cause::CopiesDiffer | Cause::CopyDamaged | Cause::ObjectsDiffer => {}
                Cause::NotAcceptable(_) | Cause::OutOfRange | Cause::Other(_) => {}
                Cause::Cancelled | Cause::Stopping | Cause::Panicked => {}
            }
        }
        causes
    }

    #[test]
    fn messages() {
        let object = "s3://bucket/fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11.dcm";
        let mut errors: Vec<StorageError> =
            causes().into_iter().map(|cause| StorageError::new(Operation::Read, object, cause)).collect();
        errors.extend(
            [
                Operation::Check,
                Operation::CreateBucket,
                Operation::Create,
                Operation::Remove,
                Operation::List,
                Operation::Abort,
                Operation::Restore,
                Operation::Move,
                Operation::Rewrite,
                Operation::WrapKey,
                Operation::UnwrapKey,
            ]
            .map(|operation| StorageError::new(operation, object, Cause::Busy)),
        );
        let answer = Answer {
            status: 403,
            code: Some("AccessDenied".to_owned()),
            message: Some("Access Denied".to_owned()),
            request_id: Some("4442587FB7D0A2F9".to_owned()),
        };
        errors.push(StorageError {
            answer: Some(Box::new(answer)),
            attempts: 3,
            ..StorageError::new(Operation::Read, object, Cause::Denied)
        });
        let line = |error: &StorageError| {
            let cause = format!("{:?}", error.cause);
            let variant = cause.split('(').next().unwrap_or_default();
            format!("{variant}: {error}")
        };
        let lines: Vec<String> = errors.iter().map(line).collect();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../testing/messages");
        insta::with_settings!(
            {snapshot_path => folder, prepend_module_to_snapshot => false, omit_expression => true},
            { insta::assert_snapshot!("bucket", lines.join("\n")) }
        );
    }
}
