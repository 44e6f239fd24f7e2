//! The plugins' libraries for a platform: which compiler, with which flags.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use real_orthanc::workspace::Plugin;

use super::contents::workspace;
use super::library::GLIBC;
use super::platform::Platform;
use super::tools::Toolchain;
use crate::test::target_folder;

/// The profile of what is shipped. One called `dist` would have the folder that the packages go to.
const PROFILE: &str = "shipped";
/// Between flags in cargo's variable: paths may have blanks.
const SEPARATOR: &str = "\x1f";

/// Builds one plugin, alone: together, they would get each other's features of shared libraries.
pub(crate) fn plugin(plugin: Plugin, platform: Platform, toolchain: &Toolchain) -> Result<Vec<u8>> {
    let target = cargo(platform, toolchain, &["--package", plugin.package()])?;
    let library = target.join(platform.library(plugin));
    fs::read(&library).with_context(|| format!("reading what was built, {}", library.display()))
}

/// Builds an example of a crate of the workspace, and returns its path.
pub(crate) fn example(
    package: &str,
    name: &str,
    platform: Platform,
    toolchain: &Toolchain,
) -> Result<PathBuf> {
    let target = cargo(platform, toolchain, &["--package", package, "--example", name])?;
    let suffix = if platform == Platform::Windows { ".exe" } else { "" };
    Ok(target.join("examples").join(format!("{name}{suffix}")))
}

/// Runs a build, and returns the folder of its results.
fn cargo(platform: Platform, toolchain: &Toolchain, what: &[&str]) -> Result<PathBuf> {
    let target = target_folder()?;
    let mut command = toolchain.cargo();
    let triple = platform.triple();
    if toolchain.has_zig() {
        command.args(["zigbuild", "--target", &format!("{triple}.{}.{}", GLIBC.0, GLIBC.1)]);
    } else {
        command.args(["build", "--target", triple]);
    }
    command.args(toolchain.build_std());
    command.args(["--locked", "--profile", PROFILE]).args(what).current_dir(workspace()?);
    command.env("CARGO_ENCODED_RUSTFLAGS", flags(platform, &target)?.join(SEPARATOR));
    // Flags of the developer's own would change what is shipped.
    command.env_remove("RUSTFLAGS");
    let target = target.join(toolchain.target_subfolder());
    command.env("CARGO_TARGET_DIR", &target);
    run(&mut command)?;
    Ok(target.join(triple).join(PROFILE))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    ensure!(status.success(), "the build failed; it can be repeated by itself with\n\n    {command:?}\n");
    Ok(())
}

/// Flags that keep this machine's folders and the time out of the results.
fn flags(platform: Platform, target: &Path) -> Result<Vec<String>> {
    let mut flags = vec![remap(&cargo_home()?, "/cargo")];
    // The folder of a registry is called after its host. Where several flags fit, the last one counts.
    for registry in subfolders(&cargo_home()?.join("registry/src")) {
        flags.push(remap(&registry, "/cargo/registry"));
    }
    flags.extend([remap(&workspace()?, "/workspace"), remap(target, "/target")]);
    if platform == Platform::Windows {
        flags.extend(["-Clink-arg=-Wl,--no-insert-timestamp".to_owned()]);
    }
    Ok(flags)
}

fn remap(from: &Path, to: &str) -> String {
    format!("--remap-path-prefix={}={to}", from.display())
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    Ok(PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cargo"))
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    folders.sort();
    folders
}

/// Fetches all dependencies, so that the folders which [`flags`] names are there.
pub(crate) fn fetch() -> Result<()> {
    run(Command::new("cargo").args(["fetch", "--locked"]).current_dir(workspace()?))
}
