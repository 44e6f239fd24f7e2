//! `POST /move-storage` and its jobs.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use real_orthanc::Client;
use real_orthanc::dicom::Study;
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{Keys, request, with, within};
use crate::hybrid::support::{
    JOB, content_of, encryption, expect_all_at, expect_counts, expect_no_errors, expect_readable,
    expect_readable_by, move_to, start_moving, stored_files, upload,
};
use crate::orthanc::fixture::Fixture;

tests! {
    EveryCloud:
        attachments_of_all_levels_are_moved;
    OneCloud:
        each_level_can_be_moved,
        malformed_requests_are_refused,
        asynchronous_move_is_a_job,
        job_can_be_paused_and_cancelled,
        job_can_be_paused_while_the_bucket_is_silent,
        job_continues_after_restart_and_reset,
        opposite_moves_take_turns,
        move_needs_the_memory_of_one_attachment,
}

fn hybrid<C: Cloud>() -> Result<Fixture<C>> {
    Fixture::<C>::with(&json!({"HybridMode": "WriteToFileSystem"}))
}

fn patient_of<C: Cloud>(fixture: &Fixture<C>, study: &str) -> Result<String> {
    let answer = fixture.rest().get_json(&format!("/studies/{study}"))?;
    Ok(answer["ParentPatient"].as_str().context("no patient")?.to_owned())
}

fn each_level_can_be_moved<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    for (format, structure) in [("clear", "flat"), ("A1", "legacy"), ("A2", "flat")] {
        let section = if format == "clear" { json!({}) } else { encryption(&keys, format) };
        let fixture = Fixture::<C>::with(&json!({
            "HybridMode": "WriteToFileSystem", "StorageStructure": structure, "StorageEncryption": section,
        }))?;
        let sent = upload(&fixture, 1, 4)?;
        let first = &sent[0].0;
        let patient = patient_of(&fixture, &first.study)?;
        let before = stored_files(&fixture.orthanc).len();
        for resource in [&patient, &first.study, &first.series, &first.id] {
            let content = move_to(&fixture, "object-storage", &[resource])?;
            let objects = fixture.keys().len();
            ensure!(content["TargetStorage"] == "object-storage" && content["Error"].is_null(), "{content}");
            ensure!(content["MovedAttachments"] == objects, "{content}");
            expect_all_at(&fixture, resource, "object-storage")?;
            expect_counts(&fixture, before - objects, objects)?;
            expect_readable(&fixture, &sent)?;
            let again = move_to(&fixture, "object-storage", &[resource])?;
            ensure!(again["MovedAttachments"] == 0 && again["AlreadyThere"] == objects, "{again}");
            move_to(&fixture, "file-system", &[resource])?;
            expect_counts(&fixture, before, 0)?;
            expect_readable(&fixture, &sent)?;
        }
        expect_no_errors(&fixture)?;
    }
    Ok(())
}

fn attachments_of_all_levels_are_moved<C: Cloud>() -> Result<()> {
    let section = json!({"HybridMode": "WriteToFileSystem"});
    let types = json!({"report": 1030});
    let fixture = Fixture::<C>::configured(&section, |builder| builder.section("UserContentType", types))?;
    let sent = upload(&fixture, 1, 2)?;
    let first = &sent[0].0;
    let patient = patient_of(&fixture, &first.study)?;
    let owners = [
        format!("/patients/{patient}"),
        format!("/studies/{}", first.study),
        format!("/series/{}", first.series),
        format!("/instances/{}", first.id),
    ];
    for owner in &owners {
        fixture.rest().put(&format!("{owner}/attachments/report"), owner.as_bytes())?.ok()?;
        fixture.rest().put(&format!("{owner}/attachments/1055"), b"")?.ok()?;
    }
    expect_counts(&fixture, 10, 0)?;
    let content = move_to(&fixture, "object-storage", &[&first.study])?;
    ensure!(content["MovedAttachments"] == 8, "the patient's attachments stay: {content}");
    move_to(&fixture, "object-storage", &[&patient])?;
    expect_counts(&fixture, 0, 10)?;
    expect_all_at(&fixture, &patient, "object-storage")?;
    for owner in &owners {
        let read = fixture.rest().get(&format!("{owner}/attachments/report/data"))?.ok()?;
        ensure!(read.body == owner.as_bytes());
    }
    expect_readable(&fixture, &sent)?;
    move_to(&fixture, "file-system", &[&patient])?;
    expect_counts(&fixture, 10, 0)?;
    for owner in &owners {
        fixture.rest().delete(&format!("{owner}/attachments/report"))?.ok()?;
        fixture.rest().delete(&format!("{owner}/attachments/1055"))?.ok()?;
    }
    expect_counts(&fixture, 2, 0)
}

fn malformed_requests_are_refused<C: Cloud>() -> Result<()> {
    let fixture = hybrid::<C>()?;
    let sent = upload(&fixture, 1, 1)?;
    let study = &sent[0].0.study;
    let unknown = "00000000-00000000-00000000-00000000-00000000";
    let valid = json!({"Resources": [study], "TargetStorage": "object-storage"});
    let changed = |changes: Value| with(valid.clone(), &changes);
    for (body, status, fragment) in [
        (changed(json!({"TargetStorage": "moon"})), 400, "TargetStorage"),
        (json!({"Resources": [study]}), 400, "TargetStorage"),
        (json!({"TargetStorage": "object-storage"}), 400, "Resources"),
        (changed(json!({"Resources": 7})), 400, "Resources"),
        (changed(json!({"Resources": [1]})), 400, "Resources"),
        (changed(json!({"Resources": [study, unknown]})), 404, unknown),
        (changed(json!({"Resources": ["../system"]})), 404, "../system"),
        (changed(json!({"Priority": "high"})), 400, "Priority"),
        (changed(json!({"Asynchronous": 1})), 400, "Asynchronous"),
        (json!([study]), 400, "object"),
    ] {
        let answer = fixture.rest().post_json("/move-storage", &body)?;
        let text = answer.text();
        ensure!(answer.status == status && text.contains(fragment), "{body}: {} {text}", answer.status);
    }
    ensure!(fixture.rest().post("/move-storage", b"{")?.status == 400);
    ensure!(fixture.rest().get("/move-storage")?.status == 405);
    ensure!(fixture.rest().delete("/move-storage")?.status == 405);
    ensure!(fixture.keys().is_empty());
    Ok(())
}

fn asynchronous_move_is_a_job<C: Cloud>() -> Result<()> {
    let fixture = hybrid::<C>()?;
    let sent = upload(&fixture, 1, 3)?;
    let study = sent[0].0.study.as_str();
    // One id need not be in a list.
    let body =
        json!({"Resources": study, "TargetStorage": "object-storage", "Asynchronous": true, "Priority": 3});
    let answer = fixture.rest().post_json("/move-storage", &body)?.ok()?.json()?;
    let id = answer["ID"].as_str().context("no ID")?;
    ensure!(answer["Path"] == format!("/jobs/{id}"), "{answer}");
    let job = fixture.rest().wait_job(id, JOB)?;
    ensure!(job["State"] == "Success" && job["Type"] == "MoveStorage" && job["Priority"] == 3, "{job}");
    ensure!(job["Progress"] == 100 && job["Content"]["Resources"] == json!({"Studies": [study]}), "{job}");
    ensure!(job["Content"]["MovedAttachments"] == 3 && job["Content"]["InstancesCount"] == 3, "{job}");
    Ok(())
}

/// Waits until a job has this state.
fn expect_state(rest: &Client, id: &str, state: &str) -> Result<()> {
    let job = || rest.get_json(&format!("/jobs/{id}"));
    ensure!(within(JOB, || job().is_ok_and(|job| job["State"] == state)), "not {state}: {:?}", job());
    Ok(())
}

fn job_can_be_paused_and_cancelled<C: Cloud>() -> Result<()> {
    let fixture = hybrid::<C>()?;
    let sent = upload(&fixture, 1, 120)?;
    fixture.bucket.latency(Duration::from_millis(100));
    let control = |id: &str, action: &str| fixture.rest().post(&format!("/jobs/{id}/{action}"), b"");
    let id = start_moving(&fixture, "object-storage", &[&sent[0].0.study])?;
    ensure!(within(JOB, || !fixture.keys().is_empty()));
    control(&id, "pause")?.ok()?;
    expect_state(fixture.rest(), &id, "Paused")?;
    let while_paused = fixture.keys().len();
    ensure!((1..120).contains(&while_paused), "{while_paused}");
    thread::sleep(Duration::from_millis(500));
    ensure!(fixture.keys().len() == while_paused, "the paused job moves attachments");
    expect_readable(&fixture, &sent)?;
    control(&id, "resume")?.ok()?;
    ensure!(within(JOB, || fixture.keys().len() > while_paused));
    control(&id, "cancel")?.ok()?;
    let job = fixture.rest().wait_job(&id, JOB)?;
    ensure!(job["State"] == "Failure" && job["ErrorCode"] == 37, "{job}");
    ensure!(fixture.keys().len() < 120);
    fixture.bucket.latency(Duration::ZERO);
    control(&id, "resubmit")?.ok()?;
    expect_state(fixture.rest(), &id, "Success")?;
    expect_counts(&fixture, 0, 120)?;
    expect_readable(&fixture, &sent)
}

fn job_can_be_paused_while_the_bucket_is_silent<C: Cloud>() -> Result<()> {
    let fixture = hybrid::<C>()?;
    let sent = upload(&fixture, 1, 20)?;
    let held = fixture.bucket.hold(request::CREATE);
    // For a moment after the stores, the job would give way to further ones.
    thread::sleep(Duration::from_millis(300));
    let id = start_moving(&fixture, "object-storage", &[&sent[0].0.study])?;
    ensure!(held.wait_until(8, JOB), "{} uploads", held.waiting());
    fixture.rest().post(&format!("/jobs/{id}/pause"), b"")?.ok()?;
    expect_state(fixture.rest(), &id, "Paused")?;
    ensure!(held.waiting() == 8, "{} uploads", held.waiting());
    held.release();
    // The uploads in progress end, and no others begin.
    ensure!(within(JOB, || expect_counts(&fixture, 12, 8).is_ok()), "{:?}", fixture.keys());
    thread::sleep(Duration::from_millis(500));
    expect_counts(&fixture, 12, 8)?;
    fixture.rest().post(&format!("/jobs/{id}/resume"), b"")?.ok()?;
    let ended = fixture.rest().wait_job(&id, JOB)?;
    let content = &ended["Content"];
    ensure!(content["MovedAttachments"] == 12 && content["AlreadyThere"] == 8, "{ended:#}");
    expect_counts(&fixture, 0, 20)?;
    expect_readable(&fixture, &sent)
}

fn job_continues_after_restart_and_reset<C: Cloud>() -> Result<()> {
    let mut fixture = hybrid::<C>()?;
    let sent = upload(&fixture, 1, 60)?;
    fixture.bucket.latency(Duration::from_millis(200));
    let id = start_moving(&fixture, "object-storage", &[&sent[0].0.study])?;
    let count = |content: &Value, field: &str| content[field].as_u64().unwrap_or_default();
    let moved = |content: &Value| count(content, "MovedAttachments");
    ensure!(within(JOB, || content_of(&fixture, &id).is_ok_and(|content| moved(&content) > 0)));
    let before = moved(&content_of(&fixture, &id)?);
    fixture.restart()?;
    ensure!(fixture.keys().len() < 60, "the move ended before the restart");
    ensure!(moved(&content_of(&fixture, &id)?) >= before, "counts are lost");
    fixture.rest().post("/tools/reset", b"")?.ok()?;
    fixture.bucket.latency(Duration::ZERO);
    // The reset closes connections some time after its answer, and does not answer on some that are opened
    // meanwhile, so every question uses a new one.
    let client = || Client::with_timeout(fixture.orthanc.url(), Duration::from_secs(3));
    let state = || client().get_json(&format!("/jobs/{id}")).ok();
    ensure!(within(JOB, || state().is_some_and(|job| job["State"] == "Success")), "{:?}", state());
    expect_counts(&fixture, 0, 60)?;
    expect_no_errors(&fixture)?;
    let content = state().context("no job")?["Content"].take();
    ensure!(moved(&content) > before, "{content}");
    ensure!(moved(&content) + count(&content, "AlreadyThere") == 60, "{content}");
    let readable = || expect_readable_by(&client(), &sent);
    if within(JOB, || readable().is_ok()) { Ok(()) } else { readable() }
}

fn opposite_moves_take_turns<C: Cloud>() -> Result<()> {
    let fixture = hybrid::<C>()?;
    let sent = upload(&fixture, 1, 4)?;
    let held = fixture.bucket.hold(request::CREATE);
    let first = start_moving(&fixture, "object-storage", &[&sent[0].0.study])?;
    ensure!(held.wait_until(1, JOB), "no upload");
    let second = start_moving(&fixture, "file-system", &[&sent[3].0.id])?;
    let waits = || content_of(&fixture, &second).is_ok_and(|content| content["WaitingFor"].is_string());
    ensure!(within(JOB, waits), "{:?}", content_of(&fixture, &second));
    held.release();
    for (job, moved) in [(&first, 4), (&second, 1)] {
        let ended = fixture.rest().wait_job(job, JOB)?;
        ensure!(ended["State"] == "Success" && ended["Content"]["MovedAttachments"] == moved, "{ended:#}");
        ensure!(ended["Content"]["WaitingFor"].is_null(), "{ended:#}");
    }
    expect_counts(&fixture, 1, 3)?;
    expect_readable(&fixture, &sent)
}

fn move_needs_the_memory_of_one_attachment<C: Cloud>() -> Result<()> {
    const MEGABYTES: u32 = 48;
    let section = json!({"HybridMode": "WriteToFileSystem"});
    let mut fixture = Fixture::<C>::configured(&section, |builder| {
        // Freed memory must return to the system, or the peak would include it.
        builder.environment("MALLOC_TRIM_THRESHOLD_", "0").environment("MALLOC_ARENA_MAX", "2")
    })?;
    let mut instances = Vec::new();
    for study in 0..4 {
        instances.push(fixture.rest().upload(&Study(study).multi_frame(MEGABYTES)?)?.id);
    }
    let resources: Vec<&str> = instances.iter().map(String::as_str).collect();
    for target in ["object-storage", "file-system"] {
        fixture.start_again_with(&section)?;
        let before = fixture.orthanc.memory_bytes()?;
        fixture.orthanc.reset_peak_memory()?;
        let content = move_to(&fixture, target, &resources)?;
        ensure!(content["MovedAttachments"] == resources.len(), "{content}");
        let megabytes = fixture.orthanc.peak_memory_bytes()?.saturating_sub(before) / 1_000_000;
        println!("{target}: {megabytes} MB for four attachments of {MEGABYTES} MB");
        ensure!(megabytes < u64::from(MEGABYTES) + 32 + 4, "{target}: {megabytes} MB");
    }
    Ok(())
}
