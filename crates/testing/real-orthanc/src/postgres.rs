//! A PostgreSQL server of its own, in a temporary folder, for Orthanc's index.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use thiserror::Error;

use crate::ports::free_port;
use crate::process::{Environment, Process};

/// Where Debian's package `orthanc-postgresql` puts the plugin that keeps Orthanc's index in PostgreSQL.
pub const POSTGRESQL_INDEX_PLUGIN: &str = "/usr/share/orthanc/plugins/libOrthancPostgreSQLIndex.so";

/// PostgreSQL refuses to be run by root; Debian's package brings this user.
const USER: &str = "postgres";
const DATABASE: &str = "orthanc";
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no PostgreSQL.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// Debian's package `postgresql` is not there.
    #[error("there is no /usr/lib/postgresql/*/bin/initdb: install the package postgresql")]
    Missing,
    /// A folder, a port or a process.
    #[error("preparing PostgreSQL: {0}")]
    Prepare(#[from] io::Error),
    /// One of its programs failed.
    #[error("{program}: {printed}")]
    Program {
        /// The program.
        program: String,
        /// What it printed.
        printed: String,
    },
}

/// A running PostgreSQL with an empty database. Dropping it kills it and removes its folder.
#[derive(Debug)]
pub struct Postgres {
    // Declared before `folder`: it must be dead before its folder is removed.
    _process: Process,
    port: u16,
    _folder: TempDir,
}

impl Postgres {
    /// Starts a server on the loopback, where everybody may log in.
    ///
    /// # Errors
    /// [`PostgresError`].
    pub fn start() -> Result<Self, PostgresError> {
        let programs = programs().ok_or(PostgresError::Missing)?;
        let folder = tempfile::Builder::new().prefix("postgresql-").tempdir()?;
        let data = folder.path().join("data");
        fs::create_dir(&data)?;
        let as_user = as_user(folder.path(), &data)?;
        let mut initdb = as_user.command(&programs.join("initdb"));
        initdb.args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "--username", USER]);
        run(initdb.arg("--pgdata").arg(&data))?;

        let port = free_port()?;
        let log = File::create(folder.path().join("log"))?;
        let mut arguments = as_user.arguments.clone();
        arguments.push(programs.join("postgres").display().to_string());
        arguments.extend(["-D".to_owned(), data.display().to_string()]);
        // Nothing in it outlives a test.
        let settings =
            ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "full_page_writes=off"];
        for setting in settings.map(str::to_owned).into_iter().chain([format!("port={port}")]) {
            arguments.extend(["-c".to_owned(), setting]);
        }
        let program = Path::new(&arguments[0]);
        let arguments: Vec<&str> = arguments[1..].iter().map(String::as_str).collect();
        let process = Process::start(program, &arguments, &Environment::default(), folder.path(), &log)?;
        let server = Self { _process: process, port, _folder: folder };
        server.create_database(&programs)?;
        Ok(server)
    }

    /// Orthanc's section `PostgreSQL`. Without the lock, several Orthancs may use the database at once.
    #[must_use]
    pub fn section(&self, lock: bool) -> Value {
        json!({
            "EnableIndex": true,
            "EnableStorage": false,
            "Host": "127.0.0.1",
            "Port": self.port,
            "Database": DATABASE,
            "Username": USER,
            "Password": "",
            "Lock": lock,
            "MaximumConnectionRetries": 10,
            "ConnectionRetryInterval": 1,
        })
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    fn create_database(&self, programs: &Path) -> Result<(), PostgresError> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let mut command = Command::new(programs.join("createdb"));
            command.args([
                "--host=127.0.0.1",
                "--username",
                USER,
                "--port",
                &self.port.to_string(),
                DATABASE,
            ]);
            match run(&mut command) {
                Err(PostgresError::Program { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                other => return other.map(drop),
            }
        }
    }
}

/// The folder of its programs, of the newest version that is installed.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path().join("bin"));
    versions.filter(|folder| folder.join("initdb").is_file()).max()
}

/// The words before a command that let it run as another user; none if we are not root.
struct AsUser {
    arguments: Vec<String>,
}

impl AsUser {
    fn command(&self, program: &Path) -> Command {
        let mut command = match self.arguments.split_first() {
            None => return Command::new(program),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest);
                command
            }
        };
        command.arg(program);
        command
    }
}

/// As root, gives both folders to PostgreSQL's user.
fn as_user(folder: &Path, data: &Path) -> Result<AsUser, PostgresError> {
    let id = |arguments: &[&str]| -> Result<u32, PostgresError> {
        let printed = run(Command::new("id").args(arguments))?;
        printed.trim().parse().map_err(|_| PostgresError::Program { program: "id".to_owned(), printed })
    };
    if id(&["-u"])? != 0 {
        return Ok(AsUser { arguments: Vec::new() });
    }
    let (user, group) = (id(&["-u", USER])?, id(&["-g", USER])?);
    for folder in [folder, data] {
        std::os::unix::fs::chown(folder, Some(user), Some(group))?;
    }
    let arguments =
        ["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", "--pdeathsig", "KILL", "--"];
    Ok(AsUser { arguments: arguments.map(str::to_owned).into() })
}

fn run(command: &mut Command) -> Result<String, PostgresError> {
    // Of a folder that PostgreSQL's user may not enter, its programs complain.
    let output = command.current_dir("/").output()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let printed = printed + &String::from_utf8_lossy(&output.stderr);
    Err(PostgresError::Program { program: format!("{command:?}"), printed })
}
