//! The storage engine: where the attachments of Orthanc are, and how they get there whole.
//!
//! [`AttachmentStorage`] turns an attachment into its object and back; [`ObjectStorage`] is one bucket behind any
//! `object_store`, with retries, deadlines and downloads that resume where they broke. The engine is asynchronous and
//! knows nothing of Orthanc's interface, of configuration files and of the clouds' protocols.

mod attachment;
mod classify;
mod download;
mod error;
mod object;
mod parts;
mod retry;
mod transfer;

pub use attachment::{AttachmentStorage, Found, Naming};
pub use download::{Download, Part};
pub use error::{Answer, Cause, Operation, StorageError};
pub use object::{Bucket, Content, CreateBucket, ObjectStorage, ObjectStorageOptions};
pub use retry::RetryPolicy;
pub use transfer::TransferOptions;
