//! Object names: examples made by the C++ plugins, and properties that all names have.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;
use std::path::Path;

use proptest::prelude::*;
use storage_layout::{Attachment, ContentType, FilePath, Layout, RootPath, Structure};

const UUID: &str = "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11";

fn name(root: &str, structure: Structure, encrypted: bool, content_type: i32) -> String {
    let layout = Layout { root: RootPath::new(root).unwrap(), structure, encrypted };
    layout.object_name(&Attachment::new(UUID, ContentType(content_type)).unwrap())
}

#[test]
fn flat_names_depend_on_the_content_type() {
    for (content_type, extension) in [
        (0, ".unk"),
        (1, ".dcm"),
        (2, ".json"),
        (3, ".dcm.head"),
        (4, ".unk"),
        (1024, ".unk"),
        (65535, ".unk"),
    ] {
        assert_eq!(name("", Structure::Flat, false, content_type), format!("{UUID}{extension}"));
        assert_eq!(name("", Structure::Flat, true, content_type), format!("{UUID}{extension}.enc"));
    }
}

#[test]
fn legacy_names_match_orthancs_storage_directory() {
    for encrypted in [false, true] {
        for content_type in [0, 1, 2, 3, 1024] {
            let expected = format!("fb/4b/{UUID}");
            assert_eq!(name("", Structure::Legacy, encrypted, content_type), expected);
            assert_eq!(name("root", Structure::Legacy, encrypted, content_type), format!("root/{expected}"));
        }
    }
}

#[test]
fn root_path_is_preserved() {
    for root in
        ["a", "a/b", "with blank", "100%", "%41", "#1", "~user", "Röntgen/東京", "a+b&c=d", "a*b?[c]", "\\"]
    {
        assert_eq!(name(root, Structure::Flat, false, 1), format!("{root}/{UUID}.dcm"));
    }
}

#[test]
fn only_flat_dicom_headers_have_a_legacy_name() {
    let attachment = |content_type| Attachment::new(UUID, ContentType(content_type)).unwrap();
    let mut layout = Layout { root: RootPath::new("r").unwrap(), ..Layout::default() };
    assert_eq!(layout.legacy_unknown_name(&attachment(3)), Some(format!("r/{UUID}.unk")));
    assert_eq!(layout.legacy_unknown_name(&attachment(1)), None);
    assert_eq!(layout.legacy_unknown_name(&attachment(1024)), None);
    layout.encrypted = true;
    assert_eq!(layout.legacy_unknown_name(&attachment(3)), Some(format!("r/{UUID}.unk.enc")));
    layout.structure = Structure::Legacy;
    assert_eq!(layout.legacy_unknown_name(&attachment(3)), None);
}

fn uuids() -> impl Strategy<Value = String> {
    "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
}

fn structures() -> impl Strategy<Value = Structure> {
    prop_oneof![Just(Structure::Flat), Just(Structure::Legacy)]
}

proptest! {
    #[test]
    fn root_path_is_a_prefix(
        uuid in uuids(), content_type in 0..2000i32, structure in structures(), encrypted: bool,
        root in "[^/\\x00-\\x1f\\x7f]{1,12}(/[^/\\x00-\\x1f\\x7f]{1,12}){0,3}",
    ) {
        prop_assume!(!root.split('/').any(|folder| folder == "." || folder == ".."));
        let attachment = Attachment::new(&uuid, ContentType(content_type)).unwrap();
        let bare = Layout { root: RootPath::default(), structure, encrypted };
        let rooted = Layout { root: RootPath::new(&root).unwrap(), ..bare.clone() };
        prop_assert_eq!(rooted.object_name(&attachment), format!("{root}/{}", bare.object_name(&attachment)));
    }

    #[test]
    fn names_are_unique(list in prop::collection::hash_set(uuids(), 1..50), structure in structures(), encrypted: bool) {
        let layout = Layout { root: RootPath::default(), structure, encrypted };
        let names: HashSet<_> = list.iter()
            .map(|uuid| layout.object_name(&Attachment::new(uuid, ContentType::DICOM).unwrap()))
            .collect();
        prop_assert_eq!(names.len(), list.len());
    }

    #[test]
    fn accepted_roots_are_valid_names(root in "\\PC{0,20}|[./a]{0,8}") {
        if let Ok(root) = RootPath::new(&root) {
            let name = root.join("x");
            prop_assert!(!name.starts_with('/'));
            prop_assert!(name.split('/').all(|folder| !matches!(folder, "" | "." | "..")));
        }
    }

    #[test]
    fn accepted_uuids_are_preserved(text in "\\PC{0,40}|[0-9a-f-]{36}") {
        if let Ok(attachment) = Attachment::new(&text, ContentType::DICOM) {
            prop_assert_eq!(attachment.uuid.as_str(), &text);
            prop_assert!(text.chars().all(|letter| letter.is_ascii_hexdigit() || letter == '-'));
        }
    }

    #[test]
    fn file_paths_match_legacy_names(uuid in uuids()) {
        let attachment = Attachment::new(&uuid, ContentType::DICOM).unwrap();
        let legacy = Layout { structure: Structure::Legacy, ..Layout::default() };
        let path = FilePath::new(Path::new("/storage"), &attachment.uuid);
        let expected = Path::new("/storage").join(legacy.object_name(&attachment));
        prop_assert_eq!(path.file(), expected.as_path());
        let folders = path.folders();
        prop_assert_eq!(Some(folders[0]), path.file().parent());
        prop_assert_eq!(Some(folders[1]), folders[0].parent());
    }
}
