//! The Debian packages, installed with `apt` and used by a real Orthanc.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fake_cloud::BUCKET;
use real_orthanc::workspace::PLUGIN_FOLDER_VARIABLE;
use real_orthanc::{Builder, Orthanc};
use serde_json::json;
use xshell::cmd;

use super::{Stored, step};
use crate::dist::{self, Platform};
use crate::system::{VERSION, dist_folder, output, shell};
use real_orthanc::workspace::Plugin;

/// The folder of the plugins of Debian's Orthanc.
const PLUGINS: &str = "/usr/share/orthanc/plugins";

pub(super) fn run(brief: bool) -> Result<()> {
    let folder = dist_folder()?;
    let file = |plugin: &Plugin| folder.join(format!("{}_{VERSION}_amd64.deb", plugin.distribution()));
    let plugins: Vec<Plugin> = Plugin::all().into_iter().filter(|plugin| file(plugin).is_file()).collect();
    ensure!(!plugins.is_empty(), "the packages are missing; make them with cargo xtask dist --linux");
    let files = || plugins.iter().flat_map(|plugin| [library_path(*plugin), sample_path(*plugin)]);
    for path in files() {
        ensure!(!path.exists(), "{} exists already, and the proof would remove it", path.display());
    }
    let shell = shell()?;
    let user = output(cmd!(shell, "id -u"))?;
    ensure!(user.trim() == "0", "installing packages needs root: run this as root, in a container");
    step("apt installs the packages", || apt("install", plugins.iter().map(file)))?;
    let result = use_packages(&plugins, brief);
    // After a failure too.
    let purged = step("apt removes the packages without a trace", || {
        apt("purge", plugins.iter().map(|plugin| plugin.distribution().into()))?;
        files().try_for_each(|path| {
            ensure!(!path.exists(), "{} is left", path.display());
            Ok(())
        })
    });
    result.and(purged)
}

fn use_packages(plugins: &[Plugin], brief: bool) -> Result<()> {
    step("libraries and samples are in place, and only Orthanc can read the samples", || {
        plugins.iter().try_for_each(|plugin| files_are_in_place(*plugin))
    })?;
    step("with unedited samples, Orthanc starts and uses its own storage", || {
        unedited_samples_change_nothing(plugins)
    })?;
    for plugin in plugins {
        let library = plugin.library();
        step(
            &format!("{library}: a study is stored in a bucket, survives a restart, and is deleted"),
            || study_is_stored_and_deleted(*plugin),
        )?;
    }
    if plugins.len() == Plugin::all().len() {
        end_to_end_tests(if brief { "orthanc::storing" } else { "orthanc::" })?;
    }
    Ok(())
}

fn apt(command: &str, packages: impl Iterator<Item = PathBuf>) -> Result<()> {
    let shell = shell()?;
    let apt = cmd!(shell, "apt-get --yes --quiet --no-install-recommends {command}");
    output(apt.args(packages).env("DEBIAN_FRONTEND", "noninteractive")).map(drop)
}

fn library_path(plugin: Plugin) -> PathBuf {
    Path::new(PLUGINS).join(Platform::LinuxX86.library(plugin))
}

fn sample_path(plugin: Plugin) -> PathBuf {
    Path::new("/etc/orthanc").join(plugin.sample())
}

fn files_are_in_place(plugin: Plugin) -> Result<()> {
    let packed = dist::packed_library(plugin, Platform::LinuxX86)?;
    ensure!(fs::read(library_path(plugin))? == packed, "the library differs from the archive's");
    let sample = sample_path(plugin);
    let data = fs::metadata(&sample).with_context(|| format!("reading {}", sample.display()))?;
    let mode = data.mode() & 0o777;
    ensure!(mode == 0o640, "{} must have the mode 640, got {mode:o}", sample.display());
    ensure!(fs::read_to_string(&sample)? == dist::sample(plugin, Platform::LinuxX86)?, "the sample differs");
    Ok(())
}

/// Returns an Orthanc that loads all plugins of Debian's folder, as Debian's configuration does.
fn orthanc() -> Builder {
    Orthanc::builder().section("Plugins", json!([PLUGINS]))
}

fn unedited_samples_change_nothing(plugins: &[Plugin]) -> Result<()> {
    let samples = plugins.iter().map(|plugin| sample_path(*plugin));
    let mut orthanc = samples.fold(orthanc(), Builder::configuration_file).start()?;
    for plugin in plugins {
        let warning = format!("no section \"{}\"", plugin.section());
        ensure!(orthanc.log().contains(&warning), "the log lacks the warning {warning}:\n{}", orthanc.log());
    }
    Stored::upload(orthanc.rest(), 1)?.check(orthanc.rest())?;
    let mut stored = walkdir::WalkDir::new(orthanc.storage_folder()).into_iter().flatten();
    ensure!(stored.any(|entry| entry.file_type().is_file()), "Orthanc's storage folder is empty");
    orthanc.stop()?;
    Ok(())
}

fn study_is_stored_and_deleted(plugin: Plugin) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (server, options) =
        fake_cloud::serve(plugin.package(), folder.path(), |path| path.display().to_string())?;
    let mut orthanc = orthanc().section(plugin.section(), options).start()?;
    let study = Stored::upload(orthanc.rest(), 20)?;
    let objects = server.keys(BUCKET).len();
    ensure!(objects == 20, "the bucket must contain 20 objects, got {objects}");
    orthanc.restart().map_err(|error| anyhow::anyhow!("restarting Orthanc: {error}"))?;
    study.check(orthanc.rest())?;
    study.delete(orthanc.rest())?;
    orthanc.rest().wait_for_deletions(Duration::from_secs(60))?;
    orthanc.stop()?;
    ensure!(server.keys(BUCKET).is_empty(), "objects are left: {:?}", server.keys(BUCKET));
    Ok(())
}

/// Runs the conformance tests in a real Orthanc, with the installed libraries instead of those that tests build.
fn end_to_end_tests(filter: &str) -> Result<()> {
    println!("the end-to-end tests, with the installed libraries:");
    // Tests are built for the whole workspace, as in CI: single packages would be compiled again with other features.
    let shell = shell()?;
    cmd!(shell, "cargo test --quiet --workspace --test conformance -- {filter}")
        .env(PLUGIN_FOLDER_VARIABLE, PLUGINS)
        // Without this variable, only one plugin has all tests.
        .env("ORTHANC_TESTS", "long")
        .run()
        .context("running the end-to-end tests")
}
