//! A disk that is soon full.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A small file system that is unmounted when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Fails if this user may not mount a file system.
    fn mount(folder: &Path, options: &str) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let output =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(Self(folder.to_owned()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Set in the environment of a test in its own namespace.
const IN_NAMESPACE: &str = "ORTHANC_TESTS_IN_NAMESPACE";

/// Repeats this test in its own namespace, where users other than root may mount file systems.
fn in_namespace() -> Result<()> {
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount"])
        .arg(env::current_exe()?)
        .args(env::args_os().skip(1));
    let output = command.env(IN_NAMESPACE, "yes").output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    ensure!(output.status.success(), "{text}");
    ensure!(text.contains("1 passed"), "the test did not run in the namespace: {text}");
    Ok(())
}

/// Runs `test` with the folder of an empty file system of this size.
pub(crate) fn on_small_disk(kilobytes: u32, test: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    on_tmpfs(&format!("size={kilobytes}k"), test)
}

/// Runs `test` with the folder of a file system that holds this many files, links and folders.
pub(crate) fn on_disk_of_few_files(files: u32, test: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    on_tmpfs(&format!("size=64m,nr_inodes={files}"), test)
}

fn on_tmpfs(options: &str, test: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("small");
    let mounted = Tmpfs::mount(&disk, options);
    if mounted.is_err() && env::var_os(IN_NAMESPACE).is_none() {
        return in_namespace();
    }
    let _mounted = mounted.context("a container needs the privilege to mount a tmpfs")?;
    test(&disk)
}
