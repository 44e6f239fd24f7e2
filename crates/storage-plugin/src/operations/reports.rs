//! `GET /object-storage/reports` and `GET /object-storage/reports/{job-id}`: what jobs have found.

use orthanc_ffi::{RestAnswer, RestFailure, RestRequest};
use serde_json::{Value, json};

use super::query::number;
use crate::jobs::{Host, ReportsError};

/// Findings in an answer, unless the request says otherwise.
const PAGE: usize = 1000;
/// Maximum number of findings in an answer.
const LARGEST_PAGE: usize = 10_000;

/// The summaries of the last jobs of each type, the last ones first.
pub(super) fn list(host: &Host) -> Result<RestAnswer, RestFailure> {
    let list = host
        .reports
        .as_ref()
        .map_or(Ok(Vec::new()), |reports| reports.list())
        .map_err(|error| failed(&error))?;
    Ok(RestAnswer::json(&list.into_iter().map(|summary| host.corrected(summary)).collect::<Value>()))
}

/// The report of one job, with a page of its findings.
pub(super) fn page(host: &Host, request: &RestRequest<'_>) -> Result<RestAnswer, RestFailure> {
    let id = request.groups().first().copied().unwrap_or_default();
    let since = number(request, "since", 0, 0..=usize::MAX)?;
    let limit = number(request, "limit", PAGE, 1..=LARGEST_PAGE)?;
    let page = host.reports.as_ref().map_or(Ok(None), |reports| reports.page(id, since, limit));
    let page = page.map_err(|error| failed(&error))?.ok_or_else(|| unknown(id))?;
    Ok(RestAnswer::json(&json!({"Summary": host.corrected(page.summary), "Findings": page.findings})))
}

fn unknown(id: &str) -> RestFailure {
    let message = format!(
        "there is no report of a job with the id {id:?}: the jobs that have not ended have one, and the last 20 of each type"
    );
    RestFailure::Status { status: 404, message }
}

fn failed(error: &ReportsError) -> RestFailure {
    RestFailure::Status { status: 500, message: error.to_string() }
}
