//! `HybridMode`: a folder of files in addition to the bucket.

use std::path::PathBuf;

use hybrid::Side;
use serde_json::{Map, Value};

use super::offload::OffloadOptions;
use super::{ConfigError, Section};

/// Orthanc's default for `StorageDirectory`.
const DEFAULT_DIRECTORY: &str = "OrthancStorage";

/// The file system as a second storage.
#[derive(Debug)]
pub(crate) struct HybridOptions {
    /// The storage to which attachments are written, and from which they are read first.
    pub(crate) first: Side,
    /// Orthanc's `StorageDirectory`.
    pub(crate) directory: PathBuf,
    /// Orthanc's `SyncStorageArea`.
    pub(crate) sync: bool,
    /// `Offload`.
    pub(crate) offload: Option<OffloadOptions>,
}

impl HybridOptions {
    /// Returns `None` if only the bucket is used.
    pub(crate) fn read<'a>(
        section: &mut Section<'a>,
        configuration: &'a Map<String, Value>,
    ) -> Result<Option<Self>, ConfigError> {
        let first = first(section)?;
        let offload = OffloadOptions::read(section)?;
        if offload.is_some() && first != Some(Side::FileSystem) {
            let problem = "requires \"HybridMode\": \"WriteToFileSystem\"; set it, or remove this section";
            return Err(section.error(super::offload::OFFLOAD, problem));
        }
        let Some(first) = first else { return Ok(None) };
        let mut root = Section::root(configuration);
        let directory = storage_directory(&mut root)?;
        let sync = root.flag("SyncStorageArea", true)?;
        Ok(Some(Self { first, directory, sync, offload }))
    }
}

/// Reads Orthanc's `StorageDirectory` from the root of the configuration.
pub(super) fn storage_directory(root: &mut Section<'_>) -> Result<PathBuf, ConfigError> {
    Ok(root.non_empty("StorageDirectory")?.unwrap_or_else(|| DEFAULT_DIRECTORY.to_owned()).into())
}

/// Returns the storage that comes first, or `None` if only the bucket is used.
fn first(section: &mut Section<'_>) -> Result<Option<Side>, ConfigError> {
    const MIGRATION: &str = "MigrationFromFileSystemEnabled";
    let mode = section.choice("HybridMode", &["Disabled", "WriteToFileSystem", "WriteToObjectStorage"])?;
    let deprecated = section.flag(MIGRATION, false)?;
    if deprecated {
        tracing::warn!("the option {MIGRATION} is deprecated; use \"HybridMode\" instead");
    }
    Ok(match mode {
        None if deprecated => Some(Side::ObjectStorage),
        Some("WriteToObjectStorage") => Some(Side::ObjectStorage),
        Some("WriteToFileSystem") => Some(Side::FileSystem),
        _ => None,
    })
}
