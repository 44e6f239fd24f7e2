//! Re-encryption, with real Orthancs.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crypto_envelope::{Format, identify};
use fake_cloud::{Fault, FaultRule};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{Keys, Random, request, with, within};
use crate::hybrid::support::{
    JOB, delete_during_upload, expect_no_errors, expect_readable, files_of_attachments, upload,
};
use crate::orthanc::fixture::Fixture;
use crate::write_back::support::write_back;

tests! {
    OneCloud:
        each_form_becomes_the_present_one,
        archive_is_decrypted_when_encryption_is_switched_off,
        deletion_during_a_reencryption_is_final,
        unreadable_objects_are_reported_and_stay;
    Newest:
        saved_job_does_not_follow_a_changed_configuration;
    EveryCloud:
        senseless_reencryption_is_refused;
    Long:
        files_are_decrypted_when_encryption_is_switched_off,
        often_interrupted_rotations_are_completed,
}

/// Returns the options for format `A2` with this master key, another one as previous key, and more options.
fn key(keys: &Keys, id: u32, others: &Value) -> Value {
    let previous = if id == 3 { 7 } else { 3 };
    let encryption =
        json!({"Format": "A2", "MasterKey": keys.entry(id), "PreviousMasterKeys": [keys.entry(previous)]});
    json!({"StorageEncryption": with(encryption, others)})
}

/// Starts the job for everything. Returns its id.
fn start<C: Cloud>(fixture: &Fixture<C>) -> Result<String> {
    let answer = fixture.rest().post_json("/object-storage/reencrypt", &json!({}))?.ok()?.json()?;
    Ok(answer["ID"].as_str().context("no ID")?.to_owned())
}

/// Runs the job for everything, which must succeed. Returns its content.
fn reencrypt<C: Cloud>(fixture: &Fixture<C>) -> Result<Value> {
    let mut job = fixture.rest().wait_job(&start(fixture)?, JOB)?;
    ensure!(job["State"] == "Success", "{job:#}");
    Ok(job["Content"].take())
}

/// Returns the number of objects and files in each format and under each key; `None` for those in clear.
fn census<C: Cloud>(fixture: &Fixture<C>) -> BTreeMap<Option<(String, u32)>, usize> {
    let root = fixture.orthanc.storage_folder();
    let files = files_of_attachments(&root).into_iter().filter_map(|name| fs::read(root.join(name)).ok());
    let objects = fixture.objects().into_values().map(|object| object.bytes.to_vec());
    let mut census = BTreeMap::new();
    for content in objects.chain(files) {
        let header = identify(&content).map(|header| (header.format.to_string(), header.key_id));
        *census.entry(header).or_default() += 1;
    }
    census
}

/// Fails unless everything is in format `A2` under this key.
fn expect_all_under<C: Cloud>(fixture: &Fixture<C>, id: u32, count: usize) -> Result<()> {
    fixture.settle();
    let census = census(fixture);
    ensure!(census == BTreeMap::from([(Some(("A2".to_owned(), id)), count)]), "{count}: {census:?}");
    Ok(())
}

fn each_form_becomes_the_present_one<C: Cloud>() -> Result<()> {
    for structure in ["flat", "legacy"] {
        let keys = Keys::new()?;
        let structured = |options: &Value| with(json!({"StorageStructure": structure}), options);
        let mut fixture = Fixture::<C>::with(&structured(&json!({})))?;
        let mut sent = upload(&fixture, 1, 3)?;
        for (study, format) in [(2, "A1"), (3, "A2")] {
            let encryption = keys.section(&json!({"Format": format, "ReadUnencrypted": true}));
            fixture.start_again_with(&structured(&json!({"StorageEncryption": encryption})))?;
            sent.extend(upload(&fixture, study, 3)?);
        }
        let before = census(&fixture);
        ensure!(before.len() == 3, "{before:?}");
        let count: usize = before.values().sum();
        fixture.start_again_with(&structured(&key(&keys, 7, &json!({"ReadUnencrypted": true}))))?;
        sent.extend(upload(&fixture, 4, 1)?);
        let content = reencrypt(&fixture)?;
        ensure!(
            (&content["Rewritten"], &content["AlreadyCurrent"]) == (&json!(count), &json!(1)),
            "{content:#}"
        );
        expect_all_under(&fixture, 7, count + 1)?;
        let content = reencrypt(&fixture)?;
        ensure!(content["AlreadyCurrent"] == count + 1 && content["Rewritten"] == 0, "{content:#}");
        let status = fixture.rest().get_json("/object-storage/status")?;
        ensure!(status["Census"]["Forms"] == content["Forms"], "{status:#}");
        let forms = content["Forms"].as_array().context("no Forms")?;
        ensure!(forms.len() == 1 && forms[0]["Copies"] == count + 1, "{content:#}");
        ensure!(forms[0]["Format"] == "A2" && forms[0]["Key"] == "7", "{content:#}");
        expect_no_errors(&fixture)?;
        // Nothing needs the old key, format A1, or content in clear any more.
        let last = json!({"MasterKey": keys.entry(7), "Format": "A2", "ReadFormats": ["A2"]});
        fixture.start_again_with(&structured(&json!({"StorageEncryption": last})))?;
        expect_readable(&fixture, &sent)?;
        expect_no_errors(&fixture)?;
    }
    Ok(())
}

fn archive_is_decrypted_when_encryption_is_switched_off<C: Cloud>() -> Result<()> {
    switch_encryption_off::<C>(&[("flat", "Disabled")])
}

fn files_are_decrypted_when_encryption_is_switched_off<C: Cloud>() -> Result<()> {
    switch_encryption_off::<C>(&[("flat", "WriteToFileSystem"), ("legacy", "WriteToObjectStorage")])
}

/// Decrypts everything with each structure and mode.
fn switch_encryption_off<C: Cloud>(setups: &[(&str, &str)]) -> Result<()> {
    for (structure, mode) in setups {
        let keys = Keys::new()?;
        let options = |encryption: Value| json!({"StorageStructure": structure, "HybridMode": mode, "StorageEncryption": encryption});
        let mut fixture = Fixture::<C>::with(&options(keys.section(&json!({"Format": "A1"}))))?;
        let mut sent = upload(&fixture, 1, 2)?;
        fixture.start_again_with(&options(keys.section(&json!({"Format": "A2"}))))?;
        sent.extend(upload(&fixture, 2, 3)?);
        let off = keys.section(&json!({"Format": "A2", "Enable": false, "ReadEncrypted": true}));
        fixture.start_again_with(&options(off))?;
        let status = fixture.rest().get_json("/object-storage/status")?["Encryption"].take();
        ensure!(status["Enabled"] == false && status["Format"].is_null(), "{status:#}");
        ensure!(status["KeyIds"].as_array().is_some_and(|ids| !ids.is_empty()), "{status:#}");
        expect_readable(&fixture, &sent)?;
        sent.extend(upload(&fixture, 3, 2)?);
        let (deleted, _) = sent.remove(0);
        fixture.rest().delete(&format!("/instances/{}", deleted.id))?.ok()?;
        fixture.settle();
        let before = census(&fixture);
        ensure!(before.len() == 3 && before[&None] == 2, "{before:?}");
        let count: usize = before.values().sum();
        let content = reencrypt(&fixture)?;
        ensure!(
            (&content["Rewritten"], &content["AlreadyCurrent"]) == (&json!(count - 2), &json!(2)),
            "{content:#}"
        );
        ensure!(content["Forms"][0]["Format"] == "clear", "{content:#}");
        ensure!(census(&fixture) == BTreeMap::from([(None, count)]), "{:?}", census(&fixture));
        expect_readable(&fixture, &sent)?;
        expect_no_errors(&fixture)?;
        // The job must be saved as done.
        fixture.orthanc.stop()?;
        fixture.configure(&json!({"StorageStructure": structure, "HybridMode": mode}));
        fixture.orthanc.start_again()?;
        expect_readable(&fixture, &sent)?;
        expect_no_errors(&fixture)?;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Interruption {
    Kill,
    Stop,
    Outage,
}

fn often_interrupted_rotations_are_completed<C: Cloud>() -> Result<()> {
    let interruptions = [Interruption::Kill, Interruption::Stop, Interruption::Outage].repeat(5);
    rotate::<C>(&interruptions)
}

/// Changes the key for each interruption, and interrupts the job at a random moment, in the mode `WriteBack`.
fn rotate<C: Cloud>(interruptions: &[Interruption]) -> Result<()> {
    const MEMBERS: usize = 40;
    let mut random = Random::new();
    let keys = Keys::new()?;
    let options = |id| with(write_back(&json!({})), &key(&keys, id, &json!({})));
    let mut fixture = Fixture::<C>::with(&options(3))?;
    let mut sent = upload(&fixture, 1, MEMBERS.try_into()?)?;
    fixture.rest().post("/object-storage/flush", b"")?.ok()?;
    let mut count = MEMBERS;
    for (round, interruption) in interruptions.iter().enumerate() {
        let id = if round % 2 == 0 { 7 } else { 3 };
        fixture.orthanc.stop()?;
        fixture.configure(&options(id));
        fixture.orthanc.start_again()?;
        // The answer to one of the first uploads is late, so that the job is interrupted before its end.
        let wanted = usize::try_from(random.below(count as u64 / 4))?;
        let late = FaultRule::new(Fault::Delay(Duration::from_secs(5))).on(request::CREATE);
        let late = fixture.bucket.faults().push(late.skip(wanted).times(usize::MAX));
        let job = start(&fixture)?;
        ensure!(within(JOB, || late.fired() > 0), "{interruption:?}: fewer than {wanted} are rewritten");
        thread::sleep(Duration::from_micros(random.below(3000)));
        match interruption {
            Interruption::Kill => fixture.orthanc.kill()?,
            Interruption::Stop => fixture.orthanc.stop()?,
            Interruption::Outage => fixture.bucket.stop(),
        }
        fixture.bucket.faults().clear();
        let rewritten = census(&fixture).get(&Some(("A2".to_owned(), id))).copied().unwrap_or_default();
        ensure!(rewritten < count, "{interruption:?}: nothing was interrupted");
        match interruption {
            Interruption::Outage => fixture.bucket.start_again()?,
            Interruption::Kill | Interruption::Stop => fixture.orthanc.start_again()?,
        }
        expect_readable(&fixture, &sent)?;
        // A user deletes something, and sends something new.
        let (deleted, _) = sent.swap_remove(usize::try_from(random.below(sent.len() as u64))?);
        fixture.rest().delete(&format!("/instances/{}", deleted.id))?.ok()?;
        sent.extend(upload(&fixture, 100 + round as u64, 1)?);
        finish(&fixture, &job).with_context(|| format!("{interruption:?}"))?;
        fixture.rest().post("/object-storage/flush", b"")?.ok()?;
        expect_all_under(&fixture, id, count)?;
        count = sent.len();
    }
    expect_readable(&fixture, &sent)
}

/// Waits until an interrupted job is done, and begins another one if Orthanc does not know it.
fn finish<C: Cloud>(fixture: &Fixture<C>, job: &str) -> Result<()> {
    if fixture.rest().get(&format!("/jobs/{job}"))?.status == 404 {
        return reencrypt(fixture).map(drop);
    }
    let ended = fixture.rest().wait_job(job, JOB)?;
    if ended["State"] == "Success" {
        // A user's deletion may have been too late for the job.
        return Ok(());
    }
    ensure!(ended["State"] == "Failure", "{ended:#}");
    reencrypt(fixture).map(drop)
}

fn deletion_during_a_reencryption_is_final<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let mut fixture = Fixture::<C>::with(&json!({}))?;
    let sent = upload(&fixture, 1, 1)?;
    fixture.start_again_with(&key(&keys, 3, &json!({"ReadUnencrypted": true})))?;
    let held = fixture.bucket.hold(request::CREATE);
    let job = start(&fixture)?;
    ensure!(held.wait_until(1, JOB), "no upload");
    delete_during_upload(&fixture, held, &sent[0].0.id)?;
    let ended = fixture.rest().wait_job(&job, JOB)?;
    ensure!(ended["State"] == "Success" && ended["Content"]["DeletedMeanwhile"] == 1, "{ended:#}");
    ensure!(fixture.keys().is_empty(), "{:?}", fixture.keys());
    expect_no_errors(&fixture)
}

fn unreadable_objects_are_reported_and_stay<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let mut fixture = Fixture::<C>::with(&key(&keys, 3, &json!({})))?;
    let sent = upload(&fixture, 1, 4)?;
    let names = fixture.keys();
    let object = |name: &String| fixture.objects()[name].bytes.to_vec();
    // A flipped bit, a key that is lost, and the content of another instance.
    let mut flipped = object(&names[0]);
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let uuid = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let lost = crypto_envelope::encrypt(&keys.ring(u32::MAX)?, Format::A2, &uuid(&names[1]), b"content")?;
    let swapped = keys.seal(Format::A2, &uuid(&names[2]), &sent[0].1[..1000])?;
    let damaged = [flipped, lost, swapped];
    for (name, content) in names.iter().zip(&damaged) {
        fixture.bucket.insert(C::BUCKET, name, content.clone());
    }
    fixture.start_again_with(&key(&keys, 7, &json!({})))?;
    let id = start(&fixture)?;
    let job = fixture.rest().wait_job(&id, JOB)?;
    let content = &job["Content"];
    ensure!(job["State"] == "Failure" && content["Failures"] == 3 && content["Rewritten"] == 1, "{job:#}");
    for (name, content) in names.iter().zip(&damaged) {
        ensure!(fixture.objects()[name].bytes == *content, "{name} was changed");
    }
    let report = fixture.rest().get_json(&format!("/object-storage/reports/{id}"))?;
    let errors = report["Findings"].to_string();
    for expected in ["not-converted", "master key 4294967295", "does not have the MD5", "left as it is"] {
        ensure!(errors.contains(expected), "{expected}: {report:#}");
    }
    ensure!(names[..3].iter().all(|name| errors.contains(name)), "{report:#}");
    Ok(())
}

/// A rotation that was interrupted must not decrypt the archive, since encryption was switched off meanwhile.
fn saved_job_does_not_follow_a_changed_configuration<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let mut fixture = Fixture::<C>::with(&key(&keys, 3, &json!({})))?;
    let sent = upload(&fixture, 1, 10)?;
    fixture.start_again_with(&key(&keys, 7, &json!({})))?;
    let late = FaultRule::new(Fault::Delay(Duration::from_secs(60))).on(request::CREATE);
    let late = fixture.bucket.faults().push(late.skip(1).times(usize::MAX));
    let job = start(&fixture)?;
    ensure!(within(JOB, || late.fired() > 0), "nothing is rewritten");
    fixture.orthanc.stop()?;
    fixture.bucket.faults().clear();
    let before = census(&fixture);
    let off = json!({"Enable": false, "ReadEncrypted": true});
    fixture.configure(&key(&keys, 7, &off));
    fixture.orthanc.start_again()?;
    let ended = fixture.rest().wait_job(&job, JOB)?;
    ensure!(ended["State"] == "Failure", "{ended:#}");
    let error = ended["Content"]["Error"].as_str().unwrap_or_default();
    ensure!(error.contains("\"A2\" with the key \"7\"") && error.contains("\"clear\""), "{ended:#}");
    ensure!(census(&fixture) == before, "{:?} before, and now {:?}", before, census(&fixture));
    expect_readable(&fixture, &sent)
}

fn senseless_reencryption_is_refused<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::start()?;
    let answer = fixture.rest().post_json("/object-storage/reencrypt", &json!({}))?;
    ensure!(answer.status == 400 && answer.text().contains("StorageEncryption"), "{}", answer.text());
    ensure!(fixture.rest().get("/object-storage/reencrypt")?.status == 405);
    Ok(())
}
