//! Makes the packages that people download, installs them and uses them.
//!
//! `cargo xtask dist` and `cargo xtask dist-test` run this program; `cargo xtask help` lists their options.

mod dist;
mod proof;
mod system;

use std::process::ExitCode;

use anyhow::{Result, bail};
use lexopt::prelude::Value;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Errors of the command line already contain their cause.
            match error.downcast_ref::<lexopt::Error>() {
                Some(mistake) => eprintln!("packages: {mistake}"),
                None => eprintln!("packages: {error:#}"),
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = lexopt::Parser::from_env();
    match arguments.next()? {
        Some(Value(command)) if command == "dist" => dist::run(&dist::Options::parse(arguments)?),
        Some(Value(command)) if command == "dist-test" => proof::run(&proof::Options::parse(arguments)?),
        _ => bail!("the command must be dist or dist-test"),
    }
}
