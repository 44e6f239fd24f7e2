//! `StateDirectory` and `DeletionDelay`: the plugin's own folder on a local disk.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::hybrid::storage_directory;
use super::{ConfigError, Section};

/// The folder in Orthanc's `StorageDirectory` that is used by default.
const DEFAULT_FOLDER: &str = ".orthanc-object-storage";
/// Ten years, in hours.
const LONGEST_DELAY: u64 = 10 * 365 * 24;

/// The plugin's own folder.
#[derive(Debug)]
pub(crate) struct StateOptions {
    /// `StateDirectory`.
    pub(crate) directory: PathBuf,
    /// Orthanc's `StorageDirectory`.
    pub(crate) storage_directory: PathBuf,
    /// `DeletionDelay`.
    pub(crate) deletion_delay: Duration,
}

impl StateOptions {
    pub(crate) fn read<'a>(
        section: &mut Section<'a>,
        configuration: &'a Map<String, Value>,
    ) -> Result<Self, ConfigError> {
        let own = section.non_empty("StateDirectory")?.map(PathBuf::from);
        let storage_directory = storage_directory(&mut Section::root(configuration))?;
        let hours = section.number("DeletionDelay", 0, 0..=LONGEST_DELAY)?;
        Ok(Self {
            directory: own.unwrap_or_else(|| storage_directory.join(DEFAULT_FOLDER)),
            storage_directory,
            deletion_delay: Duration::from_secs(hours * 60 * 60),
        })
    }
}
