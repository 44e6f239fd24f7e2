//! Requests that fail, wholly or in part.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use fake_cloud::{Fault, FaultRule};
use real_orthanc::Orthanc;
use real_orthanc::dicom::{Study, uids};
use serde_json::json;

use super::client::{FAILED, STORED, Upload, send};
use super::large::unfinished_uploads;
use super::{gateway, object_of};
use crate::Cloud;
use crate::fixture::{eventually, request, with};
use crate::orthanc::fixture::{Fixture, slices};
use crate::orthanc::stopping::stop_in_time;

tests! {
    OneCloud:
        failures_of_the_bucket_are_reported;
    Newest:
        stop_and_reset_end_requests;
}

/// Maximum time until an event in the background.
const LIMIT: Duration = Duration::from_secs(30);

fn failures_of_the_bucket_are_reported<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&with(gateway(&json!({})), &json!({"OutageTimeout": 2})))?;
    let files = slices(1, 60)?;
    let instances: Vec<_> = files.iter().map(|file| Ok(uids(file)?[2].clone())).collect::<Result<_>>()?;
    let refused = Fault::status(403, C::MISSING_PERMISSION);
    let refuse = |text: &str| {
        let rule = FaultRule::new(refused.clone()).on(request::CREATE).key(text);
        fixture.bucket.faults().push(rule.times(usize::MAX));
    };

    refuse(&instances[1]);
    let answer = send(&fixture.orthanc, &files[..3])?;
    ensure!(answer.status == 202, "{answer:?}");
    ensure!(answer.instances(FAILED)? == [(instances[1].clone(), Some(0x0110))], "{}", answer.text());
    let mut stored = vec![(instances[0].clone(), None), (instances[2].clone(), None)];
    stored.sort();
    ensure!(answer.instances(STORED)? == stored, "{}", answer.text());

    refuse("");
    let answer = send(&fixture.orthanc, &files[..3])?;
    let has_retry = answer.header("retry-after").is_some();
    ensure!(answer.status == 409 && !has_retry && answer.instances(FAILED)?.len() == 3, "{answer:?}");
    fixture.bucket.faults().clear();

    // Only the instances that are sent at once wait for the bucket.
    fixture.bucket.reset_counts();
    fixture.bucket.faults().push(FaultRule::new(Fault::slow_down()).times(usize::MAX));
    let answer = send(&fixture.orthanc, &files)?;
    ensure!(answer.status == 503 && answer.header("retry-after") == Some("30"), "{answer:?}");
    let failed = answer.instances(FAILED)?;
    ensure!(failed.len() == 60 && failed.iter().all(|(_, reason)| *reason == Some(0xA700)), "{failed:?}");
    let requests = fixture.bucket.last_requests();
    let tried: BTreeSet<_> = requests.iter().map(|request| request.path.as_str()).collect();
    ensure!((1..=20).contains(&tried.len()), "{} instances were tried", tried.len());
    fixture.bucket.faults().clear();

    // The same request again.
    let answer = send(&fixture.orthanc, &files)?;
    ensure!(answer.status == 200 && fixture.keys().len() == 60, "{answer:?}");
    ensure!(fixture.keys().contains(&object_of(&files[1])?));
    Ok(())
}

/// Begins a request with a complete instance, and the first 12 MB of one that is stored in parts.
pub(super) fn begin_large(orthanc: &Orthanc, complete: &[u8], large: &[u8]) -> Result<Upload> {
    let mut upload = Upload::to(orthanc)?;
    upload.part(complete)?;
    upload.part(&large[..12_000_000])?;
    Ok(upload)
}

fn stop_and_reset_end_requests<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&gateway(&json!({})))?;
    let complete = slices(1, 1)?.remove(0);
    let large = Study(2).multi_frame(16)?;
    let begun = || fixture.bucket.requests().of(request::CREATE) > 0 && !fixture.keys().is_empty();
    let upload = begin_large(&fixture.orthanc, &complete, &large)?;
    eventually("the complete instance is stored", LIMIT, begun)?;
    fixture.reset()?;
    ensure!(upload.answer().map_or(true, |answer| answer.status >= 400), "reported as stored");
    eventually("the upload is aborted", LIMIT, || unfinished_uploads(&fixture).is_empty())?;
    ensure!(fixture.keys() == [object_of(&complete)?], "{:?}", fixture.keys());
    let answer = send(&fixture.orthanc, [&complete, &large])?;
    ensure!(answer.status == 200, "{answer:?}\n{}", fixture.orthanc.log());

    // One that waits for its client, and one that waits for the bucket.
    let idle = begin_large(&fixture.orthanc, &complete, &large)?;
    let other = slices(3, 1)?.remove(0);
    let held = fixture.bucket.hold_key(request::CREATE, uids(&other)?[2].as_str());
    let mut waiting = Upload::to(&fixture.orthanc)?;
    waiting.part(&other)?;
    thread::scope(|scope| -> Result<()> {
        let waiting = scope.spawn(|| waiting.finish());
        ensure!(held.wait_until(1, LIMIT), "the instance is not sent");
        stop_in_time(&mut fixture)?;
        let answers = [idle.answer(), waiting.join().map_err(|_| anyhow!("panicked"))?];
        for answer in answers {
            ensure!(answer.as_ref().map_or(true, |answer| answer.status >= 400), "{answer:?}");
        }
        Ok(())
    })?;
    drop(held);
    ensure!(fixture.keys().len() == 2, "{:?}", fixture.keys());
    Ok(())
}
