//! Orthanc stops within seconds at any time.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use fake_cloud::{Fault, FaultRule, Operation};
use real_orthanc::dicom::{self, Study};
use real_orthanc::{Answer, Client};
use serde_json::json;

use crate::Cloud;
use crate::fixture::eventually;
use crate::hybrid::support::{expect_readable, upload};
use crate::orthanc::fixture::{Fixture, slices};

tests! {
    OneCloud:
        stop_ends_everything_that_waits_for_the_server,
        stop_lets_a_store_finish,
        parts_of_a_killed_upload_are_dropped_at_the_next_start,
}

/// The plugin's limit of five seconds, and time for Orthanc itself on a busy machine.
const LIMIT: Duration = Duration::from_secs(10);

/// Stops Orthanc, which must take no longer than [`LIMIT`].
pub(crate) fn stop_in_time<C: Cloud>(fixture: &mut Fixture<C>) -> Result<()> {
    let start = Instant::now();
    fixture.orthanc.stop()?;
    ensure!(start.elapsed() < LIMIT, "the stop takes {:?}", start.elapsed());
    Ok(())
}

fn stop_ends_everything_that_waits_for_the_server<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteToObjectStorage"}))?;
    let sent = upload(&fixture, 1, 48)?;
    let study = sent[0].0.study.clone();
    let unsent = slices(2, 1)?.remove(0);
    for fault in [Fault::slow_down(), Fault::Delay(Duration::from_secs(600))] {
        fixture.bucket.reset_counts();
        fixture.bucket.faults().push(FaultRule::new(fault).times(usize::MAX));
        let rest = Client::with_timeout(fixture.orthanc.url(), Duration::from_secs(120));
        let moves = json!({"Resources": [study.as_str()], "TargetStorage": "file-system"});
        let failed =
            |answer: Result<Answer>| answer.is_err() || answer.is_ok_and(|answer| answer.status >= 500);
        thread::scope(|scope| -> Result<()> {
            let store = scope.spawn(|| rest.post("/instances", &unsent));
            let locations = scope.spawn(|| rest.get(&format!("/object-storage/locations/{study}")));
            let moving = scope.spawn(|| rest.post_json("/move-storage", &moves));
            let reads: Vec<_> = sent[..8]
                .iter()
                .map(|(uploaded, _)| scope.spawn(|| rest.get(&format!("{}/file", uploaded.path))))
                .collect();
            thread::sleep(Duration::from_secs(1));
            ensure!(fixture.bucket.requests().total >= 11, "{:?}", fixture.bucket.requests());
            stop_in_time(&mut fixture)?;
            for request in reads.into_iter().chain([store, locations, moving]) {
                let answer = request.join().map_err(|_| anyhow!("panicked"))?;
                ensure!(failed(answer), "an interrupted request is reported as done");
            }
            Ok(())
        })?;
        fixture.bucket.faults().clear();
        fixture.orthanc.start_again()?;
        ensure!(fixture.rest().get_json("/instances")?.as_array().is_some_and(|all| all.len() == 48));
        expect_readable(&fixture, &sent)?;
        // The job that was interrupted continues.
        let jobs = fixture.rest().get_json("/jobs")?;
        for job in jobs.as_array().into_iter().flatten().filter_map(|job| job.as_str()) {
            fixture.rest().wait_job(job, Duration::from_secs(60))?;
        }
        ensure!(fixture.keys().is_empty(), "the interrupted store has left {:?}", fixture.keys());
        crate::hybrid::support::move_to(&fixture, "object-storage", &[&study])?;
    }
    Ok(())
}

fn stop_lets_a_store_finish<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::start()?;
    fixture.bucket.latency(Duration::from_secs(1));
    let file = slices(1, 1)?.remove(0);
    let rest = fixture.rest().clone();
    thread::scope(|scope| -> Result<()> {
        let store = scope.spawn(|| rest.upload(&file));
        thread::sleep(Duration::from_millis(500));
        stop_in_time(&mut fixture)?;
        // Orthanc may have closed the connection.
        let _ = store.join().map_err(|_| anyhow!("panicked"))?;
        Ok(())
    })?;
    fixture.bucket.latency(Duration::ZERO);
    fixture.orthanc.start_again()?;
    let id = fixture.rest().get_json("/instances")?[0].as_str().unwrap_or_default().to_owned();
    ensure!(fixture.rest().file(&id)? == file, "the bytes differ");
    Ok(())
}

fn parts_of_a_killed_upload_are_dropped_at_the_next_start<C: Cloud>() -> Result<()> {
    // The plugin sends parts once it has measured that one connection is slow.
    let mut fixture = Fixture::<C>::with(&json!({"TransferPoolSize": 2}))?;
    fixture.bucket.bandwidth_per_connection(Some(50_000_000));
    fixture.rest().upload(&dicom::multi_frame(17)?)?;
    fixture.bucket.bandwidth_per_connection(None);
    let held = fixture.bucket.hold(Operation::UploadPart);
    let rest = fixture.rest().clone();
    thread::scope(|scope| -> Result<()> {
        let store = scope.spawn(|| rest.upload(&Study(1).multi_frame(18)?));
        ensure!(held.wait_until(1, LIMIT), "no part is sent");
        fixture.orthanc.kill()?;
        ensure!(store.join().map_err(|_| anyhow!("panicked"))?.is_err(), "Orthanc was not killed");
        Ok(())
    })?;
    held.release();
    let unfinished = || fixture.bucket.unfinished_uploads(C::BUCKET);
    // Where uploads in parts are not begun, the held part would have been the first trace of one.
    ensure!(unfinished().len() == usize::from(C::PARTS_CAN_BE_DROPPED), "{:?}", unfinished());
    fixture.orthanc.start_again()?;
    eventually("the upload is aborted", LIMIT, || unfinished().is_empty())?;
    ensure!(fixture.keys().len() == 1, "{:?}", fixture.keys());
    Ok(())
}
