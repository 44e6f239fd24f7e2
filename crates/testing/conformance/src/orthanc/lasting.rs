//! Faults that last: one clear error within `RequestTimeout`, while everything else goes on.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use fake_cloud::{Fault, FaultRule};
use real_orthanc::{Answer, SendError, Uploaded, dicom, dicom_send};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{object_url, request, within};
use crate::orthanc::fixture::{Fixture, slice, slices};

tests![
    an_upload_that_cannot_succeed_is_one_error_in_time_and_leaves_nothing,
    a_download_that_cannot_succeed_is_one_error_in_time,
    what_no_repetition_heals_fails_at_once,
    damaged_content_is_an_error_and_not_an_answer,
    others_are_served_while_requests_hang,
    a_cable_that_stays_pulled_is_one_error_in_time_and_forgotten_once_it_is_back,
    a_delete_while_the_server_is_away_does_not_stop_orthanc_and_is_made_up_for_later,
    a_study_deleted_while_the_server_is_away_keeps_orthanc_no_longer_than_one_instance,
    a_file_sent_by_dicom_that_cannot_be_stored_is_refused,
    orthanc_ends_while_a_delete_waits_for_a_server_that_is_away,
];

const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// For Orthanc's own work and a busy machine.
const SLACK: Duration = Duration::from_secs(2);
/// How long Orthanc may wait for a delete, during which its database is locked.
const LONGEST_DELETE: Duration = Duration::from_secs(10);

/// A stall is a second, an operation three. The retries are not what ends an operation here.
fn impatient() -> Value {
    json!({"ConnectionTimeout": 1, "RequestTimeout": REQUEST_TIMEOUT.as_secs(), "MaxRetries": 100})
}

/// The error line that was written while `work` failed in time with HTTP status 500.
fn error_of<C: Cloud>(fixture: &Fixture<C>, work: impl FnOnce() -> Result<Answer>) -> Result<String> {
    let before = fixture.log_lines('E').len();
    let start = Instant::now();
    let answer = work()?;
    let took = start.elapsed();
    ensure!(answer.status == 500, "HTTP status {}: {}", answer.status, answer.text());
    ensure!(took < REQUEST_TIMEOUT + SLACK, "{took:?}");
    let errors = fixture.log_lines('E').split_off(before);
    let [error] = &errors[..] else { return Err(anyhow!("{errors:#?}")) };
    Ok(error.clone())
}

fn read<C: Cloud>(fixture: &Fixture<C>, uploaded: &Uploaded) -> Result<Answer> {
    Ok(fixture.rest().get(&format!("{}/file", uploaded.path))?)
}

fn busy<C: Cloud>() -> String {
    format!("the server cannot serve the request now (HTTP 503 {}: ", C::error_code("SlowDown"))
}

fn an_upload_that_cannot_succeed_is_one_error_in_time_and_leaves_nothing<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&impatient())?;
    // More than the buffers between plugin and server hold, so that a server that does not read shows.
    let file = dicom::multi_frame(20)?;
    for (fault, reason) in [
        (Fault::slow_down(), busy::<C>().as_str()),
        (
            Fault::status(500, "InternalError"),
            "the server cannot serve the request now (HTTP 500 InternalError: ",
        ),
        (Fault::CloseAfterRequestBytes(1000), "the connection broke"),
        (Fault::StallRequestAfter(1000), "nothing moved for 1 s"),
    ] {
        let rule = FaultRule::new(fault).on(request::CREATE).times(usize::MAX);
        let rule = fixture.bucket.faults().push(rule);
        let error = error_of(&fixture, || Ok(fixture.rest().post("/instances", &file)?))?;
        assert!(error.starts_with(&format!("cannot store {}/", C::URL)), "{error}");
        assert!(error.contains(reason) || error.contains("not done within 3 s (RequestTimeout)"), "{error}");
        assert!(error.ends_with(&format!("after {} attempts", rule.fired())) && rule.fired() > 1, "{error}");
        fixture.bucket.faults().clear();
        assert!(fixture.keys().is_empty());
        assert_eq!(fixture.rest().get_json("/instances")?, json!([]));
    }
    fixture.rest().upload(&file)?;
    Ok(())
}

fn a_download_that_cannot_succeed_is_one_error_in_time<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&impatient())?;
    let file = dicom::multi_frame(1)?;
    let uploaded = fixture.rest().upload(&file)?;
    let key = fixture.only_object()?.0;
    for (fault, reason) in [
        (Fault::slow_down(), busy::<C>().as_str()),
        (Fault::ResetAfterResponseBytes(0), "the connection broke"),
        (Fault::CloseAfterResponseBytes(0), "the connection broke"),
        (Fault::StallResponseAfter(0), "nothing moved for 1 s"),
    ] {
        // Whole at first, then from where it broke.
        for operation in [request::READ, request::READ_RANGE] {
            fixture.bucket.faults().push(FaultRule::new(fault.clone()).on(operation).times(usize::MAX));
        }
        let error = error_of(&fixture, || read(&fixture, &uploaded))?;
        assert!(error.starts_with(&format!("cannot read {}: ", object_url::<C>(&key))), "{error}");
        assert!(error.contains(reason) || error.contains("not done within 3 s (RequestTimeout)"), "{error}");
        fixture.bucket.faults().clear();
        assert!(read(&fixture, &uploaded)?.ok()?.body == file, "the bytes differ");
    }
    Ok(())
}

fn what_no_repetition_heals_fails_at_once<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&impatient())?;
    let uploaded = fixture.rest().upload(&slice()?)?;
    let fault = Fault::status(403, "AccessDenied");
    for operation in [request::CREATE, request::READ] {
        fixture.bucket.faults().push(FaultRule::new(fault.clone()).on(operation).times(usize::MAX));
    }
    let (error, requests) = fixture.counted(|| error_of(&fixture, || read(&fixture, &uploaded)))?;
    assert!(error.contains("access denied: check the credentials and their permissions"), "{error}");
    // The number of the request is what the cloud's support asks for.
    let answer = format!("(HTTP 403 {}: ", C::error_code("AccessDenied"));
    assert!(error.contains(&answer) && error.contains(", request "), "{error}");
    assert_eq!(requests.total, 1);
    let other = &slices(1, 1)?[0];
    let upload = || error_of(&fixture, || Ok(fixture.rest().post("/instances", other)?));
    assert_eq!(fixture.counted(upload)?.1.total, 1);
    fixture.bucket.faults().clear();

    fixture.bucket.clear();
    let (answer, requests) = fixture.counted(|| read(&fixture, &uploaded))?;
    assert_eq!((answer.status, requests.total), (404, 1));
    Ok(())
}

fn damaged_content_is_an_error_and_not_an_answer<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&impatient())?;
    let uploaded = fixture.rest().upload(&slice()?)?;
    let rule = FaultRule::new(Fault::CorruptResponseByte(7000)).on(request::READ).times(usize::MAX);
    fixture.bucket.faults().push(rule);
    let error = error_of(&fixture, || read(&fixture, &uploaded))?;
    assert!(error.contains("the content is damaged"), "{error}");
    Ok(())
}

fn others_are_served_while_requests_hang<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&json!({"RequestTimeout": 30}))?;
    let files = slices(0, 3)?;
    let hanging = fixture.rest().upload(&files[0])?;
    let key = fixture.only_object()?.0;
    let other = fixture.rest().upload(&files[1])?;
    thread::scope(|scope| -> Result<()> {
        let held_reads = fixture.bucket.hold_key(request::READ, key);
        let held_uploads = fixture.bucket.hold(request::CREATE);
        let reads: Vec<_> = (0..8).map(|_| scope.spawn(|| fixture.rest().file(&hanging.id))).collect();
        let upload = scope.spawn(|| fixture.rest().upload(&files[2]));
        ensure!(held_reads.wait_until(8, Duration::from_secs(10)), "{} reads", held_reads.waiting());
        ensure!(held_uploads.wait_until(1, Duration::from_secs(10)), "no upload");

        let start = Instant::now();
        ensure!(fixture.rest().file(&other.id)? == files[1], "the bytes differ");
        fixture.rest().get_json("/statistics")?;
        fixture.rest().delete(&other.path)?.ok()?;
        ensure!(start.elapsed() < Duration::from_secs(2), "others wait for {:?}", start.elapsed());
        ensure!((held_reads.waiting(), held_uploads.waiting()) == (8, 1), "not held any more");

        held_reads.release();
        held_uploads.release();
        for read in reads {
            ensure!(read.join().map_err(|_| anyhow!("panicked"))?? == files[0], "the bytes differ");
        }
        upload.join().map_err(|_| anyhow!("panicked"))??;
        Ok(())
    })
}

fn a_cable_that_stays_pulled_is_one_error_in_time_and_forgotten_once_it_is_back<C: Cloud>() -> Result<()> {
    let (fixture, proxy) = Fixture::<C>::behind_proxy(&impatient())?;
    let files = slices(0, 2)?;
    let uploaded = fixture.rest().upload(&files[0])?;
    for (pull, reason) in
        [(&(|| proxy.cut()) as &dyn Fn(), "cannot connect"), (&|| proxy.freeze(), "nothing moved for 1 s")]
    {
        pull();
        for work in [&|| read(&fixture, &uploaded), &|| Ok(fixture.rest().post("/instances", &files[1])?)]
            as [&dyn Fn() -> Result<Answer>; 2]
        {
            let error = error_of(&fixture, work)?;
            assert!(
                error.contains(reason) || error.contains("not done within 3 s (RequestTimeout)"),
                "{error}"
            );
        }
        proxy.mend();
        assert!(read(&fixture, &uploaded)?.ok()?.body == files[0], "the bytes differ");
        assert_eq!(fixture.rest().get_json("/instances")?, json!([uploaded.id]));
    }
    Ok(())
}

fn a_delete_while_the_server_is_away_does_not_stop_orthanc_and_is_made_up_for_later<C: Cloud>() -> Result<()>
{
    let (fixture, proxy) = Fixture::<C>::behind_proxy(&json!({"ConnectionTimeout": 2}))?;
    let files = slices(0, 2)?;
    for pull in [&(|| proxy.cut()) as &dyn Fn(), &|| proxy.freeze()] {
        let uploaded = fixture.rest().upload(&files[0])?;
        pull();
        let start = Instant::now();
        fixture.rest().delete(&uploaded.path)?.ok()?;
        assert!(start.elapsed() < LONGEST_DELETE, "{:?}", start.elapsed());
        // The index is free again.
        assert_eq!(fixture.rest().get_json("/instances")?, json!([]));
        assert!(start.elapsed() < LONGEST_DELETE, "{:?}", start.elapsed());
        assert_eq!(fixture.keys().len(), 1);

        proxy.mend();
        fixture.rest().upload(&files[1])?;
        assert!(within(Duration::from_secs(20), || fixture.keys().len() == 1), "{:?}", fixture.keys());
        let warnings = fixture.log_lines('W');
        assert!(warnings.iter().any(|line| line.contains("not deleted yet")), "{warnings:#?}");
        let left = fixture.rest().get_json("/instances")?[0].as_str().unwrap_or_default().to_owned();
        fixture.rest().delete(&format!("/instances/{left}"))?.ok()?;
    }
    assert_eq!(fixture.log_lines('E'), [""; 0]);
    Ok(())
}

fn a_study_deleted_while_the_server_is_away_keeps_orthanc_no_longer_than_one_instance<C: Cloud>() -> Result<()>
{
    let (fixture, proxy) = Fixture::<C>::behind_proxy(&json!({"ConnectionTimeout": 2}))?;
    let mut study = String::new();
    for file in slices(0, 20)? {
        study = fixture.rest().upload(&file)?.study;
    }
    proxy.cut();
    let start = Instant::now();
    fixture.rest().delete(&format!("/studies/{study}"))?.ok()?;
    assert!(start.elapsed() < LONGEST_DELETE, "{:?}", start.elapsed());
    proxy.mend();
    assert!(
        within(Duration::from_secs(20), || fixture.keys().is_empty()),
        "{} are left",
        fixture.keys().len()
    );
    assert_eq!(fixture.log_lines('E'), [""; 0]);
    Ok(())
}

fn a_file_sent_by_dicom_that_cannot_be_stored_is_refused<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&impatient())?;
    let folder = tempfile::tempdir()?;
    let files = dicom::write_study(folder.path(), 1, 0)?;
    fixture.bucket.stop();
    assert!(matches!(dicom_send(&fixture.orthanc, &files), Err(SendError::Refused(_))));
    assert_eq!(fixture.log_lines('E').len(), 1, "{:#?}", fixture.log_lines('E'));
    assert_eq!(fixture.rest().get_json("/instances")?, json!([]));

    fixture.bucket.start_again()?;
    dicom_send(&fixture.orthanc, &files)?;
    assert_eq!(fixture.keys().len(), 1);
    Ok(())
}

fn orthanc_ends_while_a_delete_waits_for_a_server_that_is_away<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::start()?;
    let uploaded = fixture.rest().upload(&slice()?)?;
    fixture.bucket.stop();
    fixture.rest().delete(&uploaded.path)?.ok()?;
    let start = Instant::now();
    fixture.orthanc.stop()?;
    // Three seconds are Orthanc's own, ten are for the deletes.
    assert!(start.elapsed() < Duration::from_secs(16), "{:?}", start.elapsed());
    let errors = fixture.log_lines('E');
    let [error] = &errors[..] else { return Err(anyhow!("{errors:#?}")) };
    assert!(
        error.contains("1 deletions did not come to an end: their objects stay in the bucket"),
        "{error}"
    );
    Ok(())
}
