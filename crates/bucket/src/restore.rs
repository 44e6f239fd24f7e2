//! Restores objects from archive tiers, so that they can be read.

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use cloud_http::{ArchiveState, in_background};
use object_store::path::Path;
use storage_layout::Attachment;

use crate::bucket::Bucket;
use crate::download::ReadRange;
use crate::error::{Cause, Operation, StorageError, found};
use crate::object_storage::{Naming, ObjectStorage};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A client that can restore objects from an archive tier.
#[async_trait]
pub trait RestoreArchived: Send + Sync {
    /// The tiers of a restore: the usual one first, the fastest one last.
    fn tiers(&self) -> &'static [&'static str];

    /// Whether a restore makes a copy for a number of days. Otherwise, it moves the object to another tier, where it
    /// stays.
    fn makes_copies(&self) -> bool;

    /// What the user can do about a restore that failed, if the error does not say so.
    fn advice(&self, error: &StorageError) -> Option<&'static str>;

    /// Asks to restore an archived object. Succeeds if it is already being restored. `days` is the lifetime of the copy;
    /// `None` if the restore moves the object. If there is a copy already, its lifetime begins again.
    async fn restore(&self, path: &Path, tier: &str, days: Option<u32>) -> object_store::Result<()>;
}

impl fmt::Debug for dyn RestoreArchived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RestoreArchived")
    }
}

/// How to restore objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestoreOptions {
    /// Minimum lifetime of a copy, in days.
    pub days: u32,
    /// One of [`RestoreArchived::tiers`].
    pub tier: &'static str,
}

/// What a request to restore an attachment has achieved. The greatest value of several objects is that of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Restoration {
    /// The attachment can be read, and the server was not asked.
    Readable,
    /// The attachment can be read from a copy, whose lifetime begins again.
    Extended,
    /// The attachment was already being restored.
    Restoring,
    /// The server has begun to restore the attachment.
    Begun,
}

impl ObjectStorage {
    /// The client that restores objects; `None` if all objects of this cloud can be read at once.
    pub fn restore_client(&self) -> Option<&dyn RestoreArchived> {
        self.bucket.options.restore.as_deref()
    }

    /// Asks the server to restore an attachment if it is archived, with as many requests as
    /// [`describe`](Self::describe) and one more for each archived object. Returns `None` if the attachment is not in the
    /// bucket.
    ///
    /// An object that is being restored is left alone, unless the fastest tier is wanted. A copy that would be deleted
    /// before the wanted lifetime is over gets the new one.
    ///
    /// # Errors
    ///
    /// If the server does not answer, or refuses.
    pub async fn restore(
        &self,
        attachment: &Attachment,
        options: RestoreOptions,
    ) -> Result<Option<Restoration>, StorageError> {
        Box::pin(in_background(self.restore_any(attachment, options))).await
    }

    async fn restore_any(
        &self,
        attachment: &Attachment,
        options: RestoreOptions,
    ) -> Result<Option<Restoration>, StorageError> {
        for (name, naming) in self.names(attachment) {
            let sidecar = match naming {
                Naming::KeyVault => self.bucket.restore(&Attachment::sidecar_of(&name), options).await?,
                _ => None,
            };
            if let Some(object) = self.bucket.restore(&name, options).await? {
                return Ok(sidecar.max(Some(object)));
            }
        }
        Ok(None)
    }
}

impl Bucket {
    /// Asks the server to restore an object if it is archived; `None` if it does not exist.
    async fn restore(
        &self,
        name: &str,
        options: RestoreOptions,
    ) -> Result<Option<Restoration>, StorageError> {
        let Some(client) = &self.options.restore else {
            return Ok(found(self.head(name).await)?.map(|_| Restoration::Readable));
        };
        let Some(object) = found(self.head(name).await)? else { return Ok(None) };
        let is_urgent = client.tiers().last() == Some(&options.tier);
        let (days, achieved) = match object.archive {
            ArchiveState::Online => return Ok(Some(Restoration::Readable)),
            ArchiveState::Restoring if !is_urgent => return Ok(Some(Restoration::Restoring)),
            ArchiveState::Restored { until } if lasts(until, options.days) => {
                return Ok(Some(Restoration::Readable));
            }
            ArchiveState::Restored { .. } => (Some(options.days), Restoration::Extended),
            ArchiveState::Restoring => {
                (client.makes_copies().then_some(options.days), Restoration::Restoring)
            }
            ArchiveState::Archived { makes_copy } => (makes_copy.then_some(options.days), Restoration::Begun),
        };
        let path = self.path(Operation::Restore, name)?;
        let mut attempts = self.attempts(Operation::Restore, name);
        match attempts.run(|| client.restore(&path, options.tier, days)).await {
            Ok(_) => Ok(Some(achieved)),
            // The object, or its copy, has been deleted since.
            Err(error) if error.cause == Cause::NotFound => Ok(None),
            // Some servers call a class as S3 calls an archive, and read its objects at once.
            Err(error) if error.cause == Cause::Refused && self.is_readable(name).await => {
                tracing::info!("{error}; but it can be read");
                Ok(Some(Restoration::Readable))
            }
            Err(error) => Err(error),
        }
    }

    async fn is_readable(&self, name: &str) -> bool {
        match self.get(name, ReadRange::UpTo(0..1)).await {
            Ok(_) => true,
            // It has no byte.
            Err(error) => error.cause == Cause::OutOfRange,
        }
    }
}

/// Whether a copy that is deleted at `until` lives for this many days.
fn lasts(until: Option<SystemTime>, days: u32) -> bool {
    let wanted = SystemTime::now().checked_add(DAY * days);
    until.is_none_or(|until| wanted.is_some_and(|wanted| until >= wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_lasts_until_its_deletion() {
        let now = SystemTime::now();
        assert!(lasts(None, 7));
        assert!(lasts(Some(now + 8 * DAY), 7));
        assert!(!lasts(Some(now + 6 * DAY), 7));
        assert!(!lasts(Some(now), 1));
        assert!(!lasts(Some(now), u32::MAX));
    }

    #[test]
    fn object_in_progress_decides() {
        assert_eq!(Some(Restoration::Begun).max(Some(Restoration::Readable)), Some(Restoration::Begun));
        assert_eq!(None.max(Some(Restoration::Readable)), Some(Restoration::Readable));
    }
}
