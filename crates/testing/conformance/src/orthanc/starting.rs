//! Refused starts of Orthanc, and the contents of its log.

use anyhow::{Result, bail, ensure};
use real_orthanc::{StartError, plugin_of_debian};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{assert_no_secret, with};
use crate::orthanc::fixture::{Fixture, log_lines, log_of_refused_start, slice};

tests! {
    OneCloud:
        refused_start_is_one_error_line,
        verbose_log_contains_no_secret_and_no_patient,
        status_shows_configuration_and_last_errors,
        other_storage_plugin_is_named,
}

fn refused_start_is_one_error_line<C: Cloud>() -> Result<()> {
    let bucket = C::server()?;
    let absolute = format!("{}.RootPath", C::SECTION);
    let mut cases = vec![
        (json!({"RootPath": "/absolute"}), absolute.as_str()),
        (json!({C::BUCKET_OPTION: "no-such-bucket"}), C::NO_SUCH_BUCKET),
    ];
    let refusals = C::refusals(&bucket.endpoint());
    cases.extend(refusals.iter().map(|refusal| (refusal.changes.clone(), refusal.answer.as_str())));
    for (changes, fragment) in cases {
        let log = log_of_refused_start::<C>(&with(C::section(&bucket.endpoint()), &changes))?;
        let errors = log_lines::<C>(&log, 'E');
        let [error] = &errors[..] else { bail!("{errors:?}") };
        assert!(error.contains(fragment), "{error}");
        assert_no_secret::<C>(&log, None);
    }
    Ok(())
}

fn verbose_log_contains_no_secret_and_no_patient<C: Cloud>() -> Result<()> {
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
    let is_of_the_client = |line: &&String| line.contains("status=2");
    let client_lines = fixture.log_lines('I').iter().filter(is_of_the_client).count();
    assert!(client_lines >= 3, "no lines of the HTTP client:\n{log}");
    assert_no_secret::<C>(&log, None);
    for line in log.lines().filter(|line| line.contains(C::NAME)) {
        assert!(!line.contains("DEMO"), "{line}");
    }
    Ok(())
}

fn status_shows_configuration_and_last_errors<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&json!({"MaxRetries": 1, "RootPath": "archive"}))?;
    let uploaded = fixture.rest().upload(&slice()?)?;
    fixture.bucket.stop();
    let file = format!("{}/file", uploaded.path);
    ensure!(fixture.rest().get(&file)?.status == 500);
    let errors = fixture.log_lines('E');
    let status = fixture.rest().get_json("/object-storage/status")?;
    assert_eq!((&status["RootPath"], &status["StorageStructure"]), (&json!("archive"), &json!("flat")));
    assert_eq!((&status["Proxy"], &status["Retries"]), (&Value::Null, &json!(1)), "{status:#}");
    let endpoint = status["Endpoint"].as_str().unwrap_or_default();
    ensure!(endpoint.starts_with(&fixture.bucket.endpoint()), "{status:#}");
    ensure!(status["Credentials"].is_string() && status["Commit"].is_string(), "{status:#}");
    let Value::Object(last) = &status["Last"] else { bail!("{status:#}") };
    assert_eq!(last["Read"]["Error"], json!(errors[0]), "{status:#}");
    assert_eq!(
        (&last["Create"]["Error"], &last["Remove"]["Success"]),
        (&Value::Null, &Value::Null),
        "{status:#}"
    );
    for time in [&last["Read"]["Failure"], &last["Create"]["Success"]] {
        ensure!(time.as_str().is_some_and(|time| time.len() == 20 && time.ends_with('Z')), "{status:#}");
    }
    assert_no_secret::<C>(&status.to_string(), None);
    let description = fixture.rest().get_json(&format!("/plugins/{}", C::NAME.replace(' ', "%20")))?;
    ensure!(description["Description"].as_str().is_some_and(|text| text.contains(C::URL)), "{description:#}");
    fixture.bucket.start_again()?;
    fixture.rest().get(&file)?.ok()?;
    fixture.orthanc.stop()?;
    // The name is there once, whether the plugin writes it, or Orthanc as from 1.12.4 on.
    let log = fixture.orthanc.log();
    let summary = |line: &&str| line.contains("HybridMode Disabled");
    let lines: Vec<_> = log.lines().filter(summary).collect();
    let [line] = lines[..] else { bail!("{log}") };
    assert_eq!(line.matches(C::NAME).count(), 1, "{line}");
    Ok(())
}

/// Orthanc 1.10.1 has no `DelayedDeletion`, and so only the warning.
fn other_storage_plugin_is_named<C: Cloud>() -> Result<()> {
    let enabled =
        |builder: real_orthanc::Builder| builder.section("DelayedDeletion", json!({"Enable": true}));
    let fixture = Fixture::<C>::configured(&json!({}), enabled)?;
    let warnings = fixture.log_lines('W');
    let remedy = "set `DelayedDeletion.Enable` to false";
    ensure!(warnings.iter().any(|line| line.contains(remedy)), "{warnings:#?}");
    if fixture.orthanc.version()? < [1, 12, 0] {
        return Ok(());
    }
    let bucket = C::server()?;
    let other = real_orthanc::Orthanc::builder().plugin(plugin_of_debian("libDelayedDeletion.so"));
    let ours = crate::fixture::library::<C>()?;
    let both = enabled(other.plugin(ours).section(C::SECTION, C::section(&bucket.endpoint())));
    let Err(StartError::Exited { log, .. }) = both.start() else { bail!("Orthanc started") };
    let errors = log_lines::<C>(&log, 'E');
    let [error] = &errors[..] else { bail!("{log}") };
    ensure!(
        error.contains("another plugin is Orthanc's storage already") && error.contains(remedy),
        "{error}"
    );
    Ok(())
}
