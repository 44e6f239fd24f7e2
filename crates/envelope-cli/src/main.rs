//! `orthanc-envelope`: reads and writes encrypted attachments without Orthanc.
//!
//! `args` parses the command line, `commands` runs it, `input` and `output` read and write files. The crate
//! `crypto-envelope` implements the cryptography.
//!
//! ```console
//! $ orthanc-envelope keygen master.key
//! $ orthanc-envelope encrypt --key 1:master.key image.dcm image.dcm.enc
//! $ orthanc-envelope inspect image.dcm.enc
//! $ orthanc-envelope decrypt --key 1:master.key image.dcm.enc copy.dcm
//! ```

mod args;
mod commands;
mod input;
mod output;

use std::process::ExitCode;

use crypto_envelope::{DecryptError, KeyFileError, KeyRingError};

use crate::args::UsageError;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const REFUSED: u8 = 3;

/// Returns the exit code, as documented by `--help` and `docs/encryption.md`.
fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<DecryptError>() {
        Some(DecryptError::Target(_) | DecryptError::Primitive(_)) => FAILED,
        Some(_) => REFUSED,
        None if error.is::<UsageError>() || error.is::<KeyFileError>() || error.is::<KeyRingError>() => USAGE,
        None => FAILED,
    }
}

fn main() -> ExitCode {
    match args::parse(lexopt::Parser::from_env()).and_then(commands::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("orthanc-envelope: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}
