//! The demonstration and the benchmark, started by `cargo xtask demo` and `cargo xtask bench`, which also compile the
//! plugin and `orthanc-envelope`.

mod bench;
mod cloud;
mod demonstration;
mod earlier;
mod interrupt;
mod load;
mod progress;
mod vault;

use std::process::ExitCode;

use anyhow::{Result, bail};
use lexopt::Arg::Value;
use xtask::options::{Bench, Demo};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = lexopt::Parser::from_env();
    match arguments.next()? {
        Some(Value(task)) if task == "demo" => demonstration::run(&Demo::parse(arguments)?),
        Some(Value(task)) if task == "bench" => bench::run(&Bench::parse(arguments)?),
        _ => bail!("start this program with `cargo xtask demo` or `cargo xtask bench`"),
    }
}
