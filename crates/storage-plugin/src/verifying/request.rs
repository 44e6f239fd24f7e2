//! `POST /object-storage/verify`.

use orthanc_ffi::{RestAnswer, RestFailure, RestRequest};
use serde_json::{Map, Value};

use super::{Depth, Verifier};
use crate::jobs::{Host, JobRequest, bad_request, start_job};
use crate::post::only_post;

/// Starts the requested job.
pub(crate) fn start_verification(
    verifier: &Verifier,
    host: &Host,
    request: &RestRequest<'_>,
) -> Result<RestAnswer, RestFailure> {
    only_post(request)?;
    let requested = JobRequest::read(request.body())?;
    let depth = depth(&requested.fields)?;
    start_job(&verifier.context.orthanc, host, verifier.work(depth), &requested)
}

fn depth(fields: &Map<String, Value>) -> Result<Depth, RestFailure> {
    let depth = fields.get("Depth").map_or(Some(Depth::Size), |name| Depth::of(name.as_str()?));
    depth.ok_or_else(|| bad_request("Depth must be \"exists\", \"size\", \"checksum\" or \"content\""))
}
