//! The route that starts a job.

use bucket::RestoreOptions;
use orthanc_ffi::{Orthanc, RestAnswer, RestFailure, RestRequest};
use serde_json::{Map, Value};

use super::work::{Restorer, Wanted};
use crate::jobs::{JobRequest, bad_request, start_job};
use crate::post::only_post;

/// The lifetime of a copy unless the request names another one.
const DAYS: u32 = 7;
/// The longest lifetime of a copy, ten years.
const MOST_DAYS: u32 = 3650;

/// Starts the requested job.
pub(crate) fn start_restore(
    orthanc: &Orthanc,
    restorer: &Restorer,
    request: &RestRequest<'_>,
) -> Result<RestAnswer, RestFailure> {
    only_post(request)?;
    let requested = JobRequest::read(request.body())?;
    let wanted = wanted(restorer, &requested.fields).map_err(bad_request)?;
    let requested = if wanted.waits { requested.asynchronous_by_default() } else { requested };
    start_job(orthanc, &restorer.host, restorer.work(wanted), &requested)
}

/// Reads the fields of a request, or of a saved job.
pub(super) fn wanted(restorer: &Restorer, fields: &Map<String, Value>) -> Result<Wanted, String> {
    let client = restorer.storage.objects().restore_client();
    let client = client.ok_or("there is nothing to restore: this cloud's objects can all be read at once")?;
    read(fields, client.tiers(), client.makes_copies())
}

fn read(fields: &Map<String, Value>, tiers: &[&'static str], makes_copies: bool) -> Result<Wanted, String> {
    let tier = match fields.get("Tier") {
        None => tiers.first(),
        Some(name) => tiers.iter().find(|tier| name == *tier),
    };
    let days = match fields.get("Days") {
        Some(_) if !makes_copies => {
            return Err("Days must be left out: the server has no temporary copies, but moves the objects to another \
                        tier, where they stay"
                .to_owned());
        }
        None => Some(DAYS),
        Some(days) => days.as_u64().and_then(|days| u32::try_from(days).ok()),
    };
    let waits = fields.get("Wait").map_or(Some(true), Value::as_bool);
    Ok(Wanted {
        options: RestoreOptions {
            days: days
                .filter(|days| (1..=MOST_DAYS).contains(days))
                .ok_or_else(|| format!("Days must be an integer from 1 to {MOST_DAYS}"))?,
            tier: tier.copied().ok_or_else(|| format!("Tier must be one of {}", tiers.join(", ")))?,
        },
        waits: waits.ok_or("Wait must be true or false")?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TIERS: [&str; 2] = ["Standard", "Expedited"];

    fn read_json(fields: &Value, makes_copies: bool) -> Result<Wanted, String> {
        read(fields.as_object().unwrap(), &TIERS, makes_copies)
    }

    #[test]
    fn fields_have_defaults() {
        let wanted = |days, tier, waits| Wanted { options: RestoreOptions { days, tier }, waits };
        let all = json!({"Days": 30, "Tier": "Expedited", "Wait": false});
        assert_eq!(read_json(&json!({}), true), Ok(wanted(7, "Standard", true)));
        assert_eq!(read_json(&json!({}), false), Ok(wanted(7, "Standard", true)));
        assert_eq!(read_json(&all, true), Ok(wanted(30, "Expedited", false)));
    }

    #[test]
    fn refusals() {
        let refused = [
            (json!({"Days": 0}), true),
            (json!({"Days": 1.5}), true),
            (json!({"Days": 3651}), true),
            (json!({"Days": 7}), false),
            (json!({"Tier": "Bulk"}), true),
            (json!({"Tier": 1}), true),
            (json!({"Wait": "no"}), true),
        ];
        let lines = refused.map(|(fields, makes_copies)| {
            let refusal = read_json(&fields, makes_copies).unwrap_err();
            format!("{fields}\n    {refusal}")
        });
        insta::with_settings!({
            snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/../testing/messages"),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, { insta::assert_snapshot!("restore-requests", lines.join("\n")) });
    }
}
