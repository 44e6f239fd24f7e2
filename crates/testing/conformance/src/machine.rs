//! A plugin on a machine with an environment of its own: where credentials come from that are not in its section.
//!
//! Environment variables belong to a process, so the plugin is loaded in a child process: the test binary again.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use fake_orthanc::{FakeOrthanc, FakeOrthancOptions, LoadError, LogLevel};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Cloud;
use crate::fixture::{DICOM, configuration, library, uuid};

/// Holds the configuration of the child.
const CHILD: &str = "ORTHANC_STORAGE_TEST_CHILD";
/// Begins the line in which the child tells its parent how it went.
const OUTCOME: &str = "outcome: ";

/// A machine with a home folder and an environment in which nothing is to be found.
#[derive(Debug)]
pub struct Machine {
    home: TempDir,
    environment: Vec<(&'static str, OsString)>,
}

/// The log of a child, by level, with the plugin's name before each line.
#[derive(Debug)]
pub struct Outcome {
    /// Error lines.
    pub errors: Vec<String>,
    /// Warnings.
    pub warnings: Vec<String>,
}

/// The whole of a test with the name `child` that a binary must have for [`Machine::run`]: in the child process it stores
/// three attachments, in other ones it does nothing.
///
/// # Errors
///
/// When the plugin cannot be loaded at all.
pub fn child<C: Cloud>() -> Result<()> {
    let Ok(configuration) = std::env::var(CHILD) else { return Ok(()) };
    let options = FakeOrthancOptions::with_configuration(serde_json::from_str(&configuration)?);
    let logs = match FakeOrthanc::load(library::<C>()?, options) {
        Ok(host) => {
            for number in 0..3 {
                // A failure is in the log.
                let _ = host.create(&uuid(number), DICOM, b"x");
            }
            host.logs()
        }
        Err(LoadError::Initialize { logs, .. }) => logs,
        Err(other) => bail!(other),
    };
    let lines = |level| logs.iter().filter(move |line| line.0 == level).map(|line| line.1.as_str());
    let (errors, warnings): (Vec<_>, Vec<_>) =
        (lines(LogLevel::Error).collect(), lines(LogLevel::Warning).collect());
    let all: Vec<_> = logs.iter().map(|line| line.1.as_str()).collect();
    println!("\n{OUTCOME}{}", json!({"errors": errors, "warnings": warnings, "all": all}));
    Ok(())
}

impl Machine {
    /// One where no credentials are to be found.
    ///
    /// # Errors
    ///
    /// When there is no temporary folder.
    pub fn new() -> Result<Self> {
        Ok(Self { home: tempfile::tempdir()?, environment: Vec::new() })
    }

    /// With an environment variable.
    #[must_use]
    pub fn set(mut self, variable: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((variable, value.into()));
        self
    }

    /// The path of a file in the home folder with this content.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn file(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.home.path().join(name);
        fs::create_dir_all(path.parent().context("no folder")?)?;
        fs::write(&path, content)?;
        Ok(path)
    }

    /// Runs the plugin here with a section, with all its logs on, and has it store three attachments. None of the secrets
    /// may be in a log.
    ///
    /// # Errors
    ///
    /// When the child did not come to its end, or a secret is in its log.
    pub fn run<C: Cloud>(&self, section: Value, secrets: &[&str]) -> Result<Outcome> {
        let section = crate::with(section, &json!({C::HTTP_LOG_OPTION: true, "MaxRetries": 0}));
        self.run_configuration::<C>(&configuration::<C>(section), secrets)
    }

    /// As [`run`](Self::run), with a whole configuration.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_configuration<C: Cloud>(&self, configuration: &Value, secrets: &[&str]) -> Result<Outcome> {
        let library = library::<C>()?;
        let output = Command::new(std::env::current_exe()?)
            .args(["--exact", "child", "--nocapture"])
            // A developer's own credentials must not be found.
            .env_clear()
            .env("HOME", self.home.path())
            .env(real_orthanc::workspace::PLUGIN_FOLDER_VARIABLE, library.parent().context("no folder")?)
            .env(CHILD, configuration.to_string())
            .envs(self.environment.iter().map(|(variable, value)| (variable, value)))
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        let line = text.lines().find_map(|line| line.strip_prefix(OUTCOME));
        let line = line.with_context(|| format!("{text}\n{}", String::from_utf8_lossy(&output.stderr)))?;
        for secret in secrets {
            ensure!(!line.contains(secret), "{secret} is in the log: {line}");
        }
        let logs: Value = serde_json::from_str(line)?;
        let lines = |level: &str| serde_json::from_value(logs[level].clone());
        Ok(Outcome { errors: lines("errors")?, warnings: lines("warnings")? })
    }
}
