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
        let mut storescu = storescu(orthanc);
        run(storescu.args(batch.iter().map(|file| AsRef::<OsStr>::as_ref(file.as_ref()))))?;
    }
    Ok(())
}

/// Sends all DICOM files in a folder in one association. Neither side waits for more to send before it sends a small
/// packet, if Orthanc's environment has `TCP_NODELAY=1` too.
///
/// # Errors
/// [`SendError::Refused`] if Orthanc answers with a failure to one of them.
pub fn dicom_send_folder(orthanc: &Orthanc, folder: &Path) -> Result<(), SendError> {
    run(storescu(orthanc).arg("--scan-directories").arg(folder).env(NO_DELAY.0, NO_DELAY.1))
}

/// The environment variable of dcmtk that switches off Nagle's algorithm, which Debian's leaves on, and its value.
pub const NO_DELAY: (&str, &str) = ("TCP_NODELAY", "1");

/// The command without the files.
fn storescu(orthanc: &Orthanc) -> Command {
    let mut command = Command::new("storescu");
    // With --required, storescu proposes the transfer syntaxes and classes of the files, which its default leaves out.
    command.args(["--required", "-aet", "HARNESS", "-aec", "ORTHANC"]);
    command.args(["-to", MODALITY, "-ta", MODALITY, "-td", MODALITY, "127.0.0.1"]);
    command.arg(orthanc.dicom_port().to_string());
    command
}

fn run(storescu: &mut Command) -> Result<(), SendError> {
    let output = storescu.output()?;
    // storescu may print an error and still exit with 0.
    let printed = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || printed.contains("Store Failed") || printed.contains("E: ") {
        return Err(SendError::Refused(format!("{}: {}", output.status, printed.trim())));
    }
    Ok(())
}
