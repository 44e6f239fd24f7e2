//! The plugin in a real Orthanc, on servers that other people have made.
//!
//! These are the tests of the levels `encryption`, `orthanc` and `hybrid` that need neither the counters nor the faults
//! of a fake server. `cargo xtask servers` starts the servers and describes each in a file (`ci/servers/common.sh`).

mod failing;
mod fixture;
mod large;
mod lost;
mod moving;
mod operating;
mod storing;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result};
use libtest_mimic::{Arguments, Failed, Trial};
use real_orthanc::{Release, tested, use_release};
use serde_json::Value;

use crate::Cloud;
use crate::registry::{Test, in_own_process};

modules![failing, large, lost, moving, operating, storing];

/// The environment variable with the folder of the servers, each with a folder of its own.
const SERVERS_VARIABLE: &str = "ORTHANC_TEST_SERVERS";

/// A running server with an empty bucket, which tests share.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    name: String,
    /// The description that the server's script has written.
    description: Value,
}

static SERVER: OnceLock<Server> = OnceLock::new();

impl Server {
    /// Returns the server of this test.
    pub(crate) fn of_this_process() -> Result<&'static Self> {
        SERVER.get().context("no server is selected")
    }

    /// Reads the servers for a plugin.
    fn all(folder: &Path, plugin: &str) -> Result<Vec<Self>> {
        let mut servers = Vec::new();
        for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
            let entry = entry?;
            let description = fs::read(entry.path().join("server.json"))?;
            let description: Value = serde_json::from_slice(&description)?;
            if description["Plugin"] == plugin {
                servers.push(Self { name: entry.file_name().to_string_lossy().into_owned(), description });
            }
        }
        servers.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(servers)
    }

    /// Returns the plugin's section for the bucket.
    fn section(&self) -> Value {
        self.description["Section"].clone()
    }

    /// Returns the options of Orthanc that the server requires.
    fn orthanc(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.description["Orthanc"].as_object().into_iter().flatten()
    }

    /// Returns the server's port on 127.0.0.1.
    fn port(&self) -> Result<u16> {
        Ok(u16::try_from(self.description["Port"].as_u64().context("no port")?)?)
    }

    /// Whether only the server can read its requests.
    fn uses_tls(&self) -> bool {
        self.description["Section"]["Endpoint"]
            .as_str()
            .is_some_and(|endpoint| endpoint.starts_with("https:"))
    }

    /// Returns changes of the section that the server refuses, and a part of its answer. `None` if it accepts all
    /// credentials.
    fn refusal(&self) -> Option<(&Value, &str)> {
        Some((self.description.get("Refused")?, self.description["Refusal"].as_str()?))
    }
}

/// Runs the tests on the servers in the folder that `ORTHANC_TEST_SERVERS` names, with the command line of the standard
/// test harness. Without this variable, there are no tests.
pub fn run_on_servers<C: Cloud>() {
    let arguments = Arguments::from_args();
    let folder = env::var_os(SERVERS_VARIABLE).map(PathBuf::from);
    let servers = folder.map_or_else(|| Ok(Vec::new()), |folder| Server::all(&folder, C::PLUGIN));
    let trials = match servers {
        Ok(servers) => servers.iter().flat_map(|server| trials::<C>(server, arguments.exact)).collect(),
        Err(error) => vec![Trial::test("servers", move || Err(Failed::from(format!("{error:?}"))))],
    };
    libtest_mimic::run(&arguments, trials).exit();
}

/// The tests on one server, called `garage::storing::…`, and `garage::sid::storing::…` with the newest Orthanc, whose reads
/// are all ranges.
fn trials<C: Cloud>(server: &Server, is_own_process: bool) -> Vec<Trial> {
    let trial = |test: Test, release: Option<Release>| {
        let orthanc = release.map(|release| format!("::{}", release.name())).unwrap_or_default();
        let name = test.name().replacen("servers", &format!("{}{orthanc}", server.name), 1);
        let server = server.clone();
        Trial::test(name.clone(), move || {
            let run = || {
                SERVER.get_or_init(|| server);
                release.into_iter().for_each(use_release);
                test.run()
            };
            let result = if is_own_process { run() } else { in_own_process(&name) };
            result.map_err(|error| Failed::from(format!("{error:?}")))
        })
    };
    // A proxy can only lose answers to requests that it can read.
    let is_possible = |test: &Test| !(server.uses_tls() && test.name().starts_with("servers::lost::"));
    let newest = tested().into_iter().filter(|release| *release == Release::Sid);
    let releases = newest.map(Some).chain([None]);
    let of_release =
        |release| tests::<C>().into_iter().filter(is_possible).map(move |test| trial(test, release));
    releases.flat_map(of_release).collect()
}
