//! Names of attachments: objects in a bucket and files on a disk.
//!
//! The names are byte for byte those of the C++ object storage plugins (release 2.5.4) and of Orthanc's own
//! `StorageDirectory`, so that existing buckets and folders can be used without a migration. The crate only
//! computes names; it does no I/O.
//!
//! # Example
//!
//! ```
//! use std::path::Path;
//! use storage_layout::{Attachment, ContentType, FilePath, Layout, RootPath, Structure};
//!
//! let attachment = Attachment::new("fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11", ContentType::DICOM)?;
//! let layout = Layout { root: RootPath::new("hospital/ct")?, structure: Structure::Flat, encrypted: true };
//! assert_eq!(layout.object_name(&attachment), "hospital/ct/fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11.dcm.enc");
//!
//! let path = FilePath::new(Path::new("/var/lib/orthanc"), &attachment.uuid);
//! assert_eq!(path.file(), Path::new("/var/lib/orthanc/fb/4b/fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11"));
//! # Ok::<(), storage_layout::Error>(())
//! ```

mod attachment;
mod elsewhere;
mod inverse;
mod layout;
mod root;

pub use attachment::{Attachment, AttachmentUuid, ContentType};
pub use elsewhere::Difference;
pub use inverse::{NameKind, NamePrefix, NamedObject, ObjectNames};
pub use layout::{FilePath, Layout, Structure};
pub use root::RootPath;

/// A UUID or a root path cannot be part of an object name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The UUID is malformed.
    #[error(
        "the attachment's UUID must be 36 characters, hexadecimal digits in groups of 8-4-4-4-12, got {0:?}"
    )]
    InvalidUuid(String),
    /// The root path begins with a slash. Object names are relative to the bucket, where `/a` and `a` differ.
    #[error("the path must not begin with \"/\", got {0:?}")]
    AbsoluteRoot(String),
    /// The root path contains a folder that tools interpret differently.
    #[error(
        "the path must not contain empty folders, \".\", \"..\" or control characters, got {folder:?} in {root:?}"
    )]
    InvalidFolder {
        /// The whole root path.
        root: String,
        /// The invalid folder.
        folder: String,
    },
}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn messages() {
        let errors = [
            Error::InvalidUuid("1234".to_owned()),
            Error::AbsoluteRoot("/a".to_owned()),
            Error::InvalidFolder { root: "a/../b".to_owned(), folder: "..".to_owned() },
        ];
        let text = errors.map(|error| {
            // Add new variants here and above.
            let variant = match error {
                Error::InvalidUuid(_) => "InvalidUuid",
                Error::AbsoluteRoot(_) => "AbsoluteRoot",
                Error::InvalidFolder { .. } => "InvalidFolder",
            };
            format!("Error::{variant}: {error}")
        });
        insta::with_settings!({
            snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/../testing/messages"),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, { insta::assert_snapshot!("storage-layout", text.join("\n")) });
    }
}
