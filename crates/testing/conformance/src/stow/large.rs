//! Many instances, large ones, and clients that disappear while they send them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fake_cloud::Operation;
use real_orthanc::dicom::Study;
use serde_json::json;

use super::client::{STORED, Upload, send};
use super::{gateway, object_of};
use crate::Cloud;
use crate::fixture::eventually;
use crate::orthanc::fixture::{Fixture, at_once, slices};

tests! {
    Newest:
        large_instances_are_stored_in_parts,
        thousand_instances_are_stored;
}

/// Maximum time until an event in the background.
const LIMIT: Duration = Duration::from_secs(30);

fn large_instances_are_stored_in_parts<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&gateway(&json!({})))?;
    let unfinished = || unfinished_uploads(&fixture);
    let small = slices(0, 1)?.remove(0);
    let files = [Study(1).multi_frame(20)?, Study(2).multi_frame(20)?];

    fixture.bucket.reset_counts();
    let answer = send(&fixture.orthanc, [&files[0]])?;
    ensure!(answer.status == 200, "{answer:?}");
    let object = fixture.bucket.object(C::BUCKET, &object_of(&files[0])?).context("no object")?;
    ensure!(object.bytes == files[0], "the bytes differ");
    let requests = fixture.bucket.requests();
    let parts = requests.of(Operation::UploadPart);
    let completed = requests.of(Operation::CompleteMultipartUpload);
    ensure!((parts, completed) == (3, 1) && unfinished().is_empty(), "{requests:?} {:?}", unfinished());
    fixture.bucket.clear();

    // More clients disappear than large instances are stored at once.
    for number in 0..5 {
        let mut upload = Upload::to(&fixture.orthanc)?;
        upload.part(&small)?;
        let sent = fixture.bucket.requests().of(Operation::UploadPart);
        upload.part(&files[1][..17_000_000])?;
        let is_sent = || fixture.bucket.requests().of(Operation::UploadPart) > sent;
        eventually(&format!("parts of client {number} are sent"), LIMIT, is_sent)?;
    }
    eventually("the uploads are aborted", LIMIT, || unfinished().is_empty())?;
    ensure!(fixture.keys() == [object_of(&small)?], "{:?}", fixture.keys());

    at_once(4, |client| {
        let files: Vec<_> =
            (0..3).map(|study| Study(10 * (client + 1) + study).multi_frame(9)).collect::<Result<_>>()?;
        let answer = send(&fixture.orthanc, &files)?;
        ensure!(answer.status == 200 && answer.instances(STORED)?.len() == 3, "{}", answer.text());
        for file in &files {
            let object = fixture.bucket.object(C::BUCKET, &object_of(file)?).context("no object")?;
            ensure!(object.bytes == *file, "the bytes differ");
        }
        Ok(())
    })?;
    ensure!(unfinished().is_empty() && fixture.keys().len() == 13, "{:?}", fixture.keys());
    Ok(())
}

/// Returns the uploads in parts that were neither completed nor aborted, if the cloud can abort them.
pub(super) fn unfinished_uploads<C: Cloud>(fixture: &Fixture<C>) -> Vec<String> {
    if C::PARTS_CAN_BE_DROPPED { fixture.bucket.unfinished_uploads(C::BUCKET) } else { Vec::new() }
}

fn thousand_instances_are_stored<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&gateway(&json!({})))?;
    let files: Vec<_> = Study(1).ct_series(1000, 16, 16).collect::<Result<_, _>>()?;
    let answer = send(&fixture.orthanc, &files)?;
    ensure!(answer.status == 200 && answer.instances(STORED)?.len() == 1000, "{}", answer.status);
    let objects = fixture.objects();
    ensure!(objects.len() == 1000, "{}", objects.len());
    for file in &files {
        let object = objects.get(&object_of(file)?).context("no object")?;
        ensure!(object.bytes == *file, "the bytes differ");
    }
    Ok(())
}
