//! Encryption in a real Orthanc.

use anyhow::Result;
use real_orthanc::dicom;
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::Keys;
use crate::orthanc::fixture::Fixture;

tests! {
    OneCloud:
        encrypted_studies_are_stored_and_read;
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
        for object in fixture.bucket.objects(C::BUCKET).values() {
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
