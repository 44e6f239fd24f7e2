//! Shared by the project's tools: installation of the programs they need, their options, and the target folder.

pub mod install;
pub mod options;
pub mod servers;

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Cargo's target folder, for a program that cargo built into a profile's folder there.
///
/// # Errors
/// If the path of this program is unknown.
pub fn target_folder() -> Result<PathBuf> {
    let program = env::current_exe().context("finding this program")?;
    Ok(program.ancestors().nth(2).context("this program is not in a target folder")?.to_owned())
}

/// A cargo command in the workspace's folder.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command
}

/// Runs a command and waits for its end.
///
/// # Errors
/// If the command cannot be started or fails.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    ensure!(status.success(), "{command:?} failed with {status}");
    Ok(())
}
