//! Faults that pass: the clients of Orthanc do not notice them.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use fake_cloud::{Fault, FaultRule};
use real_orthanc::dicom;
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{asks_for_patience, request, within};
use crate::orthanc::fixture::{Fixture, slice, slices};

tests![
    uploads_survive_refusals_broken_connections_and_stalls,
    downloads_survive_refusals_and_go_on_where_they_broke,
    ranges_survive_refusals_and_broken_connections,
    deletes_survive_refusals_and_broken_connections,
    a_server_that_asks_for_a_pause_gets_it,
    an_upload_outlives_a_restart_of_the_server,
    transfers_outlive_a_cable_that_is_pulled_for_a_moment,
];

/// A second without a byte is a stall.
fn impatient() -> Value {
    json!({"ConnectionTimeout": 1})
}

fn refusals() -> Vec<Fault> {
    vec![
        Fault::status(500, "InternalError"),
        Fault::slow_down(),
        Fault::status(429, "TooManyRequests"),
        Fault::CloseBeforeResponse,
    ]
}

/// Checks that Orthanc's clients and its log at error level saw nothing.
fn assert_unnoticed<C: Cloud>(fixture: &Fixture<C>) {
    assert_eq!(fixture.log_lines('E'), [""; 0]);
}

fn uploads_survive_refusals_broken_connections_and_stalls<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&impatient())?;
    let faults = refusals().into_iter().chain([
        Fault::CloseAfterRequestBytes(0),
        Fault::CloseAfterRequestBytes(100_000),
        Fault::StallRequestAfter(100_000),
    ]);
    for (file, fault) in dicom::ct_series(7, 512, 512).zip(faults) {
        let file = file?;
        let rule = FaultRule::new(fault.clone()).on(request::CREATE).times(2);
        let rule = fixture.bucket.faults().push(rule);
        let (uploaded, requests) = fixture.counted(|| Ok(fixture.rest().upload(&file)?))?;
        assert_eq!((rule.fired(), requests.of(request::CREATE)), (2, 3), "{fault:?}");
        assert!(fixture.rest().file(&uploaded.id)? == file, "the bytes differ after {fault:?}");
    }
    assert_eq!(fixture.keys().len(), 7);
    assert_unnoticed(&fixture);
    Ok(())
}

fn downloads_survive_refusals_and_go_on_where_they_broke<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&impatient())?;
    let file = dicom::multi_frame(3)?;
    let uploaded = fixture.rest().upload(&file)?;
    for fault in refusals() {
        let rule = fixture.bucket.faults().push(FaultRule::new(fault.clone()).on(request::READ).times(2));
        assert!(fixture.rest().file(&uploaded.id)? == file, "the bytes differ after {fault:?}");
        assert_eq!(rule.fired(), 2, "{fault:?}");
    }
    for fault in [
        Fault::ResetAfterResponseBytes(1_000_000),
        Fault::CloseAfterResponseBytes(1_000_000),
        Fault::StallResponseAfter(1_000_000),
    ] {
        let first = fixture.bucket.faults().push(FaultRule::new(fault.clone()).on(request::READ));
        let second = fixture.bucket.faults().push(FaultRule::new(fault.clone()).on(request::READ_RANGE));
        let (read, requests) = fixture.counted(|| Ok(fixture.rest().file(&uploaded.id)?))?;
        assert!(read == file, "the bytes differ after {fault:?}");
        assert_eq!((first.fired(), second.fired()), (1, 1), "{fault:?}");
        assert_eq!((requests.of(request::READ), requests.of(request::READ_RANGE)), (1, 2), "{fault:?}");
        let resumed: Vec<_> =
            fixture.bucket.last_requests().into_iter().filter_map(|request| request.range).collect();
        ensure!(resumed.iter().all(|range| range != "bytes=0-"), "{resumed:?} begin anew after {fault:?}");
    }
    assert_unnoticed(&fixture);
    Ok(())
}

fn ranges_survive_refusals_and_broken_connections<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&impatient())?;
    let path = format!("{}/tags", fixture.rest().upload(&slice()?)?.path);
    let tags = fixture.rest().get(&path)?.ok()?.body;
    let faults = refusals().into_iter().chain([
        Fault::ResetAfterResponseBytes(200),
        Fault::CloseAfterResponseBytes(200),
        Fault::StallResponseAfter(200),
    ]);
    for fault in faults {
        let rule = fixture.bucket.faults().push(FaultRule::new(fault.clone()).on(request::READ_RANGE));
        assert!(fixture.rest().get(&path)?.ok()?.body == tags, "the tags differ after {fault:?}");
        assert_eq!(rule.fired(), 1, "{fault:?}");
    }
    assert_unnoticed(&fixture);
    Ok(())
}

fn deletes_survive_refusals_and_broken_connections<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&impatient())?;
    for (file, fault) in slices(0, 4)?.iter().zip(refusals()) {
        let uploaded = fixture.rest().upload(file)?;
        let rule = fixture.bucket.faults().push(FaultRule::new(fault.clone()).on(request::REMOVE).times(2));
        fixture.rest().delete(&uploaded.path)?.ok()?;
        assert_eq!(rule.fired(), 2, "{fault:?}");
        assert!(fixture.keys().is_empty(), "the object is still there after {fault:?}");
    }
    assert_unnoticed(&fixture);
    Ok(())
}

fn a_server_that_asks_for_a_pause_gets_it<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::start()?;
    for code in [429, 503] {
        let rule = FaultRule::new(asks_for_patience(code, 2)).on(request::CREATE);
        let rule = fixture.bucket.faults().push(rule);
        let start = Instant::now();
        let uploaded = fixture.rest().upload(&slice()?)?;
        let took = start.elapsed();
        assert_eq!(rule.fired(), 1);
        assert!((2.0..5.0).contains(&took.as_secs_f64()), "{took:?}");
        fixture.rest().delete(&uploaded.path)?.ok()?;
    }
    assert_unnoticed(&fixture);
    Ok(())
}

fn an_upload_outlives_a_restart_of_the_server<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::start()?;
    let file = dicom::multi_frame(5)?;
    thread::scope(|scope| -> Result<()> {
        let hold = fixture.bucket.hold(request::CREATE);
        let upload = scope.spawn(|| fixture.rest().upload(&file));
        ensure!(hold.wait_until(1, Duration::from_secs(10)), "no request");
        fixture.bucket.stop();
        hold.release();
        thread::sleep(Duration::from_millis(500));
        fixture.bucket.start_again()?;
        let uploaded = upload.join().map_err(|_| anyhow!("panicked"))??;
        assert!(fixture.rest().file(&uploaded.id)? == file, "the bytes differ");
        Ok(())
    })?;
    assert_unnoticed(&fixture);
    Ok(())
}

fn transfers_outlive_a_cable_that_is_pulled_for_a_moment<C: Cloud>() -> Result<()> {
    // An upload's last bytes are in buffers of the system, where the plugin does not see them move, for up to a second.
    let (fixture, proxy) = Fixture::<C>::behind_proxy(&json!({"ConnectionTimeout": 2}))?;
    let file = dicom::multi_frame(8)?;
    fixture.bucket.bandwidth_per_connection(Some(8_000_000));
    let disturbed =
        |begun: &(dyn Fn() -> u64 + Sync), pull: &dyn Fn(), work: &(dyn Fn() -> Result<()> + Sync)| {
            let before = begun();
            thread::scope(|scope| -> Result<()> {
                let transfer = scope.spawn(work);
                ensure!(within(Duration::from_secs(10), || begun() > before + 1_000_000), "nothing moves");
                pull();
                thread::sleep(Duration::from_millis(1500));
                proxy.mend();
                transfer
                    .join()
                    .map_err(|_| anyhow!("panicked"))?
                    .with_context(|| fixture.log_lines('E').join("\n"))
            })
        };
    for pull in [&(|| proxy.cut()) as &dyn Fn(), &|| proxy.freeze()] {
        let upload = || Ok(fixture.rest().upload(&file).map(drop)?);
        disturbed(&|| proxy.bytes_to_target(), pull, &upload)?;
        let id = fixture.rest().get_json("/instances")?[0].as_str().unwrap_or_default().to_owned();
        let read = || {
            ensure!(fixture.rest().file(&id)? == file, "the bytes differ");
            Ok(())
        };
        disturbed(&|| proxy.bytes_from_target(), pull, &read)?;
        fixture.rest().delete(&format!("/instances/{id}"))?.ok()?;
    }
    assert_unnoticed(&fixture);
    Ok(())
}
