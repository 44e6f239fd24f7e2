//! `POST /move-storage`.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::within;
use crate::hybrid::support::{
    JOB, Keys, expect_readable, expect_readable_by, locations, move_to, start_moving, stored_files, upload,
};
use crate::orthanc::fixture::Fixture;

tests![
    patients_studies_series_and_instances_are_moved_there_and_back,
    attachments_of_all_levels_and_of_users_own_types_are_moved,
    a_request_with_a_mistake_moves_nothing_and_says_what_is_wrong,
    an_asynchronous_move_is_a_job_with_progress_content_and_priority,
    a_job_can_be_paused_resumed_cancelled_and_resubmitted,
    a_job_goes_on_after_a_restart_of_orthanc_and_after_a_reset,
    the_memory_of_moves_is_that_of_one_large_attachment,
];

fn hybrid<C: Cloud>() -> Result<Fixture<C>> {
    Fixture::<C>::with(&json!({"HybridMode": "WriteToFileSystem"}))
}

fn patients_studies_series_and_instances_are_moved_there_and_back<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    for (format, structure) in [("clear", "flat"), ("A1", "legacy"), ("A2", "flat")] {
        let encryption = if format == "clear" { json!({}) } else { keys.section(format) };
        let section = json!({
            "HybridMode": "WriteToFileSystem", "StorageStructure": structure, "StorageEncryption": encryption,
        });
        let fixture = Fixture::<C>::with(&section)?;
        let sent = upload(&fixture, 1, 4)?;
        let patient = fixture.rest().get_json(&format!("/studies/{}", sent[0].0.study))?;
        let patient = patient["ParentPatient"].as_str().context("no patient")?.to_owned();
        for resource in [&patient, &sent[0].0.study, &sent[0].0.series, &sent[0].0.id] {
            let before = stored_files(&fixture.orthanc).len();
            let content = move_to(&fixture, "object-storage", &[resource])?;
            ensure!(content["TargetStorage"] == "object-storage" && content["Error"].is_null(), "{content}");
            ensure!(locations(&fixture, resource)?.iter().all(|place| place == "object-storage"));
            ensure!(content["MovedAttachments"] == fixture.keys().len(), "{content}");
            ensure!(before - stored_files(&fixture.orthanc).len() == fixture.keys().len());
            expect_readable(&fixture, &sent)?;
            let again = move_to(&fixture, "object-storage", &[resource])?;
            ensure!(
                again["MovedAttachments"] == 0 && again["AlreadyThere"] == content["MovedAttachments"],
                "{again}"
            );
            move_to(&fixture, "file-system", &[resource])?;
            ensure!(fixture.keys().is_empty() && stored_files(&fixture.orthanc).len() == before);
            expect_readable(&fixture, &sent)?;
        }
        move_to(&fixture, "object-storage", &[&sent[0].0.study])?;
        ensure!(stored_files(&fixture.orthanc).is_empty(), "{:?}", stored_files(&fixture.orthanc));
        ensure!(fixture.log_lines('E').is_empty(), "{:?}", fixture.log_lines('E'));
    }
    Ok(())
}

fn attachments_of_all_levels_and_of_users_own_types_are_moved<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::configured(&json!({"HybridMode": "WriteToFileSystem"}), |builder| {
        builder.section("UserContentType", json!({"report": 1030}))
    })?;
    let sent = upload(&fixture, 1, 2)?;
    let (instance, study, series) = (&sent[0].0.id, &sent[0].0.study, &sent[0].0.series);
    let patient = fixture.rest().get_json(&format!("/studies/{study}"))?;
    let patient = patient["ParentPatient"].as_str().context("no patient")?.to_owned();
    let owners = [
        format!("/patients/{patient}"),
        format!("/studies/{study}"),
        format!("/series/{series}"),
        format!("/instances/{instance}"),
    ];
    for owner in &owners {
        fixture.rest().put(&format!("{owner}/attachments/report"), owner.as_bytes())?.ok()?;
        fixture.rest().put(&format!("{owner}/attachments/1055"), b"")?.ok()?;
    }
    ensure!(stored_files(&fixture.orthanc).len() == 10);
    let content = move_to(&fixture, "object-storage", &[study])?;
    ensure!(content["MovedAttachments"] == 8, "the patient's own stay: {content}");
    move_to(&fixture, "object-storage", &[&patient])?;
    ensure!(stored_files(&fixture.orthanc).is_empty() && fixture.keys().len() == 10);
    for owner in &owners {
        let read = fixture.rest().get(&format!("{owner}/attachments/report/data"))?.ok()?;
        ensure!(read.body == owner.as_bytes());
    }
    let found = locations(&fixture, &patient)?;
    ensure!(found.len() == 10 && found.iter().all(|place| place == "object-storage"), "{found:?}");
    move_to(&fixture, "file-system", &[&patient])?;
    ensure!(stored_files(&fixture.orthanc).len() == 10 && fixture.keys().is_empty());
    for owner in &owners {
        fixture.rest().delete(&format!("{owner}/attachments/report"))?.ok()?;
        fixture.rest().delete(&format!("{owner}/attachments/1055"))?.ok()?;
    }
    ensure!(stored_files(&fixture.orthanc).len() == 2);
    Ok(())
}

fn a_request_with_a_mistake_moves_nothing_and_says_what_is_wrong<C: Cloud>() -> Result<()> {
    let fixture = hybrid::<C>()?;
    let sent = upload(&fixture, 1, 1)?;
    let study = &sent[0].0.study;
    let unknown = "00000000-00000000-00000000-00000000-00000000";
    let cases = [
        (json!({"Resources": [study], "TargetStorage": "moon"}), 400, "TargetStorage"),
        (json!({"Resources": [study]}), 400, "TargetStorage"),
        (json!({"TargetStorage": "object-storage"}), 400, "Resources"),
        (json!({"Resources": study, "TargetStorage": "object-storage"}), 400, "Resources"),
        (json!({"Resources": [1], "TargetStorage": "object-storage"}), 400, "Resources"),
        (json!({"Resources": [study, unknown], "TargetStorage": "object-storage"}), 404, unknown),
        (json!({"Resources": ["../system"], "TargetStorage": "object-storage"}), 404, "../system"),
        (
            json!({"Resources": [study], "TargetStorage": "object-storage", "Priority": "high"}),
            400,
            "Priority",
        ),
        (
            json!({"Resources": [study], "TargetStorage": "object-storage", "Asynchronous": 1}),
            400,
            "Asynchronous",
        ),
        (json!([study]), 400, "object"),
    ];
    for (body, status, text) in cases {
        let answer = fixture.rest().post_json("/move-storage", &body)?;
        ensure!(
            answer.status == status && answer.text().contains(text),
            "{body}: {} {}",
            answer.status,
            answer.text()
        );
    }
    ensure!(fixture.rest().post("/move-storage", b"{")?.status == 400);
    ensure!(fixture.rest().get("/move-storage")?.status == 405);
    ensure!(fixture.rest().delete("/move-storage")?.status == 405);
    ensure!(fixture.keys().is_empty());
    Ok(())
}

fn an_asynchronous_move_is_a_job_with_progress_content_and_priority<C: Cloud>() -> Result<()> {
    let fixture = hybrid::<C>()?;
    let sent = upload(&fixture, 1, 3)?;
    let study = sent[0].0.study.as_str();
    let body =
        json!({"Resources": [study], "TargetStorage": "object-storage", "Asynchronous": true, "Priority": 3});
    let answer = fixture.rest().post_json("/move-storage", &body)?.ok()?.json()?;
    let id = answer["ID"].as_str().context("no ID")?;
    ensure!(answer["Path"] == format!("/jobs/{id}"), "{answer}");
    let job = fixture.rest().wait_job(id, JOB)?;
    ensure!(job["State"] == "Success" && job["Type"] == "MoveStorage" && job["Priority"] == 3, "{job}");
    ensure!(job["Progress"] == 100 && job["Content"]["Resources"] == json!({"Studies": [study]}), "{job}");
    ensure!(job["Content"]["MovedAttachments"] == 3 && job["Content"]["InstancesCount"] == 3, "{job}");
    Ok(())
}

/// The state of a job.
fn state<C: Cloud>(fixture: &Fixture<C>, id: &str) -> Result<Value> {
    Ok(fixture.rest().get_json(&format!("/jobs/{id}"))?["State"].clone())
}

fn a_job_can_be_paused_resumed_cancelled_and_resubmitted<C: Cloud>() -> Result<()> {
    let fixture = hybrid::<C>()?;
    let sent = upload(&fixture, 1, 60)?;
    fixture.bucket.latency(std::time::Duration::from_millis(60));
    let control = |id: &str, what: &str| fixture.rest().post(&format!("/jobs/{id}/{what}"), b"");
    let id = start_moving(&fixture, "object-storage", &[&sent[0].0.study])?;
    within(JOB, || !fixture.keys().is_empty());
    control(&id, "pause")?.ok()?;
    ensure!(within(JOB, || state(&fixture, &id).is_ok_and(|state| state == "Paused")));
    let while_paused = fixture.keys().len();
    ensure!((1..60).contains(&while_paused), "{while_paused}");
    std::thread::sleep(std::time::Duration::from_millis(500));
    ensure!(fixture.keys().len() == while_paused, "it moves on while it is paused");
    expect_readable(&fixture, &sent)?;
    control(&id, "resume")?.ok()?;
    ensure!(within(JOB, || fixture.keys().len() > while_paused));
    control(&id, "cancel")?.ok()?;
    let job = fixture.rest().wait_job(&id, JOB)?;
    ensure!(job["State"] == "Failure" && job["ErrorCode"] == 37, "{job}");
    ensure!(fixture.keys().len() < 60);
    fixture.bucket.latency(std::time::Duration::ZERO);
    control(&id, "resubmit")?.ok()?;
    ensure!(within(JOB, || state(&fixture, &id).is_ok_and(|state| state == "Success")));
    ensure!(fixture.keys().len() == 60 && stored_files(&fixture.orthanc).is_empty());
    expect_readable(&fixture, &sent)
}

fn a_job_goes_on_after_a_restart_of_orthanc_and_after_a_reset<C: Cloud>() -> Result<()> {
    let mut fixture = hybrid::<C>()?;
    let sent = upload(&fixture, 1, 60)?;
    fixture.bucket.latency(std::time::Duration::from_millis(80));
    let id = start_moving(&fixture, "object-storage", &[&sent[0].0.study])?;
    within(JOB, || !fixture.keys().is_empty());
    fixture.orthanc.restart().map_err(|error| anyhow::anyhow!(error))?;
    ensure!(fixture.keys().len() < 60, "it was done before the restart");
    ensure!(fixture.rest().get_json(&format!("/jobs/{id}"))?["Content"]["MovedAttachments"].is_u64());
    fixture.rest().post("/tools/reset", b"")?.ok()?;
    fixture.bucket.latency(std::time::Duration::ZERO);
    // The connections of the former client lead nowhere.
    let rest = real_orthanc::Client::new(fixture.orthanc.url());
    let done = || rest.get_json(&format!("/jobs/{id}")).is_ok_and(|job| job["State"] == "Success");
    ensure!(within(JOB, done), "{:?}", rest.get_json(&format!("/jobs/{id}")));
    ensure!(fixture.keys().len() == 60 && stored_files(&fixture.orthanc).is_empty());
    ensure!(fixture.log_lines('E').is_empty(), "{:?}", fixture.log_lines('E'));
    expect_readable_by(&rest, &sent)
}

fn the_memory_of_moves_is_that_of_one_large_attachment<C: Cloud>() -> Result<()> {
    const MEGABYTES: u32 = 48;
    let section = json!({"HybridMode": "WriteToFileSystem"});
    let mut fixture = Fixture::<C>::configured(&section, |builder| {
        // Memory that is freed goes back to the system.
        builder.environment("MALLOC_TRIM_THRESHOLD_", "0").environment("MALLOC_ARENA_MAX", "2")
    })?;
    let mut instances = Vec::new();
    for study in 0..4 {
        instances.push(fixture.rest().upload(&real_orthanc::dicom::Study(study).multi_frame(MEGABYTES)?)?.id);
    }
    let instances: Vec<&str> = instances.iter().map(String::as_str).collect();
    for target in ["object-storage", "file-system"] {
        // Without what is left of the uploads.
        fixture.start_again_with(&section)?;
        let before = fixture.orthanc.memory_bytes()?;
        fixture.orthanc.reset_peak_memory()?;
        move_to(&fixture, target, &instances)?;
        let megabytes = fixture.orthanc.peak_memory_bytes()?.saturating_sub(before) / 1_000_000;
        println!("{target}: {megabytes} MB for four attachments of {MEGABYTES} MB");
        ensure!(megabytes < u64::from(MEGABYTES) + 32 + 4, "{target}: {megabytes} MB");
    }
    Ok(())
}
