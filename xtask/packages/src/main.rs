//! Makes the packages that people download, installs them and uses them.
//!
//! `cargo xtask dist` and `cargo xtask dist-test` run this program; `cargo xtask help` lists their options.
#![allow(dead_code, reason = "shared with xtask until the next commit")]

#[path = "../../src/azurite.rs"]
mod azurite;
mod dist;
#[path = "../../src/install.rs"]
mod install;
mod proof;
#[path = "../../src/storage.rs"]
mod storage;

use std::process::ExitCode;

use anyhow::{Result, bail};
use lexopt::prelude::Value;

/// What `xtask` has in a module of this name.
mod test {
    use std::path::PathBuf;

    use anyhow::{Context, Result};
    use xshell::{Shell, cmd};

    /// cargo's target folder.
    pub(crate) fn target_folder() -> Result<PathBuf> {
        let shell = Shell::new()?;
        let text = cmd!(shell, "cargo metadata --no-deps --format-version 1").quiet().read()?;
        let metadata: serde_json::Value = serde_json::from_str(&text)?;
        Ok(metadata["target_directory"].as_str().context("cargo metadata has no target folder")?.into())
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("packages: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = lexopt::Parser::from_env();
    match arguments.next()? {
        Some(Value(command)) if command == "dist" => dist::run(&dist::Options::parse(arguments)?),
        Some(Value(command)) if command == "dist-test" => proof::run(&proof::Options::parse(arguments)?),
        _ => bail!("the command must be dist or dist-test"),
    }
}
