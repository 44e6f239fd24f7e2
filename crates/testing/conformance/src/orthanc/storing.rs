//! Attachments of a real Orthanc: their objects, requests and names.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use real_orthanc::dicom;
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{flat, legacy, request};
use crate::orthanc::fixture::{Fixture, slice, slices};

tests! {
    EveryCloud:
        each_operation_is_one_request;
    OneCloud:
        object_names_follow_root_path_and_structure,
        files_of_orthanc_can_be_copied_to_a_bucket,
}

fn each_operation_is_one_request<C: Cloud>() -> Result<()> {
    // The option adds a request for headers only, which this Orthanc does not store.
    for has_unknown_files in [false, true] {
        let fixture = Fixture::<C>::with(&json!({"EnableLegacyUnknownFiles": has_unknown_files}))?;
        let file = dicom::ct_series(1, 512, 512).next().context("no slice")??;

        let (uploaded, upload) = fixture.counted(|| fixture.rest().upload(&file))?;
        assert_eq!((upload.of(request::CREATE), upload.total), (1, 1));
        assert_eq!(upload.body_bytes_received, file.len() as u64);
        assert!(fixture.only_object()?.1 == file, "the stored bytes differ");

        let (content, read) = fixture.counted(|| fixture.rest().file(&uploaded.id))?;
        assert!(content == file, "the bytes differ");
        assert_eq!((read.of(fixture.whole_read()?), read.total), (1, 1));
        assert_eq!(read.body_bytes_sent, file.len() as u64);

        for path in ["tags", "header"] {
            let path = format!("{}/{path}", uploaded.path);
            let (tags, range) = fixture.counted(|| fixture.rest().get_json(&path))?;
            assert!(tags.as_object().is_some_and(|tags| !tags.is_empty()), "{tags}");
            assert_eq!((range.of(request::READ_RANGE), range.total), (1, 1), "{path}");
            assert!(range.body_bytes_sent < 5000, "the range includes pixels: {}", range.body_bytes_sent);
        }

        let (_, deletion) = fixture.counted(|| fixture.rest().delete(&uploaded.path)?.ok())?;
        assert_eq!((deletion.of(request::REMOVE), deletion.total), (1, 1));
        assert!(fixture.keys().is_empty());
        assert_eq!(fixture.log_lines('E'), [""; 0]);
    }
    Ok(())
}

/// Existing objects with these names, as the C++ plugin stores them, must be readable too.
fn object_names_follow_root_path_and_structure<C: Cloud>() -> Result<()> {
    let odd = "Röntgen ÄÖ/100% #1~ +&=;@*";
    let mut fixture = Fixture::<C>::start()?;
    let file = slice()?;
    let uploaded = fixture.rest().upload(&file)?;
    let (first, _) = fixture.only_object()?;
    let uuid = first.trim_end_matches(".dcm");
    ensure!(uuid.len() == 36 && fixture.is_in_index(uuid)?, "{first} is not in the index");
    for (root, prefix) in [
        ("", String::new()),
        ("a/b", "a/b/".to_owned()),
        (odd, format!("{odd}/")),
        (&format!("{odd}/"), format!("{odd}/")),
    ] {
        for (structure, name) in [("flat", flat as fn(&str) -> String), ("legacy", legacy)] {
            fixture.bucket.clear();
            let existing = format!("{prefix}{}", name(uuid));
            fixture.bucket.insert(C::BUCKET, &existing, file.clone());
            fixture.start_again_with(&json!({"RootPath": root, "StorageStructure": structure}))?;
            assert!(fixture.rest().file(&uploaded.id)? == file, "the bytes of {existing} differ");
            fixture.rest().get(&format!("{}/tags", uploaded.path))?.ok()?;

            let other = fixture.rest().upload(&slices(1, 1)?[0])?;
            let keys = fixture.keys();
            let new = keys.iter().find(|key| **key != existing).context("no new object")?;
            let file_name = new.rsplit('/').next().unwrap_or_default();
            let new_uuid = file_name.trim_end_matches(".dcm");
            ensure!(fixture.is_in_index(new_uuid)?, "{new} is not in the index");
            assert_eq!(*new, format!("{prefix}{}", name(new_uuid)));
            fixture.rest().delete(&other.path)?.ok()?;
            assert_eq!(fixture.keys(), [existing]);
        }
    }
    fixture.bucket.clear();
    assert_eq!(fixture.rest().get(&format!("{}/file", uploaded.path))?.status, 404);
    Ok(())
}

fn files_of_orthanc_can_be_copied_to_a_bucket<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::configured(&Value::Null, |builder| builder.without_section(C::SECTION))?;
    let files = slices(0, 3)?;
    let mut ids = Vec::new();
    for file in &files {
        ids.push(fixture.rest().upload(file)?.id);
    }
    assert!(fixture.bucket.requests().total == 0 && fixture.keys().is_empty());

    let folder = fixture.orthanc.storage_folder();
    copy_folder(&fixture, &folder, &folder)?;
    assert!(fixture.keys().len() >= files.len(), "{:?}", fixture.keys());
    fixture.orthanc.kill()?;
    fs::remove_dir_all(&folder)?;
    fixture.configure(&json!({"StorageStructure": "legacy"}));
    fixture.orthanc.start_again()?;
    for (id, file) in ids.iter().zip(&files) {
        assert!(fixture.rest().file(id)? == *file, "the bytes differ");
    }
    Ok(())
}

/// Copies the files below `folder` into the bucket. Their paths below `root` are the objects' names.
fn copy_folder<C: Cloud>(fixture: &Fixture<C>, root: &Path, folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            copy_folder(fixture, root, &path)?;
        } else {
            let key = path.strip_prefix(root)?.display().to_string();
            fixture.bucket.insert(C::BUCKET, &key, fs::read(&path)?);
        }
    }
    Ok(())
}
