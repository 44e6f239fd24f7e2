//! Master keys in a file and in a key service.

use std::time::Duration;

use anyhow::Result;
use fake_cloud::{CRYPTO_KEY, Fault, FaultRule, Operation};
use serde_json::json;

use super::Candidate;
use super::orthanc_options::OrthancOptions;
use crate::cloud::Cloud;

/// The only plugin whose key service is part of its server.
const PLUGIN: &str = "google-cloud";
/// Time until the service answers.
const ANSWER: Duration = Duration::from_millis(5);

/// Returns an Orthanc that encrypts with a key file.
pub(super) fn of_file(options: &OrthancOptions) -> Result<Candidate> {
    let cloud = Cloud::start(PLUGIN)?;
    Ok(Candidate::on(options.add_to(cloud.builder(Some("A2"))?).start()?, cloud))
}

/// Returns an Orthanc that encrypts with file keys of a key service.
pub(super) fn of_service(options: &OrthancOptions) -> Result<Candidate> {
    let mut cloud = Cloud::start(PLUGIN)?;
    for operation in [Operation::WrapKey, Operation::UnwrapKey] {
        let delay = FaultRule::new(Fault::Delay(ANSWER)).on(operation).times(usize::MAX);
        cloud.server.faults().push(delay);
    }
    let service = json!({"Key": CRYPTO_KEY, "Endpoint": cloud.server.endpoint()});
    let encryption = json!({"MasterKey": {"GoogleKms": service}, "Format": "A2", "KeyDecayCount": 1000});
    cloud.set("StorageEncryption", encryption);
    Ok(Candidate::on(options.add_to(cloud.builder(None)?).start()?, cloud))
}
