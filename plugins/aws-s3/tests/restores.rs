//! Archive classes that only S3 has.

#[path = "common/cloud.rs"]
mod cloud;

use anyhow::{Context, Result};
use bucket::{ArchiveState, Bucket, Cause, ObjectStorage, Restoration, RestoreOptions};
use cloud::S3;
use conformance::{Cloud, KEY, LoadedPlugin, UUID, configuration, section};
use serde_json::json;
use storage_layout::{Attachment, ContentType, Layout};
use tokio::runtime::Runtime;

/// Stores and archives an attachment with this class, and restores it with these tiers, one after the other, until one is
/// accepted. Returns the error of the others.
fn restore(class: &str, tiers: &[&'static str]) -> Result<(LoadedPlugin<S3>, Vec<String>)> {
    let plugin = LoadedPlugin::<S3>::with(&json!({ "StorageClass": class }))?;
    plugin.create(UUID, b"content")?;
    plugin.server.archive(S3::BUCKET, KEY);
    let configuration = configuration::<S3>(section::<S3>(&plugin.server, &json!({})));
    let runtime = Runtime::new()?;
    let root = configuration.as_object().context("not an object")?;
    let options = storage_plugin::connect::<<S3 as Cloud>::Provider>(root, runtime.handle())?;
    let objects = ObjectStorage::new(Bucket::new(options), Layout::default(), false, false);
    let attachment = Attachment::new(UUID, ContentType::DICOM).context("not an attachment")?;
    let mut errors = Vec::new();
    for tier in tiers {
        match runtime.block_on(objects.restore(&attachment, RestoreOptions { days: 7, tier })) {
            Ok(achieved) => assert_eq!(achieved, Some(Restoration::Begun), "{tier}"),
            Err(error) => {
                assert_eq!((&error.cause, error.attempts), (&Cause::Refused, 1), "{error}");
                errors.push(error.to_string());
            }
        }
    }
    let state = runtime.block_on(objects.describe(&attachment))?.context("missing")?.archive;
    assert_eq!(state, ArchiveState::Restoring);
    plugin.server.end_restore(S3::BUCKET, KEY);
    assert_eq!(plugin.read(UUID)?, b"content");
    let state = runtime.block_on(objects.describe(&attachment))?.context("missing")?.archive;
    assert_eq!(state == ArchiveState::Online, class == "INTELLIGENT_TIERING", "{state:?}");
    Ok((plugin, errors))
}

#[test]
fn deep_archive_has_no_expedited_restore() -> Result<()> {
    let (plugin, errors) = restore("DEEP_ARCHIVE", &["Expedited", "Bulk"])?;
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("Retrieval option is not supported by this storage class"), "{errors:?}");
    plugin.check()
}

#[test]
fn object_of_intelligent_tiering_has_no_days() -> Result<()> {
    let (plugin, errors) = restore("INTELLIGENT_TIERING", &["Standard"])?;
    assert_eq!(errors, [""; 0]);
    plugin.check()
}
