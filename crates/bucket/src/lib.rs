//! The client of one bucket, behind any `object_store`.
//!
//! [`Bucket`] stores, reads and deletes objects by name, with retries, one deadline for each operation,
//! downloads that resume where the connection broke, and several connections where one is too slow.
//! [`ObjectStorage`] maps Orthanc's attachments to objects.
//!
//! [`StorageError`] is also the error of `hybrid`'s file operations and moves. Its messages name options of
//! the plugins as remedies. This crate does not call Orthanc, read configurations or encrypt.

mod bucket;
mod classify;
mod download;
mod error;
mod multipart;
mod object_storage;
mod retry;
mod task;
mod throughput;

pub use bucket::{Bucket, BucketCheck, BucketOptions, CreateBucket, Payload};
pub use download::{Download, ReadRange};
pub use error::{Answer, Cause, Operation, StorageError};
pub use object_storage::{Found, Naming, ObjectStorage};
pub use retry::RetryPolicy;
pub use task::blocking;
pub use throughput::TransferOptions;
