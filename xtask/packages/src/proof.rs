//! `cargo xtask dist-test`: what `cargo xtask dist` has made, installed and used.

mod arm;
mod container;
mod exercise;
mod linux;
mod windows;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use lexopt::prelude::Long;
use real_orthanc::workspace::Plugin;

use crate::dist::{self, Platform};
use crate::install;

/// The command's options; see the usage text.
#[derive(Debug, Default)]
pub(crate) struct Options {
    linux: bool,
    arm: bool,
    windows: bool,
    container: bool,
    /// Of the end-to-end tests, those alone that store, read and delete.
    brief: bool,
}

impl Options {
    pub(crate) fn parse(mut arguments: lexopt::Parser) -> Result<Self> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("linux") => options.linux = true,
                Long("arm") => options.arm = true,
                Long("windows") => options.windows = true,
                Long("container") => options.container = true,
                Long("brief") => options.brief = true,
                other => bail!(other.unexpected()),
            }
        }
        if !options.linux && !options.arm && !options.windows && !options.container {
            options = Self { linux: true, arm: true, windows: true, container: true, ..options };
        }
        Ok(options)
    }
}

/// `cargo xtask dist-test`.
pub(crate) fn run(options: &Options) -> Result<()> {
    install::install_for_tests()?;
    dist::verify()?;
    if options.linux {
        linux::run(options.brief).context("the Debian packages")?;
    }
    if options.arm {
        arm::run().context("the libraries for ARM")?;
    }
    if options.windows {
        windows::run().context("the libraries and the installer for Windows")?;
    }
    if options.container {
        container::run().context("the container recipe")?;
    }
    println!("What was made works.");
    Ok(())
}

/// The library of a plugin, taken out of its archive.
fn library(plugin: Plugin, platform: Platform) -> Result<Option<Vec<u8>>> {
    let end = if platform == Platform::Windows { "zip" } else { "tar.gz" };
    let file = format!("{}-{}-{}.{end}", plugin.distribution(), dist::VERSION, platform.name());
    let path = dist::folder()?.join(&file);
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = fs::read(&path)?;
    let (_, library) = dist::library_in(&file, &bytes)?.context("it has no library")?;
    Ok(Some(library))
}

/// Begins a line that [`done`] ends.
fn begin(what: &str) {
    print!("{what} … ");
    // What is not shown now is shown with the rest of the line.
    let _ = std::io::stdout().flush();
}

fn done() {
    println!("ok");
}

/// Runs a program; what it printed, or an error that has it.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}:\n{text}{errors}", output.status);
    Ok(text)
}

/// An empty folder of a proof's own.
fn empty_folder(name: &str) -> Result<PathBuf> {
    let folder = crate::test::target_folder()?.join("dist-test").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}
