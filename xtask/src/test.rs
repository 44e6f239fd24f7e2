//! `cargo xtask test`: the plugins are built once, then all tests run against those libraries.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use lexopt::prelude::Long;
use orthanc_roots::{Release, WITHOUT_VARIABLE};
use xtask::options::PLUGINS;
use xtask::servers::Servers;
use xtask::{cargo, install, target_folder};

use crate::conformance::{self, Columns};

/// A folder with built plugins, for the tests and for the demonstration.
pub(crate) const PLUGIN_FOLDER_VARIABLE: &str = "ORTHANC_PLUGIN_DIR";

/// `long` makes the conformance suite complete for every cloud.
const TESTS_VARIABLE: &str = "ORTHANC_TESTS";

/// The folder of the running servers, for the tests on real servers.
const SERVERS_VARIABLE: &str = "ORTHANC_TEST_SERVERS";

/// `cargo xtask test [--long] [-- ARGUMENTS]`.
pub(crate) fn run(arguments: lexopt::Parser) -> Result<()> {
    let (long, for_runner) = parse(arguments)?;
    install::for_tests()?;
    let newest = install::newest_orthanc();
    let tests = Tests { plugins: build_plugins()?, long, without_newest: newest.is_err() };
    let Outcome { passed, conformance, mut closing } = tests.run(&for_runner)?;
    let documentation = tests.cargo(&["test", "--doc", "--workspace", "--quiet", "--no-fail-fast"]).status();
    let on_servers = if long { tests.run_on_servers(&[]) } else { Ok(()) };
    let packages = if long { make_and_try_packages() } else { Ok(()) };
    let mut holes = Vec::new();
    if has_nextest() {
        let columns = tests.conformance_columns()?;
        closing.extend(columns.table(&conformance));
        holes = if long { columns.holes(&PLUGINS) } else { columns.holes_below(PLUGINS[0], &PLUGINS[1..]) };
    }
    closing.extend(generations(&newest));
    for line in closing.iter().chain(&holes) {
        println!("{line}");
    }
    all([
        ("tests", succeeded(passed)),
        (
            "documentation tests",
            documentation.context("starting cargo").and_then(|status| succeeded(status.success())),
        ),
        ("conformance tests of every plugin", succeeded(holes.is_empty())),
        ("tests on real servers", on_servers),
        ("packages", packages),
        ("newest Orthanc", if long { newest } else { Ok(()) }),
    ])
}

fn succeeded(success: bool) -> Result<()> {
    ensure!(success, "failed, for the reasons above");
    Ok(())
}

/// Returns all errors as one.
fn all<const N: usize>(results: [(&str, Result<()>); N]) -> Result<()> {
    let errors =
        results.into_iter().filter_map(|(what, result)| Some(format!("{what}: {:#}", result.err()?)));
    let errors: Vec<_> = errors.collect();
    ensure!(errors.is_empty(), errors.join("\n"));
    Ok(())
}

/// The versions of Orthanc in the columns of the table, or why one is missing.
fn generations(newest: &Result<()>) -> Vec<String> {
    // Only root has `/usr/sbin` on the search path.
    let installed = Command::new("sh").args(["-c", "PATH=$PATH:/usr/sbin exec Orthanc --version"]).output();
    let text =
        installed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let version = text.lines().next().unwrap_or("Orthanc, whose version is unknown");
    let versions = Release::ALL.into_iter().map(|release| match (release, newest) {
        (Release::Sid, Err(error)) => {
            format!("sid: NOT tested, since its Orthanc cannot be installed: {error:#}")
        }
        _ => match release.version() {
            Ok(version) => format!("{}: Orthanc {version}", release.name()),
            Err(error) => format!("{}: {error:#}", release.name()),
        },
    });
    [format!("encryption, hybrid, orthanc: {version}")].into_iter().chain(versions).collect()
}

/// `cargo xtask servers [-- ARGUMENTS]`.
pub(crate) fn run_on_servers(arguments: lexopt::Parser) -> Result<()> {
    let (long, for_runner) = parse(arguments)?;
    ensure!(!long, "`servers` has no option --long");
    install::for_tests()?;
    let newest = install::newest_orthanc();
    let tests = Tests { plugins: build_plugins()?, long, without_newest: newest.is_err() };
    all([("tests on real servers", tests.run_on_servers(&for_runner)), ("newest Orthanc", newest)])
}

/// Whether `--long` is given, and the arguments after `--`.
fn parse(mut arguments: lexopt::Parser) -> Result<(bool, Vec<OsString>)> {
    let mut long = false;
    loop {
        if let Some(raw) = arguments.try_raw_args()
            && raw.peek().is_some_and(|first| first == "--")
        {
            return Ok((long, raw.skip(1).collect()));
        }
        match arguments.next()? {
            None => return Ok((long, Vec::new())),
            Some(Long("long")) => long = true,
            Some(other) => {
                let unexpected = other.unexpected();
                bail!("{unexpected} (put arguments of the test runner after --)")
            }
        }
    }
}

/// Builds each plugin alone, with the features that it is shipped with, and copies the libraries to a folder, which
/// is returned: building the tests replaces those in cargo's folder.
fn build_plugins() -> Result<PathBuf> {
    let folder = target_folder()?.join("plugins-under-test");
    fs::create_dir_all(&folder).context("creating the folder for the plugins")?;
    for plugin in PLUGINS {
        eprintln!("building {plugin}");
        let mut build = cargo();
        build.args(["build", "--package", plugin, "--message-format=json-render-diagnostics"]);
        let output = build.stderr(Stdio::inherit()).output().context("running cargo build")?;
        ensure!(output.status.success(), "building {plugin} failed");
        let messages = String::from_utf8(output.stdout)?;
        let library = library_in(&messages).with_context(|| format!("{plugin} has no library"))?;
        let copy = folder.join(library.file_name().unwrap_or_default());
        // Removed first: overwriting the file would change the code of a process that has loaded it.
        let _ = fs::remove_file(&copy);
        fs::copy(library, &copy).with_context(|| format!("copying {}", library.display()))?;
    }
    Ok(folder)
}

/// The plugin's library among the files that cargo's messages name.
fn library_in(messages: &str) -> Option<&Path> {
    let mut strings = messages.split('"').map(Path::new);
    strings.find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.is_absolute() && name.starts_with("libOrthanc") && name.ends_with(env::consts::DLL_SUFFIX)
    })
}

/// How tests are run.
struct Tests {
    plugins: PathBuf,
    long: bool,
    /// Whether Debian's newest Orthanc cannot be installed.
    without_newest: bool,
}

/// The result of a test run.
struct Outcome {
    passed: bool,
    /// The conformance tests that passed.
    conformance: Columns,
    /// The runner's closing lines.
    closing: Vec<String>,
}

impl Tests {
    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = cargo();
        command.args(arguments).env(PLUGIN_FOLDER_VARIABLE, &self.plugins);
        if self.long {
            command.env(TESTS_VARIABLE, "long");
        }
        if self.without_newest {
            command.env(WITHOUT_VARIABLE, Release::Sid.name());
        }
        command
    }

    fn run(&self, arguments: &[OsString]) -> Result<Outcome> {
        if !has_nextest() {
            eprintln!("cargo-nextest is not installed: using cargo test");
            let mut command = self.cargo(&["test", "--workspace", "--all-targets", "--no-fail-fast"]);
            // `cargo test` prints its results on standard output itself.
            let passed = command.args(arguments).status().context("running cargo test")?.success();
            let closing = vec![format!("cargo test: {}", if passed { "all passed" } else { "failed" })];
            return Ok(Outcome { passed, conformance: Columns::default(), closing });
        }
        let mut command = self.cargo(&["nextest", "run", "--workspace"]);
        if self.long {
            command.args(["--run-ignored", "all"]);
        }
        if stderr().is_terminal() {
            command.args(["--color", "always"]);
        }
        let mut child =
            command.args(arguments).stderr(Stdio::piped()).spawn().context("running cargo nextest")?;
        let output = child.stderr.take().context("cargo nextest has no output")?;
        let mut conformance = Columns::default();
        let mut closing = Vec::new();
        for line in BufReader::new(output).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            eprintln!("{line}");
            conformance.add_passed(&line);
            if line.contains("Summary") {
                closing.clear();
            }
            if line.contains("Summary") || !closing.is_empty() {
                closing.push(line);
            }
        }
        Ok(Outcome { passed: child.wait()?.success(), conformance, closing })
    }

    /// Starts real servers and runs the tests on them.
    fn run_on_servers(&self, arguments: &[OsString]) -> Result<()> {
        let servers = Servers::start()?;
        let runner = if has_nextest() { &["nextest", "run"][..] } else { &["test", "--no-fail-fast"] };
        let mut command = self.cargo(runner);
        command.args(["--workspace", "--test", "servers", "--test", "moto"]).args(arguments);
        xtask::run(command.env(SERVERS_VARIABLE, servers.folder()))
    }

    /// The conformance tests of each plugin.
    fn conformance_columns(&self) -> Result<Columns> {
        let list = ["nextest", "list", "--workspace", "--cargo-quiet", "--message-format", "oneline"];
        let mut command = self.cargo(&list);
        command.args(["--test", conformance::BINARY]).stderr(Stdio::inherit());
        let output = command.output().context("running cargo nextest list")?;
        ensure!(output.status.success(), "cargo nextest list failed");
        Ok(Columns::listed(&String::from_utf8(output.stdout)?))
    }
}

fn has_nextest() -> bool {
    let tried = cargo().args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

/// The packages for all platforms, installed and used.
fn make_and_try_packages() -> Result<()> {
    for task in ["dist", "dist-test"] {
        let mut command = cargo();
        command.args(["run", "--package", "packages", "--", task]);
        // The packages carry the time of the last commit. A source archive without one has a fixed time.
        let has_commit =
            Command::new("git").args(["log", "-1"]).output().is_ok_and(|log| log.status.success());
        if !has_commit && env::var_os("SOURCE_DATE_EPOCH").is_none() {
            command.env("SOURCE_DATE_EPOCH", "1577836800");
        }
        xtask::run(&mut command)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_end_at_two_dashes() {
        let parsed = |arguments: &[&str]| parse(lexopt::Parser::from_args(arguments)).ok();
        assert_eq!(parsed(&[]), Some((false, vec![])));
        assert_eq!(parsed(&["--long", "--", "-E", "--"]), Some((true, vec!["-E".into(), "--".into()])));
        assert_eq!(parsed(&["--", "--long"]), Some((false, vec!["--long".into()])));
        assert_eq!(parsed(&["-E"]), None);
        assert_eq!(parsed(&["--long=yes"]), None);
    }

    #[test]
    fn no_error_hides_another_one() {
        let error = || anyhow::anyhow!("inner").context("outer");
        assert!(all([("one", Ok(())), ("two", Ok(()))]).is_ok());
        let errors = all([("one", Err(error())), ("two", Ok(())), ("three", Err(error()))]).unwrap_err();
        assert_eq!(errors.to_string(), "one: outer: inner\nthree: outer: inner");
    }

    #[test]
    fn library_is_found_in_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"OrthancAwsS3Storage"},
            "filenames":["/t/libOrthancAwsS3Storage.rlib","/t/libOrthancAwsS3Storage.so"]}"#;
        assert_eq!(library_in(messages), Some(Path::new("/t/libOrthancAwsS3Storage.so")));
        assert_eq!(library_in(r#"{"filenames":["/t/libserde_derive-1.so"]}"#), None);
    }
}
