//! Programs, folders and Debian packages that both commands use.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use xshell::{Cmd, Shell, cmd};

/// The version of all packages.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Returns the workspace's folder.
pub(crate) fn workspace() -> Result<PathBuf> {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR"));
    packages.ancestors().nth(2).map(Path::to_owned).context("the package must be in xtask/packages")
}

/// Returns a shell in the workspace's folder.
pub(crate) fn shell() -> Result<Shell> {
    let shell = Shell::new()?;
    shell.change_dir(workspace()?);
    Ok(shell)
}

/// Returns cargo's target folder, as the scripts in `ci/packages` find it.
pub(crate) fn target_folder() -> Result<PathBuf> {
    Ok(workspace()?.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into())))
}

/// Returns the folder that packages are written to.
pub(crate) fn dist_folder() -> Result<PathBuf> {
    Ok(target_folder()?.join("dist"))
}

/// Runs a program. Returns its output, or an error that quotes it.
pub(crate) fn output(command: Cmd<'_>) -> Result<String> {
    let line = command.to_string();
    let output = command.quiet().ignore_status().output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{line} failed with {}:\n{text}{errors}", output.status);
    Ok(text)
}

/// Installs the Debian packages that are missing.
pub(crate) fn require(packages: &[&str]) -> Result<()> {
    let shell = shell()?;
    Ok(cmd!(shell, "bash ci/packages/require.sh {packages...}").quiet().run()?)
}
