//! Why a job cannot go on.

use bucket::StorageError;

use super::reports::ReportsError;
use super::work::Failure;
use crate::catalog::CatalogError;

/// Why a job failed, or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    #[error(transparent)]
    Catalog(CatalogError),
    /// The configuration has no such job.
    #[error("{0}")]
    Unavailable(String),
    #[error(
        "the attachments have {} MB together, but the cache holds at most {} MB (MaxCacheMB); prefetch fewer at once",
        .bytes >> 20, .capacity >> 20
    )]
    TooLarge { bytes: u64, capacity: u64 },
    #[error("attachments that failed: {count}; the first: {first}")]
    Several { count: u64, first: String },
    /// A storage does not work.
    #[error(
        "gave up after {done} of {instances} instances, since all of the next {count} attachments failed; the job \
         continues there when it is resubmitted; the first: {first}"
    )]
    GaveUp { done: u64, instances: u64, count: usize, first: Box<Failure> },
    /// A storage does not work, which is not about an attachment.
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Report(#[from] ReportsError),
    #[error("an internal error occurred, which the log describes")]
    Panicked,
    /// The remaining attachments are handled when the job resumes.
    #[error("Orthanc is shutting down")]
    Stopped,
}

impl JobError {
    /// Whether a resubmitted job continues where it was.
    pub(crate) fn can_continue(&self) -> bool {
        matches!(self, Self::GaveUp { .. } | Self::Report(_))
    }
}

impl From<CatalogError> for JobError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Stopped => Self::Stopped,
            error => Self::Catalog(error),
        }
    }
}
