//! Attachments whose objects have the names of another configuration.

use anyhow::Result;
use fake_cloud::Fault;
use serde_json::json;

use crate::Cloud;
use crate::fixture::codes::{INEXISTENT_FILE, STORAGE_AREA_PLUGIN};
use crate::fixture::{DICOM, KEY, LoadedPlugin, UUID, flat_encrypted, legacy, object_url, request, uuid};

tests! {
    OneCloud:
        missing_object_is_found_under_another_name,
        missing_objects_are_searched_for_once_a_minute,
        failed_search_changes_nothing,
}

fn missing_object_is_found_under_another_name<C: Cloud>() -> Result<()> {
    let mut plugin = LoadedPlugin::<C>::start()?;
    let url = object_url::<C>;
    for (options, stored, option) in [
        (json!({}), flat_encrypted(UUID), "StorageEncryption"),
        (json!({}), legacy(UUID), "\"StorageStructure\": \"legacy\""),
        (json!({"StorageStructure": "legacy"}), KEY.to_owned(), "\"StorageStructure\": \"flat\""),
        (json!({"RootPath": "other"}), KEY.to_owned(), "RootPath"),
    ] {
        plugin.insert(&stored, "x");
        plugin.restart_with(&options)?;
        assert_eq!(plugin.orthanc.read_whole(UUID, DICOM), Err(INEXISTENT_FILE), "{options}");
        let line = plugin.new_error()?;
        let expected = format!(", but {} exists: ", url(&stored));
        assert!(line.contains(C::NO_SUCH_OBJECT) && line.contains(&expected), "{line}");
        assert!(line.contains(option), "{line}");
        plugin.server.remove(C::BUCKET, &stored);
    }
    // With encryption, and without `ReadUnencrypted`.
    plugin.insert(KEY, "x");
    plugin.restart_encrypted(&json!({}), &json!({"Format": "A2"}))?;
    assert_eq!(plugin.orthanc.read_range(UUID, DICOM, 0, 1), Err(INEXISTENT_FILE));
    let line = plugin.new_error()?;
    assert!(line.contains(&format!("{} exists", url(KEY))) && line.contains("ReadUnencrypted"), "{line}");
    plugin.check()
}

fn missing_objects_are_searched_for_once_a_minute<C: Cloud>() -> Result<()> {
    let plugin = LoadedPlugin::<C>::start()?;
    plugin.insert(&flat_encrypted(&uuid(0)), "x");
    for number in 0..100 {
        assert_eq!(plugin.orthanc.read_whole(&uuid(number), DICOM), Err(INEXISTENT_FILE));
        let line = plugin.new_error()?;
        let whose = if number == 0 { "exists" } else { "of another attachment exists" };
        assert!(line.contains(&format!("{} {whose}", object_url::<C>(&flat_encrypted(&uuid(0))))), "{line}");
    }
    assert_eq!(plugin.server.requests().of(request::HEAD), 2);
    assert_eq!(plugin.requests(), 102);
    plugin.remove(&uuid(7))?;
    assert_eq!(plugin.requests(), 1, "a deletion does not search");
    plugin.check()
}

fn failed_search_changes_nothing<C: Cloud>() -> Result<()> {
    let faults: [&dyn Fn() -> Fault; 3] =
        [&Fault::slow_down, &|| Fault::CloseBeforeResponse, &|| Fault::status(403, C::MISSING_PERMISSION)];
    for fault in faults {
        let plugin = LoadedPlugin::<C>::start()?;
        plugin.fault(request::HEAD, fault(), usize::MAX);
        assert_eq!(plugin.orthanc.read_whole(UUID, DICOM), Err(INEXISTENT_FILE));
        let line = plugin.new_error()?;
        assert!(line.contains(C::NO_SUCH_OBJECT) && !line.contains("but"), "{line}");
        assert_eq!(plugin.requests(), 3, "no retries");
        // Other errors do not search.
        plugin.fault(request::READ, Fault::status(403, C::MISSING_PERMISSION), 1);
        assert_eq!(plugin.orthanc.read_whole(&uuid(1), DICOM), Err(STORAGE_AREA_PLUGIN));
        assert_eq!(plugin.requests(), 1);
        plugin.check()?;
    }
    Ok(())
}
