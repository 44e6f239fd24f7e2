//! From an attachment of Orthanc to the names of its objects in a bucket and of its file on a disk.
//!
//! The names are, byte for byte, those of the C++ object-storage plugins (release 2.5.4) and of Orthanc's own
//! `StorageDirectory`, so that a bucket or a folder can change hands without a migration. This crate does no I/O and
//! knows nothing of buckets, credentials or encryption beyond the `.enc` at the end of a name.
//!
//! ```
//! use storage_layout::{Attachment, ContentType, Layout, RootPath, Structure};
//!
//! let attachment = Attachment::new("fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11", ContentType::DICOM)?;
//! let layout = Layout { root: RootPath::new("hospital/ct")?, structure: Structure::Flat, encrypted: true };
//! assert_eq!(layout.object_name(&attachment), "hospital/ct/fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11.dcm.enc");
//! # Ok::<(), storage_layout::Error>(())
//! ```

mod attachment;
mod layout;
mod root;

pub use attachment::{Attachment, AttachmentUuid, ContentType};
pub use layout::{FilePath, Layout, Structure};
pub use root::RootPath;

/// Why something cannot become an object name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Orthanc's attachment identifiers are 36 characters, hexadecimal digits in groups of 8-4-4-4-12.
    #[error("{0:?} is not the UUID of an attachment (36 characters: hexadecimal digits grouped 8-4-4-4-12)")]
    InvalidUuid(String),
    /// Object names are relative to the bucket: `/a` would be another object than `a`.
    #[error("{0:?} begins with a slash: the path is relative to the bucket, write it without the first /")]
    AbsoluteRoot(String),
    /// An empty, `.` or `..` folder, or a control character, that no two tools would read as one name.
    #[error(
        "{root:?} has the folder {folder:?}: an empty, . or .. folder or a control character cannot be part of an object name"
    )]
    InvalidFolder {
        /// The whole root path.
        root: String,
        /// The part of it that was refused.
        folder: String,
    },
}
