//! Encryption in a real Orthanc.

use anyhow::Result;
use real_orthanc::dicom;
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::Keys;
use crate::orthanc::fixture::{Fixture, slices};

tests! {
    OneCloud:
        encrypted_studies_are_stored_and_read,
        encryption_can_be_switched_on_and_off;
    Long:
        tags_of_500_mb_transfer_less_than_200_kib,
}

/// Returns `StorageEncryption` as changes of the section.
fn encryption(keys: &Keys, options: &Value) -> Value {
    json!({ "StorageEncryption": keys.section(options) })
}

/// Returns how many objects have names with this end.
fn count<C: Cloud>(fixture: &Fixture<C>, end: &str) -> usize {
    fixture.keys().iter().filter(|key| key.ends_with(end)).count()
}

fn encrypted_studies_are_stored_and_read<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let mut files = dicom::ct_series(3, 64, 64).collect::<Result<Vec<_>, _>>()?;
    files.push(dicom::multi_frame(6)?);
    // Orthanc stores the header of each file as another attachment if it cannot read ranges.
    for (format, is_compressed, headers) in [("A1", false, 4), ("A2", false, 0), ("A2", true, 4)] {
        let changes = encryption(&keys, &json!({ "Format": format }));
        let mut fixture = Fixture::<C>::configured(&changes, |builder| {
            builder.section("StorageCompression", is_compressed)
        })?;
        let mut ids = Vec::new();
        for file in &files {
            ids.push(fixture.rest().upload(file)?.id);
        }
        assert_eq!((count(&fixture, ".dcm.enc"), count(&fixture, ".dcm.head.enc")), (4, headers));
        assert_eq!(fixture.keys().len(), 4 + headers);
        for object in fixture.objects().values() {
            assert!(object.bytes.starts_with(format.as_bytes()));
            assert!(!object.bytes.windows(12).any(|window| window == b"DEMO^PATIENT"));
        }
        for is_restarted in [false, true] {
            if is_restarted {
                fixture.restart()?;
            }
            for (id, file) in ids.iter().zip(&files) {
                assert!(fixture.rest().file(id)? == *file, "the bytes differ");
                let tags = fixture.rest().get_json(&format!("/instances/{id}/tags?simplify"))?;
                assert_eq!(tags["PatientName"], "DEMO^PATIENT");
                fixture.rest().get(&format!("/instances/{id}/frames/0/raw"))?.ok()?;
            }
        }
        for id in &ids {
            fixture.rest().delete(&format!("/instances/{id}"))?.ok()?;
        }
        assert!(fixture.keys().is_empty());
    }
    Ok(())
}

fn encryption_can_be_switched_on_and_off<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let with_clear = encryption(&keys, &json!({"Format": "A2", "ReadUnencrypted": true}));
    let without_clear = encryption(&keys, &json!({"Format": "A2"}));
    let files = slices(0, 2)?;
    let mut fixture = Fixture::<C>::start()?;
    let mut ids = vec![fixture.rest().upload(&files[0])?.id];
    fixture.start_again_with(&with_clear)?;
    ids.push(fixture.rest().upload(&files[1])?.id);
    assert_eq!((count(&fixture, ".dcm"), count(&fixture, ".dcm.enc")), (1, 1));
    for (changes, readable) in
        [(&without_clear, [false, true]), (&json!({}), [true, false]), (&with_clear, [true, true])]
    {
        fixture.start_again_with(changes)?;
        for ((id, file), is_readable) in ids.iter().zip(&files).zip(readable) {
            let answer = fixture.rest().get(&format!("/instances/{id}/file"))?;
            assert_eq!(answer.status, if is_readable { 200 } else { 404 }, "{changes} {readable:?}");
            assert!(!is_readable || answer.body == *file, "the bytes differ");
        }
    }
    Ok(())
}

fn tags_of_500_mb_transfer_less_than_200_kib<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let mut fixture = Fixture::<C>::with(&encryption(&keys, &json!({ "Format": "A2" })))?;
    let file = dicom::multi_frame(500)?;
    assert!(file.len() > 500_000_000);
    let id = fixture.rest().upload(&file)?.id;
    drop(file);
    fixture.restart()?;
    fixture.bucket.reset_counts();
    let tags = fixture.rest().get_json(&format!("/instances/{id}/tags?simplify"))?;
    assert_eq!(tags["PatientName"], "DEMO^PATIENT");
    let counts = fixture.bucket.requests();
    assert!(counts.total >= 1 && counts.body_bytes_sent < 200 * 1024, "{counts:?}");
    Ok(())
}
