//! Attachments as files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::thread;

use bucket::{Cause, Naming, ReadRange};
use hybrid::{FileStorage, FileStorageOptions};
use storage_layout::AttachmentUuid;

const TEMPORARY: &str = ".orthanc-object-storage";

fn uuid(number: u32) -> AttachmentUuid {
    AttachmentUuid::new(&format!("{number:08x}-8b2d-4c5f-9d62-7d0d2f1a9c11")).unwrap()
}

fn storage(root: &Path) -> FileStorage {
    FileStorage::new(root, FileStorageOptions { sync: true })
}

fn read(files: &FileStorage, uuid: &AttachmentUuid, range: &ReadRange) -> Result<Vec<u8>, Cause> {
    let mut file = files.open(uuid).map_err(|error| error.cause)?;
    file.seek(range, Naming::Clear).map_err(|error| error.cause)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = file.next(3).unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[test]
fn file_is_read_whole_and_in_ranges() {
    let folder = tempfile::tempdir().unwrap();
    let files = storage(folder.path());
    files.create(&uuid(1), b"0123456789").unwrap();
    files.create(&uuid(2), b"").unwrap();
    assert_eq!(read(&files, &uuid(1), &ReadRange::Whole).unwrap(), b"0123456789");
    assert_eq!(read(&files, &uuid(1), &ReadRange::Range(2..7)).unwrap(), b"23456");
    assert_eq!(read(&files, &uuid(1), &ReadRange::UpTo(8..20)).unwrap(), b"89");
    assert_eq!(read(&files, &uuid(1), &ReadRange::Range(5..11)), Err(Cause::OutOfRange));
    assert_eq!(read(&files, &uuid(1), &ReadRange::UpTo(10..11)), Err(Cause::OutOfRange));
    assert_eq!(read(&files, &uuid(2), &ReadRange::Whole).unwrap(), b"");
    assert_eq!(read(&files, &uuid(3), &ReadRange::Whole), Err(Cause::NotFound));
}

#[test]
fn last_removal_removes_empty_folders_only() {
    let folder = tempfile::tempdir().unwrap();
    let files = storage(folder.path());
    // The first two share both folders, the third the outer one.
    let uuids = [0x1122_0001, 0x1122_0002, 0x1133_0001].map(uuid);
    for uuid in &uuids {
        files.create(uuid, b"x").unwrap();
    }
    assert!(files.remove(&uuids[0]).unwrap());
    assert!(folder.path().join("11/22").is_dir());
    assert!(files.remove(&uuids[1]).unwrap());
    assert!(!folder.path().join("11/22").exists() && folder.path().join("11/33").is_dir());
    assert!(files.remove(&uuids[2]).unwrap());
    assert!(!folder.path().join("11").exists());
    assert!(!files.remove(&uuids[2]).unwrap(), "removing a missing file succeeds");
}

#[test]
fn folders_removed_concurrently_are_recreated() {
    let folder = tempfile::tempdir().unwrap();
    let files = storage(folder.path());
    thread::scope(|scope| {
        for writer in 0..4_u32 {
            let files = files.clone();
            // All in one pair of folders.
            scope.spawn(move || {
                for _ in 0..50 {
                    files.create(&uuid(0x1122_0000 + writer), b"content").unwrap();
                    assert_eq!(
                        read(&files, &uuid(0x1122_0000 + writer), &ReadRange::Whole).unwrap(),
                        b"content"
                    );
                    assert!(files.remove(&uuid(0x1122_0000 + writer)).unwrap());
                }
            });
        }
    });
    assert!(!folder.path().join("11").exists());
}

#[test]
fn readers_never_see_a_partial_file() {
    let folder = tempfile::tempdir().unwrap();
    let files = storage(folder.path());
    let contents = [vec![b'a'; 300_000], vec![b'b'; 200_000]];
    files.create(&uuid(1), &contents[0]).unwrap();
    thread::scope(|scope| {
        let writer = files.clone();
        let contents = &contents;
        let writing = scope.spawn(move || {
            for turn in 0..60 {
                writer.create(&uuid(1), &contents[turn % 2]).unwrap();
            }
        });
        while !writing.is_finished() {
            let read = files.open(&uuid(1)).unwrap().next(usize::MAX).unwrap().unwrap();
            assert!(contents.iter().any(|content| *content == read), "{} bytes", read.len());
        }
    });
}

#[test]
fn failed_write_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let files = storage(folder.path());
    // A file takes the name of the folder.
    fs::write(folder.path().join("11"), "in the way").unwrap();
    let error = files.create(&uuid(0x1122_0000), b"content").unwrap_err();
    assert!(error.to_string().starts_with("cannot store "), "{error}");
    assert_eq!(fs::read_dir(folder.path().join(TEMPORARY)).unwrap().count(), 0);
    drop(files);
    assert!(!folder.path().join(TEMPORARY).exists(), "the folder exists only while it is needed");
}

#[test]
fn only_abandoned_temporary_files_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let temporary = folder.path().join(TEMPORARY);
    fs::create_dir(&temporary).unwrap();
    fs::write(temporary.join("dead"), "half").unwrap();
    let alive = fs::File::create(temporary.join("alive")).unwrap();
    alive.lock().unwrap();
    storage(folder.path()).clear_up();
    let left: Vec<_> = fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["alive"]);
}

#[test]
fn unwritable_folder_is_detected_at_start() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let error = storage(&folder.path().join("file/storage")).check_writable().unwrap_err();
    assert!(error.to_string().starts_with("cannot check "), "{error}");
    storage(&folder.path().join("new/storage")).check_writable().unwrap();
    assert!(folder.path().join("new/storage").is_dir());
}
