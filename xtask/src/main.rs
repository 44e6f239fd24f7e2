//! The project's chores. `cargo xtask` lists them.

mod azurite;
mod bench;
mod conformance;
mod demo;
mod install;
mod interrupt;
mod progress;
mod storage;
mod test;

use std::process::ExitCode;

use anyhow::{Result, bail};
use lexopt::prelude::{Long, Short, Value};

const USAGE: &str = "\
The project's chores.

cargo xtask install
    Check that Orthanc, its plugin header, dcmtk, setpriv and Node are there, and install what is missing
    (Debian and Ubuntu, as root). Then install Azurite below target/.

cargo xtask test [-- ARGUMENTS]
    Install what is missing, build the plugins once, run all tests. Arguments go to the test runner.

cargo xtask demo [OPTIONS]
    Store a study in a bucket through a real Orthanc, read it back, compare it, delete it.
    --provider s3|azure|google
                          the cloud, played by a server on this machine: Azure by Microsoft's emulator (s3)
    --dicom DIR           your own DICOM files instead of a generated study
    --slices N            slices of the generated CT series (300)
    --megabytes N         size of the generated multi-frame (100)
    --clients N           simultaneous clients (4)
    --encryption A1|A2    encrypt in the plugin
    --keep                leave it running until Ctrl-C before the study is deleted

cargo xtask dist [OPTIONS]
    Make what people download, in target/dist: archives, packages, installer, checksums, bills of materials.
    --linux, --windows    only these (all)
    --platform NAME       linux-x86_64, linux-aarch64 or windows-x86_64; may be repeated
    --plugin NAME         aws-s3, azure-blob or google-cloud; may be repeated (all)
    --check               verify the set that is there

cargo xtask dist-test [OPTIONS]
    Install and use what dist has made. As root, best in a container: it installs packages and removes them again.
    --linux               the x86-64 packages, with apt, in a real Orthanc
    --arm                 the ARM libraries, in an emulator
    --windows             the DLLs and the installer, under Wine
    --container           the container recipe, in a plain folder (debootstrap)
    --brief               of the end-to-end tests with the packages, only those that store, read and delete

cargo xtask bench [OPTIONS]
    Orthanc's own file storage and the plugin side by side. A report, no pass or fail.
    --rounds N            rounds, of which medians are taken (5)
    --instances N         instances of 130 kB in each round (400)
    --large N             instances of 100 MB in each round (3)
    --quick               2 rounds of 100 and 1
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Mistakes on the command line tell their cause by themselves; of others, the whole chain is wanted.
            match error.downcast_ref::<lexopt::Error>() {
                Some(mistake) => eprintln!("xtask: {mistake}"),
                None => eprintln!("xtask: {error:#}"),
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = lexopt::Parser::from_env();
    match arguments.next()? {
        Some(Value(command)) => match &*command.to_string_lossy() {
            "install" => match arguments.next()? {
                None => install::install_for_tests(),
                Some(other) => bail!(other.unexpected()),
            },
            "test" => test::run(arguments),
            "demo" => demo::run(&demo::Options::parse(arguments)?),
            command @ ("dist" | "dist-test") => packages(command, arguments),
            "bench" => bench::run(&bench::Options::parse(arguments)?),
            other => bail!("there is no command {other}\n\n{USAGE}"),
        },
        None | Some(Long("help") | Short('h')) => {
            print!("{USAGE}");
            Ok(())
        }
        Some(other) => bail!(other.unexpected()),
    }
}

/// Runs a command of the package `packages`, which is compiled only for these commands.
fn packages(command: &str, mut arguments: lexopt::Parser) -> Result<()> {
    let arguments: Vec<_> = arguments.raw_args()?.collect();
    let shell = xshell::Shell::new()?;
    Ok(xshell::cmd!(shell, "cargo run --package packages -- {command} {arguments...}").quiet().run()?)
}
