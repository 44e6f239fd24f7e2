//! Exit codes, and the failures of some of several files.

use std::fmt;

use crypto_envelope::{DecryptError, KeyFileError, KeyRingError};

use crate::args::UsageError;
use crate::console::Console;
use crate::interrupt::{self, Interrupted};

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const REFUSED: u8 = 3;

/// Returns the exit code, as documented by `--help` and `docs/encryption.md`.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(failed) = error.downcast_ref::<SomeFailed>() {
        return failed.code;
    }
    if error.is::<Interrupted>() {
        return interrupt::EXIT_CODE;
    }
    match error.downcast_ref::<DecryptError>() {
        Some(DecryptError::Target(_) | DecryptError::Primitive(_)) => FAILED,
        Some(_) => REFUSED,
        None if error.is::<UsageError>() || error.is::<KeyFileError>() || error.is::<KeyRingError>() => USAGE,
        None => FAILED,
    }
}

/// Failures that have been printed and did not end the command.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    count: u64,
    /// The highest exit code.
    code: u8,
}

impl Failures {
    pub(crate) fn add(&mut self, console: &Console, error: &anyhow::Error) {
        console.print_error(&format!("{error:#}"));
        self.count += u64::from(!error.is::<Interrupted>());
        self.code = self.code.max(exit_code(error));
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// # Errors
    /// `summary`, with the exit code of the failures, if there are any.
    pub(crate) fn into_result(self, summary: String) -> anyhow::Result<()> {
        if self.code == 0 { Ok(()) } else { Err(SomeFailed { summary, code: self.code }.into()) }
    }
}

/// The last error of a command of which some files failed.
#[derive(Debug)]
struct SomeFailed {
    summary: String,
    code: u8,
}

impl fmt::Display for SomeFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary)
    }
}

impl std::error::Error for SomeFailed {}
