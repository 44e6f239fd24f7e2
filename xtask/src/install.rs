//! Installs the programs that tests, demonstration, benchmark and packages need besides cargo.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{azurite, run};

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

const fn need(file: &'static str, package: &'static str, purpose: &'static str) -> Need {
    Need { file, package, purpose }
}

const ORTHANC: [Need; 2] = [
    need("Orthanc", "orthanc", "the DICOM server"),
    need("setpriv", "util-linux", "ends Orthanc with the program that started it"),
];

const AZURITE: [Need; 2] = [
    need("node", "nodejs", "runs Azurite, Microsoft's emulator of Azure Blob Storage"),
    need("npm", "npm", "installs Azurite"),
];

const TESTS: [Need; 5] = [
    need("/usr/include/orthanc/OrthancCPlugin.h", "orthanc-dev", "Orthanc's plugin interface"),
    need("storescu", "dcmtk", "sends DICOM files"),
    need("dcmftest", "dcmtk", "checks DICOM files"),
    need(
        "/usr/share/orthanc/plugins/libOrthancPostgreSQLIndex.so",
        "orthanc-postgresql",
        "keeps Orthanc's index in a database",
    ),
    need("/usr/share/doc/postgresql/copyright", "postgresql", "the database"),
];

/// Maintainer scripts ask this program whether they may start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs what is missing for the demonstration and the benchmark of a plugin.
///
/// # Errors
/// If something is missing and this system or user cannot install it.
pub fn for_plugin(plugin: &str) -> Result<()> {
    if plugin != "azure-blob" {
        return require(&ORTHANC);
    }
    require(ORTHANC.iter().chain(&AZURITE))?;
    azurite::install_missing()
}

/// Installs what is missing for the tests.
///
/// # Errors
/// As [`for_plugin`].
pub fn for_tests() -> Result<()> {
    require(ORTHANC.iter().chain(&AZURITE).chain(&TESTS))?;
    azurite::install_missing()
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
        bail!("only root can install packages; run\n\n    {}\n", command_for_root(&packages));
    }
    apt_get_install(&packages)?;
    match missing.iter().find(|need| !is_installed(need.file)) {
        Some(need) => bail!("{} is still missing after the installation", need.file),
        None => Ok(()),
    }
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

/// One line for a shell. Debian's package starts a server on port 8042, which the tools do not use: it is stopped.
fn command_for_root(packages: &[&str]) -> String {
    let mut line = format!(
        "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends {}",
        packages.join(" ")
    );
    if packages.contains(&"orthanc") {
        line.push_str(" && service orthanc stop && update-rc.d orthanc disable");
    }
    format!("sudo sh -c '{line}'")
}

fn apt_get_install(packages: &[&str]) -> Result<()> {
    let _no_services = NoServices::begin()?;
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--no-install-recommends"]).args(packages);
    run(Command::new("apt-get").arg("update"))?;
    run(install.env("DEBIAN_FRONTEND", "noninteractive"))?;
    if packages.contains(&"orthanc") {
        // Keeps Debian's server from starting at the next boot.
        run(Command::new("update-rc.d").args(["orthanc", "disable"]))?;
    }
    Ok(())
}

/// Keeps newly installed packages from starting services until it is dropped.
struct NoServices {
    created: bool,
}

impl NoServices {
    fn begin() -> Result<Self> {
        if Path::new(POLICY).exists() {
            // The administrator's own policy. Container images bring one that denies every start.
            return Ok(Self { created: false });
        }
        let guard = Self { created: true };
        let script = "#!/bin/sh\n# Created by `cargo xtask install` for one installation.\nexit 101\n";
        fs::write(POLICY, script)
            .and_then(|()| fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("writing {POLICY}"))?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.created
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("please remove {POLICY}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_named_once() {
        let missing: Vec<&Need> = TESTS.iter().collect();
        assert_eq!(packages(&missing), ["orthanc-dev", "dcmtk", "orthanc-postgresql", "postgresql"]);
    }

    #[test]
    fn only_a_new_server_is_stopped() {
        assert!(command_for_root(&["orthanc", "dcmtk"]).contains("service orthanc stop"));
        assert!(!command_for_root(&["dcmtk"]).contains("service"));
    }

    #[test]
    fn files_are_found_by_path_and_by_name() {
        assert!(is_installed("sh") && is_installed("/bin/sh"));
        assert!(!is_installed("no-such-program") && !is_installed("/no/such/file"));
    }
}
