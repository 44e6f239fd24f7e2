//! From test functions to a test binary.

use std::env;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use libtest_mimic::{Arguments, Failed, Trial};
use real_orthanc::{Release, tested, use_release};

use crate::Cloud;

/// The environment variable that selects the long run, with the value `long`.
const TESTS_VARIABLE: &str = "ORTHANC_TESTS";

/// The beginnings of the names of tests that start a real Orthanc, which run with several of its generations.
const REAL_ORTHANC: [&str; 8] = [
    "operating::",
    "orthanc::",
    "hybrid::",
    "encryption::orthanc::",
    "page::",
    "stow::",
    "write_back::orthanc::",
    "write_back::operations::",
];

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
    /// The tested code is the same for every cloud. The long run still tests it with each of them, and every run does
    /// with the newest Orthanc.
    OneCloud,
    /// As `EveryCloud`, but too long for more than the newest Orthanc in the normal run.
    Newest,
    /// As `OneCloud`, but too long for more than the newest Orthanc and one cloud in the normal run.
    Once,
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

    /// Whether this run has the test with the installed Orthanc (`None`) or that of another Debian release.
    fn is_selected(&self, release: Option<Release>, whole_suite: bool, long: bool) -> bool {
        let starts_orthanc = REAL_ORTHANC.iter().any(|begin| self.name.starts_with(begin));
        if release.is_some() && !starts_orthanc {
            return false;
        }
        match self.scope {
            Scope::Long => long,
            Scope::Newest => long || release == Some(Release::Sid),
            Scope::Once => long || (whole_suite && release == Some(Release::Sid)),
            _ if whole_suite || long => true,
            Scope::EveryCloud => release != Some(Release::Trixie),
            Scope::OneCloud => release == Some(Release::Sid),
        }
    }

    /// The test with an Orthanc, as the test harness runs it.
    fn trial(&self, release: Option<Release>, is_own_process: bool) -> Trial {
        let prefix = release.map(|release| format!("{}::", release.name())).unwrap_or_default();
        let name = format!("{prefix}{}", self.name);
        let test = name.clone();
        let function = self.function;
        Trial::test(name, move || {
            let run = || {
                release.into_iter().for_each(use_release);
                function()
            };
            let result = if is_own_process { run() } else { in_own_process(&test) };
            result.map_err(|error| Failed::from(format!("{error:?}")))
        })
    }
}

/// Runs the suite with the command line of the standard test harness, which `cargo nextest` uses.
///
/// Tests with the Orthanc of a Debian release are called `sid::…`. In the normal run, clouds other than the one with
/// [`Cloud::WHOLE_SUITE`] get only the tests whose result can differ between clouds, and those with the newest Orthanc.
/// With `ORTHANC_TESTS=long` in the environment, every cloud gets every test with every Orthanc.
pub fn run<C: Cloud>() {
    let arguments = Arguments::from_args();
    // nextest and `in_own_process` pass `--exact`.
    let is_own_process = arguments.exact;
    let long = env::var_os(TESTS_VARIABLE).is_some_and(|value| value == "long");
    let releases: Vec<_> = tested().into_iter().map(Some).chain([None]).collect();
    let trials = crate::tests::<C>().into_iter().flat_map(|test| {
        let selected = releases.iter().filter(|release| test.is_selected(**release, C::WHOLE_SUITE, long));
        selected.map(|release| test.trial(*release, is_own_process)).collect::<Vec<_>>()
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
