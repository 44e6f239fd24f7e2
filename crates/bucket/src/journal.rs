//! Multipart uploads that a later process must abort.

use std::fmt;
use std::io;
use std::time::Duration;

use object_store::MultipartId;
use object_store::path::Path;

use crate::bucket::Bucket;
use crate::error::{Cause, Operation, StorageError};
use crate::retry::RetryPolicy;
use crate::task::blocking;

/// Time limit for aborting an upload.
const ABORT: Duration = Duration::from_secs(5);

/// Remembers the multipart uploads that have begun and not ended, beyond the end of this process: the cloud
/// charges for their parts until they are aborted with [`Bucket::abort_upload`].
///
/// Both functions may block. A failure is logged, and does not fail the upload.
pub trait UploadJournal: fmt::Debug + Send + Sync {
    /// An upload has begun. No part is sent before this function returns.
    ///
    /// # Errors
    ///
    /// If the upload cannot be remembered.
    fn began(&self, name: &str, upload_id: &str) -> io::Result<()>;

    /// The upload has been completed or aborted, and can be forgotten.
    ///
    /// # Errors
    ///
    /// If the upload cannot be forgotten.
    fn ended(&self, name: &str, upload_id: &str) -> io::Result<()>;
}

impl Bucket {
    /// Aborts the multipart upload `upload_id` of `name`, which deletes its parts. Succeeds if there is no
    /// such upload. Does nothing on Azure, which discards the parts by itself.
    ///
    /// # Errors
    ///
    /// If the server does not confirm that the parts are deleted.
    pub async fn abort_upload(&self, name: &str, upload_id: &str) -> Result<(), StorageError> {
        let path = self.path(Operation::Abort, name)?;
        self.abort(name, &path, &upload_id.to_owned()).await
    }

    pub(crate) async fn abort(&self, name: &str, path: &Path, id: &MultipartId) -> Result<(), StorageError> {
        let policy = RetryPolicy { deadline: ABORT, ..self.retry() };
        let mut attempts = self.attempts_within(policy, Operation::Abort, name);
        match attempts.run(|| self.multipart().abort_multipart(path, id)).await {
            Err(error) if error.cause != Cause::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Calls `note`, a function of the journal, on a thread that may block.
    pub(crate) async fn note(&self, note: Note, name: &str, id: &MultipartId) {
        let Some(journal) = self.journal() else { return };
        let (object, upload) = (name.to_owned(), id.clone());
        if let Err(error) = blocking(move || note(&*journal, &object, &upload)).await {
            tracing::warn!("cannot note the upload in parts of {} on disk: {error}", self.object_url(name));
        }
    }
}

/// [`UploadJournal::began`] or [`UploadJournal::ended`].
pub(crate) type Note = fn(&dyn UploadJournal, &str, &str) -> io::Result<()>;
