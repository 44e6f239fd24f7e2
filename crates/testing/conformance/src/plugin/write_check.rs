//! The object that is written and deleted at start.

use std::time::Duration;

use anyhow::Result;
use fake_cloud::{BucketServer, Fault, FaultRule, Operation};
use fake_orthanc::LogLevel;
use serde_json::{Value, json};
use storage_plugin::Provider;

use crate::Cloud;
use crate::fixture::codes::STORAGE_AREA_PLUGIN;
use crate::fixture::{
    DICOM, KEY, Keys, LoadedPlugin, UUID, configuration, encrypted_configuration, eventually, load,
    object_url, own_lines, request, section,
};

tests! {
    EveryCloud:
        missing_permission_to_write_is_an_error_line,
        missing_permission_to_delete_is_a_warning;
    OneCloud:
        check_can_be_switched_off,
        refused_header_is_found_at_the_start,
        checks_share_one_deadline,
}

const PROBE: &str = ".orthanc-object-storage/write-check";

fn denied<C: Cloud>(server: &BucketServer, operation: Operation) {
    let denied = Fault::status(403, C::MISSING_PERMISSION);
    server.faults().push(FaultRule::new(denied).on(operation).times(usize::MAX));
}

fn start<C: Cloud>(server: BucketServer, options: &Value) -> Result<LoadedPlugin<C>> {
    let configuration = configuration::<C>(section::<C>(&server, options));
    LoadedPlugin::load(server, configuration)
}

fn missing_permission_to_write_is_an_error_line<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    server.insert(C::BUCKET, KEY, "x");
    denied::<C>(&server, request::CREATE);
    let mut plugin = start::<C>(server, &json!({"HybridMode": "WriteToFileSystem"}))?;
    let line = plugin.new_error()?;
    for fragment in
        [&object_url::<C>(PROBE), C::MISSING_PERMISSION, C::Provider::WRITE_PERMISSIONS, "CheckWrite"]
    {
        assert!(line.contains(fragment), "{fragment} {line}");
    }
    plugin.restart_with(&json!({}))?;
    plugin.new_error()?;
    assert_eq!(plugin.read(UUID)?, b"x");
    assert_eq!(plugin.orthanc.create(UUID, DICOM, b"y"), Err(STORAGE_AREA_PLUGIN));
    plugin.restart_with(&json!({"CheckWrite": false}))?;
    assert_eq!(plugin.errors(), [""; 0]);
    plugin.check()
}

fn missing_permission_to_delete_is_a_warning<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    denied::<C>(&server, request::REMOVE);
    let mut plugin = start::<C>(server, &json!({}))?;
    let is_about_deletion = |line: &String| {
        line.contains(&object_url::<C>(PROBE)) && line.contains(C::Provider::DELETE_PERMISSIONS)
    };
    let warnings = plugin.lines(LogLevel::Warning);
    assert!(warnings.iter().any(is_about_deletion), "{warnings:#?}");
    assert_eq!(plugin.stored().len() + plugin.server.keys(C::BUCKET).len(), 1, "nothing piles up");

    // A retention policy refuses to replace the object, and says nothing about new ones.
    denied::<C>(&plugin.server, request::CREATE);
    plugin.restart_with(&json!({}))?;
    let warnings = plugin.lines(LogLevel::Warning);
    assert!(warnings.iter().any(|line| line.contains("retention policy")), "{warnings:#?}");
    assert_eq!(plugin.errors(), [""; 0]);
    plugin.check()
}

fn check_can_be_switched_off<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    let configuration = configuration::<C>(section::<C>(&server, &json!({"CheckWrite": false})));
    let _orthanc = load::<C>(configuration)??;
    let requests = server.requests();
    assert_eq!((requests.total, requests.of(request::READ)), (1, 1));
    Ok(())
}

fn refused_header_is_found_at_the_start<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    let refused = Fault::status(400, "InvalidStorageClass");
    server.faults().push(FaultRule::new(refused).on(request::CREATE).times(usize::MAX));
    let plugin = start::<C>(server, &json!({}))?;
    let line = plugin.new_error()?;
    assert!(line.contains("InvalidStorageClass") && !line.contains(C::Provider::WRITE_PERMISSIONS), "{line}");
    plugin.check()
}

fn checks_share_one_deadline<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    let silence = Fault::Delay(Duration::from_secs(60));
    server.faults().push(FaultRule::new(silence).on(request::CREATE).times(usize::MAX));
    let keys = Keys::new()?;
    let configuration = encrypted_configuration::<C>(&server, &keys, &json!({}), &json!({}));
    let orthanc = load::<C>(configuration)??;
    let warnings = own_lines::<C>(&orthanc.logs(), LogLevel::Warning);
    let has = |text: &str| warnings.iter().any(|line| line.contains(text));
    assert!(has("may become available later"), "{warnings:#?}");
    // With time of its own, the comparison of the keys would have waited for the note.
    assert!(!has("compared with the bucket later"), "{warnings:#?}");
    let note = ".orthanc-object-storage/key-3";
    eventually("the note", Duration::from_secs(60), || server.object(C::BUCKET, note).is_some())?;
    Ok(())
}
