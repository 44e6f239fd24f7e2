//! Uploads: their order, their number, and what fails.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use fake_cloud::{Fault, FaultRule};
use fake_orthanc::LogLevel;
use serde_json::json;

use crate::Cloud;
use crate::fixture::{KEY, LoadedPlugin, UUID, eventually, request, uuid};
use crate::write_back::support::{
    SOON, StateFolder, and, expect_all_uploaded, expect_readable, objects, requests_for, store,
    without_uploads, write_back,
};

tests! {
    EveryCloud:
        upload_with_a_wrong_checksum_is_repeated,
        object_that_is_already_stored_is_not_overwritten;
    OneCloud:
        attachments_are_uploaded_in_the_order_of_their_arrival,
        number_of_uploads_is_limited,
        upload_begins_after_the_delay,
        refused_object_does_not_hold_up_others,
        slowed_down_object_does_not_hold_up_others,
        everything_arrives_after_an_outage,
        one_upload_at_a_time_is_tried_during_an_outage,
        restart_during_an_outage_loses_nothing,
        upload_whose_answer_is_lost_is_not_repeated,
        uploads_do_not_delay_the_end,
}

/// Returns the UUIDs of the uploads in the order of their requests.
fn uploaded<C: Cloud>(plugin: &LoadedPlugin<C>) -> Vec<String> {
    let records = plugin.server.last_requests().into_iter();
    let uploads = records.filter(|record| record.operation == request::CREATE);
    uploads.filter_map(|record| Some(record.path.rsplit('/').next()?[..36].to_owned())).collect()
}

fn attachments_are_uploaded_in_the_order_of_their_arrival<C: Cloud>() -> Result<()> {
    let one_by_one = write_back(&json!({"Uploads": 1, "UploadDelay": 2}));
    let mut plugin = LoadedPlugin::<C>::with(&one_by_one)?;
    let numbers = [5, 3, 9, 1, 7, 2, 8, 0, 6, 4];
    store(&plugin, numbers)?;
    expect_all_uploaded(&plugin, 10)?;
    let expected = numbers.map(uuid);
    assert_eq!(uploaded(&plugin), expected);
    // After a restart, by the age of the files.
    plugin.restart_with(&without_uploads())?;
    let numbers = numbers.map(|number| number + 10);
    for number in numbers {
        store(&plugin, [number])?;
        thread::sleep(Duration::from_millis(20));
    }
    plugin.restart_with(&one_by_one)?;
    expect_all_uploaded(&plugin, 20)?;
    assert_eq!(uploaded(&plugin), numbers.map(uuid));
    plugin.check()
}

fn number_of_uploads_is_limited<C: Cloud>() -> Result<()> {
    for uploads in [1, 3, 8] {
        let plugin = LoadedPlugin::<C>::with(&write_back(&json!({"Uploads": uploads})))?;
        let held = plugin.server.hold(request::CREATE);
        store(&plugin, 0..20)?;
        ensure!(held.wait_until(uploads, SOON), "{} of {uploads}", held.waiting());
        thread::sleep(Duration::from_millis(500));
        assert_eq!(held.waiting(), uploads);
        held.release();
        expect_all_uploaded(&plugin, 20)?;
        plugin.check()?;
    }
    Ok(())
}

fn upload_begins_after_the_delay<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&write_back(&json!({"UploadDelay": 3})))?;
    let start = Instant::now();
    plugin.create(UUID, b"x")?;
    eventually("the upload", SOON, || plugin.server.requests().of(request::CREATE) > 0)?;
    assert!(start.elapsed() >= Duration::from_secs(3), "{:?}", start.elapsed());
    expect_all_uploaded(&plugin, 1)?;
    plugin.check()
}

fn refused_object_does_not_hold_up_others<C: Cloud>() -> Result<()> {
    for (status, code) in [(403, C::MISSING_PERMISSION), (500, "InternalError")] {
        let plugin = LoadedPlugin::<C>::with(&and(&write_back(&json!({})), &json!({"MaxRetries": 0})))?;
        let refused = FaultRule::new(Fault::status(status, code)).on(request::CREATE).key(uuid(0));
        let refused = plugin.server.faults().push(refused.times(usize::MAX));
        store(&plugin, 0..1)?;
        eventually("the failure", SOON, || refused.fired() > 0)?;
        let start = Instant::now();
        store(&plugin, 1..100)?;
        eventually("the others are uploaded", SOON, || objects(&plugin).len() == 99)?;
        let seconds = start.elapsed().as_secs();
        let state = StateFolder::of_plugin(&plugin);
        eventually("one is pending", SOON, || state.pending() == [format!("00/{}.1", uuid(0))])?;
        // Attempts after 1, 2, 4 … seconds, and one more for a pause that has just ended.
        let attempts = requests_for(&plugin, "PUT", &uuid(0));
        assert!(attempts <= 3 + (seconds + 1).ilog2() as usize, "{attempts} in {seconds} s");
        expect_readable(&plugin, 0..100)?;
        plugin.server.faults().clear();
        expect_all_uploaded(&plugin, 100)?;
        plugin.check()?;
    }
    Ok(())
}

fn slowed_down_object_does_not_hold_up_others<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&and(&write_back(&json!({})), &json!({"MaxRetries": 0})))?;
    let slowed = FaultRule::new(Fault::slow_down()).on(request::CREATE).key(uuid(0)).times(usize::MAX);
    plugin.server.faults().push(slowed);
    let start = Instant::now();
    // Not all at once: the uploads after a failure are the ones that could be held up.
    for number in 0..150 {
        store(&plugin, [number])?;
        thread::sleep(Duration::from_millis(50));
    }
    eventually("the others are uploaded", SOON, || objects(&plugin).len() == 149)?;
    let seconds = start.elapsed().as_secs();
    let attempts = requests_for(&plugin, "PUT", &uuid(0));
    assert!(attempts <= 4 + (seconds + 1).ilog2() as usize, "{attempts} in {seconds} s");
    plugin.server.faults().clear();
    expect_all_uploaded(&plugin, 150)?;
    plugin.check()
}

fn everything_arrives_after_an_outage<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&write_back(&json!({})))?;
    store(&plugin, 0..10)?;
    expect_all_uploaded(&plugin, 10)?;
    plugin.server.stop();
    store(&plugin, 10..60)?;
    expect_readable(&plugin, 0..60)?;
    thread::sleep(Duration::from_secs(30));
    store(&plugin, 60..70)?;
    plugin.server.start_again()?;
    expect_all_uploaded(&plugin, 70)?;
    assert_eq!(plugin.errors(), [""; 0]);
    plugin.check()
}

fn one_upload_at_a_time_is_tried_during_an_outage<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&and(&write_back(&json!({})), &json!({"MaxRetries": 1})))?;
    let outage = plugin.fault(request::CREATE, Fault::slow_down(), usize::MAX);
    store(&plugin, 0..100)?;
    eventually("the first failures", SOON, || outage.fired() >= 2)?;
    thread::sleep(Duration::from_secs(2));
    let before = outage.fired();
    let held = plugin.server.hold(request::CREATE);
    ensure!(held.wait_until(1, SOON), "no further attempt");
    thread::sleep(Duration::from_millis(500));
    assert_eq!(held.waiting(), 1);
    held.release();
    thread::sleep(Duration::from_secs(10));
    let attempts = outage.fired() - before;
    assert!((1..=12).contains(&attempts), "{attempts} attempts in about 11 s");
    plugin.server.faults().clear();
    expect_all_uploaded(&plugin, 100)?;
    let warnings = plugin.lines(LogLevel::Warning);
    assert!(warnings.len() <= 3, "{warnings:#?}");
    plugin.check()
}

fn restart_during_an_outage_loses_nothing<C: Cloud>() -> Result<()> {
    let options = and(&write_back(&json!({})), &json!({"MaxRetries": 1}));
    let mut plugin = LoadedPlugin::<C>::with(&options)?;
    let fault = || FaultRule::new(Fault::slow_down()).on(request::CREATE).key(".dcm").times(usize::MAX);
    plugin.server.faults().push(fault());
    store(&plugin, 0..30)?;
    plugin.restart_with(&options)?;
    assert_eq!(StateFolder::of_plugin(&plugin).pending().len(), 30);
    store(&plugin, 30..40)?;
    expect_readable(&plugin, 0..40)?;
    plugin.server.faults().clear();
    expect_all_uploaded(&plugin, 40)?;
    plugin.check()
}

fn upload_with_a_wrong_checksum_is_repeated<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&and(&write_back(&json!({})), &json!({"MaxRetries": 0})))?;
    let state = StateFolder::of_plugin(&plugin);
    let other = Fault::StoreInstead(Bytes::from_static(b"CONTENT"));
    let contradicted = plugin.fault(request::CREATE, other, 2);
    plugin.create(UUID, b"content")?;
    eventually("the first attempt", SOON, || contradicted.fired() == 1)?;
    thread::sleep(Duration::from_millis(300));
    assert_eq!((state.pending().len(), state.cached().len()), (1, 0));
    assert_eq!(plugin.read(UUID)?, b"content");
    expect_all_uploaded(&plugin, 1)?;
    assert_eq!(&plugin.object(KEY)?[..], b"content");
    assert_eq!(plugin.server.requests().of(request::CREATE), 3);
    plugin.check()
}

fn object_that_is_already_stored_is_not_overwritten<C: Cloud>() -> Result<()> {
    // Orthanc was killed between the upload and the renaming of the file, and the bucket has a retention period.
    let mut plugin = LoadedPlugin::<C>::with(&without_uploads())?;
    plugin.create(UUID, b"content")?;
    plugin.insert(KEY, "content");
    let denied = FaultRule::new(Fault::status(403, C::MISSING_PERMISSION)).on(request::CREATE).key(KEY);
    plugin.server.faults().push(denied.times(usize::MAX));
    plugin.restart_with(&write_back(&json!({})))?;
    expect_all_uploaded(&plugin, 1)?;
    assert_eq!(plugin.server.requests().of(request::CREATE), 0);
    assert_eq!(StateFolder::of_plugin(&plugin).cached().len(), 1);
    assert_eq!(plugin.errors(), [""; 0]);
    plugin.check()
}

fn upload_whose_answer_is_lost_is_not_repeated<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::with(&and(&write_back(&json!({})), &json!({"MaxRetries": 0})))?;
    plugin.fault(request::CREATE, Fault::CloseBeforeResponse, 1);
    plugin.fault(request::CREATE, Fault::status(403, C::MISSING_PERMISSION), usize::MAX);
    // The first looks at the object fail too.
    plugin.fault(request::HEAD, Fault::slow_down(), 2);
    plugin.create(UUID, b"content")?;
    expect_all_uploaded(&plugin, 1)?;
    assert_eq!(plugin.server.requests().of(request::CREATE), 1);
    plugin.check()
}

fn uploads_do_not_delay_the_end<C: Cloud>() -> Result<()> {
    let options = write_back(&json!({}));
    let mut plugin = LoadedPlugin::<C>::with(&options)?;
    let held = plugin.server.hold(request::CREATE);
    store(&plugin, 0..20)?;
    ensure!(held.wait_until(8, SOON), "no uploads");
    let start = Instant::now();
    plugin.orthanc.finalize();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    held.release();
    plugin.restart_with(&options)?;
    expect_all_uploaded(&plugin, 20)?;
    expect_readable(&plugin, 0..20)?;
    plugin.check()
}
