//! States of blobs and containers that only Azure has.

#[path = "common/cloud.rs"]
mod cloud;

use anyhow::Result;
use cloud::{Azure, section};
use conformance::{Cloud as _, KEY, LoadedPlugin, UUID, configuration, content, own_lines, with};
use fake_cloud::{AzureOptions, BucketServer, Fault, FaultRule, Operation};
use fake_orthanc::LogLevel;
use serde_json::json;

#[test]
fn archived_blob_must_be_rehydrated() -> Result<()> {
    let plugin = LoadedPlugin::<Azure>::start()?;
    plugin.create(UUID, &content(1000))?;
    plugin.server.archive(Azure::BUCKET, KEY);
    plugin.requests();
    plugin.expect_archived("BlobArchived")?;
    plugin.check()
}

#[test]
fn start_waits_until_the_container_is_deleted() -> Result<()> {
    let options = AzureOptions::default();
    let server = BucketServer::start_azure(&options)?;
    let deleting = Fault::status(409, "ContainerBeingDeleted");
    server.faults().push(FaultRule::new(deleting.clone()).on(Operation::GetObject).times(2));
    server.faults().push(FaultRule::new(deleting).on(Operation::CreateBucket).times(1));
    let section = section(&options.connection_string(&server.endpoint()));
    let new = json!({"ContainerName": "new-container", "CreateContainerIfNotExists": true});
    let plugin = LoadedPlugin::<Azure>::load(server, configuration::<Azure>(with(section, &new)))?;
    let warnings = own_lines::<Azure>(&plugin.orthanc.logs(), LogLevel::Warning);
    let waits = |line: &&String| line.contains("is being deleted") && line.contains("waiting");
    assert_eq!(warnings.iter().filter(waits).count(), 1, "{warnings:#?}");
    assert!(warnings.iter().any(|line| line.contains("created")), "{warnings:#?}");
    plugin.create(UUID, b"x")?;
    assert_eq!(plugin.server.keys("new-container"), [KEY]);
    plugin.check()
}
