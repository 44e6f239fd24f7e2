//! `HybridMode`: files beside the bucket.

use std::path::PathBuf;

use hybrid::Side;
use serde_json::{Map, Value};

use super::offload::OffloadOptions;
use super::{ConfigError, Section};

/// What Orthanc takes for `StorageDirectory` where the configuration does not tell.
const DEFAULT_DIRECTORY: &str = "OrthancStorage";

/// The file system as a second storage.
#[derive(Debug)]
pub(crate) struct HybridOptions {
    /// Where attachments are written, and looked for first.
    pub(crate) first: Side,
    /// Orthanc's `StorageDirectory`.
    pub(crate) directory: PathBuf,
    /// Orthanc's `SyncStorageArea`.
    pub(crate) sync: bool,
    /// `Offload`.
    pub(crate) offload: Option<OffloadOptions>,
}

impl HybridOptions {
    /// `None`: the bucket alone.
    pub(crate) fn read<'a>(
        section: &mut Section<'a>,
        configuration: &'a Map<String, Value>,
    ) -> Result<Option<Self>, ConfigError> {
        let first = first(section)?;
        let offload = OffloadOptions::read(section)?;
        if offload.is_some() && first != Some(Side::FileSystem) {
            let problem = "works with \"HybridMode\": \"WriteToFileSystem\" alone: set that, or remove it";
            return Err(section.error(super::offload::OFFLOAD, problem));
        }
        let Some(first) = first else { return Ok(None) };
        let mut root = Section::root(configuration);
        let directory = root.text("StorageDirectory")?.filter(|path| !path.is_empty());
        let directory = directory.unwrap_or_else(|| DEFAULT_DIRECTORY.to_owned()).into();
        let sync = root.flag("SyncStorageArea", true)?;
        Ok(Some(Self { first, directory, sync, offload }))
    }
}

/// Which storage comes first; `None`: there is but the bucket.
fn first(section: &mut Section<'_>) -> Result<Option<Side>, ConfigError> {
    const MIGRATION: &str = "MigrationFromFileSystemEnabled";
    let mode = section.choice("HybridMode", &["Disabled", "WriteToFileSystem", "WriteToObjectStorage"])?;
    let deprecated = section.flag(MIGRATION, false)?;
    if deprecated {
        tracing::warn!("the option {MIGRATION} is deprecated, use \"HybridMode\" instead");
    }
    Ok(match mode {
        None if deprecated => Some(Side::ObjectStorage),
        Some("WriteToObjectStorage") => Some(Side::ObjectStorage),
        Some("WriteToFileSystem") => Some(Side::FileSystem),
        _ => None,
    })
}
