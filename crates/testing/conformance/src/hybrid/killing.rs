//! Kills, reads and deletions at random moments of a move.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use fake_cloud::{Fault, FaultRule};
use real_orthanc::dicom;
use serde_json::json;

use crate::Cloud;
use crate::fixture::{Random, request, within};
use crate::hybrid::support::{
    JOB, delete_during_upload, expect_all_at, expect_counts, expect_no_errors, expect_readable, locations,
    move_to, start_moving, stored_files, upload, uuid_of, write_file,
};
use crate::orthanc::fixture::{Fixture, at_once};

tests! {
    OneCloud:
        reads_during_moves_never_fail,
        deletions_during_moves_are_complete,
        deletion_removes_the_copy_of_a_move,
        interrupted_download_continues_with_the_file;
    Long:
        many_killed_moves_can_be_resumed,
}

const MEMBERS: usize = 24;

/// Kills Orthanc at random moments of moves, and checks that each repeated move finishes the work.
fn many_killed_moves_can_be_resumed<C: Cloud>() -> Result<()> {
    const KILLS: usize = 60;
    let mut random = Random::new();
    let section = json!({"HybridMode": "WriteToFileSystem"});
    // A saved job would continue before the test looks at the result.
    let mut fixture = Fixture::<C>::configured(&section, |builder| builder.section("SaveJobs", false))?;
    let sent = upload(&fixture, 1, 24)?;
    let study = sent[0].0.study.clone();
    fixture.bucket.latency(Duration::from_millis(10));
    let mut interrupted = 0;
    for kill in 0..KILLS {
        let target = if kill % 2 == 0 { "object-storage" } else { "file-system" };
        start_moving(&fixture, target, &[&study])?;
        let copies = 1 + usize::try_from(random.below(MEMBERS as u64 * 3 / 4))?;
        ensure!(reaches(&fixture, target, copies), "kill {kill}: fewer than {copies} copies");
        thread::sleep(Duration::from_micros(random.below(3000)));
        fixture.orthanc.kill()?;
        fixture.orthanc.start_again()?;
        let places = locations(&fixture, &study)?;
        ensure!(places.iter().all(|place| place != "missing"), "kill {kill}: {places:?}");
        let moved = places.iter().filter(|place| *place == target).count();
        let copied = moved + places.iter().filter(|place| *place == "both").count();
        interrupted += usize::from(moved < places.len() && copied > 0);
        expect_readable(&fixture, &sent)?;
        move_to(&fixture, target, &[&study])?;
        expect_all_at(&fixture, &study, target)?;
        let (files, objects) = if kill % 2 == 0 { (0, MEMBERS) } else { (MEMBERS, 0) };
        expect_counts(&fixture, files, objects)?;
    }
    println!("{interrupted} of {KILLS} kills interrupted a move");
    ensure!(interrupted > KILLS / 5, "hardly any kill interrupted a move: {interrupted}");
    expect_readable(&fixture, &sent)
}

/// Waits until a move has made `count` copies.
fn reaches<C: Cloud>(fixture: &Fixture<C>, target: &str, count: usize) -> bool {
    let is_uploading = target == "object-storage";
    let copies = || if is_uploading { fixture.keys().len() } else { stored_files(&fixture.orthanc).len() };
    let start = Instant::now();
    while copies() < count {
        if start.elapsed() > JOB {
            return false;
        }
        thread::sleep(Duration::from_micros(200));
    }
    true
}

fn reads_during_moves_never_fail<C: Cloud>() -> Result<()> {
    for mode in ["WriteToFileSystem", "WriteToObjectStorage"] {
        let fixture = Fixture::<C>::with(&json!({"HybridMode": mode}))?;
        let sent = upload(&fixture, 1, 20)?;
        let study = sent[0].0.study.as_str();
        let is_done = AtomicBool::new(false);
        let reads = AtomicUsize::new(0);
        let move_back_and_forth = || -> Result<()> {
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(4) {
                move_to(&fixture, "object-storage", &[study])?;
                move_to(&fixture, "file-system", &[study])?;
            }
            Ok(())
        };
        at_once(5, |client| {
            if client == 0 {
                let result = move_back_and_forth();
                is_done.store(true, Ordering::Relaxed);
                return result;
            }
            while !is_done.load(Ordering::Relaxed) {
                expect_readable(&fixture, &sent)?;
                for (uploaded, _) in &sent {
                    fixture.rest().get_json(&format!("/instances/{}/tags", uploaded.id))?;
                }
                reads.fetch_add(2 * sent.len(), Ordering::Relaxed);
            }
            Ok(())
        })?;
        expect_no_errors(&fixture)?;
        ensure!(reads.load(Ordering::Relaxed) > 200, "{reads:?}");
    }
    Ok(())
}

fn deletions_during_moves_are_complete<C: Cloud>() -> Result<()> {
    let mut random = Random::new();
    let fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteToFileSystem"}))?;
    fixture.bucket.latency(Duration::from_millis(1));
    for round in 0..8 {
        let sent = upload(&fixture, round, 24)?;
        let study = sent[0].0.study.as_str();
        let jobs = [
            start_moving(&fixture, "object-storage", &[study])?,
            start_moving(&fixture, "file-system", &[study])?,
        ];
        let mut deleted = HashSet::new();
        for (uploaded, _) in &sent {
            if random.below(2) == 0 {
                thread::sleep(Duration::from_micros(random.below(3000)));
                fixture.rest().delete(&format!("/instances/{}", uploaded.id))?.ok()?;
                deleted.insert(uploaded.id.as_str());
            }
        }
        for job in &jobs {
            let job = fixture.rest().wait_job(job, JOB)?;
            ensure!(job["State"] == "Success", "round {round}: {job:#}");
        }
        let mut left = sent.clone();
        left.retain(|(uploaded, _)| !deleted.contains(uploaded.id.as_str()));
        expect_readable(&fixture, &left)?;
        let places = locations(&fixture, study).unwrap_or_default();
        let objects = places.iter().filter(|place| *place == "object-storage").count();
        expect_counts(&fixture, left.len() - objects, objects)?;
        fixture.rest().delete(&format!("/studies/{study}"))?;
        expect_counts(&fixture, 0, 0)?;
    }
    expect_no_errors(&fixture)
}

fn deletion_removes_the_copy_of_a_move<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteToFileSystem"}))?;
    let sent = upload(&fixture, 1, 1)?;
    let held = fixture.bucket.hold(request::CREATE);
    let job = start_moving(&fixture, "object-storage", &[&sent[0].0.id])?;
    ensure!(held.wait_until(1, JOB), "no upload");
    delete_during_upload(&fixture, held, &sent[0].0.id)?;
    let ended = fixture.rest().wait_job(&job, JOB)?;
    ensure!(ended["State"] == "Success" && ended["Content"]["DeletedMeanwhile"] == 1, "{ended:#}");
    expect_counts(&fixture, 0, 0)
}

fn interrupted_download_continues_with_the_file<C: Cloud>() -> Result<()> {
    let section = json!({"HybridMode": "WriteToObjectStorage"});
    let mut fixture = Fixture::<C>::configured(&section, |builder| builder.verbose(true))?;
    let file = dicom::multi_frame(8)?;
    let uploaded = fixture.rest().upload(&file)?;
    let uuid = uuid_of(&fixture, &uploaded.id)?;
    // A move deletes the object after the connection has failed and before the download resumes.
    let faults = fixture.bucket.faults();
    faults.push(FaultRule::new(Fault::CloseAfterResponseBytes(2_000_000)).on(fixture.whole_read()?));
    let rule = FaultRule::new(Fault::slow_down()).on(request::READ_RANGE).times(usize::MAX);
    let refused = faults.push(rule);
    thread::scope(|scope| -> Result<()> {
        let reader = scope.spawn(|| fixture.rest().file(&uploaded.id));
        ensure!(within(JOB, || refused.fired() > 0), "the download does not resume");
        write_file(&fixture.orthanc, &uuid, &file)?;
        fixture.bucket.remove(C::BUCKET, &format!("{uuid}.dcm"));
        faults.clear();
        ensure!(reader.join().map_err(|_| anyhow!("panicked"))?? == file, "the bytes differ");
        Ok(())
    })?;
    // All lines are in the log once Orthanc has stopped.
    fixture.orthanc.stop()?;
    let infos = fixture.log_lines('I');
    ensure!(infos.iter().any(|line| line.contains("retrying the read")), "{infos:#?}");
    expect_no_errors(&fixture)
}
