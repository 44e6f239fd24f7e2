//! `cargo xtask dist-test`: installs and uses what `cargo xtask dist` has made.

mod arm;
mod container;
mod debian;
mod exercise;
mod linux;
mod rooted;
mod windows;

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use lexopt::prelude::Long;
use real_orthanc::Client;
use real_orthanc::dicom::Study;
use xshell::cmd;

use crate::dist;
use crate::system::{shell, target_folder};

/// The command's options.
#[derive(Debug, Default)]
pub(crate) struct Options {
    linux: bool,
    arm: bool,
    windows: bool,
    container: bool,
    debian: bool,
    /// Whether only those end-to-end tests run that store, read and delete.
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
                Long("debian") => options.debian = true,
                Long("brief") => options.brief = true,
                other => bail!(other.unexpected()),
            }
        }
        let chosen = [options.linux, options.arm, options.windows, options.container, options.debian];
        if !chosen.contains(&true) {
            options =
                Self { linux: true, arm: true, windows: true, container: true, debian: true, ..options };
        }
        Ok(options)
    }
}

/// Runs `cargo xtask dist-test`.
pub(crate) fn run(options: &Options) -> Result<()> {
    // Orthanc, PostgreSQL and Azurite.
    let shell = shell()?;
    cmd!(shell, "cargo xtask install").run()?;
    dist::check()?;
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
    if options.debian {
        debian::run().context("the packages in clean Debians")?;
    }
    println!("All packages work.");
    Ok(())
}

/// Runs a step, with a line that says whether it passed.
fn step<T>(title: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    print!("{title} … ");
    // A failed flush only delays the title until the line is complete.
    let _ = std::io::stdout().flush();
    let result = run()?;
    println!("ok");
    Ok(result)
}

/// Creates an empty folder for a proof.
fn empty_folder(name: &str) -> Result<PathBuf> {
    let folder = target_folder()?.join("dist-test").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}

/// DICOM files in an Orthanc.
struct Stored(Vec<(String, Vec<u8>)>);

impl Stored {
    /// Uploads a series of this many slices.
    fn upload(orthanc: &Client, slices: u32) -> Result<Self> {
        let slices: Vec<Vec<u8>> = Study(1).ct_series(slices, 128, 128).collect::<Result<_, _>>()?;
        let upload = |slice: Vec<u8>| Ok((orthanc.upload(&slice)?.id, slice));
        Ok(Self(slices.into_iter().map(upload).collect::<Result<_>>()?))
    }

    /// Fails unless Orthanc returns every file unchanged.
    fn check(&self, orthanc: &Client) -> Result<()> {
        for (id, slice) in &self.0 {
            anyhow::ensure!(orthanc.file(id)? == *slice, "instance {id} has changed");
        }
        Ok(())
    }

    fn delete(&self, orthanc: &Client) -> Result<()> {
        for (id, _) in &self.0 {
            orthanc.delete(&format!("/instances/{id}"))?.ok()?;
        }
        Ok(())
    }
}
