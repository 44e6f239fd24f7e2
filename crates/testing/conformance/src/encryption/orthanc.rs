//! The same in Orthanc itself.

use anyhow::Result;
use real_orthanc::{Builder, dicom};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::Keys;
use crate::orthanc::fixture::Fixture;

tests![
    a1_in_orthanc_has_headers_as_attachments_of_their_own,
    a2_in_orthanc_needs_no_headers,
    compressed_attachments_are_encrypted_too,
    orthanc_resets_itself_with_encryption,
    encryption_is_switched_on_for_a_bucket_in_clear,
    the_tags_of_a_500_mb_object_cost_less_than_200_kib,
];

/// The section of the plugin that encrypts, as changes of the plain one.
fn encryption(keys: &Keys, options: &Value) -> Value {
    json!({ "StorageEncryption": keys.section(options) })
}

/// Stores a file and returns Orthanc's id of it.
fn upload<C: Cloud>(fixture: &Fixture<C>, file: &[u8]) -> Result<String> {
    let uploaded = fixture.rest().upload(file)?;
    assert_eq!(uploaded.status, "Success");
    Ok(uploaded.id)
}

/// How many objects have names that end so.
fn count<C: Cloud>(fixture: &Fixture<C>, end: &str) -> usize {
    fixture.keys().iter().filter(|key| key.ends_with(end)).count()
}

/// Stores five slices and a multi-frame, reads them before and after a restart, and deletes them.
fn store_read_delete<C: Cloud>(
    format: &str,
    headers: usize,
    change: impl FnOnce(Builder) -> Builder,
) -> Result<()> {
    let keys = Keys::new()?;
    let changes = encryption(&keys, &json!({ "Format": format }));
    let mut fixture = Fixture::<C>::configured(&changes, change)?;
    let mut files = dicom::ct_series(5, 64, 64).collect::<Result<Vec<_>, _>>()?;
    files.push(dicom::multi_frame(6)?);
    let ids = files.iter().map(|file| upload(&fixture, file)).collect::<Result<Vec<_>>>()?;
    assert_eq!((count(&fixture, ".dcm.enc"), count(&fixture, ".dcm.head.enc")), (6, headers));
    assert_eq!(fixture.keys().len(), 6 + headers);
    for object in fixture.bucket.objects(C::BUCKET).values() {
        assert!(object.bytes.starts_with(format.as_bytes()));
        // The patient's name of every file.
        assert!(!object.bytes.windows(12).any(|window| window == b"DEMO^PATIENT"));
    }
    for _ in 0..2 {
        for (id, file) in ids.iter().zip(&files) {
            assert!(fixture.rest().file(id)? == *file);
            let tags = fixture.rest().get_json(&format!("/instances/{id}/tags?simplify"))?;
            assert_eq!(tags["PatientName"], "DEMO^PATIENT");
            let frame = fixture.rest().get(&format!("/instances/{id}/frames/0/raw"))?;
            assert_eq!(frame.status, 200);
        }
        fixture.restart()?;
    }
    for id in &ids {
        assert_eq!(fixture.rest().delete(&format!("/instances/{id}"))?.status, 200);
    }
    assert!(fixture.keys().is_empty());
    fixture.orthanc.stop()?;
    Ok(())
}

fn a1_in_orthanc_has_headers_as_attachments_of_their_own<C: Cloud>() -> Result<()> {
    store_read_delete::<C>("A1", 6, |builder| builder)
}

fn a2_in_orthanc_needs_no_headers<C: Cloud>() -> Result<()> {
    store_read_delete::<C>("A2", 0, |builder| builder)
}

fn compressed_attachments_are_encrypted_too<C: Cloud>() -> Result<()> {
    // What is compressed cannot be read in ranges, so that Orthanc stores headers by themselves.
    store_read_delete::<C>("A2", 6, |builder| builder.section("StorageCompression", true))
}

fn orthanc_resets_itself_with_encryption<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let fixture = Fixture::<C>::with(&encryption(&keys, &json!({ "Format": "A2" })))?;
    let files = dicom::ct_series(3, 64, 64).collect::<Result<Vec<_>, _>>()?;
    for file in &files {
        let id = upload(&fixture, file)?;
        fixture.reset()?;
        assert!(fixture.rest().file(&id)? == *file);
    }
    assert_eq!(count(&fixture, ".dcm.enc"), 3);
    Ok(())
}

fn encryption_is_switched_on_for_a_bucket_in_clear<C: Cloud>() -> Result<()> {
    let (keys, mut fixture) = (Keys::new()?, Fixture::<C>::start()?);
    let files = dicom::ct_series(4, 64, 64).collect::<Result<Vec<_>, _>>()?;
    let mut ids = vec![upload(&fixture, &files[0])?, upload(&fixture, &files[1])?];
    for (round, format) in ["A1", "A2"].into_iter().enumerate() {
        let options = json!({ "Format": format, "ReadUnencrypted": true });
        fixture.restart_with(&encryption(&keys, &options))?;
        ids.push(upload(&fixture, &files[2 + round])?);
        for (id, file) in ids.iter().zip(&files) {
            assert!(fixture.rest().file(id)? == *file, "{format}");
            let tags = fixture.rest().get_json(&format!("/instances/{id}/tags?simplify"))?;
            assert_eq!(tags["PatientName"], "DEMO^PATIENT");
        }
    }
    assert_eq!(
        (count(&fixture, ".dcm"), count(&fixture, ".dcm.enc"), count(&fixture, ".dcm.head.enc")),
        (2, 2, 1)
    );

    // Switched off again, what is in clear is not to be had.
    fixture.restart_with(&encryption(&keys, &json!({ "Format": "A2" })))?;
    let statuses = ids
        .iter()
        .map(|id| Ok(fixture.rest().get(&format!("/instances/{id}/file"))?.status))
        .collect::<Result<Vec<_>>>()?;
    assert_eq!(statuses, [404, 404, 200, 200]);

    for id in &ids[2..] {
        assert_eq!(fixture.rest().delete(&format!("/instances/{id}"))?.status, 200);
    }
    assert_eq!(fixture.keys().len(), 2);
    Ok(())
}

fn the_tags_of_a_500_mb_object_cost_less_than_200_kib<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let mut fixture = Fixture::<C>::with(&encryption(&keys, &json!({ "Format": "A2" })))?;
    let file = dicom::multi_frame(500)?;
    let size = file.len() as u64;
    assert!(size > 500_000_000);
    let id = upload(&fixture, &file)?;
    drop(file);
    fixture.restart()?;
    fixture.bucket.reset_counts();
    let tags = fixture.rest().get_json(&format!("/instances/{id}/tags?simplify"))?;
    assert_eq!(tags["PatientName"], "DEMO^PATIENT");
    let counts = fixture.bucket.requests();
    println!("{} requests, {} bytes of {size}", counts.total, counts.body_bytes_sent);
    assert!(counts.total >= 1 && counts.body_bytes_sent < 200 * 1024, "{counts:?}");
    Ok(())
}
