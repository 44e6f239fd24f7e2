//! `cargo xtask`: project tasks.
//!
//! The demonstration, the benchmark and the packages are separate binaries, compiled only by the commands that need
//! them.

mod conformance;
mod test;

use std::env;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};
use lexopt::prelude::{Long, Short, Value};
use xtask::options::{Bench, Demo};
use xtask::{cargo, install, run, target_folder};

const USAGE: &str = "\
Project tasks

Usage: cargo xtask COMMAND [OPTIONS]

help
    Print this text.

install
    Install what the tests need: Orthanc, its plugin header, dcmtk, jq, PostgreSQL, Chromium, nginx and Node from the
    packages of Debian or Ubuntu (as root), Azurite and axe-core below target/, and the Orthancs of Debian 13 and
    unstable below ~/.cache.

test [--long] [-- ARGUMENTS]
    Install what is missing, build the plugins and run the tests, as CI does. ARGUMENTS go to `cargo nextest run`.
    --long                also run the whole suite for every cloud, the long kill tests, servers, dist and dist-test

servers [-- ARGUMENTS]
    Install real servers (Garage, Ceph, moto, rclone and nginx; the first time, Garage is compiled for about 15
    minutes), start them on this machine and run the tests on them. ARGUMENTS go to `cargo nextest run`.

demo [OPTIONS]
    Show a plugin at work: a real Orthanc stores a study in a bucket on this machine, loses the bucket for ten
    seconds, is killed and restarted, and returns every file byte for byte.
    --plugin NAME         aws-s3, azure-blob or google-cloud (aws-s3)
    --provider NAME       the same by its cloud: s3, azure or google
    --encryption FORMAT   none, A1 or A2 (A2)
    --key-vault           show a master key in Azure Key Vault instead: what the vault is asked, a new version of the
                          key, an outage of the vault, and a blob of the earlier Key Vault plugin
    --dicom DIR           store the DICOM files in DIR instead of a generated study
    --slices N            slices of the generated CT series (300)
    --megabytes N         size of the generated multi-frame (100)
    --clients N           simultaneous clients (4)
    --keep                keep Orthanc running until Ctrl-C, and print its addresses

screenshots
    Take the pictures of the page in docs/images, of a real Orthanc with a bucket on this machine.

bench [OPTIONS]
    Benchmark a plugin against Orthanc's built-in storage.
    --plugin NAME         aws-s3, azure-blob or google-cloud (aws-s3)
    --rounds N            number of rounds; medians are reported (5)
    --instances N         instances of 130 kB in each round (400)
    --large N             instances of 100 MB in each round (3)
    --quick               2 rounds of 100 and 1
    --encryption FORMAT   none, A1 or A2 (none)
    --against FILE        compare with another build of the same plugin, the library FILE, instead of the built-in
                          storage; with --cloud, as further storages
    --server NAME         fake or azurite (fake). fake is one server for each Orthanc, which counts requests; azurite is
                          one Azurite for all of them, without a line (with --plugin azure-blob; also with --cloud)
    --reading             compare Orthanc's options for reading whole studies instead, 20 ms from the bucket, in a
                          real Orthanc with the plugin for DICOMweb (ORTHANC_PROGRAM selects another Orthanc)
    --write-back          measure the mode WriteBack instead, 20 ms from the bucket, with Orthanc 1.13
                          (ORTHANC_PROGRAM selects another Orthanc). The files are in the folder for temporary files
                          (TMPDIR), which must be on a disk
    --jobs                measure users' requests with and without a running job instead: verify, reencrypt, orphans, move
    --stow                compare the STOW-RS gateway with a bare S3 client instead, without latency and with 20 ms
    --cloud               measure studies between clients, Orthanc and a bucket that behaves like a cloud instead: built-in
                          storage, clear, A1, A2 and WriteBack (ORTHANC_PROGRAM selects another Orthanc). The first of
                          3 rounds takes about 20 minutes; the others repeat only what takes less than a minute. The
                          files are below TMPDIR, which must be on a disk. With --cloud only, lists have commas:
      --latency MS        from a request to its answer (20)
      --bandwidth MB/S    of each connection, in each direction; 0 for no limit (80)
      --loss SHARE        of the requests whose answer is lost once and sent again after 200 ms and the latency (0)
      --workload LIST     mammo (8 files, 853 MB), cardio (26, 251 MB), onco (1,635, 356 MB) (all)
      --storage LIST      built-in, clear, A1, A2, write-back (all)
      --transfer LIST     upload, download, c-store, archive, metadata (all)
      --clients LIST      simultaneous clients of uploads and downloads (1,10)
      --charts DIR        write a chart (SVG) for each workload
    --key-service         compare a master key in a key service with one in a file instead (google-cloud)

dist [OPTIONS]
    Build the release files in target/dist: archives, Debian packages, Windows installer, checksums, bills of
    materials.
    --linux, --windows    only for this system (all)
    --platform NAME       linux-x86_64, linux-aarch64 or windows-x86_64; may be repeated
    --plugin NAME         aws-s3, azure-blob or google-cloud; may be repeated (all)
    --check               verify the existing files instead of building

dist-test [OPTIONS]
    Install and test the files built by dist. Run as root in a disposable container: packages are installed and
    removed.
    --linux               the x86-64 packages, with apt and a real Orthanc
    --arm                 the ARM libraries, in an emulator
    --windows             the DLLs and the installer, under Wine
    --container           the steps of the Dockerfile, in a folder (debootstrap)
    --debian              lintian, and install, upgrade, downgrade, remove and purge in clean Debians 12, 13 and unstable
    --brief               run only the end-to-end tests that store, read and delete
";

fn main() -> ExitCode {
    match dispatch() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch() -> Result<()> {
    let mut arguments = lexopt::Parser::from_env();
    match arguments.next()? {
        None | Some(Long("help") | Short('h')) => print!("{USAGE}"),
        Some(Value(command)) => match &*command.to_string_lossy() {
            "help" => print!("{USAGE}"),
            "install" => match arguments.next()? {
                None => {
                    install::for_tests()?;
                    install::newest_orthanc()?;
                }
                Some(other) => bail!(other.unexpected()),
            },
            "test" => test::run(arguments)?,
            "servers" => test::run_on_servers(arguments)?,
            "demo" => demo(&Demo::parse(arguments)?)?,
            "screenshots" => match arguments.next()? {
                None => {
                    install::for_screenshots()?;
                    let example = ["run", "--package", "browser", "--example", "screenshots"];
                    return replace_by(cargo().args(example));
                }
                Some(other) => bail!(other.unexpected()),
            },
            "bench" => bench(&Bench::parse(arguments)?)?,
            "dist" | "dist-test" => {
                eprintln!("Compiling the packager (the first time, about three minutes on two cores)");
                return replace_by(cargo().args(["run", "--package", "packages", "--"]).args(given()));
            }
            other => bail!("unknown command {other}; `cargo xtask help` lists all commands"),
        },
        Some(other) => bail!(other.unexpected()),
    }
    Ok(())
}

fn demo(options: &Demo) -> Result<()> {
    install::for_plugin(options.plugin)?;
    eprintln!(
        "Compiling the demonstration, the {} plugin and orthanc-envelope (the first time, about four minutes on two cores)",
        options.plugin
    );
    let packages = ["--package", "demo", "--package", "envelope-cli", "--package", options.plugin];
    run(cargo().args(["build", "--profile", "demo"]).args(packages))?;
    start("demo")
}

/// Measures the plugin as it is shipped: the release build, with the features of that package alone.
fn bench(options: &Bench) -> Result<()> {
    install::for_plugin(options.plugin)?;
    if options.write_back {
        install::newest_orthanc()?;
    }
    eprintln!(
        "Compiling the {} plugin for release, then the benchmark (the first time, about ten minutes on two cores)",
        options.plugin
    );
    run(cargo().args(["build", "--release", "--package", options.plugin]))?;
    run(cargo().args(["build", "--profile", "demo", "--package", "demo"]))?;
    start("release")
}

/// Starts the demonstration or the benchmark with the arguments of this program and the plugin built with `profile`.
fn start(profile: &str) -> Result<()> {
    let target = target_folder()?;
    let mut program = Command::new(target.join("demo/demo"));
    replace_by(program.args(given()).env(test::PLUGIN_FOLDER_VARIABLE, target.join(profile)))
}

/// The arguments of this program.
fn given() -> impl Iterator<Item = std::ffi::OsString> {
    env::args_os().skip(1)
}

/// Replaces this process, so that Ctrl-C and the exit status are those of the command.
fn replace_by(command: &mut Command) -> Result<()> {
    Err(command.exec().into())
}
