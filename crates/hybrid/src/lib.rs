//! The storage engine: where the attachments of Orthanc are, and how they get there whole.
//!
//! [`HybridStorage`] knows which of two storages comes first, and moves attachments between them. [`AttachmentStorage`]
//! turns an attachment into its object and back; [`ObjectStorage`] is one bucket behind any `object_store`, with retries,
//! deadlines and downloads that resume where they broke; [`FileStorage`] is the folder that Orthanc itself would use. The
//! engine knows nothing of Orthanc's interface, of configuration files, of the clouds' protocols and of encryption.

mod attachment;
mod budget;
mod claims;
mod classify;
mod download;
mod error;
mod files;
mod hybrid;
mod locate;
mod object;
mod parts;
mod relocate;
mod retry;
mod transfer;

pub use attachment::{AttachmentStorage, Found, Naming};
pub use download::{Download, Part};
pub use error::{Answer, Cause, Operation, StorageError};
pub use files::{FileInfo, FileReader, FileStorage, FileStorageOptions};
pub use hybrid::{HybridStorage, Side};
pub use locate::StoredCopy;
pub use object::{Bucket, Content, CreateBucket, ObjectStorage, ObjectStorageOptions};
pub use relocate::{Relocated, StoredForm};
pub use retry::RetryPolicy;
pub use transfer::TransferOptions;
