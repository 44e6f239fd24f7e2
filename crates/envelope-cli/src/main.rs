//! `orthanc-envelope`: reads and writes encrypted attachments without Orthanc.
//!
//! `args` parses the command line and `commands` runs it. `batch` and `walk` go through several files and folders,
//! `convert` works on one file, `input` and `output` read and write it. The crate `crypto-envelope` implements the
//! cryptography.
//!
//! ```console
//! $ orthanc-envelope keygen master.key
//! $ orthanc-envelope encrypt --key 1:master.key image.dcm image.dcm.enc
//! $ orthanc-envelope inspect image.dcm.enc
//! $ orthanc-envelope decrypt --key 1:master.key image.dcm.enc copy.dcm
//! $ orthanc-envelope decrypt --key 1:master.key bucket images
//! ```

mod args;
mod batch;
mod commands;
mod console;
mod convert;
mod failures;
mod input;
mod interrupt;
mod keys;
mod output;
mod walk;

use std::process::ExitCode;

fn main() -> ExitCode {
    match args::parse(lexopt::Parser::from_env()).and_then(commands::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("orthanc-envelope: {error:#}");
            ExitCode::from(failures::exit_code(&error))
        }
    }
}
