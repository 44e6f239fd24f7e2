//! From the name of an object to the attachment that it belongs to.

use crate::attachment::{SIDECAR, UNKNOWN_EXTENSION};
use crate::layout::ENCRYPTED_EXTENSION;
use crate::{AttachmentUuid, ContentType, RootPath};

/// Number of characters of a UUID.
const UUID: usize = 36;

/// What an object's name says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedObject {
    /// The attachment that the object belongs to.
    pub uuid: AttachmentUuid,
    /// Which release or configuration has named it.
    pub kind: NameKind,
}

/// Which release or configuration has named an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// The flat structure.
    Flat,
    /// The legacy structure.
    Legacy,
    /// A blob of the earlier plugin for Azure Key Vault, which ignored the root path.
    KeyVault,
    /// The sidecar of such a blob.
    Sidecar,
}

/// The objects of an Orthanc in a bucket: those that any configuration with one root path has named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectNames {
    /// The folder that contains all objects but those of the earlier plugin for Azure Key Vault.
    pub root: RootPath,
    /// Whether the C++ plugin on Windows may have stored objects, whose names have backslashes.
    pub backslashes: bool,
    /// Whether the earlier plugin for Azure Key Vault may have stored blobs.
    pub key_vault: bool,
}

/// Objects to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePrefix {
    /// The beginning of their names.
    pub prefix: String,
    /// Whether their names may continue with a slash.
    pub folders: bool,
}

impl ObjectNames {
    /// Returns the attachment that the object `name` belongs to. `None` for a foreign object, whose name no configuration
    /// with this root path can have given.
    pub fn attachment_of(&self, name: &str) -> Option<NamedObject> {
        let below_root = self.root.strip(name).and_then(|rest| flat(rest).or_else(|| legacy(rest, '/')));
        below_root
            .or_else(|| self.backslashes.then(|| self.of_windows(name)).flatten())
            .or_else(|| self.key_vault.then(|| key_vault(name)).flatten())
    }

    /// As [`Layout::backslash_name`](crate::Layout::backslash_name): the last separator of a flat name is a backslash, and
    /// each one of a legacy name.
    fn of_windows(&self, name: &str) -> Option<NamedObject> {
        let root = self.root.join("");
        if root.is_empty() {
            return legacy(name, '\\');
        }
        let flat_root = root.trim_end_matches('/');
        let as_flat = name.strip_prefix(flat_root).and_then(|rest| rest.strip_prefix('\\')).and_then(flat);
        as_flat.or_else(|| name.strip_prefix(&*root.replace('/', "\\")).and_then(|rest| legacy(rest, '\\')))
    }

    /// Returns which objects to list, so that each object of this Orthanc is found. Foreign objects may be among them, and
    /// some objects may be listed twice.
    pub fn prefixes(&self) -> Vec<NamePrefix> {
        let all = |prefix| NamePrefix { prefix, folders: true };
        let root = self.root.join("");
        if root.is_empty() {
            return vec![all(root)];
        }
        let mut prefixes = vec![all(root.clone())];
        if self.backslashes {
            let windows = [format!("{}\\", root.trim_end_matches('/')), root.replace('/', "\\")];
            for prefix in windows.map(all) {
                if !prefixes.contains(&prefix) {
                    prefixes.push(prefix);
                }
            }
        }
        if self.key_vault {
            prefixes.push(NamePrefix { prefix: String::new(), folders: false });
        }
        prefixes
    }
}

/// Splits a name after the UUID at its beginning.
fn uuid(name: &str) -> Option<(AttachmentUuid, &str)> {
    let (uuid, rest) = name.split_at_checked(UUID)?;
    Some((AttachmentUuid::new(uuid).ok()?, rest))
}

/// `{uuid}{extension}` and `{uuid}{extension}.enc`.
fn flat(name: &str) -> Option<NamedObject> {
    const TYPES: [ContentType; 3] =
        [ContentType::DICOM, ContentType::DICOM_AS_JSON, ContentType::DICOM_UNTIL_PIXEL_DATA];
    let (uuid, extension) = uuid(name)?;
    let extension = extension.strip_suffix(ENCRYPTED_EXTENSION).unwrap_or(extension);
    let is_known = extension == UNKNOWN_EXTENSION || TYPES.iter().any(|known| known.extension() == extension);
    is_known.then_some(NamedObject { uuid, kind: NameKind::Flat })
}

/// `{uuid[0..2]}/{uuid[2..4]}/{uuid}`.
fn legacy(name: &str, separator: char) -> Option<NamedObject> {
    let mut parts = name.split(separator);
    let outer = parts.next()?;
    let inner = parts.next()?;
    let (uuid, rest) = uuid(parts.next()?)?;
    let is_whole = parts.next().is_none() && rest.is_empty() && uuid.folders() == (outer, inner);
    is_whole.then_some(NamedObject { uuid, kind: NameKind::Legacy })
}

/// `{uuid}-{type}` and `{uuid}-{type}.info`.
fn key_vault(name: &str) -> Option<NamedObject> {
    let (uuid, rest) = uuid(name)?;
    let rest = rest.strip_prefix('-')?;
    let (number, kind) = match rest.strip_suffix(SIDECAR) {
        Some(number) => (number, NameKind::Sidecar),
        None => (rest, NameKind::KeyVault),
    };
    // Orthanc's content types.
    let content_type: u16 = number.parse().ok()?;
    (content_type.to_string() == number).then_some(NamedObject { uuid, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    const U: &str = "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11";

    fn names(root: &str) -> ObjectNames {
        ObjectNames { root: RootPath::new(root).unwrap(), backslashes: true, key_vault: true }
    }

    #[test]
    fn anything_else_is_foreign() {
        let upper = U.to_uppercase();
        for (root, name) in [
            ("", U.to_owned()),
            ("", format!("{U}.")),
            ("", format!("{U}.enc")),
            ("", format!("{U}.dcm.enc.enc")),
            ("", format!("{U}.DCM")),
            ("", format!("{U}.dcm/")),
            ("", format!("/{U}.dcm")),
            ("", format!("a/{U}.dcm")),
            ("", format!("x{U}.dcm")),
            ("", format!("{U}.dcm.bak")),
            ("", format!("{U}.tmp")),
            ("", format!("fb/4c/{U}")),
            ("", format!("FB/4B/{U}")),
            ("", format!("fb/4b/{U}.dcm")),
            ("", format!("fb/4b/{U}/")),
            ("", format!("fb//4b/{U}")),
            ("", format!("fb\\4b/{U}")),
            ("", format!("fb/4b/{upper}")),
            ("", format!("{U}-01")),
            ("", format!("{U}-+1")),
            ("", format!("{U}-65536")),
            ("", format!("{U}-1.info.info")),
            ("", format!("{U}-")),
            ("a", format!("{U}.dcm")),
            ("a", format!("ab/{U}.dcm")),
            ("a", format!("a/b/{U}.dcm")),
            ("a", format!("a//{U}.dcm")),
            ("a", format!("a/{U}-1")),
            ("a/b", format!("a\\b\\{U}.dcm")),
            ("a/b", format!("a/b\\fb\\4b\\{U}")),
            ("", "é".repeat(18)),
            ("", format!("{}é", &U[..35])),
            ("", ".orthanc-object-storage/key-1".to_owned()),
            ("", String::new()),
        ] {
            assert_eq!(names(root).attachment_of(&name), None, "{name:?} below {root:?}");
        }
    }

    #[test]
    fn only_clouds_that_have_such_names_have_them() {
        let plain = ObjectNames { root: RootPath::new("a").unwrap(), ..ObjectNames::default() };
        for name in
            [format!("a\\{U}.dcm"), format!("a\\fb\\4b\\{U}"), format!("{U}-1"), format!("{U}-1.info")]
        {
            assert_eq!(plain.attachment_of(&name), None, "{name}");
            assert!(names("a").attachment_of(&name).is_some(), "{name}");
        }
    }

    #[test]
    fn prefixes_depend_on_what_may_be_stored() {
        let prefixes = |names: ObjectNames| -> Vec<_> {
            names.prefixes().into_iter().map(|prefix| (prefix.prefix, prefix.folders)).collect()
        };
        assert_eq!(prefixes(names("")), [(String::new(), true)]);
        let strings = |list: &[(&str, bool)]| -> Vec<_> {
            list.iter().map(|(prefix, folders)| ((*prefix).to_owned(), *folders)).collect()
        };
        assert_eq!(prefixes(names("a")), strings(&[("a/", true), ("a\\", true), ("", false)]));
        assert_eq!(
            prefixes(names("a/b")),
            strings(&[("a/b/", true), ("a/b\\", true), ("a\\b\\", true), ("", false)])
        );
        let plain = ObjectNames { backslashes: false, key_vault: false, ..names("a/b") };
        assert_eq!(prefixes(plain), strings(&[("a/b/", true)]));
    }
}
