//! From test functions to a test binary.

use std::env;
use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use libtest_mimic::{Arguments, Failed, Trial};

use crate::Cloud;

/// Lists the tests of a module: makes its function `tests`.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        pub(crate) fn tests<C: $crate::Cloud>() -> Vec<$crate::registry::Test> {
            vec![$($crate::registry::Test::new(module_path!(), stringify!($name), $name::<C>)),+]
        }
    };
}

/// Lists the modules of a module, each with its function `tests`: makes one of them all.
macro_rules! modules {
    ($($module:ident),+ $(,)?) => {
        pub(crate) fn tests<C: $crate::Cloud>() -> Vec<$crate::registry::Test> {
            [$($module::tests::<C>()),+].into_iter().flatten().collect()
        }
    };
}

/// One test for one cloud.
#[derive(Debug)]
pub(crate) struct Test {
    name: String,
    function: fn() -> Result<()>,
}

impl Test {
    /// `module` is a path with this crate's name in front.
    pub(crate) fn new(module: &str, name: &str, function: fn() -> Result<()>) -> Self {
        let module = module.split_once("::").map_or(module, |(_, module)| module);
        Self { name: format!("{module}::{name}"), function }
    }
}

/// Runs the suite as the test binary that this process is: with the arguments of the standard one, of which
/// `cargo nextest` makes use.
pub fn run<C: Cloud>() {
    let arguments = Arguments::from_args();
    // So nextest calls it, and a test that makes a process of its own.
    let alone = arguments.exact;
    let trials = crate::tests::<C>().into_iter().map(|Test { name, function }| {
        let test = name.clone();
        Trial::test(
            name,
            move || if alone { outcome(function()) } else { outcome(in_process_of_its_own(&test)) },
        )
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// An error with all that it came from.
fn outcome(result: Result<()>) -> Result<(), Failed> {
    result.map_err(|error| format!("{error:?}").into())
}

/// Runs a test as nextest does: some count what the whole process has.
fn in_process_of_its_own(test: &str) -> Result<()> {
    let mut command = Command::new(env::current_exe().context("where is this program?")?);
    command.args([OsStr::new("--exact"), test.as_ref()]).stdin(Stdio::null());
    let output = command.output().context("starting the test")?;
    if !output.status.success() {
        let texts = [output.stdout, output.stderr];
        bail!(
            "{}:\n{}",
            output.status,
            texts.map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
        );
    }
    Ok(())
}
