//! The names that other configurations give to an attachment's object.

use crate::attachment::UNKNOWN_EXTENSION;
use crate::{Attachment, ContentType, Layout, RootPath, Structure};

/// A respect in which a name differs from that of a [`Layout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// The name says that the object is in clear.
    Clear,
    /// The name says that the object is encrypted.
    Encrypted,
    /// The name is outside the root path.
    NoRoot,
    /// The name has this structure.
    Structure(Structure),
    /// The name is that of a DICOM header of old releases.
    Unknown,
    /// The name has backslashes, as the C++ plugin wrote it on Windows.
    Backslashes,
}

impl Layout {
    /// Returns the names that other configurations are likely to give to the object of `attachment`, with their
    /// differences from this layout, those with the fewest differences first. At most eleven.
    pub fn names_elsewhere(&self, attachment: &Attachment) -> Vec<(String, Vec<Difference>)> {
        let is_header = attachment.content_type == ContentType::DICOM_UNTIL_PIXEL_DATA;
        let mut names = Vec::new();
        for root in [self.root.clone(), RootPath::default()] {
            for (structure, encrypted) in
                [(Structure::Flat, false), (Structure::Flat, true), (Structure::Legacy, self.encrypted)]
            {
                let layout = Self { root: root.clone(), structure, encrypted };
                let differences = self.differences(&layout);
                names.push((layout.object_name(attachment), differences.clone()));
                if is_header && structure == Structure::Flat {
                    let differences = [differences, vec![Difference::Unknown]].concat();
                    names.push((layout.name(attachment, UNKNOWN_EXTENSION), differences));
                }
            }
        }
        let name = self.object_name(attachment);
        names.extend(self.backslash_name(&name).map(|old| (old, vec![Difference::Backslashes])));
        names.sort_by_key(|(_, differences)| differences.len());
        // Without a root path, each name is there twice.
        let mut known = vec![name];
        names.retain(|(name, _)| {
            !known.contains(name) && {
                known.push(name.clone());
                true
            }
        });
        names
    }

    fn differences(&self, other: &Self) -> Vec<Difference> {
        let encryption = if other.encrypted { Difference::Encrypted } else { Difference::Clear };
        let all = [
            (self.encrypted != other.encrypted).then_some(encryption),
            (self.structure != other.structure).then_some(Difference::Structure(other.structure)),
            (self.root != other.root).then_some(Difference::NoRoot),
        ];
        all.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11";

    fn names(layout: &Layout, content_type: ContentType) -> Vec<(String, Vec<Difference>)> {
        layout.names_elsewhere(&Attachment::new(UUID, content_type).unwrap())
    }

    #[test]
    fn each_other_name_is_there_once() {
        let legacy = Difference::Structure(Structure::Legacy);
        let layout = Layout { encrypted: true, ..Layout::default() };
        assert_eq!(
            names(&layout, ContentType::DICOM),
            [(format!("{UUID}.dcm"), vec![Difference::Clear]), (format!("fb/4b/{UUID}"), vec![legacy])]
        );
        assert_eq!(
            names(&Layout::default(), ContentType::DICOM_UNTIL_PIXEL_DATA),
            [
                (format!("{UUID}.unk"), vec![Difference::Unknown]),
                (format!("{UUID}.dcm.head.enc"), vec![Difference::Encrypted]),
                (format!("fb/4b/{UUID}"), vec![legacy]),
                (format!("{UUID}.unk.enc"), vec![Difference::Encrypted, Difference::Unknown]),
            ]
        );
    }

    #[test]
    fn root_and_structure_are_combined() {
        let layout =
            Layout { root: RootPath::new("a").unwrap(), structure: Structure::Legacy, encrypted: false };
        let flat = Difference::Structure(Structure::Flat);
        assert_eq!(
            names(&layout, ContentType::DICOM),
            [
                (format!("a/{UUID}.dcm"), vec![flat]),
                (format!("fb/4b/{UUID}"), vec![Difference::NoRoot]),
                (format!("a\\fb\\4b\\{UUID}"), vec![Difference::Backslashes]),
                (format!("a/{UUID}.dcm.enc"), vec![Difference::Encrypted, flat]),
                (format!("{UUID}.dcm"), vec![flat, Difference::NoRoot]),
                (format!("{UUID}.dcm.enc"), vec![Difference::Encrypted, flat, Difference::NoRoot]),
            ]
        );
    }

    #[test]
    fn names_are_few() {
        for root in ["", "a"] {
            for structure in [Structure::Flat, Structure::Legacy] {
                for encrypted in [false, true] {
                    let layout = Layout { root: RootPath::new(root).unwrap(), structure, encrypted };
                    let names = names(&layout, ContentType::DICOM_UNTIL_PIXEL_DATA);
                    assert!(names.len() <= 11, "{names:#?}");
                    assert!(names.iter().all(|(_, differences)| !differences.is_empty()), "{names:#?}");
                }
            }
        }
    }
}
