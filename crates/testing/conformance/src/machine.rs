//! A plugin on a machine with its own environment, for tests of credentials that are not in the section.
//!
//! Environment variables belong to a process, so a child process loads the plugin: the test binary again.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use fake_orthanc::{FakeOrthanc, FakeOrthancOptions, LoadError, LogLevel};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Cloud;
use crate::fixture::{DICOM, library, uuid};

/// The environment variable with the configuration of the child.
const CHILD: &str = "ORTHANC_STORAGE_TEST_CHILD";
/// The prefix of the line in which the child reports to its parent.
const OUTCOME: &str = "outcome: ";

/// A machine without credentials in its home folder and environment.
#[derive(Debug)]
pub struct Machine {
    home: TempDir,
    environment: Vec<(&'static str, OsString)>,
}

/// The log of a child. Each line begins with the plugin's name.
#[derive(Debug)]
pub struct Outcome {
    /// Error lines.
    pub errors: Vec<String>,
    /// Warnings.
    pub warnings: Vec<String>,
}

/// Stores three attachments in the child process of [`Machine::run`], and does nothing in others.
///
/// The test binary must have a test called `child` that only calls this function.
pub fn child<C: Cloud>() -> Result<()> {
    let Ok(configuration) = std::env::var(CHILD) else { return Ok(()) };
    let options = FakeOrthancOptions::with_configuration(serde_json::from_str(&configuration)?);
    let logs = match FakeOrthanc::load(library::<C>()?, options) {
        Ok(orthanc) => {
            for number in 0..3 {
                // The log reports failures.
                let _ = orthanc.create(&uuid(number), DICOM, b"x");
            }
            orthanc.logs()
        }
        Err(LoadError::Initialize { logs, .. }) => logs,
        Err(other) => bail!(other),
    };
    let lines = |level| logs.iter().filter(move |line| line.0 == level).map(|line| line.1.as_str());
    let errors: Vec<_> = lines(LogLevel::Error).collect();
    let warnings: Vec<_> = lines(LogLevel::Warning).collect();
    let all: Vec<_> = logs.iter().map(|line| line.1.as_str()).collect();
    println!("\n{OUTCOME}{}", json!({"errors": errors, "warnings": warnings, "all": all}));
    Ok(())
}

impl Machine {
    /// Returns a machine without credentials.
    pub fn new() -> Result<Self> {
        Ok(Self { home: tempfile::tempdir()?, environment: Vec::new() })
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn set(mut self, variable: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((variable, value.into()));
        self
    }

    /// Writes a file in the home folder and returns its path.
    pub fn file(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.home.path().join(name);
        fs::create_dir_all(path.parent().context("no folder")?)?;
        fs::write(&path, content)?;
        Ok(path)
    }

    /// Runs the plugin and stores three attachments. The log must contain no secret.
    pub fn run<C: Cloud>(&self, configuration: &Value, secrets: &[&str]) -> Result<Outcome> {
        let library = library::<C>()?;
        let output = Command::new(std::env::current_exe()?)
            .args(["--exact", "child", "--nocapture"])
            // Hides the developer's own credentials.
            .env_clear()
            .env("HOME", self.home.path())
            .env(real_orthanc::workspace::PLUGIN_FOLDER_VARIABLE, library.parent().context("no folder")?)
            .env(CHILD, configuration.to_string())
            .envs(self.environment.iter().map(|(variable, value)| (variable, value)))
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        let outcome = text.lines().find_map(|line| line.strip_prefix(OUTCOME));
        let line = outcome.with_context(|| format!("{text}\n{}", String::from_utf8_lossy(&output.stderr)))?;
        for secret in secrets {
            ensure!(!line.contains(secret), "{secret} is in the log: {line}");
        }
        let logs: Value = serde_json::from_str(line)?;
        let lines = |level: &str| serde_json::from_value(logs[level].clone());
        Ok(Outcome { errors: lines("errors")?, warnings: lines("warnings")? })
    }
}
