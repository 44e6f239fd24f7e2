//! Killed at any moment of a move, and made use of at any moment of it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::json;

use crate::Cloud;
use crate::fixture::{request, within};
use crate::hybrid::support::{
    JOB, expect_readable, locations, move_to, start_moving, stored_files, upload, uuid_of,
};
use crate::orthanc::fixture::{Fixture, at_once};

tests![
    nothing_is_lost_when_orthanc_is_killed_at_any_moment_of_a_move_and_the_repeated_move_finishes,
    reads_during_moves_to_and_fro_never_fail,
    what_is_deleted_while_it_is_moved_stays_deleted_and_leaves_nothing_behind,
    a_deletion_waits_for_the_upload_of_the_move_and_then_removes_both_copies,
    a_download_that_breaks_when_its_object_was_moved_away_goes_on_with_the_file,
];

/// Moments at which Orthanc is killed.
const KILLS: u64 = 50;
const MEMBERS: u32 = 24;

/// Numbers that look random and are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let seed = std::env::var("HYBRID_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) * 7919 + 1);
        println!("HYBRID_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn nothing_is_lost_when_orthanc_is_killed_at_any_moment_of_a_move_and_the_repeated_move_finishes<C: Cloud>()
-> Result<()> {
    let mut dice = Dice::new();
    let section = json!({"HybridMode": "WriteToFileSystem"});
    // Otherwise Orthanc goes on with the job by itself before it is looked at.
    let mut fixture = Fixture::<C>::configured(&section, |builder| builder.section("SaveJobs", false))?;
    let sent = upload(&fixture, 1, MEMBERS)?;
    let study = sent[0].0.study.clone();
    fixture.bucket.latency(Duration::from_millis(2));
    let (mut broken_off, mut on_both) = (0, 0);
    for kill in 0..KILLS {
        let target = if kill % 2 == 0 { "object-storage" } else { "file-system" };
        start_moving(&fixture, target, &[&study])?;
        std::thread::sleep(Duration::from_micros(dice.below(90_000)));
        fixture.orthanc.kill()?;
        fixture.orthanc.start_again()?;
        let places = locations(&fixture, &study)?;
        ensure!(places.iter().all(|place| place != "missing"), "kill {kill}: {places:?}");
        let moved = places.iter().filter(|place| *place == target).count();
        let both = places.iter().filter(|place| *place == "both").count();
        broken_off += usize::from(moved < places.len() && moved + both > 0);
        on_both += both;
        expect_readable(&fixture, &sent)?;
        move_to(&fixture, target, &[&study])?;
        let places = locations(&fixture, &study)?;
        ensure!(places.iter().all(|place| place == target), "kill {kill}: {places:?}");
        let (files, objects) = (stored_files(&fixture.orthanc), fixture.keys());
        let expected = if kill % 2 == 0 { (0, MEMBERS as usize) } else { (MEMBERS as usize, 0) };
        ensure!((files.len(), objects.len()) == expected, "kill {kill}: {files:?} {objects:?}");
    }
    println!("{broken_off} of {KILLS} moves were broken off, {on_both} attachments were on both storages");
    ensure!(broken_off > 10, "hardly a move was broken off: {broken_off}");
    expect_readable(&fixture, &sent)
}

fn reads_during_moves_to_and_fro_never_fail<C: Cloud>() -> Result<()> {
    for mode in ["WriteToFileSystem", "WriteToObjectStorage"] {
        let fixture = Fixture::<C>::with(&json!({"HybridMode": mode}))?;
        let sent = upload(&fixture, 1, 20)?;
        let study = sent[0].0.study.as_str();
        let (done, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
        at_once(5, |client| {
            if client == 0 {
                let begin = Instant::now();
                let moves = (0..).take_while(|_| begin.elapsed() < Duration::from_secs(6));
                let result = moves.into_iter().try_for_each(|turn| -> Result<()> {
                    let target = if turn % 2 == 0 { "object-storage" } else { "file-system" };
                    move_to(&fixture, target, &[study])?;
                    Ok(())
                });
                done.store(true, Ordering::Relaxed);
                return result;
            }
            while !done.load(Ordering::Relaxed) {
                expect_readable(&fixture, &sent)?;
                for (uploaded, _) in &sent {
                    fixture.rest().get_json(&format!("/instances/{}/tags", uploaded.id))?;
                }
                reads.fetch_add(2 * sent.len(), Ordering::Relaxed);
            }
            Ok(())
        })?;
        ensure!(fixture.log_lines('E').is_empty(), "{mode}: {:?}", fixture.log_lines('E'));
        ensure!(reads.load(Ordering::Relaxed) > 200, "{reads:?}");
    }
    Ok(())
}

fn what_is_deleted_while_it_is_moved_stays_deleted_and_leaves_nothing_behind<C: Cloud>() -> Result<()> {
    let mut dice = Dice::new();
    let fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteToFileSystem"}))?;
    fixture.bucket.latency(Duration::from_millis(1));
    for round in 0..8 {
        let sent = upload(&fixture, round, 24)?;
        let study = sent[0].0.study.clone();
        let others = [
            start_moving(&fixture, "object-storage", &[&study])?,
            start_moving(&fixture, "file-system", &[&study])?,
        ];
        let mut deleted = HashSet::new();
        for (uploaded, _) in &sent {
            if dice.below(2) == 0 {
                std::thread::sleep(Duration::from_micros(dice.below(3000)));
                fixture.rest().delete(&format!("/instances/{}", uploaded.id))?.ok()?;
                deleted.insert(uploaded.id.clone());
            }
        }
        for job in &others {
            let job = fixture.rest().wait_job(job, JOB)?;
            ensure!(job["State"] == "Success", "round {round}: {job:#}");
        }
        for (uploaded, file) in sent.iter().filter(|(uploaded, _)| !deleted.contains(&uploaded.id)) {
            ensure!(fixture.rest().file(&uploaded.id)? == *file);
        }
        let left = sent.len() - deleted.len();
        let (files, objects) = (stored_files(&fixture.orthanc), fixture.keys());
        ensure!(files.len() + objects.len() == left, "round {round}: {left} are left, {files:?} {objects:?}");
        fixture.rest().delete(&format!("/studies/{study}"))?;
        ensure!(stored_files(&fixture.orthanc).is_empty() && fixture.keys().is_empty(), "round {round}");
    }
    ensure!(fixture.log_lines('E').is_empty(), "{:?}", fixture.log_lines('E'));
    Ok(())
}

fn a_deletion_waits_for_the_upload_of_the_move_and_then_removes_both_copies<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteToFileSystem"}))?;
    let sent = upload(&fixture, 1, 1)?;
    let held = fixture.bucket.hold(request::CREATE);
    let job = start_moving(&fixture, "object-storage", &[&sent[0].0.id])?;
    ensure!(held.wait_until(1, JOB), "no upload");
    std::thread::scope(|scope| -> Result<()> {
        let deletion = scope.spawn(|| fixture.rest().delete(&format!("/instances/{}", sent[0].0.id)));
        std::thread::sleep(Duration::from_millis(500));
        ensure!(!deletion.is_finished(), "it did not wait for the upload");
        held.release();
        let Ok(deleted) = deletion.join() else { bail!("the client panicked") };
        deleted?.ok()?;
        Ok(())
    })?;
    ensure!(fixture.rest().wait_job(&job, JOB)?["State"] == "Success");
    ensure!(fixture.keys().is_empty() && stored_files(&fixture.orthanc).is_empty());
    Ok(())
}

fn a_download_that_breaks_when_its_object_was_moved_away_goes_on_with_the_file<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteToObjectStorage"}))?;
    let file = real_orthanc::dicom::multi_frame(8)?;
    let uploaded = fixture.rest().upload(&file)?;
    let uuid = uuid_of(&fixture, &uploaded.id)?;
    // The connection breaks in the middle, and before it is made good the object is gone.
    let fault = fake_cloud::Fault::CloseAfterResponseBytes(2_000_000);
    fixture.bucket.faults().push(fake_cloud::FaultRule::new(fault).on(request::READ));
    let held = fixture.bucket.hold(request::READ_RANGE);
    std::thread::scope(|scope| -> Result<()> {
        let reader = scope.spawn(|| fixture.rest().file(&uploaded.id));
        ensure!(held.wait_until(1, JOB), "the download was not resumed");
        let path = crate::hybrid::support::path_of(&fixture.orthanc, &uuid);
        std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
        std::fs::write(&path, &file)?;
        fixture.bucket.remove(C::BUCKET, &format!("{uuid}.dcm"));
        held.release();
        let Ok(read) = reader.join() else { bail!("the client panicked") };
        ensure!(read? == file, "other bytes");
        Ok(())
    })?;
    ensure!(within(JOB, || fixture.log_lines('E').is_empty()), "{:?}", fixture.log_lines('E'));
    Ok(())
}
