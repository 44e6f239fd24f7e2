//! All tests, the way CI runs them.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use lexopt::prelude::{Long, Value as Free};
use real_orthanc::workspace::{self, PLUGIN_FOLDER_VARIABLE, Plugin, Profile};
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::conformance::{self, Columns};
use crate::install;

/// `cargo xtask test [-- ARGUMENTS]`.
pub(crate) fn run(mut arguments: lexopt::Parser) -> Result<()> {
    let passed_on: Vec<OsString> = match arguments.try_raw_args() {
        Some(raw) if raw.peek().is_some_and(|first| first == "--") => raw.skip(1).collect(),
        _ => match arguments.next()? {
            None => Vec::new(),
            Some(other @ (Long(_) | Free(_) | lexopt::Arg::Short(_))) => {
                let hint = other.unexpected();
                bail!("{hint} (arguments of the test runner come after --)")
            }
        },
    };
    install::install_for_tests()?;
    let (built, plugins) = collect_plugins()?;
    let Outcome { tests, passed, mut closing } = run_tests(&plugins, &passed_on)?;
    let documentation = run_documentation_tests(&plugins)?;
    let mut holes = Vec::new();
    if has_nextest() {
        let columns = conformance_columns(&plugins)?;
        closing.extend(columns.table(&passed));
        holes = columns.holes(&built);
    }
    for line in closing.iter().chain(&holes) {
        println!("{line}");
    }
    ensure!(holes.is_empty(), "not every plugin has every conformance test");
    ensure!(tests, "there are failed tests");
    ensure!(documentation, "there are failed documentation tests");
    Ok(())
}

/// Builds every plugin of the workspace and copies the libraries to a folder of their own: those in cargo's folder are
/// replaced, with the features of test code, when cargo builds the tests. Returns their packages, and the folder.
fn collect_plugins() -> Result<(Vec<&'static str>, PathBuf)> {
    let folder = target_folder()?.join("plugins-under-test");
    fs::create_dir_all(&folder).context("making the folder for the plugins")?;
    let plugins = Plugin::all();
    for &plugin in &plugins {
        eprintln!("building {}", plugin.package());
        let built = workspace::build(plugin, Profile::Dev)?;
        // Never written over: a process that still has it open would see its code change.
        let copy = folder.join(plugin.file_name());
        let _ = fs::remove_file(&copy);
        fs::copy(&built, &copy).with_context(|| format!("copying {}", built.display()))?;
    }
    Ok((plugins.into_iter().map(Plugin::package).collect(), folder))
}

/// cargo's target folder.
pub(crate) fn target_folder() -> Result<PathBuf> {
    let shell = Shell::new()?;
    let text = cmd!(shell, "cargo metadata --no-deps --format-version 1").quiet().read()?;
    let metadata: Value = serde_json::from_str(&text)?;
    let target = metadata["target_directory"].as_str().context("cargo metadata has no target folder")?;
    Ok(target.into())
}

/// What came of the tests.
struct Outcome {
    /// Whether all passed.
    tests: bool,
    /// The conformance tests that passed.
    passed: Columns,
    /// The runner's closing lines.
    closing: Vec<String>,
}

fn run_tests(plugins: &Path, arguments: &[OsString]) -> Result<Outcome> {
    let mut command = cargo();
    let nextest = has_nextest();
    if nextest {
        command.args(["nextest", "run", "--workspace"]);
        if stderr().is_terminal() {
            command.args(["--color", "always"]);
        }
    } else {
        eprintln!("cargo-nextest is not installed: using cargo test");
        command.args(["test", "--workspace", "--all-targets", "--no-fail-fast"]);
    }
    command.args(arguments).env(PLUGIN_FOLDER_VARIABLE, plugins);
    if !nextest {
        // Its result lines are on standard output already.
        let passed = command.status().context("running cargo test")?.success();
        let closing = vec![format!("cargo test: {}", if passed { "all passed" } else { "failed" })];
        return Ok(Outcome { tests: passed, passed: Columns::default(), closing });
    }
    let mut child = command.stderr(Stdio::piped()).spawn().context("running cargo nextest")?;
    let output = child.stderr.take().context("no output of cargo nextest")?;
    let (mut passed, mut closing) = (Columns::default(), Vec::new());
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        eprintln!("{line}");
        passed.add_passed(&line);
        if line.contains("Summary") {
            closing.clear();
        }
        if line.contains("Summary") || !closing.is_empty() {
            closing.push(line);
        }
    }
    Ok(Outcome { tests: child.wait()?.success(), passed, closing })
}

/// The conformance tests that each plugin has.
fn conformance_columns(plugins: &Path) -> Result<Columns> {
    let mut command = cargo();
    command.args(["nextest", "list", "--workspace", "--cargo-quiet", "--message-format", "json", "--test"]);
    command.arg(conformance::BINARY).env(PLUGIN_FOLDER_VARIABLE, plugins).stderr(Stdio::inherit());
    let output = command.output().context("running cargo nextest list")?;
    ensure!(output.status.success(), "cargo nextest list failed");
    Columns::listed(&String::from_utf8(output.stdout)?)
}

fn has_nextest() -> bool {
    let tried = cargo().args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

fn run_documentation_tests(plugins: &Path) -> Result<bool> {
    // nextest does not run them.
    let mut command = cargo();
    command.args(["test", "--doc", "--workspace", "--quiet"]).env(PLUGIN_FOLDER_VARIABLE, plugins);
    Ok(command.status().context("running the documentation tests")?.success())
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
