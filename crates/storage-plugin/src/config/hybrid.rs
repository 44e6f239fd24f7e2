//! `HybridMode`: a folder of files in addition to the bucket.

use std::path::PathBuf;

use hybrid::{Side, WriteBackOptions};
use serde_json::{Map, Value};

use super::write_back::{self, WRITE_BACK};
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
    /// `WriteBack`, in that mode.
    pub(crate) write_back: Option<WriteBackOptions>,
}

impl HybridOptions {
    /// Returns `None` if only the bucket is used.
    pub(crate) fn read<'a>(
        section: &mut Section<'a>,
        configuration: &'a Map<String, Value>,
    ) -> Result<Option<Self>, ConfigError> {
        let first = first(section)?;
        refuse_offload(section)?;
        let write_back = write_back::read(section)?;
        if write_back.is_some() && first != Some(Side::Pending) {
            let problem = "requires \"HybridMode\": \"WriteBack\"; set it, or remove this section";
            return Err(section.error(WRITE_BACK, problem));
        }
        let Some(first) = first else { return Ok(None) };
        let write_back = (first == Side::Pending).then(|| write_back.unwrap_or_default());
        let mut root = Section::root(configuration);
        let directory = storage_directory(&mut root)?;
        let sync = root.flag("SyncStorageArea", true)?;
        Ok(Some(Self { first, directory, sync, write_back }))
    }
}

/// Reads Orthanc's `StorageDirectory` from the root of the configuration.
pub(super) fn storage_directory(root: &mut Section<'_>) -> Result<PathBuf, ConfigError> {
    Ok(root.non_empty("StorageDirectory")?.unwrap_or_else(|| DEFAULT_DIRECTORY.to_owned()).into())
}

/// Returns the storage that comes first, or `None` if only the bucket is used.
fn first(section: &mut Section<'_>) -> Result<Option<Side>, ConfigError> {
    const MIGRATION: &str = "MigrationFromFileSystemEnabled";
    let modes = ["Disabled", "WriteToFileSystem", "WriteToObjectStorage", WRITE_BACK];
    let mode = section.choice("HybridMode", &modes)?;
    let deprecated = section.flag(MIGRATION, false)?;
    if deprecated {
        tracing::warn!("the option {MIGRATION} is deprecated; use \"HybridMode\" instead");
    }
    Ok(match mode {
        None if deprecated => Some(Side::ObjectStorage),
        Some("WriteToObjectStorage") => Some(Side::ObjectStorage),
        Some("WriteToFileSystem") => Some(Side::FileSystem),
        Some(WRITE_BACK) => Some(Side::Pending),
        _ => None,
    })
}

/// Refuses the section of a feature of development versions, without which the disk could fill up unnoticed.
fn refuse_offload(section: &Section<'_>) -> Result<(), ConfigError> {
    const OFFLOAD: &str = "Offload";
    let problem = "was removed; delete this section, and set \"HybridMode\": \"WriteBack\", \
                   which keeps recent studies on the disk (docs/hybrid.md)";
    if section.has(OFFLOAD) { Err(section.error(OFFLOAD, problem)) } else { Ok(()) }
}
