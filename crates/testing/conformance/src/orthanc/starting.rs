//! Refused starts of Orthanc, and the contents of its log.

use anyhow::{Result, bail};
use serde_json::json;

use crate::Cloud;
use crate::fixture::{assert_no_secret, with};
use crate::orthanc::fixture::{Fixture, log_lines, log_of_refused_start, slice};

tests! {
    OneCloud:
        refused_start_is_one_error_line,
        verbose_log_contains_no_secret_and_no_patient,
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
