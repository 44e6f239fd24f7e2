//! C-STORE, through dcmtk's `storescu`: an implementation of DICOM that is not ours.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::Command;

use thiserror::Error;

use crate::Orthanc;

/// Command lines have a limit: this many files for each association.
const FILES_AT_ONCE: usize = 500;

/// Why files were not sent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no `storescu` (package `dcmtk`).
    #[error("starting storescu: {0}")]
    Spawn(#[from] io::Error),
    /// Not every file was stored.
    #[error("storescu: {0}")]
    Refused(String),
}

/// Sends DICOM files to Orthanc in one association.
///
/// # Errors
/// [`SendError::Refused`] when Orthanc answers one of them with a failure.
pub fn dicom_send(orthanc: &Orthanc, files: &[impl AsRef<Path>]) -> Result<(), SendError> {
    for files in files.chunks(FILES_AT_ONCE) {
        send(orthanc, files)?;
    }
    Ok(())
}

fn send(orthanc: &Orthanc, files: &[impl AsRef<Path>]) -> Result<(), SendError> {
    // --required proposes what the files need: the default proposal leaves out transfer syntaxes and newer classes.
    let output = Command::new("storescu")
        .args(["--required", "-aet", "HARNESS", "-aec", "ORTHANC", "127.0.0.1"])
        .arg(orthanc.dicom_port().to_string())
        .args(files.iter().map(|file| AsRef::<OsStr>::as_ref(file.as_ref())))
        .output()?;
    // The exit status is not trusted alone: an error that was printed counts too.
    let printed = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() && !printed.contains("Store Failed") && !printed.contains("E: ") {
        return Ok(());
    }
    Err(SendError::Refused(format!("{}: {printed}", output.status)))
}
