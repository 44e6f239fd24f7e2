//! C-STORE through dcmtk's `storescu`, an independent implementation of DICOM.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::Command;

use thiserror::Error;

use crate::Orthanc;

/// Files per association; the length of a command line is limited.
const FILES_AT_ONCE: usize = 500;

/// Why files were not sent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SendError {
    /// `storescu` could not be started; Debian's package is `dcmtk`.
    #[error("cannot start storescu: {0}")]
    Spawn(#[from] io::Error),
    /// Not every file was stored.
    #[error("storescu: {0}")]
    Refused(String),
}

/// How long a modality waits for an answer, in seconds.
const MODALITY: &str = "30";

/// Sends DICOM files to Orthanc.
///
/// # Errors
/// [`SendError::Refused`] if Orthanc answers with a failure to one of them.
pub fn dicom_send(orthanc: &Orthanc, files: &[impl AsRef<Path>]) -> Result<(), SendError> {
    for batch in files.chunks(FILES_AT_ONCE) {
        // With --required, storescu proposes the transfer syntaxes and classes of the files, which its
        // default leaves out.
        let output = Command::new("storescu")
            .args(["--required", "-aet", "HARNESS", "-aec", "ORTHANC"])
            .args(["-to", MODALITY, "-ta", MODALITY, "-td", MODALITY, "127.0.0.1"])
            .arg(orthanc.dicom_port().to_string())
            .args(batch.iter().map(|file| AsRef::<OsStr>::as_ref(file.as_ref())))
            .output()?;
        // storescu may print an error and still exit with 0.
        let printed = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() || printed.contains("Store Failed") || printed.contains("E: ") {
            return Err(SendError::Refused(format!("{}: {}", output.status, printed.trim())));
        }
    }
    Ok(())
}
