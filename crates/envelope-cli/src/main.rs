//! `orthanc-envelope`: reads and writes encrypted attachments without Orthanc.
//!
//! `args` is the command line, `commands` what it can do, `input` and `output` the files; the cryptography is
//! `crypto-envelope`'s.

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

/// The exit codes that `--help` and `docs/encryption.md` promise.
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
