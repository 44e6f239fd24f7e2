//! The options that the sections of all clouds have.

use serde_json::{Map, Value};
use storage_layout::{RootPath, Structure};

use super::encryption::EncryptionOptions;
use super::{ConfigError, Section};

/// The options of a plugin's section that do not depend on its cloud.
#[derive(Debug)]
pub(crate) struct CommonOptions {
    /// `RootPath`.
    pub(crate) root: RootPath,
    /// `StorageStructure`.
    pub(crate) structure: Structure,
    /// `EnableLegacyUnknownFiles`.
    pub(crate) legacy_unknown_files: bool,
    /// `StorageEncryption`; `None` to store in clear.
    pub(crate) encryption: Option<EncryptionOptions>,
}

impl CommonOptions {
    pub(crate) fn read<'a>(
        section: &mut Section<'a>,
        configuration: &'a Map<String, Value>,
    ) -> Result<Self, ConfigError> {
        let root = section.text("RootPath")?.unwrap_or_default();
        let root = RootPath::new(&root)
            .map_err(|error| section.error("RootPath", format!("is refused: {error}")))?;
        let structure = match section.choice("StorageStructure", &["flat", "legacy"])? {
            Some("legacy") => Structure::Legacy,
            _ => Structure::Flat,
        };
        let legacy_unknown_files = section.flag("EnableLegacyUnknownFiles", false)?;
        refuse_hybrid(section)?;
        let encryption = EncryptionOptions::read(section, configuration)?;
        Ok(Self { root, structure, legacy_unknown_files, encryption })
    }
}

/// Images must not go to another place than the configuration says.
fn refuse_hybrid(section: &mut Section<'_>) -> Result<(), ConfigError> {
    let modes = ["Disabled", "WriteToFileSystem", "WriteToObjectStorage"];
    let mode = section.choice("HybridMode", &modes)?;
    let deprecated = section.flag("MigrationFromFileSystemEnabled", false)?;
    if deprecated {
        tracing::warn!("the option MigrationFromFileSystemEnabled is deprecated, use \"HybridMode\" instead");
    }
    match mode {
        None if deprecated => Err(section.error("MigrationFromFileSystemEnabled", NO_HYBRID)),
        Some("WriteToFileSystem" | "WriteToObjectStorage") => Err(section.error("HybridMode", NO_HYBRID)),
        _ => Ok(()),
    }
}

const NO_HYBRID: &str = "asks for hybrid storage, which this release does not have yet: Disabled is needed";
