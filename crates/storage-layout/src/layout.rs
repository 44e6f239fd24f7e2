//! The three layouts: flat and legacy in a bucket, and Orthanc's own on a disk.

use std::path::{Path, PathBuf};

use crate::attachment::UNKNOWN_EXTENSION;
use crate::{Attachment, AttachmentUuid, ContentType, RootPath};

/// Extension of encrypted objects in the flat structure.
pub(crate) const ENCRYPTED_EXTENSION: &str = ".enc";

/// How object names are built (the option `StorageStructure`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Structure {
    /// `{uuid}{extension}`: all objects are in one folder, and the extension depends on the content type.
    #[default]
    Flat,
    /// `{uuid[0..2]}/{uuid[2..4]}/{uuid}`: the layout of Orthanc's `StorageDirectory`, so that such a folder
    /// can be copied to a bucket.
    Legacy,
}

/// How attachments are named in a bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Layout {
    /// The folder in the bucket that contains all objects.
    pub root: RootPath,
    /// How names are built in that folder.
    pub structure: Structure,
    /// Whether client-side encryption is on, which adds `.enc` to flat names.
    pub encrypted: bool,
}

impl Layout {
    /// Returns the object name of `attachment`.
    pub fn object_name(&self, attachment: &Attachment) -> String {
        self.name(attachment, attachment.content_type.extension())
    }

    /// Returns the object name that old releases gave to DICOM headers in the flat structure (`.unk` instead
    /// of `.dcm.head`), for the option `EnableLegacyUnknownFiles`. Returns `None` for other attachments,
    /// whose names never changed.
    pub fn legacy_unknown_name(&self, attachment: &Attachment) -> Option<String> {
        (self.structure == Structure::Flat && attachment.content_type == ContentType::DICOM_UNTIL_PIXEL_DATA)
            .then(|| self.name(attachment, UNKNOWN_EXTENSION))
    }

    /// Returns the name that the C++ plugin on Windows gave to the object `name` of this layout; `None` if it is the
    /// same. There the last separator of a flat name is a backslash, and each one of a legacy name.
    pub fn backslash_name(&self, name: &str) -> Option<String> {
        match self.structure {
            Structure::Flat => name.rsplit_once('/').map(|(folder, file)| format!("{folder}\\{file}")),
            Structure::Legacy => Some(name.replace('/', "\\")),
        }
    }

    pub(crate) fn name(&self, attachment: &Attachment, extension: &str) -> String {
        let uuid = &attachment.uuid;
        match self.structure {
            Structure::Flat => {
                let encrypted = if self.encrypted { ENCRYPTED_EXTENSION } else { "" };
                self.root.join(&[uuid.as_str(), extension, encrypted].concat())
            }
            Structure::Legacy => {
                let (first, second) = uuid.folders();
                self.root.join(&format!("{first}/{second}/{uuid}"))
            }
        }
    }
}

/// The path of an attachment in Orthanc's `StorageDirectory`: `{uuid[0..2]}/{uuid[2..4]}/{uuid}` for all
/// content types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePath {
    outer: PathBuf,
    inner: PathBuf,
    file: PathBuf,
}

impl FilePath {
    /// Returns the path of `uuid` in `storage_directory`, with the separators of this platform.
    pub fn new(storage_directory: &Path, uuid: &AttachmentUuid) -> Self {
        let (first, second) = uuid.folders();
        let outer = storage_directory.join(first);
        let inner = outer.join(second);
        let file = inner.join(uuid.as_str());
        Self { outer, inner, file }
    }

    /// Returns the path of the file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns the two folders that belong to the layout, innermost first, so that empty ones can be removed.
    pub fn folders(&self) -> [&Path; 2] {
        [&self.inner, &self.outer]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_windows_have_backslashes() {
        for (structure, name, expected) in [
            (Structure::Flat, "uuid.dcm", None),
            (Structure::Flat, "a/b/uuid.dcm", Some(r"a/b\uuid.dcm")),
            (Structure::Flat, r"a\b/uuid.dcm", Some(r"a\b\uuid.dcm")),
            (Structure::Legacy, "fb/4b/uuid", Some(r"fb\4b\uuid")),
            (Structure::Legacy, "a/b/fb/4b/uuid", Some(r"a\b\fb\4b\uuid")),
        ] {
            let layout = Layout { structure, ..Layout::default() };
            assert_eq!(layout.backslash_name(name).as_deref(), expected, "{name}");
        }
    }
}
