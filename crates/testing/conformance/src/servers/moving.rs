//! Moves between the disk and the bucket.

use anyhow::{Context, Result, ensure};
use real_orthanc::dicom::Study;
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{Keys, eventually};
use crate::servers::fixture::{Fixture, JOB, Stored, encryption};

tests! {
    EveryCloud:
        studies_move_to_the_bucket_and_back,
        killed_move_can_be_repeated,
}

/// Starts a move of a study, and returns its job.
fn start_moving<C: Cloud>(fixture: &Fixture<C>, target: &str, study: &str) -> Result<String> {
    let body = json!({ "Resources": [study], "TargetStorage": target, "Asynchronous": true });
    let answer = fixture.rest().post_json("/move-storage", &body)?.ok()?.json()?;
    Ok(answer["ID"].as_str().context("no ID")?.to_owned())
}

/// Returns how many DICOM files of a study are at a place.
fn count_at<C: Cloud>(fixture: &Fixture<C>, place: &str, study: &[Stored]) -> Result<usize> {
    let path = format!("/object-storage/locations/{}", study[0].uploaded.study);
    let locations = fixture.rest().get_json(&path)?;
    let is_there = |stored: &&Stored| {
        let mut locations = locations.as_array().into_iter().flatten();
        locations.any(|location| location["Uuid"] == stored.uuid.as_str() && location["Location"] == place)
    };
    Ok(study.iter().filter(is_there).count())
}

/// Moves a study, and checks that all its attachments are at the target.
fn move_study<C: Cloud>(fixture: &Fixture<C>, target: &str, study: &[Stored]) -> Result<()> {
    let id = &study[0].uploaded.study;
    let job = start_moving(fixture, target, id)?;
    let ended = fixture.rest().wait_job(&job, JOB)?;
    ensure!(ended["State"] == "Success", "{ended}");
    ensure!(count_at(fixture, target, study)? == study.len(), "not all at {target}");
    for stored in study {
        let has_object = fixture.object(stored)?.is_some();
        ensure!(has_object == (target == "object-storage"), "object of {}: {has_object}", stored.uuid);
    }
    fixture.expect_readable(study)
}

fn hybrid_section(keys: &Keys, format: &str) -> Value {
    json!({ "HybridMode": "WriteToFileSystem", "StorageEncryption": encryption(keys, format) })
}

fn studies_move_to_the_bucket_and_back<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    for format in ["clear", "A1", "A2"] {
        let fixture = Fixture::<C>::with(&hybrid_section(&keys, format))?;
        let study = fixture.store(0, 10)?;
        for target in ["object-storage", "file-system", "object-storage"] {
            move_study(&fixture, target, &study)?;
        }
        fixture.delete(&study[0].uploaded.study, &study)?;
        fixture.expect_no_errors()?;
    }
    Ok(())
}

fn killed_move_can_be_repeated<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let (mut fixture, proxy) = Fixture::<C>::behind_proxy(&hybrid_section(&keys, "A2"))?;
    let slices = Study(0).ct_series(40, 256, 256);
    let study = slices.map(|file| fixture.store_file(file?)).collect::<Result<Vec<_>>>()?;
    let size: usize = study.iter().map(|stored| stored.file.len()).sum();
    let before = proxy.bytes_to_target();
    let sent = || proxy.bytes_to_target() - before;
    start_moving(&fixture, "object-storage", &study[0].uploaded.study)?;
    eventually("a tenth is sent", JOB, || sent() > size as u64 / 10)?;
    // What is in flight stays in flight until the kill.
    proxy.freeze();
    ensure!(sent() < size as u64, "the move had ended before the kill");
    fixture.orthanc.kill()?;
    proxy.mend();
    fixture.orthanc.start_again()?;
    fixture.expect_readable(&study)?;
    move_study(&fixture, "object-storage", &study)?;
    fixture.expect_no_errors()
}
