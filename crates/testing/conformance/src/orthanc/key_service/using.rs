//! Instances under a key of the service. The first request of each kind comes from a thread of Orthanc's HTTP server, whose
//! stack has 100 kB.

use anyhow::{Result, ensure};
use real_orthanc::Uploaded;
use serde_json::json;

use super::fixture::{KeyService, wrapped_key};
use crate::Cloud;
use crate::fixture::documented::{expect_metrics, expect_status};
use crate::hybrid::support::{
    expect_all_at, expect_no_errors, expect_readable, move_to, stored_files, upload,
};
use crate::orthanc::fixture::Fixture;

tests! { EveryCloud: instances_are_stored_read_moved_and_deleted }

fn instances_are_stored_read_moved_and_deleted<C: Cloud>() -> Result<()> {
    let service = KeyService::start::<C>()?;
    // Without the check, the start does not ask for a file key.
    let others = json!({"HybridMode": "WriteToObjectStorage", "CheckWrite": false});
    let options = service.options(&json!({"ReadUnencrypted": true}), &others);
    let mut fixture = service.orthanc::<C>(&json!({"HybridMode": "WriteToFileSystem"}))?;
    let clear = upload(&fixture, 2, 2)?;
    fixture.start_again_with(&options)?;
    move_to(&fixture, "object-storage", &[&clear[0].0.study])?;
    expect_all_at(&fixture, &clear[0].0.study, "object-storage")?;
    service.expect_counts(1, 0)?;
    read_everything(&fixture, &clear)?;
    fixture.rest().delete(&format!("/studies/{}", clear[0].0.study))?.ok()?;
    ensure!(fixture.keys().is_empty(), "{:?}", fixture.keys());

    fixture.start_again_with(&options)?;
    service.expect_counts(0, 0)?;
    let sent = upload(&fixture, 1, 8)?;
    service.expect_counts(1, 0)?;
    ensure!(fixture.objects().values().all(|object| wrapped_key(&object.bytes).is_some()));
    read_everything(&fixture, &sent)?;
    service.expect_counts(0, 0)?;

    fixture.start_again_with(&options)?;
    read_everything(&fixture, &sent)?;
    service.expect_counts(0, 1)?;
    let status = fixture.rest().get_json("/object-storage/status")?;
    expect_status(&status, &["/Encryption/KeyService", "/Encryption/KeyServiceCalls"])?;
    let calls = &status["Encryption"]["KeyServiceCalls"];
    ensure!(calls["Count"] == 1 && calls["Failures"] == 0, "{calls}");
    let metrics = fixture.rest().get("/tools/metrics-prometheus")?.ok()?.text();
    expect_metrics(&metrics)?;
    ensure!(metrics.contains("object_storage_key_service_requests 1"), "{metrics}");

    fixture.start_again_with(&options)?;
    let study = sent[0].0.study.as_str();
    let locations = fixture.rest().get_json(&format!("/object-storage/locations/{study}"))?;
    ensure!(locations[0]["Copies"][0]["Format"] == "A2", "{locations:#}");
    service.expect_counts(0, 0)?;
    let files = stored_files(&fixture.orthanc).len();
    move_to(&fixture, "file-system", &[study])?;
    expect_all_at(&fixture, study, "file-system")?;
    ensure!(fixture.keys().is_empty() && stored_files(&fixture.orthanc).len() >= files + 8);
    read_everything(&fixture, &sent)?;
    move_to(&fixture, "object-storage", &[study])?;
    expect_all_at(&fixture, study, "object-storage")?;
    read_everything(&fixture, &sent)?;
    // What moves encrypted is not encrypted again.
    service.expect_counts(0, 1)?;
    expect_no_errors(&fixture)?;

    fixture.rest().delete(&format!("/studies/{study}"))?.ok()?;
    ensure!(fixture.keys().is_empty(), "{:?}", fixture.keys());
    Ok(())
}

/// Reads all files, and parts of them.
fn read_everything<C: Cloud>(fixture: &Fixture<C>, sent: &[(Uploaded, Vec<u8>)]) -> Result<()> {
    for (uploaded, _) in sent {
        let tags = fixture.rest().get_json(&format!("{}/tags?simplify", uploaded.path))?;
        ensure!(tags["Modality"] == "CT", "{tags:#}");
    }
    expect_readable(fixture, sent)
}
