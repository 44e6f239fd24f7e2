//! `POST /object-storage/orphans`.

use std::fs;

use anyhow::{Context, Result, ensure};
use fake_cloud::{BucketServer, Fault, FaultRule, Operation};
use real_orthanc::{Client, POSTGRESQL_INDEX_PLUGIN, Postgres, plugin_of_debian};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{Keys, flat, flat_encrypted, legacy, section, uuid, with, within};
use crate::hybrid::support::{
    JOB, encryption, expect_readable, expect_readable_by, path_of, upload, write_file,
};
use crate::orthanc::fixture::{Fixture, builder};

tests! {
    EveryCloud:
        orphans_of_two_searches_are_deleted;
    OneCloud:
        young_objects_and_pending_deletions_are_kept,
        orphaned_files_are_deleted,
        unreachable_bucket_fails_the_search,
        new_database_on_an_old_bucket_deletes_nothing,
        orthancs_with_one_database_do_not_disturb_each_other;
    Once:
        interrupted_search_starts_again,
        search_is_killed_while_it_deletes,
}

/// Starts a search. Returns the id of the job.
fn start(rest: &Client, body: &Value) -> Result<String> {
    let answer = rest.post_json("/object-storage/orphans", body)?.ok()?.json()?;
    Ok(answer["ID"].as_str().context("no ID")?.to_owned())
}

/// Searches, and returns the job when it has ended.
fn search(rest: &Client, body: &Value) -> Result<Value> {
    let id = start(rest, body)?;
    rest.wait_job(&id, JOB)
}

/// Searches for objects of any age.
fn search_all(rest: &Client, delete: bool) -> Result<Value> {
    let job = search(rest, &json!({"Delete": delete, "MinAgeHours": 0}))?;
    ensure!(job["State"] == "Success", "{job:#}");
    Ok(job)
}

/// Checks counts in the content of a job.
fn expect(job: &Value, counts: &[(&str, u64)]) -> Result<()> {
    for (name, count) in counts {
        ensure!(job["Content"][name] == *count, "{name}: {job:#}");
    }
    Ok(())
}

/// Returns the objects that the report of a job has with this problem, sorted.
fn found(rest: &Client, job: &Value, problem: &str) -> Result<Vec<String>> {
    let id = job["ID"].as_str().context("no ID")?;
    let report = rest.get_json(&format!("/object-storage/reports/{id}"))?;
    let findings = report["Findings"].as_array().context("no findings")?;
    let with_problem = findings.iter().filter(|finding| finding["Problem"] == problem);
    let mut objects: Vec<_> =
        with_problem.map(|finding| finding["Object"].as_str().unwrap_or_default().to_owned()).collect();
    objects.sort();
    Ok(objects)
}

fn orphans_of_two_searches_are_deleted<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let root = "a folder/é#1";
    let options = json!({"RootPath": root, "StorageEncryption": encryption(&keys, "A1")});
    let fixture = Fixture::<C>::with(&options)?;
    let mut sent = upload(&fixture, 1, 6)?;
    let known = fixture.keys();
    let orphans = [flat(&uuid(1)), flat_encrypted(&uuid(1)), legacy(&uuid(2)), format!("{}.unk", uuid(3))];
    let orphans = orphans.map(|name| format!("{root}/{name}"));
    let foreign = [flat(&uuid(1)), format!("{root}/readme"), format!("{root}/other/{}", flat(&uuid(1)))];
    for name in orphans.iter().chain(&foreign) {
        fixture.bucket.insert(C::BUCKET, name, b"DICM".as_slice());
    }
    let mut all = [&known[..], &orphans, &foreign].concat();
    all.sort();

    let first = search_all(fixture.rest(), true)?;
    expect(
        &first,
        &[("OrphanObjects", 4), ("OrphanBytes", 16), ("ForeignObjects", 2), ("DeletedObjects", 0)],
    )?;
    expect(&first, &[("Attachments", known.len() as u64)])?;
    let refused = first["Content"]["DeletionRefused"].as_str().unwrap_or_default();
    ensure!(refused.contains("no report of an earlier"), "{first:#}");
    let mut urls = orphans.clone().map(|name| format!("{}/{name}", C::URL));
    urls.sort();
    assert_eq!(found(fixture.rest(), &first, "orphan-object")?, urls);
    assert_eq!(fixture.keys(), all);

    // With the last instance, its changes are deleted. The database is not an older copy of itself, though.
    let (deleted, _) = sent.pop().context("nothing was sent")?;
    fixture.rest().delete(&format!("/instances/{}", deleted.id))?.ok()?;
    let left = fixture.keys();
    all.retain(|name| left.contains(name));
    // One that was not there, and one that has been replaced.
    fixture.bucket.insert(C::BUCKET, &format!("{root}/{}", flat(&uuid(4))), b"DICM".as_slice());
    fixture.bucket.insert(C::BUCKET, &orphans[0], b"DICM, later".as_slice());
    let second = search_all(fixture.rest(), true)?;
    expect(&second, &[("OrphanObjects", 5), ("DeletedObjects", 3), ("DeletedBytes", 12), ("NotDeleted", 0)])?;
    let deleted = found(fixture.rest(), &second, "deleted")?;
    ensure!(deleted.len() == 3 && deleted.iter().all(|object| urls.contains(object)), "{deleted:?}");
    all.retain(|name| !orphans[1..].contains(name));
    all.push(format!("{root}/{}", flat(&uuid(4))));
    all.sort();
    assert_eq!(fixture.keys(), all);
    expect_readable(&fixture, &sent)
}

fn young_objects_and_pending_deletions_are_kept<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&json!({"DeletionDelay": 1}))?;
    let sent = upload(&fixture, 1, 4)?;
    fixture.bucket.insert(C::BUCKET, &flat(&uuid(1)), b"DICM".as_slice());
    let objects = fixture.objects().len();
    fixture.rest().delete(&format!("/instances/{}", sent[0].0.id))?.ok()?;
    for _ in 0..2 {
        let job = search(fixture.rest(), &json!({"Delete": true}))?;
        expect(&job, &[("YoungObjects", 1), ("PendingDeletions", 1), ("OrphanObjects", 0)])?;
    }
    let job = search_all(fixture.rest(), false)?;
    expect(&job, &[("OrphanObjects", 1), ("PendingDeletions", 1)])?;
    assert_eq!(fixture.objects().len(), objects);
    let refused = fixture.rest().post_json("/object-storage/orphans", &json!({"MinAgeHours": -1}))?;
    ensure!(refused.status == 400, "{}", refused.text());
    expect_readable(&fixture, &sent[1..])
}

fn orphaned_files_are_deleted<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteToFileSystem"}))?;
    let sent = upload(&fixture, 1, 3)?;
    write_file(&fixture.orthanc, &uuid(1), b"DICM")?;
    let path = path_of(&fixture.orthanc, &uuid(1));
    let first = search_all(fixture.rest(), true)?;
    expect(&first, &[("OrphanFiles", 1), ("OrphanFileBytes", 4), ("DeletedFiles", 0)])?;
    assert_eq!(found(fixture.rest(), &first, "orphan-file")?, [path.display().to_string()]);
    let second = search_all(fixture.rest(), true)?;
    expect(&second, &[("OrphanFiles", 1), ("DeletedFiles", 1)])?;
    ensure!(!path.exists());
    expect_readable(&fixture, &sent)
}

fn search_is_killed_while_it_deletes<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::start()?;
    // With more orphans than attachments, nothing would be deleted.
    let sent = upload(&fixture, 1, 70)?;
    let known = fixture.keys();
    // More than are deleted together.
    let orphans = (0..70).map(|number| flat(&uuid(number)));
    orphans.for_each(|name| fixture.bucket.insert(C::BUCKET, &name, b"DICM".as_slice()));
    search_all(fixture.rest(), false)?;
    let held = fixture.bucket.hold(Operation::DeleteObjects);
    let killed = start(fixture.rest(), &json!({"Delete": true, "MinAgeHours": 0}))?;
    ensure!(held.wait_until(1, JOB), "nothing is deleted");
    fixture.orthanc.kill()?;
    held.release();
    let left = fixture.keys();
    ensure!(left.len() > known.len() && known.iter().all(|name| left.contains(name)), "{left:?}");
    fixture.orthanc.start_again()?;
    // Orthanc may have saved the job, which then starts again.
    if fixture.rest().get(&format!("/jobs/{killed}"))?.status == 200 {
        fixture.rest().wait_job(&killed, JOB)?;
    }
    search_all(fixture.rest(), false)?;
    search_all(fixture.rest(), true)?;
    assert_eq!(fixture.keys(), known);
    expect_readable(&fixture, &sent)
}

fn interrupted_search_starts_again<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::start()?;
    let sent = upload(&fixture, 1, 5)?;
    fixture.bucket.insert(C::BUCKET, &flat(&uuid(1)), b"DICM".as_slice());
    search_all(fixture.rest(), false)?;
    let body = json!({"Delete": true, "MinAgeHours": 0});

    let held = fixture.bucket.hold(Operation::ListObjects);
    let killed = start(fixture.rest(), &body)?;
    ensure!(held.wait_until(1, JOB), "no list");
    fixture.orthanc.kill()?;
    held.release();
    ensure!(fixture.keys().contains(&flat(&uuid(1))), "deleted by a search that was killed");
    fixture.orthanc.start_again()?;
    // What Orthanc has saved may be older: then it knows nothing of the job, and thinks that the first search was running.
    if fixture.rest().get(&format!("/jobs/{killed}"))?.status == 200 {
        let job = fixture.rest().wait_job(&killed, JOB)?;
        expect(&job, &[("Attachments", 5), ("OrphanObjects", 1), ("DeletedObjects", 1)])?;
        fixture.bucket.insert(C::BUCKET, &flat(&uuid(1)), b"DICM".as_slice());
        search_all(fixture.rest(), false)?;
    }

    // A job that Orthanc has saved goes on after a restart, and one that is paused after a resume.
    let held = fixture.bucket.hold(Operation::ListObjects);
    let id = start(fixture.rest(), &body)?;
    ensure!(held.wait_until(1, JOB), "no list");
    fixture.rest().post(&format!("/jobs/{id}/pause"), b"")?.ok()?;
    let state = |fixture: &Fixture<C>| fixture.rest().get_json(&format!("/jobs/{id}")).unwrap_or_default();
    ensure!(within(JOB, || state(&fixture)["State"] == "Paused"), "{:#}", state(&fixture));
    fixture.rest().post(&format!("/jobs/{id}/resume"), b"")?.ok()?;
    ensure!(within(JOB, || state(&fixture)["State"] == "Running"), "{:#}", state(&fixture));
    fixture.restart()?;
    held.release();
    ensure!(within(JOB, || state(&fixture)["State"] == "Success"), "{:#}", state(&fixture));
    let job = state(&fixture);
    expect(&job, &[("Attachments", 5), ("OrphanObjects", 1), ("DeletedObjects", 1)])?;
    ensure!(!fixture.keys().contains(&flat(&uuid(1))), "{job:#}");
    expect_readable(&fixture, &sent)
}

fn unreachable_bucket_fails_the_search<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&json!({"MaxRetries": 1}))?;
    let sent = upload(&fixture, 1, 3)?;
    fixture.bucket.insert(C::BUCKET, &flat(&uuid(1)), b"DICM".as_slice());
    search_all(fixture.rest(), false)?;
    // The markers are listed first, and the objects after them.
    let held = fixture.bucket.hold(Operation::ListObjects);
    let id = start(fixture.rest(), &json!({"Delete": true, "MinAgeHours": 0}))?;
    ensure!(held.wait_until(1, JOB), "no list");
    let fault = FaultRule::new(Fault::status(500, "InternalError")).on(Operation::ListObjects);
    let rule = fixture.bucket.faults().push(fault.times(usize::MAX));
    held.release();
    let job = fixture.rest().wait_job(&id, JOB)?;
    ensure!(job["State"] == "Failure" && rule.fired() >= 1, "{job:#}");
    let error = job["Content"]["Error"].as_str().unwrap_or_default();
    ensure!(error.contains("cannot list the objects in"), "{job:#}");
    expect(&job, &[("DeletedObjects", 0)])?;
    ensure!(fixture.keys().contains(&flat(&uuid(1))));
    fixture.bucket.faults().clear();
    let job = search_all(fixture.rest(), true)?;
    expect(&job, &[("DeletedObjects", 1)])?;
    expect_readable(&fixture, &sent)
}

fn new_database_on_an_old_bucket_deletes_nothing<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::start()?;
    upload(&fixture, 1, 4)?;
    search_all(fixture.rest(), false)?;
    fixture.orthanc.stop()?;
    fs::remove_dir_all(fixture.orthanc.folder().join("index"))?;
    fixture.orthanc.start_again()?;
    let sent = upload(&fixture, 2, 6)?;
    let keys = fixture.keys();
    for _ in 0..3 {
        let job = search_all(fixture.rest(), true)?;
        expect(&job, &[("OrphanObjects", 4), ("DeletedObjects", 0)])?;
        let refused = job["Content"]["DeletionRefused"].as_str().unwrap_or_default();
        ensure!(refused.contains("another database"), "{job:#}");
    }
    // The marker of the lost database is deleted, although the studies of its time have not been.
    let own = search_all(fixture.rest(), false)?["Content"]["Database"].take();
    for key in fixture.bucket.keys(C::BUCKET) {
        let id = key.strip_prefix(".orthanc-object-storage/databases/");
        if id.is_some_and(|id| own != id) {
            fixture.bucket.remove(C::BUCKET, &key);
        }
    }
    for _ in 0..2 {
        let job = search_all(fixture.rest(), true)?;
        expect(&job, &[("OlderThanIndex", 4), ("DeletedObjects", 0)])?;
    }
    assert_eq!(fixture.keys(), keys);
    expect_readable(&fixture, &sent)
}

fn orthancs_with_one_database_do_not_disturb_each_other<C: Cloud>() -> Result<()> {
    let database = Postgres::start()?;
    let bucket: BucketServer = C::server()?;
    let start = || -> Result<_> {
        let orthanc = builder::<C>(&with(section::<C>(&bucket, &json!({})), &json!({})))?
            .plugin(plugin_of_debian(POSTGRESQL_INDEX_PLUGIN))
            .section("PostgreSQL", database.section(false));
        Ok(orthanc.start()?)
    };
    let orthancs = [start()?, start()?];
    let mut sent = Vec::new();
    for (study, orthanc) in orthancs.iter().enumerate() {
        for file in crate::orthanc::fixture::slices(study as u64, 3)? {
            sent.push((orthanc.rest().upload(&file)?, file));
        }
    }
    bucket.insert(C::BUCKET, &flat(&uuid(1)), b"DICM".as_slice());
    let first = search_all(orthancs[0].rest(), true)?;
    let second = search_all(orthancs[1].rest(), true)?;
    ensure!(first["Content"]["Database"] != second["Content"]["Database"], "{first:#}\n{second:#}");
    for job in [&first, &second] {
        expect(job, &[("Attachments", 6), ("OrphanObjects", 1)])?;
        let refused = job["Content"]["DeletionRefused"].as_str().unwrap_or_default();
        ensure!(refused.contains("no report of an earlier"), "{job:#}");
    }
    let job = search_all(orthancs[0].rest(), true)?;
    expect(&job, &[("DeletedObjects", 1)])?;
    // A copy of the database on a machine of its own, which has had other changes since.
    let marker = format!(".orthanc-object-storage/databases/{:0>32}", 7);
    let own = first["Content"]["Database"].as_str().context("no id")?;
    let content =
        bucket.object(C::BUCKET, &format!(".orthanc-object-storage/databases/{own}")).context("no marker")?;
    let mut copy: Value = serde_json::from_slice(&content.bytes)?;
    ensure!(copy["Changed"].is_string(), "{copy}");
    copy["Changed"] = json!("20200101T000000");
    bucket.insert(C::BUCKET, &marker, copy.to_string().into_bytes());
    let job = search_all(orthancs[1].rest(), true)?;
    let refused = job["Content"]["DeletionRefused"].as_str().unwrap_or_default();
    ensure!(refused.contains(&marker) && refused.contains("was of 20200101T000000"), "{job:#}");
    expect_readable_by(orthancs[1].rest(), &sent)
}
