//! The Debian packages, installed with `apt` and used by a real Orthanc.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use real_orthanc::dicom::Study;
use real_orthanc::workspace::{PLUGIN_FOLDER_VARIABLE, Plugin};
use real_orthanc::{Builder, Orthanc};
use serde_json::json;

use super::{begin, done, library, output};
use crate::dist::{self, Platform};
use crate::storage::{BUCKET, Cloud, Served};

/// Where Debian's Orthanc has its plugins.
const PLUGINS: &str = "/usr/share/orthanc/plugins";
const CONFIGURATION: &str = "/etc/orthanc";

pub(super) fn run(brief: bool) -> Result<()> {
    let installed = Installed::install()?;
    files_are_in_place(&installed.plugins)?;
    an_orthanc_without_a_section_starts(&installed.plugins)?;
    for cloud in Cloud::ALL {
        if installed.plugins.contains(&cloud.plugin()) {
            a_study_goes_to_the_bucket_and_back(cloud)?;
        }
    }
    if installed.plugins.len() == Plugin::ALL.len() {
        end_to_end_tests(if brief { "orthanc::storing" } else { "orthanc::" })?;
    }
    installed.remove()
}

/// The packages, while they are installed.
struct Installed {
    plugins: Vec<Plugin>,
}

impl Installed {
    fn install() -> Result<Self> {
        let mut plugins = Vec::new();
        let mut files = Vec::new();
        for plugin in Plugin::ALL {
            let file = format!("{}_{}_amd64.deb", plugin.distribution(), dist::VERSION);
            let path = dist::folder()?.join(file);
            let there = Path::new(PLUGINS).join(Platform::LinuxX86.library(plugin));
            ensure!(!there.exists(), "{} is there already: the proof would remove it", there.display());
            if path.is_file() {
                plugins.push(plugin);
                files.push(path);
            }
        }
        ensure!(!files.is_empty(), "there are none: make them with cargo xtask dist --linux");
        let user = output(Command::new("id").arg("-u"))?;
        ensure!(user.trim() == "0", "installing packages needs root: run it as root, in a container");
        begin(&format!("apt installs {} packages", files.len()));
        let guard = Self { plugins };
        apt(&["install"], &files)?;
        done();
        Ok(guard)
    }

    fn packages(&self) -> Vec<PathBuf> {
        self.plugins.iter().map(|plugin| plugin.distribution().into()).collect()
    }

    fn remove(self) -> Result<()> {
        begin("apt removes them, and nothing is left");
        apt(&["purge"], &self.packages())?;
        for plugin in &self.plugins {
            for path in [library_path(*plugin), sample_path(*plugin)?] {
                ensure!(!path.exists(), "{} is left", path.display());
            }
        }
        done();
        Ok(())
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        // After a failure; after `remove`, there is nothing to do.
        if self.plugins.iter().any(|plugin| library_path(*plugin).exists()) {
            let _ = apt(&["purge"], &self.packages());
        }
    }
}

fn apt(arguments: &[&str], packages: &[PathBuf]) -> Result<String> {
    let mut command = Command::new("apt-get");
    command.args(["--yes", "--quiet", "--no-install-recommends"]).args(arguments).args(packages);
    output(command.env("DEBIAN_FRONTEND", "noninteractive"))
}

fn library_path(plugin: Plugin) -> PathBuf {
    Path::new(PLUGINS).join(Platform::LinuxX86.library(plugin))
}

fn sample_path(plugin: Plugin) -> Result<PathBuf> {
    Ok(Path::new(CONFIGURATION).join(dist::sample_name(plugin)?))
}

fn files_are_in_place(plugins: &[Plugin]) -> Result<()> {
    begin("libraries and samples are in place, the samples for Orthanc's eyes only");
    for plugin in plugins {
        let packed = library(*plugin, Platform::LinuxX86)?.context("there is no archive")?;
        ensure!(fs::read(library_path(*plugin))? == packed, "the library differs from the archive's");
        let sample = sample_path(*plugin)?;
        let data = fs::metadata(&sample).with_context(|| format!("{} is not there", sample.display()))?;
        let mode = data.mode() & 0o777;
        ensure!(mode == 0o640, "{} has the permissions {mode:o}", sample.display());
        let conffiles =
            output(Command::new("dpkg-query").args(["-W", "-f=${Conffiles}", plugin.distribution()]))?;
        ensure!(conffiles.contains(&*sample.to_string_lossy()), "it is no conffile: {conffiles}");
    }
    done();
    Ok(())
}

/// An Orthanc that loads all plugins of Debian's folder, as Debian's configuration says.
fn orthanc() -> Builder {
    Orthanc::builder().section("Plugins", json!([PLUGINS]))
}

fn an_orthanc_without_a_section_starts(plugins: &[Plugin]) -> Result<()> {
    begin("with the samples as they are, Orthanc starts and uses its own storage");
    let mut builder = orthanc();
    for plugin in plugins {
        builder = builder.configuration_file(sample_path(*plugin)?);
    }
    let mut orthanc = builder.start()?;
    for plugin in plugins {
        let warning = format!("no section \"{}\"", dist::section_name(*plugin)?);
        ensure!(orthanc.log().contains(&warning), "there is no warning with {warning}:\n{}", orthanc.log());
    }
    let slice = slices(1)?.remove(0);
    let id = orthanc.rest().upload(&slice)?.id;
    ensure!(orthanc.rest().file(&id)? == slice, "the file came back as another one");
    let stored = walkdir::WalkDir::new(orthanc.storage_folder()).into_iter().flatten();
    ensure!(stored.filter(|entry| entry.file_type().is_file()).count() > 0, "the file is not in its storage");
    orthanc.stop()?;
    done();
    Ok(())
}

fn slices(count: u32) -> Result<Vec<Vec<u8>>> {
    Ok(Study(1).ct_series(count, 128, 128).collect::<Result<_, _>>()?)
}

fn a_study_goes_to_the_bucket_and_back(cloud: Cloud) -> Result<()> {
    let library = cloud.plugin().library();
    begin(&format!("{library}: a study goes to a bucket, outlives a restart, and is deleted"));
    let folder = tempfile::tempdir()?;
    let Served { server, section, options } =
        cloud.serve(folder.path(), |path| path.display().to_string())?;
    let mut orthanc = orthanc().section(section, options).start()?;
    let slices = slices(20)?;
    let ids: Vec<String> =
        slices.iter().map(|slice| Ok(orthanc.rest().upload(slice)?.id)).collect::<Result<_>>()?;
    ensure!(server.keys(BUCKET).len() == slices.len(), "{} objects", server.keys(BUCKET).len());
    if let Err(error) = orthanc.restart() {
        anyhow::bail!("restarting: {error}");
    }
    for (id, slice) in ids.iter().zip(&slices) {
        ensure!(orthanc.rest().file(id)? == *slice, "instance {id} came back as another one");
    }
    for id in &ids {
        orthanc.rest().delete(&format!("/instances/{id}"))?.ok()?;
    }
    orthanc.stop()?;
    ensure!(server.keys(BUCKET).is_empty(), "objects are left: {:?}", server.keys(BUCKET));
    done();
    Ok(())
}

/// The plugins' tests in a real Orthanc, with the installed libraries in place of those that tests build.
fn end_to_end_tests(filter: &str) -> Result<()> {
    println!("the end-to-end tests, with the installed libraries:");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The whole workspace, although three packages have them all: its features are those that CI has built with.
    command.args(["test", "--quiet", "--workspace", "--test", "conformance", "--", filter]);
    command.env(PLUGIN_FOLDER_VARIABLE, PLUGINS).current_dir(dist::workspace()?);
    let status = command.status().context("running the end-to-end tests")?;
    ensure!(status.success(), "there are failed end-to-end tests");
    Ok(())
}
