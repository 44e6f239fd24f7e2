//! The three layouts: flat and legacy in a bucket, Orthanc's own on a disk.

use std::path::{Path, PathBuf};

use crate::attachment::UNKNOWN_EXTENSION;
use crate::{Attachment, AttachmentUuid, ContentType, RootPath};

/// The end of the name of an encrypted object in the flat structure.
const ENCRYPTED_EXTENSION: &str = ".enc";

/// How object names are built (the option `StorageStructure`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Structure {
    /// `{uuid}{extension}`: all objects in one folder, their content type in the name.
    #[default]
    Flat,
    /// `{uuid[0..2]}/{uuid[2..4]}/{uuid}`: as in Orthanc's own `StorageDirectory`, so that such a folder can be copied
    /// to a bucket as it is.
    Legacy,
}

/// How the attachments of one Orthanc are named in one bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Layout {
    /// The folder in the bucket under which everything is stored.
    pub root: RootPath,
    /// How names are built below it.
    pub structure: Structure,
    /// Whether the client-side encryption is on, which shows in flat names.
    pub encrypted: bool,
}

impl Layout {
    /// The name under which `attachment` is written.
    pub fn object_name(&self, attachment: &Attachment) -> String {
        self.name(attachment, attachment.content_type.extension())
    }

    /// The name under which a DICOM header may have been written by old releases (`.unk` for `.dcm.head`); `None` where
    /// there never was another name. For the option `EnableLegacyUnknownFiles`.
    pub fn legacy_unknown_name(&self, attachment: &Attachment) -> Option<String> {
        (self.structure == Structure::Flat && attachment.content_type == ContentType::DICOM_UNTIL_PIXEL_DATA)
            .then(|| self.name(attachment, UNKNOWN_EXTENSION))
    }

    fn name(&self, attachment: &Attachment, extension: &str) -> String {
        let uuid = &attachment.uuid;
        match self.structure {
            Structure::Flat => {
                let encrypted = if self.encrypted { ENCRYPTED_EXTENSION } else { "" };
                self.root.join(&format!("{uuid}{extension}{encrypted}"))
            }
            Structure::Legacy => {
                let (first, second) = uuid.folders();
                self.root.join(&format!("{first}/{second}/{uuid}"))
            }
        }
    }
}

/// Where Orthanc files an attachment under its `StorageDirectory`: `{uuid[0..2]}/{uuid[2..4]}/{uuid}`, whatever its
/// content type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePath {
    outer: PathBuf,
    inner: PathBuf,
    file: PathBuf,
}

impl FilePath {
    /// The path of `uuid` under `storage_directory`, with the separators of this platform.
    pub fn new(storage_directory: &Path, uuid: &AttachmentUuid) -> Self {
        let (first, second) = uuid.folders();
        let outer = storage_directory.join(first);
        let inner = outer.join(second);
        let file = inner.join(uuid.as_str());
        Self { outer, inner, file }
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The two folders that belong to the layout, innermost first: those to remove once they are empty.
    pub fn folders(&self) -> [&Path; 2] {
        [&self.inner, &self.outer]
    }
}
