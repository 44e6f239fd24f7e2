//! `POST /object-storage/verify` and `orphans`: a damaged archive, and what each depth and a search find.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use chrono::{Local, TimeDelta};
use fake_cloud::{Fault, FaultRule, Odd};
use real_orthanc::rest::Uploaded;
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::documented::expect_status;
use crate::fixture::{Keys, request, uuid, within};
use crate::hybrid::support::{encryption, expect_readable, move_to, path_of, upload, uuid_of};
use crate::operating::support::{Finding, JOB, depth, expect_findings, findings, run, start};
use crate::orthanc::fixture::Fixture;
use crate::write_back::support::{StateFolder, without_uploads, write_back};

tests! {
    OneCloud:
        each_depth_finds_what_it_can,
        sound_archive_has_no_findings,
        pending_and_cached_files_are_verified,
        copies_on_both_sides_are_verified,
        requests_are_checked;
    Newest:
        other_etags_hide_no_damage,
        verification_follows_its_schedule,
        job_that_is_cancelled_while_it_waits_is_reported,
}

const DEPTHS: [&str; 4] = ["exists", "size", "checksum", "content"];

/// Attachments of three studies of seven instances. With A1, Orthanc stores headers as attachments of their own.
const ATTACHMENTS: usize = 28;

/// Instances, each with its file.
type Sent = Vec<(Uploaded, Vec<u8>)>;

/// The key and UUID of the object of each instance.
fn objects_of<C: Cloud>(fixture: &Fixture<C>, sent: &Sent) -> Result<Vec<(String, String)>> {
    let keys: Vec<String> = fixture.objects().into_keys().collect();
    sent.iter()
        .map(|(uploaded, _)| {
            let uuid = uuid_of(fixture, &uploaded.id)?;
            let key = keys.iter().find(|key| key.contains(&uuid)).context("no object")?;
            Ok((key.clone(), uuid))
        })
        .collect()
}

/// Replaces an object by another version of it.
fn change<C: Cloud>(fixture: &Fixture<C>, key: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
    let mut bytes = fixture.bucket.object(C::BUCKET, key).context("no object")?.bytes.to_vec();
    change(&mut bytes);
    fixture.bucket.insert(C::BUCKET, key, bytes);
    Ok(())
}

/// Damages objects of a study of seven instances, each in another way. Returns the UUIDs of those that are deleted, too
/// short, altered, in each other's place, and `added`, a copy of a sound object that belongs to no attachment.
fn damage<C: Cloud>(fixture: &Fixture<C>, sent: &Sent, added: String) -> Result<[Vec<String>; 5]> {
    let objects = objects_of(fixture, sent)?;
    let key = |number: usize| objects[number].0.as_str();
    let uuid = |number: usize| objects[number].1.clone();
    fixture.bucket.remove(C::BUCKET, key(0));
    change(fixture, key(1), |bytes| bytes.truncate(bytes.len() - 1))?;
    change(fixture, key(2), |bytes| bytes.truncate(20))?;
    change(fixture, key(3), |bytes| bytes[4000] ^= 4)?;
    let [one, other] =
        [4, 5].map(|number| fixture.bucket.object(C::BUCKET, key(number)).map(|object| object.bytes));
    let (one, other) = (one.context("no object")?, other.context("no object")?);
    ensure!(one.len() == other.len(), "the sizes show that these objects were swapped");
    fixture.bucket.insert(C::BUCKET, key(4), other);
    fixture.bucket.insert(C::BUCKET, key(5), one);
    let sound = fixture.bucket.object(C::BUCKET, key(6)).context("no object")?.bytes;
    fixture.bucket.insert(C::BUCKET, &key(6).replace(&uuid(6), &added), sound);
    Ok([vec![uuid(0)], vec![uuid(1), uuid(2)], vec![uuid(3)], vec![uuid(4), uuid(5)], vec![added]])
}

/// An archive with seven instances in clear, and in both formats of envelopes.
fn mixed_archive<C: Cloud>(keys: &Keys) -> Result<(Fixture<C>, [Sent; 3])> {
    let mut fixture = Fixture::<C>::start()?;
    let clear = upload(&fixture, 1, 7)?;
    fixture.start_again_with(&json!({"StorageEncryption": encryption(keys, "A1")}))?;
    let a1 = upload(&fixture, 2, 7)?;
    fixture.start_again_with(&json!({"StorageEncryption": encryption(keys, "A2")}))?;
    let a2 = upload(&fixture, 3, 7)?;
    Ok((fixture, [clear, a1, a2]))
}

fn each_depth_finds_what_it_can<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let (fixture, studies) = mixed_archive::<C>(&keys)?;
    let mut expected: [BTreeSet<Finding>; 4] = Default::default();
    let mut orphans = BTreeSet::<Finding>::new();
    let mut before = fixture.keys();
    for (number, (study, format)) in (1..).zip(studies.iter().zip(["clear", "A1", "A2"])) {
        let [deleted, short, altered, swapped, added] = damage(&fixture, study, uuid(number))?;
        before.retain(|key| !key.contains(&deleted[0]));
        orphans.extend(added.into_iter().map(|uuid| (uuid, "orphan-object".to_owned())));
        let mut add = |depths: std::ops::Range<usize>, uuids: &[String], problem: &str| {
            for found in &mut expected[depths] {
                found.extend(uuids.iter().map(|uuid| (uuid.clone(), problem.to_owned())));
            }
        };
        add(0..4, &deleted, "missing");
        // What is left of the shortest envelope is none.
        add(1..4, &short, "wrong-size");
        let depths = if format == "clear" { 2..4 } else { 3..4 };
        add(depths.clone(), &altered, if format == "clear" { "wrong-checksum" } else { "damaged" });
        // Only A2 ties an envelope to its attachment.
        add(depths, &swapped, if format == "A2" { "damaged" } else { "wrong-checksum" });
    }
    // What belongs to no attachment does not matter.
    fixture.bucket.insert(C::BUCKET, "another/object", "content");
    before.push("another/object".to_owned());
    before.sort();
    for (name, expected) in DEPTHS.into_iter().zip(&expected) {
        let report = run(&fixture, "verify", &depth(name))?;
        expect_findings(&report, expected).with_context(|| format!("depth {name}: {report:#}"))?;
        let summary = &report["Summary"];
        let broken = expected.iter().map(|(uuid, _)| uuid).collect::<BTreeSet<_>>().len();
        ensure!(summary["VerifiedAttachments"] == ATTACHMENTS - broken, "{summary:#}");
        ensure!(summary["Failures"] == broken && summary["Depth"] == name, "{summary:#}");
        let status = fixture.rest().get_json("/object-storage/status")?;
        let problem = &status["Problems"][0];
        ensure!(problem["Id"] == "VerificationFailures" && status["State"] == "error", "{status:#}");
        ensure!(status["Verification"]["Last"]["Failures"] == broken, "{status:#}");
    }
    let report = run(&fixture, "orphans", &json!({"MinAgeHours": 0}))?;
    expect_findings(&report, &orphans).with_context(|| format!("{report:#}"))?;
    ensure!(report["Summary"]["ForeignObjects"] == 1, "{report:#}");
    let report = run(&fixture, "orphans", &json!({"MinAgeHours": 0, "Delete": true}))?;
    ensure!(report["Summary"]["DeletedObjects"] == orphans.len(), "{report:#}");
    assert_eq!(fixture.keys(), before);
    Ok(())
}

fn other_etags_hide_no_damage<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::start()?;
    let sent = upload(&fixture, 1, 4)?;
    let objects = objects_of(&fixture, &sent)?;
    change(&fixture, &objects[0].0, |bytes| bytes[4000] ^= 4)?;
    let opaque = FaultRule::new(Fault::Odd(Odd::OpaqueEtag)).on(request::HEAD).key(&objects[1].0);
    let opaque = fixture.bucket.faults().push(opaque.times(usize::MAX));
    let damaged = [(objects[0].1.clone(), "wrong-checksum".to_owned())].into();
    // What the first run has found out about ETags must not matter in the second.
    for run_number in 1..=2 {
        let report = run(&fixture, "verify", &depth("checksum"))?;
        expect_findings(&report, &damaged).with_context(|| format!("run {run_number}"))?;
        let summary = &report["Summary"];
        ensure!(summary["VerifiedAttachments"] == 3 && summary["NotComparable"] == 0, "{summary:#}");
        ensure!(opaque.fired() == run_number, "{} requests", opaque.fired());
    }
    Ok(())
}

fn sound_archive_has_no_findings<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let (fixture, _) = mixed_archive::<C>(&keys)?;
    for name in DEPTHS {
        fixture.bucket.reset_counts();
        let report = run(&fixture, "verify", &depth(name))?;
        ensure!(findings(&report)?.is_empty(), "depth {name}: {report:#}");
        let summary = &report["Summary"];
        ensure!(
            summary["VerifiedAttachments"] == ATTACHMENTS && summary["State"] == "Success",
            "{summary:#}"
        );
        // Envelopes cannot be compared without their content.
        let not_comparable = if name == "checksum" { 21 } else { 0 };
        ensure!(summary["NotComparable"] == not_comparable, "depth {name}: {summary:#}");
        let forms: Vec<(&str, &str, u64)> = summary["Forms"]
            .as_array()
            .context("no forms")?
            .iter()
            .map(|form| {
                let text = |field: &str| form[field].as_str().unwrap_or_default();
                (text("Format"), text("Key"), form["Copies"].as_u64().unwrap_or_default())
            })
            .collect();
        ensure!(forms == [("A1", "3", 14), ("A2", "3", 7), ("clear", "", 7)], "{summary:#}");
        // Clear objects have the second name. Checksums take a request more, without the two names.
        let looks = 28 + 7;
        let expected = match name {
            "checksum" => looks + 7 * 2,
            "content" => 2 * looks,
            _ => looks,
        };
        let requests = fixture.bucket.requests().total;
        ensure!(requests == expected, "depth {name}: {requests} requests");
    }
    // An answer that was damaged on the way is no finding: it is asked for again.
    let names = fixture.keys();
    let envelope = names.iter().find(|name| name.ends_with(".dcm.enc")).context("no envelope")?;
    let on_the_way = FaultRule::new(Fault::CorruptResponseByte(4000)).on(request::READ).key(envelope);
    let on_the_way = fixture.bucket.faults().push(on_the_way);
    fixture.bucket.reset_counts();
    let report = run(&fixture, "verify", &depth("content"))?;
    ensure!(on_the_way.fired() == 1 && findings(&report)?.is_empty(), "{report:#}");
    ensure!(fixture.bucket.requests().total == 2 * (28 + 7) + 1, "{:?}", fixture.bucket.requests());
    let mut status = fixture.rest().get_json("/object-storage/status")?;
    expect_status(&status, &["/Census/Forms", "/Verification/Last"])?;
    let verified = status["Verification"]["Last"].take();
    let census = status["Census"].take();
    ensure!(
        census["Forms"].as_array().map(Vec::len) == Some(3) && census["Started"].is_string(),
        "{census:#}"
    );
    let list = fixture.rest().get_json("/object-storage/reports")?;
    let depths: Vec<&Value> =
        list.as_array().context("no list")?.iter().map(|report| &report["Depth"]).collect();
    ensure!(depths == ["content", "content", "checksum", "size", "exists"], "{list:#}");
    for field in ["JobId", "Started", "Ended", "Depth", "VerifiedAttachments", "Failures"] {
        ensure!(verified[field] == list[0][field] && !verified[field].is_null(), "{field}: {verified:#}");
    }
    ensure!(status["Problems"] == json!([]) && status["State"] == "ok", "{status:#}");
    let metrics = fixture.rest().get("/tools/metrics-prometheus")?.ok()?.text();
    ensure!(metrics.contains("object_storage_verification_failures 0"), "{metrics}");
    Ok(())
}

fn pending_and_cached_files_are_verified<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&without_uploads())?;
    let sent = upload(&fixture, 1, 3)?;
    let state = StateFolder::of(&fixture.orthanc.storage_folder());
    ensure!(findings(&run(&fixture, "verify", &depth("content"))?)?.is_empty());
    let flip = |path: &std::path::Path| -> Result<()> {
        let mut bytes = fs::read(path)?;
        bytes[500] ^= 1;
        Ok(fs::write(path, bytes)?)
    };
    let uuid = uuid_of(&fixture, &sent[0].0.id)?;
    let file = state.pending().into_iter().find(|name| name.contains(&uuid)).context("no file")?;
    flip(&state.pending_path(&file))?;
    let damaged = BTreeSet::from([(uuid.clone(), "wrong-checksum".to_owned())]);
    // The server has no checksum of a file.
    for name in ["checksum", "content"] {
        expect_findings(&run(&fixture, "verify", &depth(name))?, &damaged)?;
    }
    // It goes to the quarantine when it is to be uploaded.
    fixture.rest().post("/object-storage/flush", b"")?;
    ensure!(state.quarantined().len() == 1);
    let report = run(&fixture, "verify", &depth("exists"))?;
    expect_findings(&report, &BTreeSet::from([(uuid.clone(), "missing".to_owned())]))?;
    ensure!(report["Findings"][0]["Error"].as_str().is_some_and(|error| error.contains("quarantine")));
    fixture.rest().delete(&format!("/instances/{}", sent[0].0.id))?.ok()?;

    // A damaged copy in the cache is discarded, and the bucket's is served.
    fixture.start_again_with(&write_back(&json!({})))?;
    let cached = state.cached();
    ensure!(cached.len() == 2, "{cached:?}");
    flip(&state.cached_path(&cached[0]))?;
    let report = run(&fixture, "verify", &depth("content"))?;
    ensure!(findings(&report)?.len() == 1, "{report:#}");
    let path = state.cached_path(&cached[0]);
    ensure!(report["Findings"][0]["Object"] == json!(path), "{report:#}");
    ensure!(!path.exists());
    expect_readable(&fixture, &sent[1..])?;
    // What is only in the cache is lost.
    let uuid = uuid_of(&fixture, &sent[1].0.id)?;
    fixture.bucket.remove(C::BUCKET, &format!("{uuid}.dcm"));
    let report = run(&fixture, "verify", &depth("exists"))?;
    expect_findings(&report, &BTreeSet::from([(uuid, "missing".to_owned())]))
}

fn copies_on_both_sides_are_verified<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteToFileSystem"}))?;
    let sent = upload(&fixture, 1, 4)?;
    move_to(&fixture, "object-storage", &[&sent[0].0.id, &sent[1].0.id])?;
    ensure!(findings(&run(&fixture, "verify", &depth("content"))?)?.is_empty());
    let uuids = sent.iter().map(|(sent, _)| uuid_of(&fixture, &sent.id)).collect::<Result<Vec<_>>>()?;
    change(&fixture, &format!("{}.dcm", uuids[0]), |bytes| bytes[600] ^= 1)?;
    let path = path_of(&fixture.orthanc, &uuids[2]);
    let mut bytes = fs::read(&path)?;
    bytes.truncate(100);
    fs::write(path, bytes)?;
    fs::remove_file(path_of(&fixture.orthanc, &uuids[3]))?;
    let expected = [(0, "wrong-checksum"), (2, "wrong-size"), (3, "missing")];
    let expected =
        expected.map(|(number, problem): (usize, &str)| (uuids[number].clone(), problem.to_owned()));
    expect_findings(&run(&fixture, "verify", &depth("content"))?, &expected.into())
}

fn requests_are_checked<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::start()?;
    let sent = upload(&fixture, 1, 2)?;
    let rest = fixture.rest();
    let verify = |body: &Value| rest.post_json("/object-storage/verify", body);
    for (body, status, fragment) in [
        (json!({"Depth": "deep"}), 400, "Depth must be"),
        (json!({"Depth": 3}), 400, "Depth must be"),
        (json!({"Resources": ["unknown"]}), 404, "unknown"),
        (json!([]), 400, "JSON object"),
    ] {
        let answer = verify(&body)?;
        ensure!(answer.status == status && answer.text().contains(fragment), "{body}: {}", answer.text());
    }
    ensure!(rest.get("/object-storage/verify")?.status == 405);
    // A request for resources waits for the job, as a move does.
    let content = verify(&json!({"Resources": sent[0].0.id}))?.ok()?.json()?;
    ensure!(content["VerifiedAttachments"] == 1 && content["Depth"] == "size", "{content:#}");
    let content = verify(&json!({"Synchronous": true}))?.ok()?.json()?;
    ensure!(content["VerifiedAttachments"] == 2, "{content:#}");
    let id = start(&fixture, "verify", &json!({"Resources": sent[0].0.study, "Asynchronous": true}))?;
    ensure!(rest.wait_job(&id, JOB)?["Type"] == "VerifyStorage");
    ensure!(rest.get(&format!("/object-storage/reports/{id}?limit=0"))?.status == 400);
    ensure!(rest.get("/object-storage/reports/unknown")?.status == 404);
    ensure!(rest.post("/object-storage/reports", b"")?.status == 405);
    Ok(())
}

/// A part of the day that begins and ends this many hours from now.
fn window(from: i64, to: i64) -> String {
    let time = |hours| (Local::now() + TimeDelta::hours(hours)).format("%H:%M").to_string();
    format!("{}-{}", time(from), time(to))
}

fn verification_follows_its_schedule<C: Cloud>() -> Result<()> {
    let scheduled =
        |window: &str| json!({"Verification": {"Schedule": window, "EveryDays": 1, "Depth": "exists"}});
    let mut fixture = Fixture::<C>::start()?;
    upload(&fixture, 1, 3)?;
    let held = fixture.bucket.hold(request::READ_RANGE);
    fixture.start_again_with(&scheduled(&window(-2, 2)))?;
    ensure!(held.wait_until(1, JOB), "no verification");
    let reports = fixture.rest().get_json("/object-storage/reports")?;
    let id = reports[0]["JobId"].as_str().context("no report")?.to_owned();
    ensure!(reports[0]["Scheduled"] == true && reports[0]["State"] == "Running", "{reports:#}");
    // Orthanc has saved the job when it has stopped.
    fixture.orthanc.stop()?;
    held.release();
    let held = fixture.bucket.hold(request::READ_RANGE);
    fixture.configure(&scheduled(&window(2, 4)));
    fixture.orthanc.start_again()?;
    let is = |fixture: &Fixture<C>, state: &str| {
        fixture.rest().get_json(&format!("/jobs/{id}")).is_ok_and(|job| job["State"] == state)
    };
    ensure!(within(JOB, || is(&fixture, "Paused")), "not paused when its time is over");
    held.release();
    fixture.start_again_with(&scheduled(&window(-2, 2)))?;
    ensure!(within(JOB, || is(&fixture, "Success")), "not resumed");
    let reports = fixture.rest().get_json("/object-storage/reports")?;
    ensure!(reports.as_array().map(Vec::len) == Some(1), "{reports:#}");
    ensure!(reports[0]["VerifiedAttachments"] == 3 && reports[0]["State"] == "Success", "{reports:#}");
    let status = fixture.rest().get_json("/object-storage/status")?;
    expect_status(&status, &["/Verification/Schedule", "/Verification/NextDue"])?;
    ensure!(status["Verification"]["Last"]["Scheduled"] == true, "{:#}", status["Verification"]);
    Ok(())
}

fn job_that_is_cancelled_while_it_waits_is_reported<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::configured(&json!({}), |orthanc| orthanc.section("ConcurrentJobs", 1))?;
    upload(&fixture, 1, 3)?;
    let held = fixture.bucket.hold(request::READ_RANGE);
    let running = start(&fixture, "verify", &depth("exists"))?;
    ensure!(held.wait_until(1, JOB), "no verification");
    let pending = start(&fixture, "verify", &depth("exists"))?;
    let report = |fixture: &Fixture<C>, id: &str| -> Result<Value> {
        Ok(fixture.rest().get_json(&format!("/object-storage/reports/{id}"))?["Summary"].take())
    };
    ensure!(report(&fixture, &pending)?["State"] == "Pending");
    fixture.rest().post(&format!("/jobs/{running}/pause"), b"{}")?.ok()?;
    let is_paused = || report(&fixture, &running).is_ok_and(|summary| summary["State"] == "Paused");
    ensure!(within(JOB, is_paused), "not paused");
    // Orthanc runs the other one now, which is held as well.
    fixture.rest().post(&format!("/jobs/{running}/cancel"), b"{}")?.ok()?;
    let summary = report(&fixture, &running)?;
    ensure!(summary["State"] == "Canceled" && summary["Ended"].is_string(), "{summary:#}");
    held.release();
    ensure!(fixture.rest().wait_job(&pending, JOB)?["State"] == "Success");
    // A restarted Orthanc does not know any more why the job failed.
    fixture.restart()?;
    ensure!(report(&fixture, &running)?["State"] == "Canceled");
    Ok(())
}
