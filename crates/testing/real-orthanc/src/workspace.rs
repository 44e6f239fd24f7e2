//! The plugins of this workspace: their names, and their libraries as Orthanc loads them.

use std::collections::HashMap;
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use thiserror::Error;

/// A folder with plugin libraries that are up to date. `cargo xtask test` builds them once and sets this variable, so that
/// hundreds of test processes need not call cargo.
pub const PLUGIN_FOLDER_VARIABLE: &str = "ORTHANC_PLUGIN_DIR";

/// A plugin of this workspace, as its `Cargo.toml` describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plugin(&'static Facts);

/// What the build script reads from a plugin's `Cargo.toml`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Facts {
    package: &'static str,
    library: &'static str,
    section: &'static str,
    title: &'static str,
    distribution: &'static str,
    sample: &'static str,
}

static PLUGINS: &[Facts] = include!(concat!(env!("OUT_DIR"), "/plugins.rs"));

impl Plugin {
    /// Returns all plugins, sorted by package.
    #[must_use]
    pub fn all() -> Vec<Self> {
        PLUGINS.iter().map(Self).collect()
    }

    /// Returns the plugin of a cargo package, such as `aws-s3`.
    ///
    /// # Errors
    /// [`BuildError::UnknownPlugin`].
    pub fn named(package: &str) -> Result<Self, BuildError> {
        let plugin = PLUGINS.iter().find(|facts| facts.package == package);
        plugin.map(Self).ok_or_else(|| BuildError::UnknownPlugin { name: package.to_owned() })
    }

    /// Returns the cargo package, which is also the name of its folder.
    #[must_use]
    pub fn package(self) -> &'static str {
        self.0.package
    }

    /// Returns the name of its packages, as `apt` knows them.
    #[must_use]
    pub fn distribution(self) -> &'static str {
        self.0.distribution
    }

    /// Returns the library target, which is also the middle of the file's name.
    #[must_use]
    pub fn library(self) -> &'static str {
        self.0.library
    }

    /// Returns the file's name on this platform, such as `libOrthancAwsS3Storage.so`.
    #[must_use]
    pub fn file_name(self) -> String {
        format!("{DLL_PREFIX}{}{DLL_SUFFIX}", self.library())
    }

    /// Returns the plugin's section of Orthanc's configuration.
    #[must_use]
    pub fn section(self) -> &'static str {
        self.0.section
    }

    /// Returns the cloud's name for people, such as "AWS S3".
    #[must_use]
    pub fn title(self) -> &'static str {
        self.0.title
    }

    /// Returns the file of the sample configuration, in the package's folder.
    #[must_use]
    pub fn sample(self) -> &'static str {
        self.0.sample
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

/// Why a plugin's library is not available.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The workspace has no plugin of this name.
    #[error("unknown plugin {name:?}; choose one of {}", packages().join(", "))]
    UnknownPlugin {
        /// The name.
        name: String,
    },
    /// Cargo could not be started.
    #[error("cannot start cargo: {0}")]
    Cargo(String),
    /// Cargo failed and printed this.
    #[error("cargo build --package {package}:\n{printed}")]
    Failed {
        /// The package.
        package: &'static str,
        /// Cargo's errors.
        printed: String,
    },
    /// Cargo succeeded, but did not report a shared library of the expected name.
    #[error("cargo built no shared library of the package {0}")]
    NoLibrary(&'static str),
    /// [`PLUGIN_FOLDER_VARIABLE`] is set, but its folder lacks the library.
    #[error("{PLUGIN_FOLDER_VARIABLE} is set, but {} does not exist", .0.display())]
    NotInFolder(PathBuf),
}

fn packages() -> Vec<&'static str> {
    PLUGINS.iter().map(|facts| facts.package).collect()
}

impl From<io::Error> for BuildError {
    fn from(error: io::Error) -> Self {
        Self::Cargo(error.to_string())
    }
}

/// Returns the path of a plugin's shared library: in the folder that [`PLUGIN_FOLDER_VARIABLE`] names, for any profile,
/// or else built by cargo, once per process.
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
    // The lock is held while cargo builds, so that other tests wait for the result.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.get_or_insert_default().entry((plugin, profile)).or_insert_with(|| build(plugin, profile)).clone()
}

/// Builds a plugin with cargo and returns the path of its shared library.
///
/// # Errors
/// [`BuildError`].
pub fn build(plugin: Plugin, profile: Profile) -> Result<PathBuf, BuildError> {
    let package = plugin.package();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--package", package, "--message-format=json-render-diagnostics"]);
    // Any folder of the workspace would do, but the current one may have been deleted.
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

/// Returns the library's path if a line of cargo's output reports it.
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
    fn libraries_keep_the_cpp_plugins_names() {
        let names: Vec<String> = Plugin::all().into_iter().map(Plugin::file_name).collect();
        let expected =
            ["libOrthancAwsS3Storage.so", "libOrthancAzureBlobStorage.so", "libOrthancGoogleCloudStorage.so"];
        assert_eq!(names, expected);
    }

    #[test]
    fn unknown_plugin_lists_the_known_ones() {
        let error = Plugin::named("s3").unwrap_err().to_string();
        assert_eq!(error, "unknown plugin \"s3\"; choose one of aws-s3, azure-blob, google-cloud");
    }

    #[test]
    fn library_is_found_in_cargos_messages() {
        let aws_s3 = Plugin::named("aws-s3").unwrap();
        let azure_blob = Plugin::named("azure-blob").unwrap();
        let line = r#"{"reason":"compiler-artifact","target":{"name":"OrthancAwsS3Storage"},
            "filenames":["/t/libOrthancAwsS3Storage.rlib","/t/libOrthancAwsS3Storage.so"]}"#;
        assert_eq!(library_of(line, aws_s3), Some("/t/libOrthancAwsS3Storage.so".into()));
        assert_eq!(library_of(line, azure_blob), None);
        assert_eq!(library_of("not JSON", aws_s3), None);
    }
}
