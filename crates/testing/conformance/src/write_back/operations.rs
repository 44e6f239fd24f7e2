//! Flush, prefetch, status, locations and metrics of `WriteBack`, in a real Orthanc.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use fake_cloud::{Fault, FaultRule};
use fake_orthanc::LogLevel;
use real_orthanc::rest::Uploaded;
use real_orthanc::{Answer, Client};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::documented::expect_status;
use crate::fixture::{LoadedPlugin, eventually, request, within};
use crate::hybrid::support::{
    JOB, content_of, expect_all_at, expect_readable, move_to, upload, uuid_of, write_file,
};
use crate::orthanc::fixture::Fixture;
use crate::write_back::support::{SOON, StateFolder, and, store, without_uploads, write_back};

tests! {
    OneCloud:
        flush_waits_for_a_slow_bucket,
        flush_fails_if_the_bucket_does_not_work,
        flush_ends_after_its_timeout,
        flush_reports_damaged_attachments,
        orthanc_stops_during_a_flush,
        prefetch_fills_the_cache,
        prefetch_needs_a_cache_that_is_large_enough,
        prefetch_is_a_job,
        saved_prefetch_never_moves_attachments,
        saved_move_to_the_cache_never_moves_attachments,
        move_uploads_what_is_pending,
        status_and_metrics_show_what_is_pending,
        locations_show_pending_and_cached_attachments,
        pending_attachments_of_another_bucket_are_shown,
        changed_mode_warns_of_pending_attachments,
}

/// What Orthanc answered about each instance, and its file.
type Sent = Vec<(Uploaded, Vec<u8>)>;

/// The options without a cache.
fn without_cache() -> Value {
    write_back(&json!({"MaxCacheMB": 0}))
}

fn state<C: Cloud>(fixture: &Fixture<C>) -> StateFolder {
    StateFolder::of(&fixture.orthanc.storage_folder())
}

fn flush<C: Cloud>(fixture: &Fixture<C>, body: &Value) -> Result<Answer> {
    let patient = Client::with_timeout(fixture.orthanc.url(), JOB);
    patient.post_json("/object-storage/flush", body)
}

/// Flushes, and returns the number of attachments that were pending.
fn flushed<C: Cloud>(fixture: &Fixture<C>) -> Result<u64> {
    let answer = flush(fixture, &json!({}))?.ok()?.json()?;
    ensure!(answer["Seconds"].is_number(), "{answer}");
    answer["Flushed"].as_u64().context("no number")
}

/// Checks the status of an answer, and that its body has all fragments.
fn expect_refusal(answer: &Answer, status: u16, fragments: &[&str]) -> Result<()> {
    let text = answer.text();
    ensure!(answer.status == status, "{}: {text}", answer.status);
    let missing = fragments.iter().find(|fragment| !text.contains(**fragment));
    ensure!(missing.is_none(), "no {missing:?} in {text}");
    Ok(())
}

/// The field `WriteBack` of the status.
fn status<C: Cloud>(fixture: &Fixture<C>) -> Result<Value> {
    Ok(fixture.rest().get_json("/object-storage/status")?["WriteBack"].take())
}

/// A running Orthanc whose attachments are in the bucket, and not in the cache.
fn with_empty_cache<C: Cloud>(count: u32) -> Result<(Fixture<C>, Sent)> {
    let mut fixture = Fixture::<C>::with(&without_cache())?;
    let sent = upload(&fixture, 1, count)?;
    flushed(&fixture)?;
    fixture.start_again_with(&write_back(&json!({"CacheReads": false})))?;
    ensure!(state(&fixture).cached().is_empty());
    Ok((fixture, sent))
}

fn prefetch<C: Cloud>(fixture: &Fixture<C>, body: &Value) -> Result<Answer> {
    fixture.rest().post_json("/object-storage/prefetch", body)
}

/// Starts a job, and returns its id.
fn start_prefetch<C: Cloud>(fixture: &Fixture<C>, resource: &str) -> Result<String> {
    start_job(fixture, "/object-storage/prefetch", &json!({"Resources": [resource]}))
}

fn start_job<C: Cloud>(fixture: &Fixture<C>, route: &str, body: &Value) -> Result<String> {
    let answer = fixture.rest().post_json(route, &and(body, &json!({"Asynchronous": true})))?.ok()?.json()?;
    Ok(answer["ID"].as_str().context("no ID")?.to_owned())
}

fn flush_waits_for_a_slow_bucket<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&without_uploads())?;
    let sent = upload(&fixture, 1, 20)?;
    ensure!(fixture.objects().is_empty() && state(&fixture).pending().len() == 20);
    fixture.bucket.latency(Duration::from_millis(200));
    fixture.bucket.reset_counts();
    ensure!(flushed(&fixture)? == 20);
    ensure!(fixture.objects().len() == 20 && state(&fixture).pending().is_empty());
    ensure!(fixture.bucket.requests().of(request::CREATE) == 20, "{:?}", fixture.bucket.requests());
    ensure!(flushed(&fixture)? == 0);
    fixture.bucket.latency(Duration::ZERO);
    expect_readable(&fixture, &sent)?;
    expect_refusal(&fixture.rest().get("/object-storage/flush")?, 405, &[])?;
    expect_refusal(&fixture.rest().post("/object-storage/flush", b"now")?, 400, &["JSON"])?;
    // Without a body, too, and in a mode that never has anything pending.
    fixture.start_again_with(&json!({}))?;
    ensure!(fixture.rest().post("/object-storage/flush", b"")?.ok()?.json()?["Flushed"] == 0);
    Ok(())
}

fn flush_fails_if_the_bucket_does_not_work<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&and(&without_uploads(), &json!({"MaxRetries": 1})))?;
    let sent = upload(&fixture, 1, 5)?;
    fixture.bucket.faults().push(FaultRule::new(Fault::slow_down()).on(request::CREATE).times(usize::MAX));
    expect_refusal(&flush(&fixture, &json!({}))?, 502, &["attachments still pending: 5", "HTTP 503"])?;
    expect_readable(&fixture, &sent)?;
    fixture.bucket.faults().clear();
    ensure!(flushed(&fixture)? == 5 && fixture.objects().len() == 5);
    // One attachment that the bucket refuses does not hold up the others.
    let refused = uuid_of(&fixture, &upload(&fixture, 2, 3)?[0].0.id)?;
    let denied = Fault::status(403, C::MISSING_PERMISSION);
    fixture.bucket.faults().push(FaultRule::new(denied).key(&refused).times(usize::MAX));
    expect_refusal(&flush(&fixture, &json!({}))?, 502, &["attachments still pending: 1", &refused])?;
    ensure!(fixture.objects().len() == 7, "{:?}", fixture.objects().keys());
    Ok(())
}

fn flush_ends_after_its_timeout<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&without_uploads())?;
    upload(&fixture, 1, 3)?;
    let held = fixture.bucket.hold(request::CREATE);
    expect_refusal(&flush(&fixture, &json!({"Timeout": 1}))?, 504, &["after 1 s: 3", "the uploads go on"])?;
    ensure!(held.waiting() == 3, "{}", held.waiting());
    held.release();
    flushed(&fixture)?;
    ensure!(fixture.objects().len() == 3);
    Ok(())
}

fn flush_reports_damaged_attachments<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&without_uploads())?;
    upload(&fixture, 1, 3)?;
    let state = state(&fixture);
    let path = state.pending_path(&state.pending()[0]);
    let mut bytes = fs::read(&path)?;
    bytes[500] ^= 1;
    fs::write(&path, bytes)?;
    expect_refusal(&flush(&fixture, &json!({}))?, 502, &["found damaged", "not in the bucket: 1"])?;
    ensure!(fixture.objects().len() == 2 && state.quarantined().len() == 1);
    let shown = status(&fixture)?;
    ensure!(shown["Quarantined"] == 1 && shown["Pending"] == 0, "{shown:#}");
    // It has been reported.
    ensure!(flushed(&fixture)? == 0);
    Ok(())
}

fn orthanc_stops_during_a_flush<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&without_uploads())?;
    let sent = upload(&fixture, 1, 3)?;
    let held = fixture.bucket.hold(request::CREATE);
    let patient = Client::with_timeout(fixture.orthanc.url(), JOB);
    thread::scope(|scope| -> Result<()> {
        let waiting = scope.spawn(|| patient.post("/object-storage/flush", b""));
        ensure!(held.wait_until(3, SOON), "{}", held.waiting());
        let start = Instant::now();
        fixture.orthanc.stop()?;
        // The plugin's limit of five seconds, and time for Orthanc itself on a busy machine.
        ensure!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        // Orthanc may have closed the connection.
        let answer = waiting.join().map_err(|_| anyhow!("panicked"))?;
        ensure!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 503));
        Ok(())
    })?;
    held.release();
    fixture.orthanc.start_again()?;
    flushed(&fixture)?;
    ensure!(fixture.objects().len() == 3);
    expect_readable(&fixture, &sent)
}

fn prefetch_fills_the_cache<C: Cloud>() -> Result<()> {
    let (fixture, sent) = with_empty_cache::<C>(5)?;
    let study = sent[0].0.study.as_str();
    expect_all_at(&fixture, study, "object-storage")?;
    fixture.bucket.reset_counts();
    // One id need not be in a list.
    let content = prefetch(&fixture, &json!({"Resources": study}))?.ok()?.json()?;
    ensure!(
        content["MovedAttachments"] == 5 && content["Resources"] == json!({"Studies": [study]}),
        "{content}"
    );
    ensure!(fixture.bucket.requests().total == 5, "{:?}", fixture.bucket.requests());
    ensure!(state(&fixture).cached().len() == 5 && fixture.objects().len() == 5);
    fixture.bucket.reset_counts();
    expect_readable(&fixture, &sent)?;
    let again = prefetch(&fixture, &json!({"Resources": [study]}))?.ok()?.json()?;
    ensure!(again["AlreadyThere"] == 5 && again["MovedAttachments"] == 0, "{again}");
    // As with `/move-storage`.
    ensure!(move_to(&fixture, "file-system", &[study])?["AlreadyThere"] == 5);
    ensure!(fixture.bucket.requests().total == 0, "{:?}", fixture.bucket.requests());
    expect_all_at(&fixture, study, "cached")?;
    expect_refusal(&fixture.rest().get("/object-storage/prefetch")?, 405, &[])?;
    expect_refusal(&prefetch(&fixture, &json!({}))?, 400, &["Resources"])?;
    let unknown = "00000000-00000000-00000000-00000000-00000000";
    expect_refusal(&prefetch(&fixture, &json!({"Resources": unknown}))?, 404, &[unknown])
}

fn prefetch_needs_a_cache_that_is_large_enough<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&write_back(&json!({"MaxCacheMB": 1})))?;
    // 9 kB each.
    let sent = upload(&fixture, 1, 120)?;
    let (study, instances) = (&sent[0].0.study, sent.iter().map(|(uploaded, _)| uploaded.id.as_str()));
    flushed(&fixture)?;
    fixture.bucket.reset_counts();
    let refused = prefetch(&fixture, &json!({"Resources": [study]}))?;
    expect_refusal(&refused, 500, &["the cache holds at most 1 MB (MaxCacheMB)"])?;
    ensure!(fixture.bucket.requests().total == 0, "{:?}", fixture.bucket.requests());
    let some: Vec<&str> = instances.take(10).collect();
    // What is named twice counts once.
    let series = &fixture.rest().get_json(&format!("/instances/{}", some[0]))?["ParentSeries"];
    expect_refusal(&prefetch(&fixture, &json!({"Resources": [series, study]}))?, 500, &["MaxCacheMB"])?;
    prefetch(&fixture, &json!({"Resources": some}))?.ok()?;
    for (options, reason) in [
        (without_cache(), "since MaxCacheMB is 0"),
        (json!({"HybridMode": "WriteToFileSystem"}), "requires \"HybridMode\": \"WriteBack\""),
        (json!({}), "requires \"HybridMode\": \"WriteBack\""),
    ] {
        fixture.start_again_with(&options)?;
        expect_refusal(&prefetch(&fixture, &json!({"Resources": some}))?, 400, &[reason])?;
    }
    Ok(())
}

fn prefetch_is_a_job<C: Cloud>() -> Result<()> {
    let (mut fixture, sent) = with_empty_cache::<C>(60)?;
    let study = &sent[0].0.study;
    let count = |content: &Value, field: &str| content[field].as_u64().unwrap_or_default();
    fixture.bucket.latency(Duration::from_millis(200));
    let id = start_prefetch(&fixture, study)?;
    let job = fixture.rest().get_json(&format!("/jobs/{id}"))?;
    ensure!(job["Type"] == "PrefetchStorage", "{job}");
    let begun = || content_of(&fixture, &id).is_ok_and(|content| count(&content, "MovedAttachments") > 0);
    ensure!(within(JOB, begun));
    fixture.restart()?;
    ensure!(state(&fixture).cached().len() < 60, "the job ended before the restart");
    fixture.bucket.latency(Duration::ZERO);
    let job = fixture.rest().wait_job(&id, JOB)?;
    let content = &job["Content"];
    ensure!(job["State"] == "Success" && job["Type"] == "PrefetchStorage", "{job}");
    ensure!(count(content, "MovedAttachments") + count(content, "AlreadyThere") == 60, "{content}");
    ensure!(state(&fixture).cached().len() == 60);

    // Cancelled, and submitted again.
    let state = state(&fixture);
    fixture.start_again_with(&without_cache())?;
    eventually("the cache is empty", SOON, || state.cached().is_empty())?;
    fixture.start_again_with(&write_back(&json!({})))?;
    fixture.bucket.latency(Duration::from_millis(600));
    let id = start_prefetch(&fixture, study)?;
    ensure!(within(JOB, || !state.cached().is_empty()));
    fixture.rest().post(&format!("/jobs/{id}/cancel"), b"")?.ok()?;
    ensure!(fixture.rest().wait_job(&id, JOB)?["ErrorCode"] == 37);
    ensure!(state.cached().len() < 60);
    fixture.bucket.latency(Duration::ZERO);
    fixture.rest().post(&format!("/jobs/{id}/resubmit"), b"")?.ok()?;
    eventually("everything is cached", JOB, || state.cached().len() == 60)?;
    expect_readable(&fixture, &sent)
}

fn saved_prefetch_never_moves_attachments<C: Cloud>() -> Result<()> {
    resume_in_another_mode::<C>(start_prefetch)
}

fn saved_move_to_the_cache_never_moves_attachments<C: Cloud>() -> Result<()> {
    resume_in_another_mode::<C>(|fixture, study| {
        start_job(fixture, "/move-storage", &json!({"Resources": study, "TargetStorage": "file-system"}))
    })
}

/// Stops Orthanc during a job that `start` begins, and resumes the job in a mode with files, where nothing must happen.
fn resume_in_another_mode<C: Cloud>(start: impl FnOnce(&Fixture<C>, &str) -> Result<String>) -> Result<()> {
    let (mut fixture, sent) = with_empty_cache::<C>(30)?;
    let held = fixture.bucket.hold(request::READ);
    let ranges = fixture.bucket.hold(request::READ_RANGE);
    let id = start(&fixture, &sent[0].0.study)?;
    ensure!(within(SOON, || held.waiting() + ranges.waiting() > 0), "no read");
    fixture.orthanc.stop()?;
    held.release();
    ranges.release();
    fixture.configure(&json!({"HybridMode": "WriteToFileSystem"}));
    fixture.orthanc.start_again()?;
    let job = fixture.rest().wait_job(&id, JOB)?;
    ensure!(job["State"] == "Failure", "{job}");
    let error = job["Content"]["Error"].as_str().unwrap_or_default();
    ensure!(error.contains("requires \"HybridMode\": \"WriteBack\""), "{job}");
    ensure!(fixture.objects().len() == 30);
    expect_all_at(&fixture, &sent[0].0.study, "object-storage")
}

fn move_uploads_what_is_pending<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&without_uploads())?;
    let sent = upload(&fixture, 1, 4)?;
    let study = sent[0].0.study.as_str();
    // One of them was stored in the file system before.
    let state = state(&fixture);
    let uuid = uuid_of(&fixture, &sent[3].0.id)?;
    let path =
        state.pending_path(state.pending().iter().find(|name| name.contains(&uuid)).context("no file")?);
    ensure!(move_to(&fixture, "object-storage", &[&sent[3].0.id])?["MovedAttachments"] == 1);
    ensure!(!path.exists());
    let (key, _) = fixture.only_object()?;
    fixture.bucket.remove(C::BUCKET, &key);
    write_file(&fixture.orthanc, &uuid, &sent[3].1)?;
    expect_all_at(&fixture, &sent[3].0.id, "file-system")?;

    let content = move_to(&fixture, "object-storage", &[study])?;
    ensure!(content["MovedAttachments"] == 4, "{content}");
    ensure!(fixture.objects().len() == 4 && state.pending().is_empty());
    expect_readable(&fixture, &sent)?;
    let again = move_to(&fixture, "object-storage", &[study])?;
    ensure!(again["AlreadyThere"] == 4, "{again}");
    Ok(())
}

/// The plugin's metrics, without their prefix.
fn metrics<C: Cloud>(fixture: &Fixture<C>) -> Result<BTreeMap<String, f64>> {
    let text = fixture.rest().get("/tools/metrics-prometheus")?.ok()?.text();
    let lines = text.lines().filter_map(|line| line.strip_prefix("object_storage_"));
    let parsed = lines.filter_map(|line| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    });
    Ok(parsed.collect())
}

fn status_and_metrics_show_what_is_pending<C: Cloud>() -> Result<()> {
    let section = json!({"Uploads": 2, "MaxCacheMB": 100});
    let mut fixture = Fixture::<C>::with(&and(&write_back(&section), &json!({"MaxRetries": 0})))?;
    let idle = status(&fixture)?;
    for (field, expected) in [
        ("Pending", json!(0)),
        ("PendingBytes", json!(0)),
        ("OldestSeconds", json!(null)),
        ("Uploading", json!(0)),
        ("BucketWorks", json!(true)),
        ("LastError", json!(null)),
        ("IsCounting", json!(false)),
        ("Quarantined", json!(0)),
        ("DirectStores", json!(0)),
        ("Abandoned", json!([])),
    ] {
        ensure!(idle[field] == expected, "{field}: {idle:#}");
    }
    ensure!(idle["FreeBytes"].as_u64() > Some(0) && idle["Cache"]["MaxBytes"] == 100 << 20, "{idle:#}");

    let held = fixture.bucket.hold(request::CREATE);
    let sent = upload(&fixture, 1, 5)?;
    ensure!(held.wait_until(2, SOON));
    let size: u64 = sent.iter().map(|(_, file)| file.len() as u64).sum();
    let late = || status(&fixture).is_ok_and(|shown| shown["OldestSeconds"].as_u64() >= Some(1));
    ensure!(within(SOON, late));
    let busy = status(&fixture)?;
    ensure!(busy["Pending"] == 5 && busy["PendingBytes"] == size && busy["Uploading"] == 2, "{busy:#}");
    let shown = metrics(&fixture)?;
    for (name, expected) in [
        ("pending_files", 5.0),
        ("pending_uploads_running", 2.0),
        ("pending_outage", 0.0),
        ("quarantined_files", 0.0),
        ("abandoned_files", 0.0),
        ("direct_stores", 0.0),
    ] {
        ensure!(shown.get(name) == Some(&expected), "{name}: {shown:#?}");
    }
    ensure!(shown["pending_bytes"] > 0.0 && shown["pending_oldest_seconds"] >= 1.0, "{shown:#?}");
    ensure!(shown["state_free_bytes"] > 0.0, "{shown:#?}");

    fixture.bucket.faults().push(FaultRule::new(Fault::slow_down()).on(request::CREATE).times(usize::MAX));
    held.release();
    let outage =
        || status(&fixture).is_ok_and(|shown| shown["BucketWorks"] == false && shown["Pending"] == 5);
    ensure!(within(SOON, outage), "{:#}", status(&fixture)?);
    let error = status(&fixture)?["LastError"].take();
    ensure!(error.as_str().is_some_and(|error| error.contains("HTTP 503")), "{error}");
    ensure!(metrics(&fixture)?["pending_outage"] == 1.0 && metrics(&fixture)?["state"] == 2.0);
    let whole = fixture.rest().get_json("/object-storage/status")?;
    expect_status(&whole, &["/WriteBack/Cache", "/WriteBack/LastError"])?;
    ensure!(whole["State"] == "error" && whole["Problems"][0]["Id"] == "BucketOutage", "{whole:#}");

    // In other modes, until nothing is pending.
    let unchanged = json!({"MaxRetries": 0});
    fixture.start_again_with(&unchanged)?;
    let counted = || status(&fixture).is_ok_and(|shown| shown["IsCounting"] == false);
    ensure!(within(SOON, counted), "{:#}", status(&fixture)?);
    let shown = status(&fixture)?;
    ensure!(shown["Pending"] == 5 && shown["Cache"].is_null(), "{shown:#}");
    fixture.bucket.faults().clear();
    eventually("the field is gone", SOON, || status(&fixture).is_ok_and(|shown| shown.is_null()))?;
    ensure!(metrics(&fixture)?["pending_files"] == 0.0);
    expect_readable(&fixture, &sent)
}

fn locations_show_pending_and_cached_attachments<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&without_uploads())?;
    let sent = upload(&fixture, 1, 2)?;
    let study = sent[0].0.study.as_str();
    let list = || fixture.rest().get_json(&format!("/object-storage/locations/{study}"));
    let pending = list()?;
    for location in pending.as_array().context("no list")? {
        let copies = location["Copies"].as_array().map(Vec::as_slice).unwrap_or_default();
        ensure!(location["Location"] == "pending" && copies.len() == 1, "{pending:#}");
        ensure!(copies[0]["Storage"] == "pending" && location["Format"] == "clear", "{pending:#}");
        ensure!(fs::exists(copies[0]["Name"].as_str().unwrap_or_default())?, "{pending:#}");
    }
    flushed(&fixture)?;
    let cached = list()?;
    for location in cached.as_array().context("no list")? {
        let stored: Vec<&Value> = location["Copies"].as_array().into_iter().flatten().collect();
        let sides = stored.iter().map(|copy| &copy["Storage"]).collect::<Vec<_>>();
        ensure!(location["Location"] == "cached" && sides == ["cached", "object-storage"], "{cached:#}");
    }
    // The copy in the cache, which can be evicted at any time, is no place to be.
    let (key, _) = fixture.objects().pop_first().context("no object")?;
    fixture.bucket.remove(C::BUCKET, &key);
    let locations = crate::hybrid::support::locations(&fixture, study)?;
    ensure!(
        locations.contains(&"missing".to_owned()) && locations.contains(&"cached".to_owned()),
        "{locations:?}"
    );
    Ok(())
}

fn pending_attachments_of_another_bucket_are_shown<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&without_uploads())?;
    upload(&fixture, 1, 3)?;
    fixture.start_again_with(&json!({"RootPath": "other"}))?;
    let abandoned =
        |fixture: &Fixture<C>| status(fixture).map(|mut shown| shown["Abandoned"].take()).unwrap_or_default();
    eventually("the attachments are found", SOON, || abandoned(&fixture)[0]["Attachments"] == 3)?;
    let shown = abandoned(&fixture);
    let folder = fixture.orthanc.storage_folder().join(".orthanc-object-storage/0");
    ensure!(shown[0]["Folder"] == json!(folder), "{shown:#}");
    ensure!(shown[0]["Bucket"].as_str().is_some_and(|bucket| bucket.contains(C::BUCKET)), "{shown:#}");
    let errors = fixture.log_lines('E');
    ensure!(
        errors.len() == 1 && errors[0].contains("pending attachments, which are in no bucket: 3"),
        "{errors:#?}"
    );
    ensure!(metrics(&fixture)?["abandoned_files"] == 3.0);
    ensure!(fixture.objects().is_empty());
    // The configuration that they are for uploads them.
    fixture.start_again_with(&write_back(&json!({})))?;
    eventually("they are uploaded", SOON, || fixture.objects().len() == 3)?;
    ensure!(abandoned(&fixture) == json!([]), "{:#}", abandoned(&fixture));
    Ok(())
}

fn changed_mode_warns_of_pending_attachments<C: Cloud>() -> Result<()> {
    let mut plugin = LoadedPlugin::<C>::with(&without_uploads())?;
    store(&plugin, 0..3)?;
    let lines = |plugin: &LoadedPlugin<C>| -> Vec<String> {
        let warnings = plugin.lines(LogLevel::Warning).into_iter();
        warnings.filter(|line| line.contains("still pending from the mode WriteBack")).collect()
    };
    plugin.restart_with(&without_uploads())?;
    store(&plugin, 3..6)?;
    assert_eq!(lines(&plugin).len(), 0, "the mode is the same");
    plugin.restart_with(&json!({}))?;
    eventually("the files are found", SOON, || lines(&plugin).len() == 1)?;
    StateFolder::of_plugin(&plugin).expect_uploaded()?;
    assert_eq!(lines(&plugin).len(), 1);
    plugin.check()
}
