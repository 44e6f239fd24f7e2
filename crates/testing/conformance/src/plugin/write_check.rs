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
    object_url, own_lines, request, section, with,
};
use crate::small_server::SmallServer;

tests! {
    EveryCloud:
        missing_permission_to_write_is_an_error_line,
        missing_permission_to_delete_is_a_warning;
    OneCloud:
        check_can_be_switched_off,
        refused_header_is_found_at_the_start,
        checks_share_one_deadline,
        slow_answers_share_one_deadline,
        server_that_has_everything_is_no_storage_server,
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
    assert!(has("the 10 s that all checks at start may take; continuing"), "{warnings:#?}");
    assert!(!has("RequestTimeout"), "{warnings:#?}");
    // With time of its own, the comparison of the keys would have waited for the note.
    assert!(!has("compared with the bucket later"), "{warnings:#?}");
    let note = ".orthanc-object-storage/key-3";
    eventually("the note", Duration::from_secs(60), || server.object(C::BUCKET, note).is_some())?;
    Ok(())
}

fn slow_answers_share_one_deadline<C: Cloud>() -> Result<()> {
    let server = C::server()?;
    // Each is within the limit, but not both.
    for operation in [request::CREATE, request::REMOVE] {
        let slow = Fault::Delay(Duration::from_secs(6));
        server.faults().push(FaultRule::new(slow).on(operation).times(usize::MAX));
    }
    let orthanc = load::<C>(configuration::<C>(section::<C>(&server, &json!({}))))??;
    let warnings = own_lines::<C>(&orthanc.logs(), LogLevel::Warning);
    let is_about_time = |line: &&String| line.contains("the 10 s that all checks at start may take");
    assert_eq!(warnings.iter().filter(is_about_time).count(), 1, "{warnings:#?}");
    Ok(())
}

fn server_that_has_everything_is_no_storage_server<C: Cloud>() -> Result<()> {
    let other = SmallServer::start(|_| (200, "{}".to_owned()))?;
    let keys = Keys::new()?;
    let encryption = json!({"StorageEncryption": keys.section(&json!({}))});
    let orthanc = load::<C>(configuration::<C>(with(C::section(&other.url("")), &encryption)))??;
    let logs = orthanc.logs();
    let errors = own_lines::<C>(&logs, LogLevel::Error);
    let [line] = &errors[..] else { anyhow::bail!("{errors:#?}") };
    for fragment in [&object_url::<C>(PROBE), "the answer does not come from the storage server"] {
        assert!(line.contains(fragment), "{fragment} {line}");
    }
    let warnings = own_lines::<C>(&logs, LogLevel::Warning);
    let is_about_the_key = |line: &&String| {
        line.contains("the answer does not come from the storage server")
            && line.contains("the master keys will be compared with the bucket later")
    };
    assert_eq!(warnings.iter().filter(is_about_the_key).count(), 1, "{warnings:#?}");
    assert!(!warnings.iter().any(|line| line.contains("retention policy")), "{warnings:#?}");
    Ok(())
}
