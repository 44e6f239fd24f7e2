//! What is found at the start: servers that are away, refusals, mistakes in the section; and what the log tells.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use end_to_end::{Proxy, dicom};
use serde_json::{Value, json};

use crate::cloud::{self, BUCKET_OPTION, HTTP_LOG_OPTION, SECTION, URL};
use crate::fixture::{Fixture, builder, log_lines, log_of_refused_start, section, slice};

#[test]
fn a_server_that_is_away_at_the_start_is_a_warning_and_works_once_it_is_there() -> Result<()> {
    let bucket = cloud::server()?;
    bucket.stop();
    let orthanc = builder(&section(&bucket.endpoint(), &json!({"RequestTimeout": 2}))?)?.start()?;
    let fixture = Fixture { orthanc, bucket };
    let warnings = fixture.log_lines('W');
    let told = |line: &&String| line.contains(URL) && line.contains("cannot connect");
    assert_eq!(warnings.iter().filter(told).count(), 1, "{warnings:?}");
    assert!(fixture.rest().upload(&slice()?).is_err());
    assert_eq!(fixture.rest().get_json("/instances")?, json!([]));

    fixture.bucket.start_again()?;
    let uploaded = fixture.rest().upload(&slice()?)?;
    assert!(fixture.rest().file(&uploaded.id)? == slice()?, "the bytes differ");
    Ok(())
}

#[test]
fn a_server_that_does_not_answer_at_the_start_holds_orthanc_up_for_no_longer_than_a_stall() -> Result<()> {
    let bucket = cloud::server()?;
    let proxy = Proxy::start(([127, 0, 0, 1], bucket.port()).into())?;
    proxy.freeze();
    let section = section(&proxy.endpoint(), &json!({"ConnectionTimeout": 1}))?;
    let start = Instant::now();
    let orthanc = builder(&section)?.start()?;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let fixture = Fixture { orthanc, bucket };
    let warnings = fixture.log_lines('W');
    assert!(warnings.iter().any(|line| line.contains("nothing moved for 1 s; going on")), "{warnings:?}");

    proxy.mend();
    fixture.rest().upload(&slice()?)?;
    assert_eq!(fixture.keys().len(), 1);
    Ok(())
}

#[test]
fn wrong_credentials_stop_the_start_with_one_line_and_without_a_secret() -> Result<()> {
    let bucket = cloud::server()?;
    for (changes, reason) in cloud::refused_credentials() {
        let section = section(&bucket.endpoint(), &changes)?;
        let log = log_of_refused_start(&section)?;
        let errors = log_lines(&log, 'E');
        let [error] = &errors[..] else { anyhow::bail!("{errors:?}") };
        assert!(
            error.starts_with(&format!("cannot check {URL}: access denied: check the credentials")),
            "{error}"
        );
        assert!(error.contains(reason), "{error}");
        assert_tells_no_secret(&log, &section);
    }
    Ok(())
}

#[test]
fn a_missing_bucket_stops_the_start_with_one_line() -> Result<()> {
    let bucket = cloud::server()?;
    let section = section(&bucket.endpoint(), &json!({BUCKET_OPTION: "no-such-bucket"}))?;
    let log = log_of_refused_start(&section)?;
    let errors = log_lines(&log, 'E');
    let [error] = &errors[..] else { anyhow::bail!("{errors:?}") };
    assert!(
        error.contains("no-such-bucket: the bucket does not exist: create it, or correct its name"),
        "{error}"
    );
    assert_tells_no_secret(&log, &section);
    Ok(())
}

#[test]
fn a_mistake_in_the_section_stops_the_start_with_one_line() -> Result<()> {
    let bucket = cloud::server()?;
    let section = section(&bucket.endpoint(), &json!({"RootPath": "/absolute"}))?;
    let errors = log_lines(&log_of_refused_start(&section)?, 'E');
    let [error] = &errors[..] else { anyhow::bail!("{errors:?}") };
    assert!(error.contains(&format!("{SECTION}.RootPath")) && error.contains("/absolute"), "{error}");
    assert_eq!(bucket.requests().total, 0);
    Ok(())
}

#[test]
fn unknown_options_are_named_in_one_warning() -> Result<()> {
    let fixture = Fixture::with(&json!({"RootPaht": "a", "StorageStrukture": "legacy"}))?;
    let warnings = fixture.log_lines('W');
    let about = warnings.iter().filter(|line| line.contains("unknown option")).collect::<Vec<_>>();
    let [warning] = about[..] else { anyhow::bail!("{warnings:?}") };
    assert!(warning.contains("RootPaht, StorageStrukture") && warning.contains(SECTION), "{warning}");
    Ok(())
}

#[test]
fn a_bucket_without_client_side_encryption_is_a_warning() -> Result<()> {
    let warnings = Fixture::start()?.log_lines('W');
    let told = |line: &&String| line.contains(URL) && line.contains("patient data in clear");
    assert_eq!(warnings.iter().filter(told).count(), 1, "{warnings:?}");
    Ok(())
}

#[test]
fn every_operation_is_an_info_line_with_type_bytes_time_and_speed() -> Result<()> {
    let fixture = Fixture::configured(&Value::Null, |builder| builder.verbose(true))?;
    let file = dicom::multi_frame(1)?;
    let uploaded = fixture.rest().upload(&file)?;
    let key = fixture.only_object()?.0;
    fixture.rest().file(&uploaded.id)?;
    fixture.rest().get(&format!("{}/tags", uploaded.path))?.ok()?;
    fixture.rest().delete(&uploaded.path)?.ok()?;

    let lines = fixture.log_lines('I');
    let lines: Vec<_> = lines.iter().filter(|line| line.contains(&key)).collect();
    let [stored, read, range, deleted] = lines[..] else { anyhow::bail!("{lines:#?}") };
    let object = format!("{URL}/{key} (dicom): ");
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
        let count: usize = count.parse()?;
        assert_eq!(count, bytes.unwrap_or(count), "{line}");
        assert!(milliseconds.parse::<u64>()? < 10_000, "{line}");
        let speed: f64 = speed.parse()?;
        assert!(speed > 0.0 || count == 0, "{line}");
    }
    Ok(())
}

#[test]
fn neither_secrets_nor_patients_are_in_a_verbose_log_with_the_http_clients_own_lines() -> Result<()> {
    let changes = json!({HTTP_LOG_OPTION: true, "MaxRetries": 1});
    let mut fixture = Fixture::configured(&changes, |builder| builder.verbose(true))?;
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
    let of_the_client = fixture.log_lines('I').into_iter().filter(|line| line.contains("status=200")).count();
    assert!(of_the_client >= 3, "the client's own lines are missing:\n{log}");
    assert_tells_no_secret(&log, &section(&fixture.bucket.endpoint(), &changes)?);
    let lines = log.lines().filter(|line| line.contains(cloud::NAME));
    for line in lines {
        assert!(!line.contains("DEMO"), "{line}");
    }
    Ok(())
}

/// Neither those of the server nor those that a section gives for it.
fn assert_tells_no_secret(log: &str, section: &Value) {
    let given = section.as_object().into_iter().flatten();
    let given = given.filter(|(name, _)| name.ends_with("Key")).filter_map(|(_, value)| value.as_str());
    let secrets = cloud::secrets();
    for secret in secrets.iter().map(String::as_str).chain(given) {
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} is in the log: {line:?}");
    }
}
