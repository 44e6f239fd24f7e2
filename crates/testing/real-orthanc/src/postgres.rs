//! A PostgreSQL server in a temporary folder, for Orthanc's index.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ports::free_port;
use crate::process::Process;

/// Orthanc's plugin that keeps the index in PostgreSQL, from Debian's package `orthanc-postgresql`.
pub const POSTGRESQL_INDEX_PLUGIN: &str = "libOrthancPostgreSQLIndex.so";

/// PostgreSQL refuses to run as root; Debian's package creates this user.
const USER: &str = "postgres";
const DATABASE: &str = "orthanc";
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A running PostgreSQL with an empty database. Dropping it kills it and removes its folder.
#[derive(Debug)]
pub struct Postgres {
    // Declared before `folder`: the server must be dead before its folder is removed.
    _process: Process,
    port: u16,
    _folder: TempDir,
}

impl Postgres {
    /// Starts a server on the loopback that accepts any login.
    pub fn start() -> Result<Self> {
        let programs = programs().context("there is no initdb: install the package postgresql")?;
        let folder = tempfile::Builder::new().prefix("postgresql-").tempdir()?;
        let data_folder = folder.path().join("data");
        fs::create_dir(&data_folder)?;
        let user_command = as_user(&[folder.path(), &data_folder])?;

        let initdb = programs.join("initdb").display().to_string();
        let data = data_folder.display().to_string();
        let options = ["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "--username", USER];
        run(&[user_command, &[&initdb], &options, &["--pgdata", &data]].concat())?;

        let postgres = programs.join("postgres").display().to_string();
        let port = free_port()?;
        let port_setting = format!("port={port}");
        let mut command = [user_command, &[&postgres, "-D", &data]].concat();
        // No data has to survive a crash.
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "full_page_writes=off",
            &port_setting,
        ] {
            command.extend(["-c", setting]);
        }
        let log = File::create(folder.path().join("log"))?;
        let process = Process::start(&[], Path::new(command[0]), &command[1..], &[], folder.path(), &log)?;
        let server = Self { _process: process, port, _folder: folder };
        server.create_database(&programs)?;
        Ok(server)
    }

    /// Orthanc's section `PostgreSQL`. Without `lock`, several Orthancs can use the database at once.
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
    pub fn port(&self) -> u16 {
        self.port
    }

    fn create_database(&self, programs: &Path) -> Result<()> {
        let createdb = programs.join("createdb").display().to_string();
        let port = self.port.to_string();
        let command = [&createdb, "--host=127.0.0.1", "--username", USER, "--port", &port, DATABASE];
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let created = run(&command);
            if created.is_ok() || Instant::now() >= deadline {
                return created.map(drop);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The program folder of the newest installed version.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path().join("bin"));
    versions.filter(|folder| folder.join("initdb").is_file()).max()
}

/// Returns the words that run a command as PostgreSQL's user, and gives the folders to that user; none
/// unless we are root.
fn as_user(folders: &[&Path]) -> Result<&'static [&'static str]> {
    let id = |arguments: &[&str]| -> Result<u32> { Ok(run(&[&["id"], arguments].concat())?.trim().parse()?) };
    if id(&["-u"])? != 0 {
        return Ok(&[]);
    }
    let user = id(&["-u", USER])?;
    let group = id(&["-g", USER])?;
    for folder in folders {
        std::os::unix::fs::chown(folder, Some(user), Some(group))?;
    }
    Ok(&["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", "--pdeathsig", "KILL", "--"])
}

fn run(command: &[&str]) -> Result<String> {
    // PostgreSQL's programs complain about a working folder that their user cannot enter.
    let output = Command::new(command[0]).args(&command[1..]).current_dir("/").output()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {printed}{errors}");
    Ok(printed)
}
