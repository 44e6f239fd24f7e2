//! What is found at the start: servers that are away, refusals, mistakes in the section; and what the log tells.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use real_orthanc::{Proxy, dicom};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{object_url, with};
use crate::orthanc::fixture::{Fixture, builder, log_lines, log_of_refused_start, slice};

tests![
    a_server_that_is_away_at_the_start_is_a_warning_and_works_once_it_is_there,
    a_server_that_does_not_answer_at_the_start_holds_orthanc_up_for_no_longer_than_a_stall,
    wrong_credentials_stop_the_start_with_one_line_and_without_a_secret,
    a_missing_bucket_stops_the_start_with_one_line,
    a_mistake_in_the_section_stops_the_start_with_one_line,
    unknown_options_are_named_in_one_warning,
    a_bucket_without_client_side_encryption_is_a_warning,
    every_operation_is_an_info_line_with_type_bytes_time_and_speed,
    neither_secrets_nor_patients_are_in_a_verbose_log_with_the_http_clients_own_lines,
];

fn a_server_that_is_away_at_the_start_is_a_warning_and_works_once_it_is_there<C: Cloud>() -> Result<()> {
    let bucket = C::server()?;
    bucket.stop();
    let orthanc =
        builder::<C>(&with(C::section(&bucket.endpoint()), &json!({"RequestTimeout": 2})))?.start()?;
    let fixture = Fixture::<C>::new(orthanc, bucket);
    let warnings = fixture.log_lines('W');
    let told = |line: &&String| line.contains(C::URL) && line.contains("cannot connect");
    assert_eq!(warnings.iter().filter(told).count(), 1, "{warnings:?}");
    assert!(fixture.rest().upload(&slice()?).is_err());
    assert_eq!(fixture.rest().get_json("/instances")?, json!([]));

    fixture.bucket.start_again()?;
    let uploaded = fixture.rest().upload(&slice()?)?;
    assert!(fixture.rest().file(&uploaded.id)? == slice()?, "the bytes differ");
    Ok(())
}

fn a_server_that_does_not_answer_at_the_start_holds_orthanc_up_for_no_longer_than_a_stall<C: Cloud>()
-> Result<()> {
    let bucket = C::server()?;
    let proxy = Proxy::start(([127, 0, 0, 1], bucket.port()).into())?;
    proxy.freeze();
    let section = with(C::section(&proxy.endpoint()), &json!({"ConnectionTimeout": 1}));
    let start = Instant::now();
    let orthanc = builder::<C>(&section)?.start()?;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let fixture = Fixture::<C>::new(orthanc, bucket);
    let warnings = fixture.log_lines('W');
    assert!(warnings.iter().any(|line| line.contains("nothing moved for 1 s; going on")), "{warnings:?}");

    proxy.mend();
    fixture.rest().upload(&slice()?)?;
    assert_eq!(fixture.keys().len(), 1);
    Ok(())
}

fn wrong_credentials_stop_the_start_with_one_line_and_without_a_secret<C: Cloud>() -> Result<()> {
    let bucket = C::server()?;
    for refusal in C::refusals(&bucket.endpoint()) {
        let section = with(C::section(&bucket.endpoint()), &refusal.changes);
        let log = log_of_refused_start::<C>(&section)?;
        let errors = log_lines::<C>(&log, 'E');
        let [error] = &errors[..] else { anyhow::bail!("{errors:?}") };
        assert!(error.starts_with(&format!("cannot check {}: {}", C::URL, refusal.cause)), "{error}");
        assert_tells_no_secret::<C>(&log, refusal.secret);
    }
    Ok(())
}

fn a_missing_bucket_stops_the_start_with_one_line<C: Cloud>() -> Result<()> {
    let bucket = C::server()?;
    let section = with(C::section(&bucket.endpoint()), &json!({C::BUCKET_OPTION: "no-such-bucket"}));
    let log = log_of_refused_start::<C>(&section)?;
    let errors = log_lines::<C>(&log, 'E');
    let [error] = &errors[..] else { anyhow::bail!("{errors:?}") };
    assert!(
        error.contains("no-such-bucket: the bucket does not exist: create it, or correct its name"),
        "{error}"
    );
    assert_tells_no_secret::<C>(&log, None);
    Ok(())
}

fn a_mistake_in_the_section_stops_the_start_with_one_line<C: Cloud>() -> Result<()> {
    let bucket = C::server()?;
    let section = with(C::section(&bucket.endpoint()), &json!({"RootPath": "/absolute"}));
    let errors = log_lines::<C>(&log_of_refused_start::<C>(&section)?, 'E');
    let [error] = &errors[..] else { anyhow::bail!("{errors:?}") };
    assert!(error.contains(&format!("{}.RootPath", C::SECTION)) && error.contains("/absolute"), "{error}");
    assert_eq!(bucket.requests().total, 0);
    Ok(())
}

fn unknown_options_are_named_in_one_warning<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&json!({"RootPaht": "a", "StorageStrukture": "legacy"}))?;
    let warnings = fixture.log_lines('W');
    let about = warnings.iter().filter(|line| line.contains("unknown option")).collect::<Vec<_>>();
    let [warning] = about[..] else { anyhow::bail!("{warnings:?}") };
    assert!(warning.contains("RootPaht, StorageStrukture") && warning.contains(C::SECTION), "{warning}");
    Ok(())
}

fn a_bucket_without_client_side_encryption_is_a_warning<C: Cloud>() -> Result<()> {
    let warnings = Fixture::<C>::start()?.log_lines('W');
    let told = |line: &&String| line.contains(C::URL) && line.contains("patient data in clear");
    assert_eq!(warnings.iter().filter(told).count(), 1, "{warnings:?}");
    Ok(())
}

fn every_operation_is_an_info_line_with_type_bytes_time_and_speed<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::configured(&Value::Null, |builder| builder.verbose(true))?;
    let file = dicom::multi_frame(1)?;
    let uploaded = fixture.rest().upload(&file)?;
    let key = fixture.only_object()?.0;
    fixture.rest().file(&uploaded.id)?;
    fixture.rest().get(&format!("{}/tags", uploaded.path))?.ok()?;
    fixture.rest().delete(&uploaded.path)?.ok()?;

    let lines = fixture.log_lines('I');
    let lines: Vec<_> = lines.iter().filter(|line| line.contains(&key)).collect();
    let [stored, read, range, deleted] = lines[..] else { anyhow::bail!("{lines:#?}") };
    let object = format!("{} (dicom): ", object_url::<C>(&key));
    for (line, begin, bytes) in [
        (stored, "stored ", Some(file.len())),
        (read, "read ", Some(file.len())),
        (range, "read a range of ", None),
        (deleted, "deleted ", Some(0)),
    ] {
        let figures = line.strip_prefix(&format!("{begin}{object}")).context(line.clone())?;
        let words: Vec<_> = figures.split(' ').collect();
        let [count, "bytes", "in", milliseconds, "ms,", speed, "MB/s"] = words[..] else {
            anyhow::bail!("{line}")
        };
        assert_eq!(count.parse::<usize>()?, bytes.unwrap_or(count.parse()?), "{line}");
        let (count, milliseconds): (f64, f64) = (count.parse()?, milliseconds.parse()?);
        assert!(milliseconds < 10_000.0, "{line}");
        // Milliseconds are cut off, and the speed has one decimal.
        let (least, most) = (count / 1e3 / (milliseconds + 1.0), count / 1e3 / milliseconds.max(1e-6));
        assert!((least - 0.06..=most + 0.06).contains(&speed.parse()?), "{line}");
    }
    Ok(())
}

fn neither_secrets_nor_patients_are_in_a_verbose_log_with_the_http_clients_own_lines<C: Cloud>() -> Result<()>
{
    let changes = json!({C::HTTP_LOG_OPTION: true, "MaxRetries": 1});
    let mut fixture = Fixture::<C>::configured(&changes, |builder| builder.verbose(true))?;
    let uploaded = fixture.rest().upload(&slice()?)?;
    let attachment = format!("{}/attachments/1024", uploaded.path);
    fixture.rest().put(&attachment, b"DEMO^PATIENT")?.ok()?;
    fixture.rest().file(&uploaded.id)?;
    fixture.rest().get(&format!("{}/tags", uploaded.path))?.ok()?;
    fixture.bucket.stop();
    assert_eq!(fixture.rest().get(&format!("{}/file", uploaded.path))?.status, 500);
    fixture.bucket.start_again()?;
    fixture.rest().delete(&uploaded.path)?.ok()?;
    fixture.orthanc.stop()?;

    let log = fixture.orthanc.log();
    let of_the_client = fixture.log_lines('I').into_iter().filter(|line| line.contains("status=2")).count();
    assert!(of_the_client >= 3, "the client's own lines are missing:\n{log}");
    assert_tells_no_secret::<C>(&log, None);
    let lines = log.lines().filter(|line| line.contains(C::NAME));
    for line in lines {
        assert!(!line.contains("DEMO"), "{line}");
    }
    Ok(())
}

/// Neither those of the section nor a wrong one that was in its place.
fn assert_tells_no_secret<C: Cloud>(log: &str, wrong: Option<String>) {
    for secret in C::secrets().into_iter().chain(wrong) {
        let line = log.lines().find(|line| line.contains(&secret));
        assert!(line.is_none(), "{secret} is in the log: {line:?}");
    }
}
