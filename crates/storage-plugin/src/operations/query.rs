//! Parameters of queries.

use std::ops::RangeInclusive;

use orthanc_ffi::{RestFailure, RestRequest};

/// An integer in the query of a request.
///
/// # Errors
///
/// The refusal of anything else.
pub(super) fn number(
    request: &RestRequest<'_>,
    name: &str,
    default: usize,
    range: RangeInclusive<usize>,
) -> Result<usize, RestFailure> {
    let Some((_, text)) = request.query().iter().find(|(key, _)| *key == name) else { return Ok(default) };
    text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        let (least, most) = range.into_inner();
        let message = format!("{name} must be an integer from {least} to {most}");
        RestFailure::Status { status: 400, message }
    })
}
