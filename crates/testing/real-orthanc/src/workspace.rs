//! The plugins of this workspace as Orthanc loads them: built shared libraries.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use thiserror::Error;

/// A folder with plugin libraries that are up to date. `cargo xtask test` builds them once and sets it, so that
/// hundreds of test processes need not ask cargo.
pub const PLUGIN_FOLDER_VARIABLE: &str = "ORTHANC_PLUGIN_DIR";

/// A plugin of this workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Plugin {
    /// Amazon S3 and compatible.
    AwsS3,
    /// Azure Blob Storage.
    AzureBlob,
    /// Google Cloud Storage.
    GoogleCloud,
}

impl Plugin {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::AwsS3, Self::AzureBlob, Self::GoogleCloud];

    /// Those that are in the workspace.
    #[must_use]
    pub fn present() -> Vec<Self> {
        let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../plugins");
        let there = |plugin: &Self| plugins.join(plugin.package()).join("Cargo.toml").is_file();
        Self::ALL.into_iter().filter(there).collect()
    }

    /// The cargo package, and the folder of its crate in the one of all plugins.
    #[must_use]
    pub fn package(self) -> &'static str {
        match self {
            Self::AwsS3 => "aws-s3",
            Self::AzureBlob => "azure-blob",
            Self::GoogleCloud => "google-cloud",
        }
    }

    /// The name of its packages, as `apt` knows them.
    #[must_use]
    pub fn distribution(self) -> &'static str {
        match self {
            Self::AwsS3 => "orthanc-aws-s3-storage",
            Self::AzureBlob => "orthanc-azure-blob-storage",
            Self::GoogleCloud => "orthanc-google-cloud-storage",
        }
    }

    /// The library target, which is also the middle of the file's name.
    #[must_use]
    pub fn library(self) -> &'static str {
        match self {
            Self::AwsS3 => "OrthancAwsS3Storage",
            Self::AzureBlob => "OrthancAzureBlobStorage",
            Self::GoogleCloud => "OrthancGoogleCloudStorage",
        }
    }

    /// The file's name on this platform, such as `libOrthancAwsS3Storage.so`.
    #[must_use]
    pub fn file_name(self) -> String {
        let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        format!("{prefix}{}{suffix}", self.library())
    }
}

/// How a plugin is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// For tests.
    Dev,
    /// As it is shipped.
    Release,
}

/// Why there is no library.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Cargo could not be started.
    #[error("starting cargo: {0}")]
    Cargo(String),
    /// Cargo failed; the text is what it printed.
    #[error("cargo build --package {package}:\n{printed}")]
    Failed {
        /// The package.
        package: &'static str,
        /// Cargo's errors.
        printed: String,
    },
    /// Cargo succeeded without a shared library of that name.
    #[error("package {0} has no library target of type cdylib with the expected name")]
    NoLibrary(&'static str),
    /// [`PLUGIN_FOLDER_VARIABLE`] is set, but its folder lacks the library.
    #[error("{PLUGIN_FOLDER_VARIABLE} is set, but there is no {}", .0.display())]
    NotInFolder(PathBuf),
}

impl From<io::Error> for BuildError {
    fn from(error: io::Error) -> Self {
        Self::Cargo(error.to_string())
    }
}

/// The path of a plugin's shared library: from the folder in [`PLUGIN_FOLDER_VARIABLE`] if that is set (whatever the
/// profile), else built by cargo, once for each process.
///
/// # Errors
/// [`BuildError`].
pub fn plugin_library(plugin: Plugin, profile: Profile) -> Result<PathBuf, BuildError> {
    if let Some(folder) = std::env::var_os(PLUGIN_FOLDER_VARIABLE) {
        let library = Path::new(&folder).join(plugin.file_name());
        return if library.is_file() { Ok(library) } else { Err(BuildError::NotInFolder(library)) };
    }
    type Built = HashMap<(Plugin, Profile), Result<PathBuf, BuildError>>;
    static BUILT: Mutex<Option<Built>> = Mutex::new(None);
    // Held while cargo builds: a second test waits for the first one's result.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.get_or_insert_default().entry((plugin, profile)).or_insert_with(|| build(plugin, profile)).clone()
}

/// Builds a plugin by cargo and returns the path of its shared library.
///
/// # Errors
/// [`BuildError`].
pub fn build(plugin: Plugin, profile: Profile) -> Result<PathBuf, BuildError> {
    let package = plugin.package();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--package", package, "--message-format=json-render-diagnostics"]);
    // Anywhere inside the workspace would do; the tests' own folder may be gone.
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile == Profile::Release {
        command.arg("--release");
    }
    let output = command.output()?;
    if !output.status.success() {
        let printed = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(BuildError::Failed { package, printed });
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let library = messages.lines().find_map(|line| library_of(line, plugin));
    library.ok_or(BuildError::NoLibrary(package))
}

/// The library's path, if a line of cargo's output tells of it.
fn library_of(line: &str, plugin: Plugin) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" || message["target"]["name"] != plugin.library() {
        return None;
    }
    let mut files = message["filenames"].as_array()?.iter().filter_map(Value::as_str).map(PathBuf::from);
    files.find(|file| file.file_name().is_some_and(|name| *name == *plugin.file_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_called_as_those_they_replace() {
        assert_eq!(Plugin::AwsS3.file_name(), "libOrthancAwsS3Storage.so");
        assert_eq!(Plugin::AzureBlob.file_name(), "libOrthancAzureBlobStorage.so");
        assert_eq!(Plugin::GoogleCloud.file_name(), "libOrthancGoogleCloudStorage.so");
    }

    #[test]
    fn the_library_is_picked_from_cargos_messages() {
        let line = r#"{"reason":"compiler-artifact","target":{"name":"OrthancAwsS3Storage"},
            "filenames":["/t/libOrthancAwsS3Storage.rlib","/t/libOrthancAwsS3Storage.so"]}"#;
        assert_eq!(library_of(line, Plugin::AwsS3), Some("/t/libOrthancAwsS3Storage.so".into()));
        assert_eq!(library_of(line, Plugin::AzureBlob), None);
        assert_eq!(library_of("not JSON", Plugin::AwsS3), None);
    }
}
