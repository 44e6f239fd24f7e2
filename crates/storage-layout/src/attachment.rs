//! What Orthanc asks to be stored: a UUID and a content type.

use std::fmt;

use crate::Error;

/// Where the hyphens of a UUID's text form stand.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The identifier of an attachment: 36 ASCII characters, hexadecimal digits grouped 8-4-4-4-12.
///
/// Validated before it becomes part of a name, and kept exactly as Orthanc wrote it (the case of its letters too).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachmentUuid([u8; 36]);

impl AttachmentUuid {
    /// Checks and keeps `uuid`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidUuid`] when it has another form than 8-4-4-4-12 hexadecimal digits.
    pub fn new(uuid: &str) -> Result<Self, Error> {
        let invalid = || Error::InvalidUuid(uuid.chars().take(64).collect());
        let bytes: [u8; 36] = uuid.as_bytes().try_into().map_err(|_| invalid())?;
        let well_formed = bytes.iter().enumerate().all(|(position, byte)| {
            if HYPHENS.contains(&position) { *byte == b'-' } else { byte.is_ascii_hexdigit() }
        });
        if well_formed { Ok(Self(bytes)) } else { Err(invalid()) }
    }

    /// The 36 characters.
    pub fn as_str(&self) -> &str {
        // Only ASCII passes `new`.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The two folders, two characters each, under which Orthanc files an attachment.
    pub(crate) fn folders(&self) -> (&str, &str) {
        (&self.as_str()[0..2], &self.as_str()[2..4])
    }
}

impl fmt::Display for AttachmentUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for AttachmentUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AttachmentUuid({self})")
    }
}

/// What an attachment contains: the values of `OrthancPluginContentType`, user-defined ones (1024 to 65535) included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentType(pub i32);

impl ContentType {
    /// Not told by Orthanc.
    pub const UNKNOWN: Self = Self(0);
    /// A DICOM file.
    pub const DICOM: Self = Self(1);
    /// The summary of a DICOM file as JSON, written by Orthanc before 1.9.1.
    pub const DICOM_AS_JSON: Self = Self(2);
    /// The header of a DICOM file, up to its pixel data.
    pub const DICOM_UNTIL_PIXEL_DATA: Self = Self(3);

    /// The end of a flat object name.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::DICOM => ".dcm",
            Self::DICOM_AS_JSON => ".json",
            Self::DICOM_UNTIL_PIXEL_DATA => ".dcm.head",
            _ => UNKNOWN_EXTENSION,
        }
    }
}

/// The end of a flat object name of unknown and user-defined content, and once of DICOM headers too.
pub(crate) const UNKNOWN_EXTENSION: &str = ".unk";

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UNKNOWN => f.write_str("unknown"),
            Self::DICOM => f.write_str("dicom"),
            Self::DICOM_AS_JSON => f.write_str("dicom-as-json"),
            Self::DICOM_UNTIL_PIXEL_DATA => f.write_str("dicom-until-pixel-data"),
            Self(other) => write!(f, "{other}"),
        }
    }
}

/// One attachment: which one, and what it contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment {
    /// Its identifier.
    pub uuid: AttachmentUuid,
    /// Its content.
    pub content_type: ContentType,
}

impl Attachment {
    /// Checks `uuid` and joins it with its content type.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidUuid`], as [`AttachmentUuid::new`].
    pub fn new(uuid: &str, content_type: ContentType) -> Result<Self, Error> {
        Ok(Self { uuid: AttachmentUuid::new(uuid)?, content_type })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_keeps_its_spelling() {
        for uuid in ["fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11", "FB4B5A2E-8B2D-4C5F-9D62-7D0D2F1A9C11"] {
            assert_eq!(AttachmentUuid::new(uuid).unwrap().as_str(), uuid);
        }
    }

    #[test]
    fn what_could_leave_the_folder_or_is_no_uuid_is_refused() {
        for uuid in [
            "",
            "..",
            "../../../../../../../../../../etc/pas",
            "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c1",
            "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c111",
            "fb4b5a2e08b2d-4c5f-9d62-7d0d2f1a9c11",
            "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c1g",
            "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c/1",
            "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9cé",
            "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c1\0",
        ] {
            assert_eq!(AttachmentUuid::new(uuid), Err(Error::InvalidUuid(uuid.to_owned())), "{uuid:?}");
        }
    }
}
