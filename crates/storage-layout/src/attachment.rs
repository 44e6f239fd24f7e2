//! Attachments: a UUID and a content type.

use std::fmt;
use std::iter;

use crate::Error;

/// Positions of the hyphens in a UUID.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The identifier of an attachment: 36 ASCII characters, hexadecimal digits grouped 8-4-4-4-12.
///
/// The UUID is validated, so that it can safely be part of a name, and keeps Orthanc's spelling, including
/// the case of letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachmentUuid([u8; 36]);

impl AttachmentUuid {
    /// Validates `uuid`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidUuid`] if `uuid` is not hexadecimal digits grouped 8-4-4-4-12.
    pub fn new(uuid: &str) -> Result<Self, Error> {
        let invalid = || Error::InvalidUuid(uuid.chars().take(64).collect());
        let bytes: [u8; 36] = uuid.as_bytes().try_into().map_err(|_| invalid())?;
        let well_formed = bytes.iter().enumerate().all(|(position, byte)| {
            if HYPHENS.contains(&position) { *byte == b'-' } else { byte.is_ascii_hexdigit() }
        });
        if well_formed { Ok(Self(bytes)) } else { Err(invalid()) }
    }

    /// Returns the 36 characters.
    pub fn as_str(&self) -> &str {
        // `new` accepts only ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Returns the 128 bits that the digits stand for. UUIDs that differ only in the case of letters have the same.
    pub fn to_u128(&self) -> u128 {
        let digits = self.0.iter().filter_map(|byte| char::from(*byte).to_digit(16));
        digits.fold(0, |value, digit| value << 4 | u128::from(digit))
    }

    /// Returns the names of the two folders of Orthanc's layout, two characters each.
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

/// Orthanc's content type: a value of `OrthancPluginContentType` or a user-defined type (1024 to 65535).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentType(pub i32);

impl ContentType {
    /// An unknown content type.
    pub const UNKNOWN: Self = Self(0);
    /// A DICOM file.
    pub const DICOM: Self = Self(1);
    /// The summary of a DICOM file as JSON, which Orthanc wrote before 1.9.1.
    pub const DICOM_AS_JSON: Self = Self(2);
    /// The header of a DICOM file, which ends before the pixel data.
    pub const DICOM_UNTIL_PIXEL_DATA: Self = Self(3);
    /// The smallest user-defined type.
    const FIRST_OF_USERS: Self = Self(1024);

    /// Returns the extension of a flat object name.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::DICOM => ".dcm",
            Self::DICOM_AS_JSON => ".json",
            Self::DICOM_UNTIL_PIXEL_DATA => ".dcm.head",
            _ => UNKNOWN_EXTENSION,
        }
    }
}

/// Extension of unknown and user-defined content types, and of DICOM headers written by old releases.
pub(crate) const UNKNOWN_EXTENSION: &str = ".unk";

/// What is added to the name of an encrypted blob of the earlier plugin for Azure Key Vault.
pub(crate) const SIDECAR: &str = ".info";

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

/// An attachment: its identifier and its content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment {
    /// The identifier.
    pub uuid: AttachmentUuid,
    /// The content type.
    pub content_type: ContentType,
}

impl Attachment {
    /// Validates `uuid` and combines it with a content type.
    ///
    /// # Errors
    ///
    /// The same as [`AttachmentUuid::new`].
    pub fn new(uuid: &str, content_type: ContentType) -> Result<Self, Error> {
        Ok(Self { uuid: AttachmentUuid::new(uuid)?, content_type })
    }

    /// Returns the names, `{uuid}-{type}`, that the attachment may have in the root of the container in which the earlier
    /// plugin for Azure Key Vault stored it. If it is encrypted, there is a second blob (see [`sidecar_of`](Self::sidecar_of)).
    ///
    /// Orthanc tells a storage plugin that a user-defined type is unknown, but its REST API names the type.
    pub fn key_vault_names(&self) -> impl Iterator<Item = String> {
        let as_stored = (self.content_type >= ContentType::FIRST_OF_USERS).then_some(ContentType::UNKNOWN);
        let types = iter::once(self.content_type).chain(as_stored);
        types.map(|content_type| format!("{}-{}", self.uuid, content_type.0))
    }

    /// Returns the name of the sidecar of such a blob: a document with its key.
    pub fn sidecar_of(blob: &str) -> String {
        format!("{blob}{SIDECAR}")
    }

    /// Returns the name of the blob that a sidecar belongs to; `None` for the names of other objects.
    pub fn blob_of_sidecar(name: &str) -> Option<&str> {
        name.strip_suffix(SIDECAR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_keeps_its_spelling() {
        for uuid in ["fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11", "FB4B5A2E-8B2D-4C5F-9D62-7D0D2F1A9C11"] {
            assert_eq!(AttachmentUuid::new(uuid).unwrap().as_str(), uuid);
        }
    }

    #[test]
    fn digits_of_a_uuid_are_a_number() {
        let value = 0xfb4b_5a2e_8b2d_4c5f_9d62_7d0d_2f1a_9c11;
        for uuid in ["fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11", "FB4B5A2E-8B2D-4C5F-9D62-7D0D2F1A9C11"] {
            assert_eq!(AttachmentUuid::new(uuid).unwrap().to_u128(), value);
        }
    }

    #[test]
    fn invalid_uuids_are_refused() {
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
