use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, SystemTime};

use storage_layout::{Attachment, ContentType};

use super::*;

fn purpose(bucket: &str, settings: &str) -> Purpose {
    Purpose { bucket: bucket.to_owned(), settings: settings.to_owned() }
}

fn attachment(number: usize) -> Attachment {
    let uuid = format!("{:02x}000000-0000-4000-8000-{number:012x}", number % 256);
    Attachment::new(&uuid, ContentType::DICOM).unwrap()
}

fn open(root: &Path) -> StateDirectory {
    StateDirectory::open(root, &purpose("bucket", "no delay")).unwrap()
}

fn marked(state: &StateDirectory) -> Vec<Attachment> {
    let folders = state.markers().folders().unwrap();
    let markers = folders.iter().flat_map(|folder| state.markers().read(folder).unwrap());
    markers.map(|marker| marker.attachment).collect()
}

#[test]
fn markers_survive_the_process() {
    let root = tempfile::tempdir().unwrap();
    let state = open(root.path());
    let attachments: Vec<_> = (0..600).map(attachment).collect();
    for attachment in &attachments {
        state.markers().add(attachment).unwrap();
    }
    // A second deletion of the same attachment is not another one.
    state.markers().add(&attachments[0]).unwrap();
    assert_eq!(state.markers().pending(), 600);
    drop(state);

    let state = open(root.path());
    assert_eq!(state.markers().pending(), 600);
    assert_eq!(BTreeSet::from_iter(marked(&state)), BTreeSet::from_iter(attachments.clone()));
    assert!(state.markers().oldest().unwrap().elapsed().unwrap() < Duration::from_secs(60));
    for attachment in &attachments {
        state.markers().remove(attachment).unwrap();
    }
    assert_eq!((state.markers().pending(), state.markers().oldest()), (0, None));
    assert_eq!(marked(&state), []);
}

#[test]
fn marker_is_an_empty_file_of_uuid_and_type() {
    let root = tempfile::tempdir().unwrap();
    let state = open(root.path());
    let uuid = "FB4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11";
    state.markers().add(&Attachment::new(uuid, ContentType(1024)).unwrap()).unwrap();
    let file = root.path().join("0/deleting/FB").join(format!("{uuid}.1024"));
    assert_eq!(fs::read(file).unwrap(), b"");
}

/// A full disk has no space for another folder.
#[test]
fn markers_need_no_new_folder() {
    let root = tempfile::tempdir().unwrap();
    let state = open(root.path());
    let before = state.markers().folders().unwrap().len();
    (0..256).for_each(|number| state.markers().add(&attachment(number)).unwrap());
    assert_eq!(state.markers().folders().unwrap().len(), before);
    assert_eq!(before, 256);
}

#[test]
fn markers_have_the_time_of_the_deletion() {
    let root = tempfile::tempdir().unwrap();
    let state = open(root.path());
    let times = [1, 2].map(|number| {
        let before = SystemTime::now() - Duration::from_millis(1100);
        state.markers().add(&attachment(number)).unwrap();
        let folder = state.folder().join(format!("deleting/{number:02x}"));
        let since = state.markers().read(&folder).unwrap()[0].since;
        assert!(since >= before && since <= SystemTime::now(), "{since:?}");
        thread::sleep(Duration::from_millis(1200));
        since
    });
    assert!(times[1] >= times[0] + Duration::from_secs(1), "{times:?}");
    drop(state);
    open(root.path());
    assert!(!root.path().join("0/tmp").exists(), "the next start empties the folder");
}

#[test]
fn new_markers_are_synced_once() {
    let root = tempfile::tempdir().unwrap();
    let state = open(root.path());
    state.markers().add(&attachment(1)).unwrap();
    let folder = state.folder().join("deleting/01");
    // A folder that cannot be synced stays in the list.
    let hidden = root.path().join("hidden");
    fs::rename(&folder, &hidden).unwrap();
    state.markers().sync().unwrap_err();
    fs::rename(&hidden, &folder).unwrap();
    state.markers().sync().unwrap();
    fs::remove_dir_all(&folder).unwrap();
    state.markers().sync().unwrap();
}

#[test]
fn each_process_has_its_own_folder() {
    let root = tempfile::tempdir().unwrap();
    let first = open(root.path());
    let second = open(root.path());
    assert_eq!((first.folder(), second.folder()), (root.path().join("0"), root.path().join("1")));
    second.markers().add(&attachment(1)).unwrap();
    second.uploads().began("name", "id").unwrap();
    // The other process still works on them.
    first.adopt(|_| Ok(())).unwrap();
    assert_eq!(first.markers().pending(), 0);
    drop(second);
    first.adopt(|_| Ok(())).unwrap();
    assert_eq!(marked(&first), [attachment(1)]);
    assert_eq!(first.markers().pending(), 1);
    // The other process may have had another configuration, although it was started later.
    let found = first.markers().read(&first.folder().join("deleting/01")).unwrap();
    assert!(first.is_inherited(&found[0]));
    assert!(first.uploads().take_left().is_some());
    assert_eq!(open(root.path()).folder(), root.path().join("1"));
}

#[test]
fn work_for_another_bucket_waits_for_it() {
    let root = tempfile::tempdir().unwrap();
    let for_other = purpose("other", "no delay");
    let other = StateDirectory::open(root.path(), &for_other).unwrap();
    other.markers().add(&attachment(1)).unwrap();
    let folder = other.folder();
    for file in ["pending/ab/1", "pending/cd/2", "quarantine/3"] {
        fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
        fs::write(folder.join(file), "x").unwrap();
    }
    let state = open(root.path());
    assert_eq!(state.folder(), root.path().join("1"));
    let adopt = || state.adopt(|_| panic!("the folder is for another bucket")).unwrap();
    adopt();
    assert_eq!(state.abandoned(), []);
    drop(other);
    adopt();
    adopt();
    assert_eq!(state.markers().pending(), 0);
    let expected = Abandoned { folder: folder.clone(), bucket: "other".to_owned(), attachments: 3 };
    assert_eq!(state.abandoned(), [expected]);
    // The Orthanc that they are for, and later nothing.
    let other = StateDirectory::open(root.path(), &for_other).unwrap();
    assert_eq!(other.markers().pending(), 1);
    adopt();
    assert_eq!(state.abandoned(), []);
    drop(other);
    adopt();
    assert_eq!(state.abandoned().len(), 1);
    fs::remove_dir_all(folder).unwrap();
    adopt();
    assert_eq!(state.abandoned(), []);
}

#[test]
fn work_with_other_settings_is_not_taken_over() {
    let root = tempfile::tempdir().unwrap();
    let first = open(root.path());
    let delayed = StateDirectory::open(root.path(), &purpose("bucket", "delay")).unwrap();
    delayed.markers().add(&attachment(1)).unwrap();
    drop(delayed);
    first.adopt(|_| Ok(())).unwrap();
    assert_eq!(first.markers().pending(), 0);
    // The same Orthanc with changed settings keeps its work.
    drop(first);
    let changed = StateDirectory::open(root.path(), &purpose("bucket", "other delay")).unwrap();
    assert_eq!(changed.folder(), root.path().join("0"));
    let second = StateDirectory::open(root.path(), &purpose("bucket", "other delay")).unwrap();
    assert_eq!((second.folder(), second.markers().pending()), (root.path().join("1"), 1));
}

#[test]
fn foreign_files_are_ignored() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("0/deleting/ab");
    fs::create_dir_all(&folder).unwrap();
    let zero = "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11.01";
    for name in ["notes.txt", "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11", zero, ".1", "é.1"] {
        fs::write(folder.join(name), "").unwrap();
    }
    fs::write(root.path().join("0/deleting/notes.txt"), "").unwrap();
    fs::create_dir_all(root.path().join("0/uploads/folder")).unwrap();
    fs::create_dir_all(root.path().join("lost+found")).unwrap();
    let state = open(root.path());
    state.adopt(|_| Ok(())).unwrap();
    assert_eq!(state.markers().pending(), 0);
}

#[test]
fn unfinished_uploads_are_found_at_the_next_start() {
    let root = tempfile::tempdir().unwrap();
    let state = open(root.path());
    state.uploads().began("folder/one", "id\u{e9}/1").unwrap();
    state.uploads().began("two", "2").unwrap();
    state.uploads().ended("two", "2").unwrap();
    assert_eq!(state.uploads().take_left(), None);
    // What a power failure leaves of an entry.
    fs::write(state.folder().join("uploads/torn"), "").unwrap();
    drop(state);

    let state = open(root.path());
    let upload = state.uploads().take_left().unwrap();
    assert_eq!(state.uploads().take_left(), None);
    assert_eq!((upload.name.as_str(), upload.id.as_str()), ("folder/one", "id\u{e9}/1"));
    upload.forget();
    drop(state);
    assert_eq!(open(root.path()).uploads().take_left(), None);
}

#[test]
fn folder_that_cannot_be_written_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let error = StateDirectory::open(&file, &purpose("bucket", "")).unwrap_err();
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
}

#[test]
fn simultaneous_deletions_are_all_marked() {
    let root = tempfile::tempdir().unwrap();
    let state = open(root.path());
    thread::scope(|scope| {
        for first in 0..4 {
            let state = &state;
            scope.spawn(move || {
                (0..256).for_each(|number| state.markers().add(&attachment(first * 256 + number)).unwrap());
            });
        }
    });
    assert_eq!((state.markers().pending(), marked(&state).len()), (1024, 1024));
}

#[test]
fn stored_files_of_the_bucket_are_listed() {
    let root = tempfile::tempdir().unwrap();
    let states = [open(root.path()), open(root.path())];
    let other = StateDirectory::open(root.path(), &purpose("other", "no delay")).unwrap();
    for (number, state) in states.iter().chain([&other]).enumerate() {
        state.markers().add(&attachment(number)).unwrap();
        let name = StoredName { attachment: attachment(number), encrypted: number == 1 };
        for path in [Path::new(PENDING).join(name.relative()), Path::new(CACHE).join(name.deep())] {
            let path = state.folder().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "DICM").unwrap();
        }
    }
    fs::write(states[0].folder().join("pending/readme"), "x").unwrap();
    let uuids = |kind| {
        let mut files = states[0].stored_files(&[kind]).unwrap();
        let mut found = Vec::new();
        while let Some(files) = files.next_folder().unwrap() {
            found.extend(files.into_iter().map(|file| (file.uuid, file.size, file.kind == kind)));
        }
        found.sort_unstable();
        found
    };
    for (kind, size) in [(StoredKind::Pending, 4), (StoredKind::Cached, 4), (StoredKind::Deleting, 0)] {
        let expected: Vec<_> = (0..2).map(|number| (attachment(number).uuid, size, true)).collect();
        assert_eq!(uuids(kind), expected, "{kind:?}");
    }
    assert_eq!(uuids(StoredKind::Quarantined), []);
}
