//! Names of files in the state directory: `{uuid}.{type}`, or `{uuid}.{type}.enc` for encrypted content.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use storage_layout::{Attachment, ContentType};

/// The ending of the names of encrypted content.
const ENCRYPTED: &str = ".enc";

/// The name of an attachment's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct StoredName {
    pub(crate) attachment: Attachment,
    /// Whether the content is an envelope. A changed configuration does not change what a file contains.
    pub(crate) encrypted: bool,
}

impl StoredName {
    /// `{uuid}.{type}` or `{uuid}.{type}.enc`
    pub(crate) fn file_name(&self) -> String {
        let ending = if self.encrypted { ENCRYPTED } else { "" };
        format!("{}.{}{ending}", self.attachment.uuid, self.attachment.content_type.0)
    }

    /// `ab/{name}`
    pub(crate) fn relative(&self) -> PathBuf {
        Path::new(&self.attachment.uuid.as_str()[..2]).join(self.file_name())
    }

    /// `ab/cd/{name}`
    pub(crate) fn deep(&self) -> PathBuf {
        let uuid = self.attachment.uuid.as_str();
        [&uuid[..2], &uuid[2..4], &self.file_name()].iter().collect()
    }

    /// The name of a file; `None` for files that are no attachments.
    pub(crate) fn parse(name: &OsStr) -> Option<Self> {
        let text = name.to_str()?;
        let (uuid, rest) = text.split_once('.')?;
        let (content_type, encrypted) = match rest.strip_suffix(ENCRYPTED) {
            Some(content_type) => (content_type, true),
            None => (rest, false),
        };
        let attachment = Attachment::new(uuid, ContentType(content_type.parse().ok()?)).ok()?;
        let name = Self { attachment, encrypted };
        // `uuid.01` is not the file of type 1.
        (name.file_name() == text).then_some(name)
    }
}

/// The folders of [`StoredName::relative`] in `folder`, as far as Orthanc's UUIDs, which have no capital letters, need
/// them.
pub(crate) fn relative_folders(folder: &Path) -> impl Iterator<Item = PathBuf> {
    (0..=u8::MAX).map(|number| folder.join(format!("{number:02x}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_names_are_read() {
        let uuid = "FB4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11";
        for content_type in [1, 1024, -1] {
            for encrypted in [false, true] {
                let attachment = Attachment::new(uuid, ContentType(content_type)).unwrap();
                let name = StoredName { attachment, encrypted };
                assert_eq!(StoredName::parse(name.file_name().as_ref()), Some(name));
            }
        }
        let name = StoredName { attachment: Attachment::new(uuid, ContentType(3)).unwrap(), encrypted: true };
        assert_eq!(name.relative(), Path::new("FB").join(format!("{uuid}.3.enc")));
        assert_eq!(name.deep(), Path::new("FB").join("4b").join(format!("{uuid}.3.enc")));
        for text in
            ["lock", "", ".", &format!("{uuid}.01"), &format!("{uuid}.1.enc.enc"), &format!("{uuid}.1.tmp")]
        {
            assert_eq!(StoredName::parse(text.as_ref()), None, "{text}");
        }
    }
}
