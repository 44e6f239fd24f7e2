//! Attachments in two places, a bucket and the file system, and moves between them.
//!
//! [`HybridStorage`] knows which place is written to and read first, and moves attachments from one to the other without
//! ever leaving less than one complete copy. [`FileStorage`] is the folder that Orthanc itself would use; the bucket's side is
//! [`bucket::ObjectStorage`].
//!
//! This crate does not know Orthanc's plugin interface, configuration files, or how attachments are encrypted.

mod budget;
mod claims;
mod files;
mod hybrid;
mod locate;
mod moves;

pub use files::{FileInfo, FileReader, FileStorage, FileStorageOptions};
pub use hybrid::{HybridStorage, Side};
pub use locate::StoredCopy;
pub use moves::{MoveOutcome, StoredForm};
