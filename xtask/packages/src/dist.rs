//! `cargo xtask dist`: everything that people download, in `target/dist/`.
//!
//! The same commit gives the same bytes: archives have sorted entries, one owner and the commit's time, and the
//! libraries know neither the time nor the folders of the machine that built them.

mod archive;
mod build;
mod check;
mod contents;
mod deb;
mod installer;
mod library;
mod platform;
mod sbom;
mod sums;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use lexopt::prelude::{Long, ValueExt};
use real_orthanc::workspace::Plugin;
use xshell::{Shell, cmd};

use self::contents::Entry;
use self::library::Facts;
use self::tools::Toolchain;

pub(crate) use self::check::library as library_in;
pub(crate) use self::contents::{sample, sample_name, section_name, workspace};
pub(crate) use self::installer::name as installer_name;
pub(crate) use self::platform::Platform;

/// The version of all packages.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The command's options; see the usage text.
#[derive(Debug)]
pub(crate) struct Options {
    platforms: Vec<Platform>,
    plugins: Vec<Plugin>,
    check: bool,
}

impl Options {
    pub(crate) fn parse(mut arguments: lexopt::Parser) -> Result<Self> {
        let mut options = Self { platforms: Vec::new(), plugins: Vec::new(), check: false };
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("linux") => options.platforms.extend(Platform::LINUX),
                Long("windows") => options.platforms.push(Platform::Windows),
                Long("platform") => options.platforms.push(arguments.value()?.parse()?),
                Long("plugin") => options.plugins.push(plugin(&arguments.value()?.string()?)?),
                Long("check") => options.check = true,
                other => bail!(other.unexpected()),
            }
        }
        if options.platforms.is_empty() {
            options.platforms.extend(Platform::ALL);
        }
        if options.plugins.is_empty() {
            options.plugins.extend(Plugin::ALL);
        }
        Ok(options)
    }
}

/// A plugin by the name of its folder.
fn plugin(name: &str) -> Result<Plugin> {
    for plugin in Plugin::ALL {
        if contents::names(plugin)?.folder == name {
            return Ok(plugin);
        }
    }
    bail!("{name} is no plugin; there are aws-s3, azure-blob and google-cloud")
}

/// Where everything is put.
pub(crate) fn folder() -> Result<PathBuf> {
    Ok(crate::test::target_folder()?.join("dist"))
}

/// `cargo xtask dist`.
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = folder()?;
    if options.check {
        let rows = check::run(&folder)?;
        return print(&folder, &rows);
    }
    let begin = Instant::now();
    let seconds = commit_time()?;
    build::fetch()?;
    prepare(&folder)?;
    for platform in &options.platforms {
        let toolchain = Toolchain::prepare(*platform)?;
        let mut files = Vec::new();
        for plugin in &options.plugins {
            let begin = Instant::now();
            eprintln!("{}: building {} with {}", platform.name(), plugin.package(), toolchain.name());
            files.extend(package(*plugin, *platform, &toolchain, seconds, &folder)?);
            eprintln!("{}: {} took {} s", platform.name(), plugin.package(), begin.elapsed().as_secs());
        }
        // It offers all of them: with fewer, there is none.
        if *platform == Platform::Windows && options.plugins.len() == Plugin::ALL.len() {
            installer::build(&files, seconds, &folder)?;
        }
    }
    sums::write(&folder)?;
    let rows = check::run(&folder)?;
    print(&folder, &rows)?;
    println!("Made in {} s", begin.elapsed().as_secs());
    Ok(())
}

/// What `--check` does, without a table.
pub(crate) fn verify() -> Result<()> {
    check::run(&folder()?).map(drop)
}

/// The program that loads a library and uses it, compiled for a platform.
pub(crate) fn exercise(platform: Platform) -> Result<PathBuf> {
    build::example("fake-orthanc", "exercise", platform, &Toolchain::prepare(platform)?)
}

/// An empty folder: what a former version left there is no part of the set.
fn prepare(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing the former {}", folder.display()));
        }
        _ => {}
    }
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))
}

/// All files of one plugin for one platform. Returns what its archive holds, with paths inside of the archive's folder.
fn package(
    plugin: Plugin,
    platform: Platform,
    toolchain: &Toolchain,
    seconds: u64,
    folder: &Path,
) -> Result<Vec<Entry>> {
    let library = build::plugin(plugin, platform, toolchain)?;
    Facts::read(&library, platform)?
        .check(platform)
        .with_context(|| format!("{} cannot be shipped", platform.library(plugin)))?;
    let name = format!("{}-{VERSION}-{}", plugin.distribution(), platform.name());
    let put = |name: String, bytes: Vec<u8>| {
        fs::write(folder.join(&name), bytes).with_context(|| format!("writing {name}"))
    };
    put(format!("{name}.cdx.json"), sbom::build(plugin, platform, seconds)?)?;
    if let Some(architecture) = platform.debian_architecture() {
        let bytes = deb::build(plugin, platform, VERSION, &library, seconds)?;
        put(format!("{}_{VERSION}_{architecture}.deb", plugin.distribution()), bytes)?;
    }
    let files = contents::archive(plugin, platform, library)?;
    let in_folder = |entry: &Entry| Entry { path: format!("{name}/{}", entry.path), ..entry.clone() };
    let entries: Vec<Entry> = files.iter().map(in_folder).collect();
    match platform {
        Platform::Windows => put(format!("{name}.zip"), archive::zip(&entries)?)?,
        Platform::LinuxX86 | Platform::LinuxArm => {
            put(format!("{name}.tar.gz"), archive::tar_gz(&entries, seconds, false)?)?;
        }
    }
    Ok(files)
}

/// The time of the last commit, in seconds since 1970; `SOURCE_DATE_EPOCH` where there is no git.
fn commit_time() -> Result<u64> {
    if let Ok(seconds) = std::env::var("SOURCE_DATE_EPOCH") {
        return seconds.parse().context("SOURCE_DATE_EPOCH is no number of seconds");
    }
    let shell = Shell::new()?;
    shell.change_dir(workspace()?);
    let seconds = cmd!(shell, "git log -1 --format=%ct").quiet().read();
    let seconds = seconds.context("asking git for the commit's time; SOURCE_DATE_EPOCH can say it too")?;
    seconds.trim().parse().context("git's answer is no time")
}

/// The table at the end.
fn print(folder: &Path, rows: &[check::Row]) -> Result<()> {
    println!("\n{}:\n", folder.display());
    println!("{:<60} {:>10}  library", "file", "bytes");
    for row in rows {
        println!("{:<60} {:>10}  {}", row.file, row.bytes, row.library);
    }
    println!("{:<60} {:>10}", sums::FILE, fs::metadata(folder.join(sums::FILE))?.len());
    println!("\nAll of them are as {} says, and every library can be loaded on old systems.", sums::FILE);
    Ok(())
}
