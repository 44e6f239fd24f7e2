//! Attachments on their way into the bucket, back, and out of it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use real_orthanc::{Builder, Uploaded, dicom, dicom_send};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::request;
use crate::orthanc::fixture::{Fixture, slice, slices};

tests![
    what_is_uploaded_comes_back_byte_for_byte_and_is_gone_after_a_delete,
    a_create_a_read_a_range_and_a_remove_are_one_request_each,
    objects_are_called_by_uuid_and_type_under_the_root_path_as_it_is_spelled,
    the_legacy_structure_is_that_of_orthancs_own_folder,
    attachments_of_the_user_are_stored_read_and_deleted,
    what_orthanc_compresses_is_stored_compressed_and_comes_back_as_it_was,
    headers_are_found_and_deleted_under_their_old_name_too_where_that_is_asked_for,
    files_sent_by_dicom_are_in_the_bucket,
    a_bucket_filled_by_the_plugin_before_this_one_is_read,
    without_a_section_orthanc_keeps_its_files_itself_and_its_folder_can_be_copied_to_a_bucket,
];

fn what_is_uploaded_comes_back_byte_for_byte_and_is_gone_after_a_delete<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::start()?;
    let mut files = slices(0, 3)?;
    files.push(dicom::multi_frame(20)?);
    let mut study = String::new();
    for file in &files {
        let uploaded = fixture.rest().upload(file)?;
        assert_eq!(uploaded.status, "Success");
        assert!(fixture.rest().file(&uploaded.id)? == *file, "the bytes differ");
        study = uploaded.study;
    }
    let mut stored: Vec<_> =
        fixture.bucket.objects(C::BUCKET).into_values().map(|object| object.bytes).collect();
    stored.sort();
    files.sort();
    assert!(stored == files, "the bucket holds something else");

    fixture.rest().delete(&format!("/studies/{study}"))?.ok()?;
    assert!(fixture.keys().is_empty(), "{:?}", fixture.keys());
    assert_eq!(fixture.log_lines('E'), [""; 0]);
    Ok(())
}

fn a_create_a_read_a_range_and_a_remove_are_one_request_each<C: Cloud>() -> Result<()> {
    // The option adds a request for headers alone, which this Orthanc does not store.
    for legacy_unknown_files in [false, true] {
        let fixture = Fixture::<C>::with(&json!({"EnableLegacyUnknownFiles": legacy_unknown_files}))?;
        let file = dicom::ct_series(1, 512, 512).next().context("no slice")??;

        let (uploaded, requests) = fixture.counted(|| Ok(fixture.rest().upload(&file)?))?;
        assert_eq!((requests.of(request::CREATE), requests.total), (1, 1));
        assert_eq!(requests.body_bytes_received, file.len() as u64);

        let (read, requests) = fixture.counted(|| Ok(fixture.rest().file(&uploaded.id)?))?;
        assert!(read == file, "the bytes differ");
        assert_eq!((requests.of(request::READ), requests.total), (1, 1));
        assert_eq!(requests.body_bytes_sent, file.len() as u64);

        for path in ["tags", "header"] {
            let path = format!("/instances/{}/{path}", uploaded.id);
            let (tags, requests) = fixture.counted(|| Ok(fixture.rest().get_json(&path)?))?;
            assert!(tags.as_object().is_some_and(|tags| !tags.is_empty()), "{tags}");
            assert_eq!((requests.of(request::READ_RANGE), requests.total), (1, 1), "{path}");
            // Up to the pixels, which are half a megabyte.
            assert!(requests.body_bytes_sent < 5000, "{} bytes for {path}", requests.body_bytes_sent);
        }

        let delete = || Ok(fixture.rest().delete(&uploaded.path)?.ok()?);
        let (_, requests) = fixture.counted(delete)?;
        assert_eq!((requests.of(request::REMOVE), requests.total), (1, 1));
        assert!(fixture.keys().is_empty());
    }
    Ok(())
}

fn objects_are_called_by_uuid_and_type_under_the_root_path_as_it_is_spelled<C: Cloud>() -> Result<()> {
    let odd = "Röntgen ÄÖ/100% #1~ +&=;@*";
    let mut fixture = Fixture::<C>::start()?;
    for (changes, prefix) in [
        (json!({}), String::new()),
        (json!({"RootPath": "a/b"}), "a/b/".to_owned()),
        (json!({"RootPath": odd}), format!("{odd}/")),
        (json!({"RootPath": format!("{odd}/")}), format!("{odd}/")),
    ] {
        fixture.start_again_with(&changes)?;
        let file = slice()?;
        let uploaded = fixture.rest().upload(&file)?;
        fixture.rest().put(&format!("{}/attachments/1024", uploaded.path), b"mine")?.ok()?;

        let names: Vec<String> = fixture
            .keys()
            .iter()
            .map(|key| key.strip_prefix(&prefix).map(str::to_owned).context(key.clone()))
            .collect::<Result<_>>()?;
        let mut extensions = Vec::new();
        for name in &names {
            ensure!(!name.contains('/') && fixture.is_in_index(&name[..36])?, "{name} under {prefix:?}");
            extensions.push(&name[36..]);
        }
        extensions.sort_unstable();
        // This Orthanc does not tell the plugin the type of a user-defined attachment.
        assert_eq!(extensions, [".dcm", ".unk"], "{names:?}");

        assert!(fixture.rest().file(&uploaded.id)? == file, "the bytes differ");
        fixture.rest().delete(&uploaded.path)?.ok()?;
        assert!(fixture.keys().is_empty(), "{:?}", fixture.keys());
    }
    Ok(())
}

fn the_legacy_structure_is_that_of_orthancs_own_folder<C: Cloud>() -> Result<()> {
    for root in ["", "Röntgen/100% #1~"] {
        let fixture = Fixture::<C>::with(&json!({"StorageStructure": "legacy", "RootPath": root}))?;
        let uploaded = fixture.rest().upload(&slice()?)?;
        let (key, _) = fixture.only_object()?;
        let uuid = key.rsplit('/').next().context("no name")?;
        assert!(uuid.len() == 36 && fixture.is_in_index(uuid)?, "{key}");
        let separator = if root.is_empty() { "" } else { "/" };
        assert_eq!(key, format!("{root}{separator}{}/{}/{uuid}", &uuid[0..2], &uuid[2..4]));
        assert!(fixture.rest().file(&uploaded.id)? == slice()?, "the bytes differ");
        fixture.rest().delete(&uploaded.path)?.ok()?;
        assert!(fixture.keys().is_empty());
    }
    Ok(())
}

fn attachments_of_the_user_are_stored_read_and_deleted<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::start()?;
    let uploaded = fixture.rest().upload(&slice()?)?;
    let attachment = format!("{}/attachments/1024", uploaded.path);
    // Every byte, and more than a buffer of them; and none at all.
    let large: Vec<u8> = (0..3_000_001_u32).map(|index| index.to_le_bytes()[index as usize % 3]).collect();
    for content in [&large[..], b"short", b""] {
        fixture.rest().put(&attachment, content)?.ok()?;
        let stored = fixture.bucket.objects(C::BUCKET);
        let (key, object) = stored.iter().find(|(key, _)| key.ends_with(".unk")).context("no attachment")?;
        assert!(object.bytes == content, "the bucket holds something else as {key}");
        let read = fixture.rest().get(&format!("{attachment}/data"))?.ok()?.body;
        assert!(read == content, "{} bytes came back, not {}", read.len(), content.len());
        fixture.rest().delete(&attachment)?.ok()?;
        assert_eq!(fixture.keys().len(), 1, "only the DICOM file is left");
    }
    assert_eq!(fixture.log_lines('E'), [""; 0]);
    Ok(())
}

fn what_orthanc_compresses_is_stored_compressed_and_comes_back_as_it_was<C: Cloud>() -> Result<()> {
    let compressed = |builder: Builder| builder.section("StorageCompression", true);
    let fixture = Fixture::<C>::configured(&Value::Null, compressed)?;
    let file = dicom::ct_series(1, 256, 256).next().context("no slice")??;
    let uploaded = fixture.rest().upload(&file)?;
    let stored = fixture.bucket.objects(C::BUCKET);
    let total: usize = stored.values().map(|object| object.bytes.len()).sum();
    assert!(total < file.len(), "{total} bytes are stored of {}", file.len());
    assert!(fixture.rest().file(&uploaded.id)? == file, "the bytes differ");
    let tags = fixture.rest().get_json(&format!("{}/simplified-tags", uploaded.path))?;
    assert_eq!(tags["Modality"], "CT");
    Ok(())
}

fn headers_are_found_and_deleted_under_their_old_name_too_where_that_is_asked_for<C: Cloud>() -> Result<()> {
    // What it compresses, this Orthanc cannot read in ranges, so that it stores the header of a file (type 3) apart.
    let compressed = |builder: Builder| builder.section("StorageCompression", true);
    let fixture = Fixture::<C>::configured(&json!({"EnableLegacyUnknownFiles": true}), compressed)?;
    let tags = |uploaded: &Uploaded| Ok(fixture.rest().get_json(&format!("{}/tags", uploaded.path))?);

    let (uploaded, requests) = fixture.counted(|| Ok(fixture.rest().upload(&slice()?)?))?;
    assert_eq!((requests.of(request::CREATE), requests.total), (2, 2));
    let header = fixture.keys().into_iter().find(|key| key.ends_with(".dcm.head")).context("no header")?;
    let (expected, requests) = fixture.counted(|| tags(&uploaded))?;
    assert_eq!((requests.of(request::READ), requests.total), (1, 1));

    let content = fixture.bucket.remove(C::BUCKET, &header).context("no header")?.bytes;
    fixture.bucket.insert(C::BUCKET, &header.replace(".dcm.head", ".unk"), content);
    let (read, requests) = fixture.counted(|| tags(&uploaded))?;
    assert_eq!(read, expected);
    assert_eq!((requests.of(request::READ), requests.total), (2, 2));

    // Two requests for the header, one for the file.
    let delete = || Ok(fixture.rest().delete(&uploaded.path)?.ok()?);
    let (_, requests) = fixture.counted(delete)?;
    assert_eq!((requests.of(request::REMOVE), requests.total), (3, 3));
    assert!(fixture.keys().is_empty(), "{:?}", fixture.keys());
    assert_eq!(fixture.log_lines('E'), [""; 0]);
    Ok(())
}

fn files_sent_by_dicom_are_in_the_bucket<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::start()?;
    let folder = tempfile::tempdir()?;
    let files = dicom::write_study(folder.path(), 8, 2)?;
    dicom_send(&fixture.orthanc, &files)?;
    assert_eq!(fixture.keys().len(), files.len());
    let instances = fixture.rest().get_json("/instances")?;
    let instances: Vec<_> = instances.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert_eq!(instances.len(), files.len());
    let mut read = Vec::new();
    for instance in instances {
        read.push(fixture.rest().file(instance)?);
    }
    // Orthanc writes the file's header anew; what was sent is the data set after it.
    for file in &files {
        let sent = fs::read(file)?;
        let pixels = &sent[sent.len() - 8000..];
        assert!(read.iter().any(|read| read.ends_with(pixels)), "{} is missing", file.display());
    }
    Ok(())
}

fn a_bucket_filled_by_the_plugin_before_this_one_is_read<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::start()?;
    let file = slice()?;
    let uploaded = fixture.rest().upload(&file)?;
    let uuid = fixture.only_object()?.0.chars().take(36).collect::<String>();
    for (changes, key) in [
        (json!({}), format!("{uuid}.dcm")),
        (json!({"RootPath": "pacs 1/ä"}), format!("pacs 1/ä/{uuid}.dcm")),
        (json!({"StorageStructure": "legacy"}), format!("{}/{}/{uuid}", &uuid[0..2], &uuid[2..4])),
        (
            json!({"StorageStructure": "legacy", "RootPath": "old"}),
            format!("old/{}/{}/{uuid}", &uuid[0..2], &uuid[2..4]),
        ),
    ] {
        fixture.bucket.clear();
        fixture.bucket.insert(C::BUCKET, &key, file.clone());
        fixture.start_again_with(&changes)?;
        assert!(fixture.rest().file(&uploaded.id)? == file, "the bytes of {key} differ");
        assert!(fixture.rest().get(&format!("{}/tags", uploaded.path))?.ok().is_ok());
    }
    // To be sure that nothing but the bucket was read.
    fixture.bucket.clear();
    assert_eq!(fixture.rest().get(&format!("{}/file", uploaded.path))?.status, 404);
    Ok(())
}

fn without_a_section_orthanc_keeps_its_files_itself_and_its_folder_can_be_copied_to_a_bucket<C: Cloud>()
-> Result<()> {
    let mut fixture = Fixture::<C>::configured(&Value::Null, |builder| builder.without_section(C::SECTION))?;
    let warned = fixture.log_lines('W');
    assert!(warned.iter().any(|line| line.contains(C::SECTION) && line.contains("disabled")), "{warned:?}");
    let files = slices(0, 3)?;
    let mut ids = Vec::new();
    for file in &files {
        ids.push(fixture.rest().upload(file)?.id);
    }
    assert!(fixture.bucket.requests().total == 0 && fixture.keys().is_empty());

    let folder = fixture.orthanc.storage_folder();
    let copied = copy_folder(&fixture, &folder, &folder)?;
    assert!(copied >= files.len(), "{copied} files");
    fixture.orthanc.kill()?;
    fs::remove_dir_all(&folder)?;
    fixture.configure(&json!({"StorageStructure": "legacy"}));
    fixture.orthanc.start_again()?;
    for (id, file) in ids.iter().zip(&files) {
        assert!(fixture.rest().file(id)? == *file, "the bytes differ");
    }
    Ok(())
}

/// Puts the files below `folder` into the bucket, under their paths from `root`.
fn copy_folder<C: Cloud>(fixture: &Fixture<C>, root: &Path, folder: &Path) -> Result<usize> {
    let mut copied = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            copied += copy_folder(fixture, root, &path)?;
        } else {
            let key = path.strip_prefix(root)?.to_str().context("a name that is no text")?.to_owned();
            fixture.bucket.insert(C::BUCKET, &key, fs::read(&path)?);
            copied += 1;
        }
    }
    Ok(copied)
}
