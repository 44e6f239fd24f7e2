//! Attachments in two places, a bucket and the file system, and moves between them.
//!
//! [`HybridStorage`] decides where attachments are written and in which order they are read. A [`Place`] is
//! one of the two, with the same operations for both; opening an attachment there yields a [`Source`] of its
//! bytes. [`HybridStorage::move_to`] moves an attachment without ever leaving less than one complete copy.
//!
//! The bucket's client is the crate [`bucket`]; [`FileStorage`] is the folder that Orthanc itself would use.
//! This crate does not know Orthanc's plugin interface, configuration files, or how attachments are
//! encrypted.

mod budget;
mod claims;
mod files;
mod locate;
mod moves;
mod place;
mod source;
mod storage;

pub use files::{FileInfo, FileReader, FileStorage, FileStorageOptions};
pub use locate::StoredCopy;
pub use moves::{MoveOutcome, StoredContent, StoredForm};
pub use place::{Place, Side};
pub use source::{Head, Source, Version};
pub use storage::HybridStorage;
