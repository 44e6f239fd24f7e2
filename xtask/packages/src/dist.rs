//! `cargo xtask dist`: makes everything that people download, in `target/dist/`, with the scripts in `ci/packages`.
//!
//! The same commit gives the same bytes: archives have sorted entries, one owner and the commit's time, and the
//! libraries contain neither the time nor the folders of the machine that built them.

mod changelog;
mod contents;
mod debian;
mod licenses;
mod platform;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use lexopt::prelude::{Long, ValueExt};
use xshell::{Shell, cmd};

use crate::system::{self, VERSION, dist_folder, output, require};
use real_orthanc::workspace::Plugin;

pub(crate) use self::contents::sample;
pub(crate) use self::platform::Platform;

/// The command's options.
#[derive(Debug, Default)]
pub(crate) struct Options {
    platforms: Vec<Platform>,
    plugins: Vec<Plugin>,
    check: bool,
}

impl Options {
    pub(crate) fn parse(mut arguments: lexopt::Parser) -> Result<Self> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("linux") => options.platforms.extend(Platform::LINUX),
                Long("windows") => options.platforms.push(Platform::Windows),
                Long("platform") => options.platforms.push(arguments.value()?.parse()?),
                Long("plugin") => options.plugins.push(Plugin::named(&arguments.value()?.string()?)?),
                Long("check") => options.check = true,
                other => bail!(other.unexpected()),
            }
        }
        if options.platforms.is_empty() {
            options.platforms.extend(Platform::ALL);
        }
        if options.plugins.is_empty() {
            options.plugins.extend(Plugin::all());
        }
        Ok(options)
    }
}

/// Runs `cargo xtask dist`.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.check {
        return check();
    }
    let begin = Instant::now();
    let folder = dist_folder()?;
    let shell = system::shell()?;
    shell.set_var("SOURCE_DATE_EPOCH", commit_time(&shell)?);
    // Files of a former version do not belong to the set.
    shell.remove_path(&folder)?;
    shell.create_dir(&folder)?;
    for platform in &options.platforms {
        make(*platform, &options.plugins, &shell, &folder)?;
    }
    shell.change_dir(&folder);
    cmd!(shell, "bash -c 'LC_ALL=C sha256sum -- * > SHA256SUMS'").quiet().run()?;
    check()?;
    println!("Made in {} s", begin.elapsed().as_secs());
    Ok(())
}

/// Verifies the existing set, and prints a table of it.
pub(crate) fn check() -> Result<()> {
    let folder = dist_folder()?;
    let shell = system::shell()?;
    Ok(cmd!(shell, "bash ci/packages/check.sh {folder}").quiet().run()?)
}

/// The program that reads and writes encrypted files, and the name of its package.
pub(crate) const TOOL: &str = "orthanc-envelope";

/// A library or program of the workspace, compiled, and its licences and bill of materials in a temporary folder.
struct Component {
    results: PathBuf,
    notices: tempfile::TempDir,
}

impl Component {
    /// Builds a package of the workspace, which is in `source`, and publishes its bill of materials.
    fn make(
        package: &str,
        source: &str,
        name: &str,
        platform: Platform,
        shell: &Shell,
        folder: &Path,
    ) -> Result<Self> {
        eprintln!("{}: building {package}", platform.name());
        // Packages that are built together get each other's features of shared crates.
        let results = build(platform, &["--package", package])?;
        let notices = tempfile::tempdir().context("creating the folder for licences")?;
        licenses::collect(package, name, platform, &results, shell, notices.path())?;
        let triple = platform.triple();
        let bill = cmd!(shell, "bash ci/packages/sbom.sh {source} {triple}").quiet().read()? + "\n";
        fs::write(notices.path().join(format!("{name}.cdx.json")), &bill)?;
        fs::write(folder.join(format!("{name}-{VERSION}-{}.cdx.json", platform.name())), bill)?;
        Ok(Self { results, notices })
    }
}

/// Makes all files of some plugins for one platform.
fn make(platform: Platform, plugins: &[Plugin], shell: &Shell, folder: &Path) -> Result<()> {
    if platform == Platform::Windows {
        require(&["nsis", "zip", "unzip"])?;
    }
    let staging = tempfile::tempdir().context("creating the folder for the files of the archives")?;
    let tool = Component::make("envelope-cli", "crates/envelope-cli", TOOL, platform, shell, folder)?;
    let program = tool.results.join(platform.tool());
    if platform != Platform::Windows {
        debian::tool(platform, &program, tool.notices.path(), shell, folder)?;
    }
    for plugin in plugins {
        let begin = Instant::now();
        let (package, name) = (plugin.package(), plugin.distribution());
        let made = Component::make(package, &format!("plugins/{package}"), name, platform, shell, folder)?;
        let library = made.results.join(platform.library(*plugin));
        output(cmd!(shell, "bash ci/packages/check-binary.sh {library} library"))?;
        if platform != Platform::Windows {
            debian::plugin(*plugin, platform, &library, made.notices.path(), shell, folder)?;
        }
        let name = format!("{name}-{VERSION}-{}", platform.name());
        let staged = staging.path().join(&name);
        let notices = [tool.notices.path(), made.notices.path()];
        contents::collect(*plugin, platform, &library, &program, &notices, &staged)?;
        let archive = folder.join(format!("{name}.{}", platform.archive_extension()));
        cmd!(shell, "bash ci/packages/archive.sh {staged} {archive}").quiet().run()?;
        eprintln!("{}: {package} took {} s", platform.name(), begin.elapsed().as_secs());
    }
    // The installer offers all plugins, so that it is not made for fewer.
    if platform == Platform::Windows && plugins.len() == Plugin::all().len() {
        make_installer(shell, staging.path(), folder)?;
    }
    Ok(())
}

/// Makes the installer for Windows from the files of the archives.
fn make_installer(shell: &Shell, staging: &Path, folder: &Path) -> Result<()> {
    let source = tempfile::tempdir()?;
    let source = source.path();
    for files in shell.read_dir(staging)? {
        // The installer keeps the files' times.
        cmd!(shell, "cp --recursive --preserve=timestamps {files}/. {source}").quiet().run()?;
    }
    // The installer itself contains code of NSIS.
    shell.copy_file("/usr/share/doc/nsis/copyright", source.join("licenses/nsis.txt"))?;
    let setup = folder.join(installer_name());
    // Warnings are errors. Definitions must precede the script.
    let command = cmd!(
        shell,
        "makensis -V2 -WX -DVERSION={VERSION} -DSOURCE={source} -DOUTPUT={setup} ci/windows/installer.nsi"
    );
    output(command).map(drop)
}

/// Returns the file name of the installer for Windows.
pub(crate) fn installer_name() -> String {
    format!("orthanc-object-storage-{VERSION}-windows-x86_64.exe")
}

/// Builds the program that loads a plugin and uses it. Returns its path.
pub(crate) fn build_exercise(platform: Platform) -> Result<PathBuf> {
    let folder = build(platform, &["--package", "fake-orthanc", "--example", "exercise"])?.join("examples");
    Ok(folder.join(if platform == Platform::Windows { "exercise.exe" } else { "exercise" }))
}

/// Builds as for a release. Returns the folder of the results.
fn build(platform: Platform, arguments: &[&str]) -> Result<PathBuf> {
    let triple = platform.triple();
    let shell = system::shell()?;
    let folder = cmd!(shell, "bash ci/packages/build.sh {triple} {arguments...}").quiet().read()?;
    Ok(folder.into())
}

/// Returns the library of a plugin from its archive.
pub(crate) fn packed_library(plugin: Plugin, platform: Platform) -> Result<Vec<u8>> {
    let extension = platform.archive_extension();
    let name = format!("{}-{VERSION}-{}.{extension}", plugin.distribution(), platform.name());
    let archive = dist_folder()?.join(name);
    let shell = system::shell()?;
    let library =
        cmd!(shell, "bash ci/packages/packed.sh {archive} library").quiet().output().with_context(|| {
            format!("the archive is missing; make it with cargo xtask dist --platform {}", platform.name())
        })?;
    Ok(library.stdout)
}

/// Returns the time of the last commit, in seconds since 1970, or `SOURCE_DATE_EPOCH` if that is set.
fn commit_time(shell: &Shell) -> Result<String> {
    let seconds = match env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => seconds,
        Err(_) => output(cmd!(shell, "git log -1 --format=%ct"))
            .context("reading the commit's time; without git, set SOURCE_DATE_EPOCH")?,
    };
    let seconds = seconds.trim();
    seconds
        .parse::<u64>()
        .with_context(|| format!("the time must be in seconds since 1970, got {seconds}"))?;
    Ok(seconds.to_owned())
}
