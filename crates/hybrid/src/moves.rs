//! Moving an attachment from one storage to the other.
//!
//! At each moment at least one whole copy exists, whatever breaks: the source is deleted last, after the copy was found
//! to be right. A move that was broken off leaves either the source alone or both copies, and the next one goes on there.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use storage_layout::Attachment;

use crate::claims::Claim;
use crate::files::{FileReader, file_error};
use crate::hybrid::{HybridStorage, Side, blocking};
use bucket::ReadRange;
use bucket::{Cause, Operation, StorageError};
use bucket::{Found, Naming};

/// Bytes of a file that are compared at a time.
const STEP: usize = 1024 * 1024;

/// What an attachment looks like in a storage: in clear or encrypted. These functions may take their time.
pub trait StoredForm: Send + Sync + fmt::Debug {
    /// How `content`, as found under a name that says `naming`, is to be stored: as it is, or encrypted from now on.
    ///
    /// # Errors
    ///
    /// A sentence that says why it must not be stored at all.
    fn to_store(&self, attachment: &Attachment, naming: Naming, content: Bytes) -> Result<Bytes, String>;

    /// Whether two stored contents that are not the same bytes are the same attachment.
    fn is_same(&self, attachment: &Attachment, one: (Naming, &[u8]), other: (Naming, &[u8])) -> bool;
}

/// What became of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveOutcome {
    /// It is on the target, and no longer on the source.
    Moved {
        /// Its stored size.
        bytes: u64,
    },
    /// It was on the target alone.
    AlreadyThere,
    /// It is on neither.
    Missing,
    /// Orthanc deletes it.
    Removed,
}

/// An attachment's bytes on one side.
enum Source {
    Object(Box<Found>),
    File(FileReader, Naming),
}

impl Source {
    fn size(&self) -> u64 {
        match self {
            Self::Object(found) => found.download.object_size(),
            Self::File(file, _) => file.size(),
        }
    }

    fn naming(&self) -> Naming {
        match self {
            Self::Object(found) => found.naming,
            Self::File(_, naming) => *naming,
        }
    }
}

impl HybridStorage {
    /// Moves an attachment to `target`. `size` is about its size in bytes, by which the memory of all moves together is
    /// bounded.
    ///
    /// # Errors
    ///
    /// What failed. The attachment is on the source then, and perhaps on the target too.
    pub async fn relocate(
        &self,
        attachment: &Attachment,
        target: Side,
        size: u64,
        form: &Arc<dyn StoredForm>,
    ) -> Result<MoveOutcome, StorageError> {
        // The bytes that were read, and once more what is compared with them or encrypted from them.
        let _memory = self.budget.acquire(size.saturating_mul(2)).await;
        let claim = Arc::new(self.claims.for_move(attachment.uuid).await);
        if claim.is_removed() {
            return Ok(MoveOutcome::Removed);
        }
        let Some(source) = self.open(attachment, target.other()).await? else {
            return self.without_source(attachment, target).await;
        };
        let naming = source.naming();
        let content = read_all(source).await?;
        if claim.is_removed() {
            return Ok(MoveOutcome::Removed);
        }
        match self.open(attachment, target).await? {
            Some(copy) => self.expect_same(attachment, target, (naming, &content), copy, form).await?,
            None => self.copy(attachment, target, (naming, content.clone()), form, &claim).await?,
        }
        if claim.is_removed() {
            return Ok(MoveOutcome::Removed);
        }
        self.delete_from(attachment, target.other(), claim).await?;
        Ok(MoveOutcome::Moved { bytes: content.len() as u64 })
    }

    async fn without_source(
        &self,
        attachment: &Attachment,
        target: Side,
    ) -> Result<MoveOutcome, StorageError> {
        if let (Side::ObjectStorage, Some(files)) = (target, self.files().cloned()) {
            // A move that was killed may have left them.
            let (name, uuid) = (self.name(attachment, Side::FileSystem), attachment.uuid);
            let tidy = move || {
                files.remove_empty_folders(&uuid);
                Ok(())
            };
            blocking(name, Operation::Move, tidy).await?;
        }
        let there = self.is_on(attachment, target).await?;
        Ok(if there { MoveOutcome::AlreadyThere } else { MoveOutcome::Missing })
    }

    async fn is_on(&self, attachment: &Attachment, side: Side) -> Result<bool, StorageError> {
        match self.open_part(attachment, side, ReadRange::UpTo(0..1)).await {
            Ok(_) => Ok(true),
            // It is empty.
            Err(error) if error.cause == Cause::OutOfRange => Ok(true),
            Err(error) if error.cause == Cause::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// An attachment on one side; `None` where it is not there.
    async fn open(&self, attachment: &Attachment, side: Side) -> Result<Option<Source>, StorageError> {
        match self.open_part(attachment, side, ReadRange::Whole).await {
            Ok(source) => Ok(Some(source)),
            Err(error) if error.cause == Cause::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn open_part(
        &self,
        attachment: &Attachment,
        side: Side,
        part: ReadRange,
    ) -> Result<Source, StorageError> {
        match (side, self.files().cloned()) {
            (Side::FileSystem, Some(files)) => {
                let (uuid, naming) = (attachment.uuid, self.objects().file_naming());
                let name = self.name(attachment, side);
                let open = move || {
                    let mut file = files.open(&uuid)?;
                    file.seek(&part)?;
                    Ok(file)
                };
                let file = blocking(name, Operation::Read, open).await?;
                Ok(Source::File(file, naming))
            }
            _ => self.objects().read(attachment, part).await.map(|found| Source::Object(Box::new(found))),
        }
    }

    /// Writes the copy, and sees that it is what was written.
    async fn copy(
        &self,
        attachment: &Attachment,
        target: Side,
        (naming, content): (Naming, Bytes),
        form: &Arc<dyn StoredForm>,
        claim: &Arc<Claim>,
    ) -> Result<(), StorageError> {
        let (form, subject) = (Arc::clone(form), *attachment);
        let source = self.name(attachment, target.other());
        let refused = self.error(attachment, target.other(), Cause::NotFound);
        let stored = blocking(source, Operation::Move, move || {
            let refuse = |reason| StorageError { cause: Cause::NotAcceptable(reason), ..refused };
            form.to_store(&subject, naming, content).map_err(refuse)
        });
        let stored = stored.await?;
        self.store(attachment, target, stored.clone(), Arc::clone(claim)).await?;
        if target == Side::ObjectStorage && self.objects().is_confirmed(attachment, &stored).await? {
            return Ok(());
        }
        if let Some(copy) = self.open(attachment, target).await?
            && copy.size() == stored.len() as u64
            && is_equal(copy, &stored).await?
        {
            return Ok(());
        }
        Err(self.error(attachment, target, Cause::CopyDamaged))
    }

    /// Fails unless the copy that is there already is the same attachment as the source.
    async fn expect_same(
        &self,
        attachment: &Attachment,
        target: Side,
        source: (Naming, &Bytes),
        copy: Source,
        form: &Arc<dyn StoredForm>,
    ) -> Result<(), StorageError> {
        let naming = copy.naming();
        if copy.size() == source.1.len() as u64 && is_equal(copy, source.1).await? {
            return Ok(());
        }
        let differ = || self.error(attachment, target, Cause::CopiesDiffer);
        let copy = read_all(self.open(attachment, target).await?.ok_or_else(differ)?).await?;
        let (form, subject, source) = (Arc::clone(form), *attachment, (source.0, source.1.clone()));
        let name = self.name(attachment, target);
        let same = blocking(name, Operation::Move, move || {
            Ok(form.is_same(&subject, (source.0, &source.1), (naming, &copy)))
        });
        if same.await? { Ok(()) } else { Err(differ()) }
    }

    async fn delete_from(
        &self,
        attachment: &Attachment,
        side: Side,
        claim: Arc<Claim>,
    ) -> Result<(), StorageError> {
        match (side, self.files().cloned()) {
            (Side::FileSystem, Some(files)) => {
                let uuid = attachment.uuid;
                blocking(self.name(attachment, side), Operation::Remove, move || {
                    let _claim = claim;
                    files.remove(&uuid).map(|_| ())
                })
                .await
            }
            _ => self.objects().remove(attachment).await,
        }
    }

    fn error(&self, attachment: &Attachment, side: Side, cause: Cause) -> StorageError {
        let name = self.name(attachment, side);
        StorageError { cause, ..file_error(Operation::Move, name.as_ref(), &std::io::Error::other("")) }
    }
}

/// All bytes, in one piece.
async fn read_all(source: Source) -> Result<Bytes, StorageError> {
    match source {
        Source::File(mut file, _) => blocking(file.name(), Operation::Read, move || file.read_to_end()).await,
        Source::Object(found) => {
            let mut download = found.download;
            let size = usize::try_from(download.object_size()).unwrap_or(usize::MAX);
            let mut bytes = BytesMut::with_capacity(size);
            while let Some(chunk) = download.next().await? {
                bytes.extend_from_slice(&chunk);
            }
            Ok(bytes.freeze())
        }
    }
}

/// Whether the source has exactly these bytes. It has as many.
async fn is_equal(source: Source, expected: &Bytes) -> Result<bool, StorageError> {
    let mut left = expected.clone();
    match source {
        Source::File(mut file, _) => {
            blocking(file.name(), Operation::Read, move || {
                while let Some(chunk) = file.next(STEP)? {
                    if left.split_to(chunk.len().min(left.len())) != chunk {
                        return Ok(false);
                    }
                }
                Ok(left.is_empty())
            })
            .await
        }
        Source::Object(found) => {
            let mut download = found.download;
            while let Some(chunk) = download.next().await? {
                if left.split_to(chunk.len().min(left.len())) != chunk {
                    return Ok(false);
                }
            }
            Ok(left.is_empty())
        }
    }
}
