//! From test functions to a test binary.

use std::env;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use libtest_mimic::{Arguments, Failed, Trial};

use crate::Cloud;

/// The environment variable that selects the long run, with the value `long`.
const TESTS_VARIABLE: &str = "ORTHANC_TESTS";

/// Lists the tests of a module and generates its function `tests`. Each group begins with a variant of
/// [`Scope`](crate::registry::Scope): `tests! { EveryCloud: a, b; OneCloud: c }`.
macro_rules! tests {
    ($($scope:ident: $($name:ident),+ $(,)?);+ $(;)?) => {
        pub(crate) fn tests<C: $crate::Cloud>() -> Vec<$crate::registry::Test> {
            use $crate::registry::{Scope, Test};
            vec![$($(Test::new(module_path!(), stringify!($name), Scope::$scope, $name::<C>)),+),+]
        }
    };
}

/// Lists the modules of a module and generates the function `tests` that returns the tests of all of them.
macro_rules! modules {
    ($($module:ident),+ $(,)?) => {
        pub(crate) fn tests<C: $crate::Cloud>() -> Vec<$crate::registry::Test> {
            [$($module::tests::<C>()),+].into_iter().flatten().collect()
        }
    };
}

/// The clouds and runs that need a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The result can differ between clouds: protocols, errors, checksums, credentials, uploads in parts.
    EveryCloud,
    /// The tested code is the same for every cloud. The long run still tests it with each of them.
    OneCloud,
    /// As `OneCloud`, but too long for the normal run.
    Long,
}

/// One test for one cloud.
#[derive(Debug)]
pub(crate) struct Test {
    name: String,
    scope: Scope,
    function: fn() -> Result<()>,
}

impl Test {
    /// `module` is a path that begins with this crate's name.
    pub(crate) fn new(module: &str, name: &str, scope: Scope, function: fn() -> Result<()>) -> Self {
        let module = module.split_once("::").map_or(module, |(_, module)| module);
        Self { name: format!("{module}::{name}"), scope, function }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn run(&self) -> Result<()> {
        (self.function)()
    }

    /// Whether this run has the test.
    fn is_selected(&self, whole_suite: bool, long: bool) -> bool {
        match self.scope {
            Scope::EveryCloud => true,
            Scope::OneCloud => whole_suite || long,
            Scope::Long => long,
        }
    }
}

/// Runs the suite with the command line of the standard test harness, which `cargo nextest` uses.
///
/// Without `ORTHANC_TESTS=long` in the environment, clouds other than the one with [`Cloud::WHOLE_SUITE`] get
/// only the tests whose result can differ between clouds.
pub fn run<C: Cloud>() {
    let arguments = Arguments::from_args();
    // nextest and `in_own_process` pass `--exact`.
    let is_own_process = arguments.exact;
    let long = env::var_os(TESTS_VARIABLE).is_some_and(|value| value == "long");
    let selected = crate::tests::<C>().into_iter().filter(|test| test.is_selected(C::WHOLE_SUITE, long));
    let trials = selected.map(|Test { name, function, .. }| {
        let test = name.clone();
        Trial::test(name, move || {
            let result = if is_own_process { function() } else { in_own_process(&test) };
            result.map_err(|error| Failed::from(format!("{error:?}")))
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// Runs a test in its own process, as nextest does: some tests count the resources of the whole process.
pub(crate) fn in_own_process(test: &str) -> Result<()> {
    let program = env::current_exe().context("cannot find this program")?;
    let output = Command::new(program)
        .args(["--exact", test])
        .stdin(Stdio::null())
        .output()
        .context("cannot start the test")?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        bail!("{}:\n{}", output.status, String::from_utf8_lossy(&text));
    }
    Ok(())
}
