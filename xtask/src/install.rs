//! Installs the programs that tests, demonstration, benchmark and packages need besides cargo.

use std::env;
use std::process::Command;

use anyhow::{Context, Result, bail};
use orthanc_roots::Release;

use crate::{run, target_folder};

const INSTALL_PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/install-packages.sh");
const CI: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ci");

/// A program or file that must be installed.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// A program on the search path or in `/usr/sbin`, or the absolute path of a file.
    pub file: &'static str,
    /// The package of Debian and Ubuntu that contains it.
    pub package: &'static str,
    /// What the tools use it for.
    pub purpose: &'static str,
}

pub(crate) const fn need(file: &'static str, package: &'static str, purpose: &'static str) -> Need {
    Need { file, package, purpose }
}

const ORTHANC: [Need; 2] = [
    need("Orthanc", "orthanc", "the DICOM server"),
    need("setpriv", "util-linux", "ends Orthanc with the program that started it"),
];

const AZURITE: [Need; 2] = [
    need("node", "nodejs", "runs Azurite, Microsoft's emulator of Azure Blob Storage"),
    need("npm", "npm", "installs Azurite, and the checks of accessibility"),
];

const BROWSER: [Need; 3] = [
    need("chromium", "chromium", "shows the plugins' page"),
    need("chromedriver", "chromium-driver", "controls Chromium"),
    need("nginx", "nginx", "a proxy in front of the page"),
];

const TESTS: [Need; 9] = [
    need(
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "debian-archive-keyring",
        "verifies the Orthancs of other Debian releases",
    ),
    need("/usr/include/orthanc/OrthancCPlugin.h", "orthanc-dev", "Orthanc's plugin interface"),
    need("storescu", "dcmtk", "sends DICOM files"),
    need("dcmftest", "dcmtk", "checks DICOM files"),
    need(
        "/usr/share/orthanc/plugins/libOrthancPostgreSQLIndex.so",
        "orthanc-postgresql",
        "keeps Orthanc's index in a database",
    ),
    need(
        "/usr/share/orthanc/plugins/libOrthancDicomWeb.so",
        "orthanc-dicomweb",
        "stores and reads with DICOMweb",
    ),
    need("/usr/share/doc/postgresql/copyright", "postgresql", "the database"),
    need("jq", "jq", "makes the configuration of the container"),
    need("promtool", "prometheus", "checks the alert rules and the queries of the dashboard"),
];

/// Installs what is missing for the demonstration and the benchmark of a plugin.
///
/// # Errors
/// If something is missing and this system or user cannot install it.
pub fn for_plugin(plugin: &str) -> Result<()> {
    if plugin != "azure-blob" {
        return require(&ORTHANC);
    }
    require(ORTHANC.iter().chain(&AZURITE))?;
    install_from_npm("azurite")
}

/// Installs what is missing for the pictures of the page.
///
/// # Errors
/// As [`for_plugin`].
pub fn for_screenshots() -> Result<()> {
    require(ORTHANC.iter().chain(&BROWSER))
}

/// Installs what is missing for the tests, except the [newest Orthanc](newest_orthanc).
///
/// # Errors
/// As [`for_plugin`].
pub fn for_tests() -> Result<()> {
    require(ORTHANC.iter().chain(&AZURITE).chain(&BROWSER).chain(&TESTS))?;
    install_from_npm("azurite")?;
    install_from_npm("axe")?;
    Release::Trixie.make()
}

/// Installs the newest Orthanc in Debian, for the tests.
///
/// # Errors
/// If Debian's unstable release has no Orthanc that can be installed at present.
pub fn newest_orthanc() -> Result<()> {
    Release::Sid.make()
}

/// Installs packages whose files are missing.
///
/// # Errors
/// As [`for_plugin`].
pub fn require<'a>(needs: impl IntoIterator<Item = &'a Need>) -> Result<()> {
    let missing: Vec<&Need> = needs.into_iter().filter(|need| !is_installed(need.file)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        eprintln!("missing: {} ({}), package {}", need.file, need.purpose, need.package);
    }
    let packages = packages(&missing);
    if !is_installed("apt-get") {
        bail!("this system has no apt-get: install the programs above by other means");
    }
    let user = Command::new("id").arg("-u").output().context("asking for the user's id")?;
    if user.stdout.trim_ascii() != b"0" {
        bail!("only root can install packages; run\n\n    sudo {INSTALL_PACKAGES} {}\n", packages.join(" "));
    }
    run(Command::new(INSTALL_PACKAGES).args(&packages))?;
    match missing.iter().find(|need| !is_installed(need.file)) {
        Some(need) => bail!("{} is still missing after the installation", need.file),
        None => Ok(()),
    }
}

/// Installs the npm packages that the folder `name` in `ci` pins, in the folder of the same name below `target/tools`.
fn install_from_npm(name: &str) -> Result<()> {
    let folder = target_folder()?.join("tools").join(name);
    run(Command::new(format!("{CI}/npm-install.sh")).arg(format!("{CI}/{name}")).arg(folder))
}

fn is_installed(file: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    // Only root has `/usr/sbin` on the search path.
    let mut folders = env::split_paths(&path).chain(["/usr/sbin".into()]);
    // An absolute path replaces the folder that it is joined to.
    folders.any(|folder| folder.join(file).is_file())
}

fn packages(missing: &[&Need]) -> Vec<&'static str> {
    let mut packages: Vec<_> = missing.iter().map(|need| need.package).collect();
    packages.dedup();
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_named_once() {
        let missing: Vec<&Need> = TESTS.iter().collect();
        assert_eq!(
            packages(&missing),
            [
                "debian-archive-keyring",
                "orthanc-dev",
                "dcmtk",
                "orthanc-postgresql",
                "orthanc-dicomweb",
                "postgresql",
                "jq",
                "prometheus"
            ]
        );
    }

    #[test]
    fn files_are_found_by_path_and_by_name() {
        assert!(is_installed("sh") && is_installed("/bin/sh"));
        assert!(!is_installed("no-such-program") && !is_installed("/no/such/file"));
    }
}
