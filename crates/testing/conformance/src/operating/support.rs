//! Shared parts of the tests of jobs that operate an archive.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Cloud;
use crate::orthanc::fixture::Fixture;

/// Maximum duration of a job.
pub(crate) const JOB: Duration = Duration::from_secs(90);

/// Starts a job. Returns its id.
pub(crate) fn start<C: Cloud>(fixture: &Fixture<C>, route: &str, body: &Value) -> Result<String> {
    start_at(fixture, &format!("/object-storage/{route}"), body)
}

/// Starts a job with any path. Returns its id.
pub(crate) fn start_at<C: Cloud>(fixture: &Fixture<C>, path: &str, body: &Value) -> Result<String> {
    let answer = fixture.rest().post_json(path, body)?.ok()?.json()?;
    Ok(answer["ID"].as_str().context("no ID")?.to_owned())
}

/// Runs a job for the whole archive, which must succeed. Returns its report with all findings.
pub(crate) fn run<C: Cloud>(fixture: &Fixture<C>, route: &str, body: &Value) -> Result<Value> {
    let id = start(fixture, route, body)?;
    let job = fixture.rest().wait_job(&id, JOB)?;
    ensure!(job["State"] == "Success", "{job:#}");
    report(fixture, &id)
}

/// Returns the report of a job with all findings.
pub(crate) fn report<C: Cloud>(fixture: &Fixture<C>, job: &str) -> Result<Value> {
    fixture.rest().get_json(&format!("/object-storage/reports/{job}?limit=10000"))
}

/// An attachment and what is wrong with it, as in a report.
pub(crate) type Finding = (String, String);

/// Returns the findings of a report, each of which must say what to do.
pub(crate) fn findings(report: &Value) -> Result<BTreeSet<Finding>> {
    let list = report["Findings"].as_array().context("no findings")?;
    ensure!(report["Summary"]["Findings"] == list.len(), "{report:#}");
    let text = |finding: &Value, field: &str| -> Result<String> {
        Ok(finding[field].as_str().with_context(|| format!("no {field}: {finding:#}"))?.to_owned())
    };
    let found: BTreeSet<Finding> = list
        .iter()
        .map(|finding| {
            text(finding, "Advice")?;
            text(finding, "Object")?;
            Ok((text(finding, "Uuid")?, text(finding, "Problem")?))
        })
        .collect::<Result<_>>()?;
    ensure!(found.len() == list.len(), "something is reported twice: {report:#}");
    Ok(found)
}

/// Fails unless a report has these findings, and no others.
pub(crate) fn expect_findings(report: &Value, expected: &BTreeSet<Finding>) -> Result<()> {
    let found = findings(report)?;
    let (missing, surplus): (Vec<_>, Vec<_>) =
        (expected.difference(&found).collect(), found.difference(expected).collect());
    ensure!(missing.is_empty() && surplus.is_empty(), "missing: {missing:#?}, surplus: {surplus:#?}");
    Ok(())
}

/// Returns the body of a request for a verification.
pub(crate) fn depth(depth: &str) -> Value {
    json!({"Depth": depth})
}
