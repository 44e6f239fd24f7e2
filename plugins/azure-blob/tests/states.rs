//! States of blobs and containers that only Azure has.

#[path = "common/cloud.rs"]
mod cloud;

use anyhow::Result;
use cloud::{Azure, section};
use conformance::codes::STORAGE_AREA_PLUGIN;
use conformance::{Cloud as _, DICOM, KEY, LoadedPlugin, UUID, configuration, content, own_lines, with};
use fake_cloud::{AzureOptions, BucketServer, Fault, FaultRule, Operation};
use fake_orthanc::LogLevel;
use serde_json::json;

#[test]
fn archived_blob_must_be_rehydrated() -> Result<()> {
    let plugin = LoadedPlugin::<Azure>::start()?;
    plugin.create(UUID, &content(1000))?;
    plugin.server.archive(Azure::BUCKET, KEY);
    plugin.requests();
    for is_whole in [true, false] {
        let outcome = if is_whole {
            plugin.orthanc.read_whole(UUID, DICOM)
        } else {
            plugin.orthanc.read_range(UUID, DICOM, 0, 10)
        };
        assert_eq!(outcome, Err(STORAGE_AREA_PLUGIN));
        assert_eq!(plugin.requests(), 1, "no retries");
        let line = plugin.new_error()?;
        assert!(line.contains("BlobArchived") && line.contains("archive tier: restore it"), "{line}");
    }
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
