//! Attachments in two places, a bucket and the file system, and moves between them.
//!
//! [`HybridStorage`] decides where attachments are written and in which order they are read. A [`Place`] is
//! one of the two, with the same operations for both; opening an attachment there yields a [`Source`] of its
//! bytes. [`HybridStorage::move_to`] moves an attachment without ever leaving less than one complete copy, and
//! [`HybridStorage::rewrite`] stores it again in another form or under another key.
//!
//! The bucket's client is the crate [`bucket`]; [`FileStorage`] is the folder that Orthanc itself would use.
//! This crate does not know Orthanc's plugin interface, configuration files, or how attachments are
//! encrypted.
//!
//! ```
//! use bucket::ObjectStorage;
//! use hybrid::{FileStorage, FileStorageOptions, HybridStorage, MoveOutcome, Side, StoredForm};
//! use std::{error::Error, path::Path, sync::Arc};
//! use storage_layout::{Attachment, ContentType};
//!
//! /// Stores an attachment as a file and moves it to the bucket.
//! async fn store_and_move(
//!     objects: ObjectStorage,
//!     folder: &Path,
//!     form: Arc<dyn StoredForm>,
//! ) -> Result<(), Box<dyn Error>> {
//!     let files = FileStorage::new(folder, FileStorageOptions { sync: true });
//!     let attachment = Attachment::new("6a3e9a74-3a2c-4b7e-9d0a-1f6f5c1d2e3b", ContentType::DICOM)?;
//!     files.create(&attachment.uuid, b"DICM")?;
//!
//!     let storage = HybridStorage::new(objects, files, Side::FileSystem);
//!     let outcome = storage.move_to(&attachment, Side::ObjectStorage, 4, &form).await?;
//!     assert_eq!(outcome, MoveOutcome::Moved { bytes: 4 });
//!     Ok(())
//! }
//! ```

mod budget;
mod claims;
mod deletion;
mod files;
mod locate;
mod moves;
mod orphans;
mod place;
mod rewrite;
mod source;
mod state;
mod storage;
mod write_back;

pub use budget::{MemoryBudget, MemoryPermit};
pub use deletion::DeletionWorker;
pub use files::{FileListing, FileReader, FileStorage, FileStorageOptions};
pub use locate::{StoredCopy, WholeCopy};
pub use moves::{FormError, Md5, MoveOutcome, StoredForm};
pub use orphans::{Orphan, OrphanRemoval};
pub use place::{Place, Side};
pub use rewrite::{RewriteOutcome, Rewritten};
pub use source::{Head, Source, StoredContent, Version};
pub use state::{Abandoned, DeletionMarkers, Purpose, StateDirectory, StoredFile, StoredFiles, StoredKind};
pub use storage::HybridStorage;
pub use write_back::{
    CacheTotals, Keeper, Keeping, NotFlushed, NotPending, UploadWorker, WriteBack, WriteBackOptions,
    WriteBackTotals,
};
