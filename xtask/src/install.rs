//! The programs that tests, demonstration and benchmark need beside cargo.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use xshell::{Shell, cmd};

use crate::azurite;

/// Something that must be there.
pub(crate) struct Need {
    /// A program on the search path or in `/usr/sbin`, or the absolute path of a file.
    pub(crate) file: &'static str,
    /// The package of Debian and Ubuntu that has it.
    pub(crate) package: &'static str,
    pub(crate) purpose: &'static str,
}

const NEEDS: [Need; 5] = [
    Need { file: "Orthanc", package: "orthanc", purpose: "the DICOM server" },
    Need {
        file: "/usr/include/orthanc/OrthancCPlugin.h",
        package: "orthanc-dev",
        purpose: "its plugin interface, for the tests of ours",
    },
    Need { file: "storescu", package: "dcmtk", purpose: "sends DICOM files" },
    Need { file: "dcmftest", package: "dcmtk", purpose: "checks DICOM files" },
    Need { file: "setpriv", package: "util-linux", purpose: "lets Orthanc die with its parent" },
];

/// What the tests need besides.
const TEST_NEEDS: [Need; 4] = [
    Need {
        file: "/usr/share/orthanc/plugins/libOrthancPostgreSQLIndex.so",
        package: "orthanc-postgresql",
        purpose: "keeps Orthanc's index in a database",
    },
    Need { file: "/usr/share/doc/postgresql/copyright", package: "postgresql", purpose: "the database" },
    Need { file: "node", package: "nodejs", purpose: "runs Azurite, for the tests of the Azure plugin" },
    Need { file: "npm", package: "npm", purpose: "installs Azurite" },
];

/// Where maintainer scripts look whether they may start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Checks that everything is there which all chores need, and installs what is missing if this system and user can.
pub(crate) fn install_missing() -> Result<()> {
    require(&NEEDS)
}

/// As [`install_missing`], for the tests, which need more.
pub(crate) fn install_for_tests() -> Result<()> {
    require(NEEDS.iter().chain(&TEST_NEEDS))?;
    azurite::install_missing()
}

/// The same for other needs.
pub(crate) fn require<'a>(needs: impl IntoIterator<Item = &'a Need>) -> Result<()> {
    let missing: Vec<&Need> = needs.into_iter().filter(|need| !is_there(need.file)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        eprintln!("missing: {} ({}), package {}", need.file, need.purpose, need.package);
    }
    let packages = packages(&missing);
    if !is_there("apt-get") {
        bail!("this system has no apt-get: install the above by its own means");
    }
    let shell = Shell::new()?;
    if cmd!(shell, "id -u").quiet().read()? != "0" {
        bail!("installing needs root; run\n\n    {}\n", command_for_root(&packages));
    }
    apt_get_install(&shell, &packages)?;
    match missing.iter().find(|need| !is_there(need.file)) {
        Some(need) => bail!("{} is still missing after the installation", need.file),
        None => Ok(()),
    }
}

fn is_there(file: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    // `/usr/sbin` is on the search path of root only.
    let mut folders = env::split_paths(&path).chain(["/usr/sbin".into()]);
    Path::new(file).is_absolute() && Path::new(file).is_file()
        || folders.any(|folder| folder.join(file).is_file())
}

fn packages(missing: &[&Need]) -> Vec<&'static str> {
    let mut packages: Vec<_> = missing.iter().map(|need| need.package).collect();
    packages.dedup();
    packages
}

/// One line for a shell. Debian's package starts a server on port 8042, which nobody asked for: it is stopped.
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

fn apt_get_install(shell: &Shell, packages: &[&str]) -> Result<()> {
    let _environment = shell.push_env("DEBIAN_FRONTEND", "noninteractive");
    let _no_service = NoServices::begin()?;
    cmd!(shell, "apt-get update").run()?;
    cmd!(shell, "apt-get install --yes --no-install-recommends {packages...}").run()?;
    if packages.contains(&"orthanc") {
        // It was not started; nor shall it be at the next boot.
        cmd!(shell, "update-rc.d orthanc disable").run()?;
    }
    Ok(())
}

/// While it lives, packages that are installed start no service.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn begin() -> Result<Self> {
        let policy = Path::new(POLICY);
        if policy.exists() {
            // The administrator's own decision, as in containers, where it says the same.
            return Ok(Self { ours: false });
        }
        let guard = Self { ours: true };
        fs::write(
            policy,
            "#!/bin/sh\n# Made by `cargo xtask install` for the time of one installation.\nexit 101\n",
        )
        .and_then(|()| fs::set_permissions(policy, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("writing {POLICY}"))?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
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
    fn a_package_is_named_once() {
        let missing: Vec<&Need> = NEEDS.iter().collect();
        assert_eq!(packages(&missing), ["orthanc", "orthanc-dev", "dcmtk", "util-linux"]);
    }

    #[test]
    fn the_command_stops_a_server_only_if_it_installs_it() {
        assert!(command_for_root(&["orthanc", "dcmtk"]).contains("service orthanc stop"));
        assert!(!command_for_root(&["dcmtk"]).contains("service"));
    }

    #[test]
    fn files_are_found_by_path_and_by_name() {
        assert!(is_there("sh") && is_there("/bin/sh"));
        assert!(!is_there("no-such-program") && !is_there("/no/such/file"));
    }
}
