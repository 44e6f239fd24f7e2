//! The STOW-RS gateway (`StowRs`) in a real Orthanc.

mod client;
mod clients;
mod failing;
mod large;
mod logging;
mod memory;
mod storing;
mod tls;

use serde_json::{Value, json};

use crate::fixture::with;

modules![clients, failing, large, logging, memory, storing, tls];

/// Returns changes of the section that enable the gateway with these options.
fn gateway(options: &Value) -> Value {
    json!({"StowRs": with(json!({"Enable": true}), options)})
}

/// Returns the name of an instance's object.
fn object_of(file: &[u8]) -> anyhow::Result<String> {
    let [study, series, instance] = real_orthanc::dicom::uids(file)?;
    Ok(format!("{study}/{series}/{instance}.dcm"))
}
