//! The client of one bucket, behind any `object_store`.
//!
//! [`Bucket`] stores, reads and deletes objects by name, with retries, one deadline for each operation,
//! downloads that resume where the connection broke, and several connections where one is too slow.
//! [`ObjectStorage`] maps Orthanc's attachments to objects.
//!
//! [`StorageError`] is also the error of `hybrid`'s file operations and moves. Its messages name options of
//! the plugins as remedies. This crate does not call Orthanc, read configurations or encrypt.
//!
//! ```
//! use bucket::{Bucket, BucketOptions, Payload, ReadRange};
//! use object_store::memory::InMemory;
//! use std::sync::Arc;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), bucket::StorageError> {
//! let bucket = Bucket::new(BucketOptions::new(Arc::new(InMemory::new()), "memory://bucket"));
//! bucket.put("name", Payload::Owned("DICM".into())).await?;
//! let mut download = bucket.get("name", ReadRange::Whole).await?;
//! assert_eq!(download.next().await?.as_deref(), Some(&b"DICM"[..]));
//! bucket.delete("name").await?;
//! # Ok(())
//! # }
//! ```

mod beginnings;
mod bucket;
mod bulk;
mod classify;
mod climb;
mod confirm;
mod content;
mod copies;
mod deletion;
mod dialect;
mod download;
mod elsewhere;
mod error;
mod health;
mod journal;
mod learnt;
mod listing;
mod multipart;
mod names;
mod notes;
mod object_storage;
mod options;
mod own;
mod ranges;
mod request_size;
mod restore;
mod retry;
mod split;
mod stream;
mod task;
mod throughput;
mod verification;

pub use bucket::{Bucket, BucketCheck};
pub use bulk::{BulkDelete, Deletion};
pub use cloud_http::ArchiveState;
pub use content::{Payload, Source, SourceError};
pub use dialect::Dialect;
pub use download::{Download, ReadRange};
pub use elsewhere::Seeker;
pub use error::{Answer, Cause, Operation, StorageError, found};
pub use journal::UploadJournal;
pub use listing::{ListObjects, Listing};
pub use object_storage::{Described, Found, Naming, ObjectStorage};
pub use options::{BucketOptions, CreateBucket};
pub use own::{OWN_FOLDER, WriteCheck};
pub use restore::{Restoration, RestoreArchived, RestoreOptions};
pub use retry::RetryPolicy;
pub use task::blocking;
pub use throughput::TransferOptions;
pub use verification::{Comparison, Verdict};

pub use cloud_http::{ListPage, ListRequest, ListedObject, NextPage};
