//! Options of Orthanc that change what it stores, replaces and deletes.

use anyhow::{Context, Result, ensure};
use real_orthanc::Builder;
use serde_json::{Value, json};

use crate::Cloud;
use crate::hybrid::support::{expect_readable, upload};
use crate::orthanc::fixture::Fixture;

tests! {
    OneCloud:
        compressed_attachments_are_read,
        transcoded_instances_are_stored_once,
        overwritten_instances_leave_no_object,
        recycled_patients_leave_no_object,
}

/// JPEG-LS, lossless.
const JPEG_LS: &str = "1.2.840.10008.1.2.4.80";

/// Starts Orthanc with these options of its own.
fn start<C: Cloud>(options: &Value) -> Result<Fixture<C>> {
    Fixture::configured(&json!({}), |builder| {
        let add = |builder: Builder, (name, value): (&String, &Value)| builder.section(name, value.clone());
        options.as_object().into_iter().flatten().fold(builder, add)
    })
}

fn compressed_attachments_are_read<C: Cloud>() -> Result<()> {
    let mut fixture = start::<C>(&json!({"StorageCompression": true}))?;
    let sent = upload(&fixture, 1, 3)?;
    for object in fixture.objects().values() {
        ensure!(
            !object.bytes.windows(12).any(|window| window == b"DEMO^PATIENT"),
            "an object is not compressed"
        );
    }
    for is_compressed in [true, false] {
        // What was stored with another value of the option stays readable.
        fixture.orthanc.configure(|builder| builder.section("StorageCompression", is_compressed));
        fixture.restart()?;
        expect_readable(&fixture, &sent)?;
        for (uploaded, _) in &sent {
            let tags = fixture.rest().get_json(&format!("{}/tags?simplify", uploaded.path))?;
            ensure!(tags["PatientName"] == "DEMO^PATIENT", "{tags}");
        }
    }
    fixture.rest().delete(&format!("/studies/{}", sent[0].0.study))?.ok()?;
    assert_eq!(fixture.keys(), [""; 0]);
    assert_eq!(fixture.log_lines('E'), [""; 0]);
    Ok(())
}

fn transcoded_instances_are_stored_once<C: Cloud>() -> Result<()> {
    let mut fixture = start::<C>(&json!({"IngestTranscoding": JPEG_LS}))?;
    let sent = upload(&fixture, 1, 2)?;
    // What Orthanc received is not stored.
    assert_eq!(fixture.keys().len(), sent.len());
    fixture.restart()?;
    let objects = fixture.objects();
    for (uploaded, slice) in &sent {
        let id = &uploaded.id;
        let syntax = fixture.rest().get(&format!("/instances/{id}/metadata/TransferSyntax"))?.ok()?;
        assert_eq!(syntax.text(), JPEG_LS);
        let file = fixture.rest().file(id)?;
        ensure!(file != *slice, "instance {id} was not transcoded");
        ensure!(objects.values().any(|object| object.bytes == file), "instance {id} is not in the bucket");
        fixture.rest().get(&format!("/instances/{id}/preview"))?.ok()?;
    }
    fixture.rest().delete(&format!("/studies/{}", sent[0].0.study))?.ok()?;
    assert_eq!(fixture.keys(), [""; 0]);
    Ok(())
}

fn overwritten_instances_leave_no_object<C: Cloud>() -> Result<()> {
    let fixture = start::<C>(&json!({"OverwriteInstances": true}))?;
    let sent = upload(&fixture, 1, 2)?;
    let before = fixture.keys();
    let [(first, slice), _] = &sent[..] else { unreachable!("two slices were stored") };
    // The same instance with another value.
    let mut changed = slice.clone();
    let name = changed.windows(12).position(|window| window == b"DEMO^PATIENT").context("no name")?;
    changed[name..name + 12].copy_from_slice(b"DEMO^CHANGED");
    for file in [&changed, slice, &changed] {
        let uploaded = fixture.rest().upload(file)?;
        assert_eq!(uploaded.id, first.id);
        ensure!(fixture.rest().file(&first.id)? == *file, "Orthanc serves another version");
    }
    let after = fixture.keys();
    assert_eq!(after.len(), before.len(), "{before:?} {after:?}");
    assert_eq!(after.iter().filter(|key| before.contains(key)).count(), 1);
    assert_eq!(fixture.log_lines('E'), [""; 0]);
    Ok(())
}

fn recycled_patients_leave_no_object<C: Cloud>() -> Result<()> {
    // The size is in megabytes. A patient has 0.6 MB.
    for option in ["MaximumPatientCount", "MaximumStorageSize"] {
        let fixture = start::<C>(&json!({option: 1}))?;
        for study in 1..=3 {
            let sent = upload(&fixture, study, 64)?;
            let kept = fixture.rest().get_json("/instances")?;
            assert_eq!(kept.as_array().map(Vec::len), Some(64), "{option}");
            assert_eq!(fixture.keys().len(), 64, "{option}");
            expect_readable(&fixture, &sent)?;
        }
        assert_eq!(fixture.log_lines('E'), [""; 0]);
    }
    Ok(())
}
