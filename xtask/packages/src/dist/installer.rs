//! The installer for Windows.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::contents::{Entry, workspace};

/// Its file.
pub(crate) fn name() -> String {
    format!("orthanc-object-storage-{}-windows-x86_64.exe", super::VERSION)
}

/// Packs what the archives for Windows hold. Entries of different plugins with one path are the same file.
pub(crate) fn build(entries: &[Entry], seconds: u64, folder: &Path) -> Result<()> {
    let source = tempfile::tempdir().context("making a folder for the installer's files")?;
    for entry in entries {
        let path = source.path().join(&entry.path);
        let parent = path.parent().context("a file without a folder")?;
        fs::create_dir_all(parent).and_then(|()| fs::write(&path, &entry.bytes))?;
        // The installer keeps the files' times.
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        fs::File::options().append(true).open(&path)?.set_modified(time)?;
    }
    let mut command = Command::new("makensis");
    // Warnings are errors. Definitions have to come before the script.
    command.args(["-V2", "-WX"]).arg(format!("-DVERSION={}", super::VERSION));
    command.arg(format!("-DSOURCE={}", source.path().display()));
    command.arg(format!("-DOUTPUT={}", folder.join(name()).display()));
    command.arg(workspace()?.join("ci/windows/installer.nsi"));
    command.env("SOURCE_DATE_EPOCH", seconds.to_string());
    let output = command.output().context("starting makensis")?;
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "makensis failed:\n{printed}");
    Ok(())
}
