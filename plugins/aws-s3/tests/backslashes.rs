//! Objects that the C++ plugin has stored on Windows, with backslashes in their names.

#[path = "common/cloud.rs"]
mod cloud;

use anyhow::Result;
use cloud::S3;
use conformance::codes::INEXISTENT_FILE;
use conformance::{Cloud as _, DICOM, KEY, LoadedPlugin, UUID, content, uuid, with};
use serde_json::json;

/// Options, and the name of the attachment's object.
fn layouts() -> [(serde_json::Value, String); 4] {
    let folders = format!("{}\\{}\\{UUID}", &UUID[..2], &UUID[2..4]);
    [
        (json!({"RootPath": "hospital/ct"}), format!("hospital/ct\\{KEY}")),
        (json!({"RootPath": "Röntgen #1"}), format!("Röntgen #1\\{KEY}")),
        (json!({"StorageStructure": "legacy"}), folders.clone()),
        (
            json!({"StorageStructure": "legacy", "RootPath": "hospital/ct"}),
            format!("hospital\\ct\\{folders}"),
        ),
    ]
}

#[test]
fn objects_of_windows_are_read_and_deleted() -> Result<()> {
    for (options, name) in layouts() {
        let enabled = with(options.clone(), &json!({"EnableLegacyBackslashNames": true}));
        let plugin = LoadedPlugin::<S3>::with(&enabled)?;
        let bytes = content(1000);
        plugin.server.insert(S3::BUCKET, &name, bytes.clone());
        assert_eq!(plugin.read(UUID)?, bytes, "{name}");
        assert_eq!(plugin.requests(), 2, "the regular name comes first");
        assert_eq!(plugin.range(UUID, 5, 10)?, bytes[5..15]);
        // New objects have regular names, which take no further request.
        plugin.create(&uuid(1), &bytes)?;
        plugin.requests();
        assert_eq!(plugin.read(&uuid(1))?, bytes);
        assert_eq!(plugin.requests(), 1);
        assert!(plugin.stored().iter().all(|stored| *stored == name || !stored.contains('\\')));
        plugin.remove(UUID)?;
        plugin.remove(&uuid(1))?;
        plugin.settle();
        assert_eq!(plugin.server.keys(S3::BUCKET), [""; 0], "{name}");
        plugin.check()?;
    }
    Ok(())
}

#[test]
fn backslashes_are_not_searched_for_elsewhere() -> Result<()> {
    for (options, name) in layouts() {
        let plugin = LoadedPlugin::<S3>::with(&options)?;
        plugin.server.insert(S3::BUCKET, &name, "x");
        let expected = if cfg!(windows) { Ok(b"x".to_vec()) } else { Err(INEXISTENT_FILE) };
        assert_eq!(plugin.orthanc.read_whole(UUID, DICOM), expected, "{name}");
        plugin.check()?;
    }
    // Without a folder, there is no separator.
    let plugin = LoadedPlugin::<S3>::with(&json!({"EnableLegacyBackslashNames": true}))?;
    assert_eq!(plugin.orthanc.read_whole(UUID, DICOM), Err(INEXISTENT_FILE));
    assert_eq!(plugin.requests(), 3, "two for the names of other configurations");
    plugin.check()
}
