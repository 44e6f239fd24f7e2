//! Orthancs of other Debian releases, each unpacked into a folder that all clones on this machine share.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

const INSTALL_ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/install-root.sh");
const PACKAGES: [&str; 4] = ["orthanc", "orthanc-dev", "orthanc-dicomweb", "orthanc-postgresql"];
/// Changes with `install-root.sh` and [`PACKAGES`], so that roots made in another way are not used.
const RECIPE: u32 = 1;

/// The environment variable with the folder of the roots, instead of one in the user's cache folder.
const FOLDER_VARIABLE: &str = "ORTHANC_ROOTS";

/// A Debian release with an Orthanc that the tests run besides the installed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Release {
    /// Orthanc 1.12.7, the last generation that reads whole attachments.
    Trixie,
    /// The newest Orthanc in Debian, at the time when the root was made.
    Sid,
}

/// The environment variable with the names of releases that are not tested in this run, separated by spaces.
pub const WITHOUT_VARIABLE: &str = "ORTHANC_TESTS_WITHOUT";

/// The releases whose Orthanc this run tests.
#[must_use]
pub fn tested() -> Vec<Release> {
    let without = env::var(WITHOUT_VARIABLE).unwrap_or_default();
    let is_tested = |release: &Release| !without.split(' ').any(|name| name == release.name());
    Release::ALL.into_iter().filter(is_tested).collect()
}

impl Release {
    /// All releases, the oldest first.
    pub const ALL: [Self; 2] = [Self::Trixie, Self::Sid];

    /// Debian's name of the release.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }

    /// The root: the folder into which the packages are unpacked.
    #[must_use]
    pub fn root(self) -> PathBuf {
        let below_home = || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache");
        let cache = || env::var_os("XDG_CACHE_HOME").map_or_else(below_home, PathBuf::from);
        let roots = env::var_os(FOLDER_VARIABLE).map(PathBuf::from);
        let folder = roots.unwrap_or_else(|| cache().join("orthanc-object-storage/roots"));
        folder.join(format!("{}-{RECIPE}", self.name()))
    }

    /// The program that runs this release's Orthanc.
    #[must_use]
    pub fn program(self) -> PathBuf {
        self.root().join("Orthanc")
    }

    /// The version of Orthanc.
    ///
    /// # Errors
    /// If the root has not been made.
    pub fn version(self) -> Result<String> {
        let version = fs::read_to_string(self.root().join("version"));
        let text = version.with_context(|| format!("there is no Orthanc of Debian {}", self.name()))?;
        Ok(text.trim().to_owned())
    }

    /// Makes the root unless it exists.
    ///
    /// # Errors
    /// If the packages cannot be downloaded, or their Orthanc does not run.
    pub fn make(self) -> Result<()> {
        if self.root().exists() {
            return Ok(());
        }
        eprintln!("unpacking Orthanc of Debian {} into {}", self.name(), self.root().display());
        let mut script = Command::new(INSTALL_ROOT);
        let status =
            script.arg(self.name()).arg(self.root()).args(PACKAGES).status().context("starting a script")?;
        ensure!(
            status.success(),
            "unpacking Debian {} failed with {status}, for the reasons above",
            self.name()
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Output;

    use super::*;

    /// Makes a root from a mirror that does not answer.
    fn make(folder: &std::path::Path) -> Output {
        let mut script = Command::new(INSTALL_ROOT);
        script.arg("trixie").arg(folder).arg("orthanc").env("DEBIAN_MIRROR", "http://127.0.0.1:9/debian");
        script.output().unwrap()
    }

    #[test]
    fn failed_root_leaves_nothing_and_complete_one_is_kept() {
        let parent = env::temp_dir().join(format!("roots-{}", std::process::id()));
        let folder = parent.join("trixie-0");
        // What an interrupted run has left.
        fs::create_dir_all(parent.join("trixie-0.new/usr")).unwrap();
        let failed = make(&folder);
        assert!(!failed.status.success() && !failed.stderr.is_empty());
        let left: Vec<_> = fs::read_dir(&parent).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["trixie-0.lock"]);

        fs::create_dir(&folder).unwrap();
        assert!(make(&folder).status.success());
        fs::remove_dir_all(&parent).unwrap();
    }
}
