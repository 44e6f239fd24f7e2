//! Why Orthanc did not start or stop, with what it logged.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use thiserror::Error;

/// What Orthanc logs when another process was faster to take a port.
const PORT_TAKEN: &str = "is privileged or already in use";
/// Orthanc stops its servers one after the other, each with a pause: an idle one takes three seconds.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Why Orthanc does not run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The folder, a port or the configuration file could not be made.
    #[error("preparing Orthanc: {0}")]
    Prepare(#[from] io::Error),
    /// A plugin's library is not there. Orthanc only warns of it, and a test would pass without the plugin.
    #[error("there is no plugin {}", .0.display())]
    NoPlugin(PathBuf),
    /// There is no Orthanc, or no `setpriv` to start it with.
    #[error("starting {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// What the system says.
        source: io::Error,
    },
    /// Orthanc ended before it answered, as it does when a plugin refuses its configuration.
    #[error("Orthanc ended at once with {status}:\n{}", error_lines(log).join("\n"))]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// All that it logged.
        log: String,
    },
    /// Orthanc runs but does not answer; it has been killed.
    #[error("Orthanc does not answer after {timeout:?}; its log:\n{log}")]
    TimedOut {
        /// How long it had.
        timeout: Duration,
        /// All that it logged.
        log: String,
    },
    /// It is running already.
    #[error("Orthanc is running already")]
    Running,
}

impl StartError {
    /// The lines that Orthanc logged at error level.
    #[must_use]
    pub fn errors(&self) -> Vec<&str> {
        match self {
            Self::Exited { log, .. } | Self::TimedOut { log, .. } => error_lines(log),
            _ => Vec::new(),
        }
    }

    pub(crate) fn is_port_taken(&self) -> bool {
        self.errors().iter().any(|line| line.contains(PORT_TAKEN))
    }
}

/// Lines such as `E1121 06:43:42.767848 PluginsManager.cpp:172] text`.
fn error_lines(log: &str) -> Vec<&str> {
    let is_error = |line: &&str| {
        line.strip_prefix('E').is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    };
    log.lines().filter(is_error).collect()
}

/// Why Orthanc did not stop as it should.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StopError {
    /// It is not running.
    #[error("Orthanc is not running")]
    NotRunning,
    /// It could not be signalled or waited for.
    #[error("stopping Orthanc: {0}")]
    Signal(#[from] io::Error),
    /// It ended with another status than 0: it crashed, or had ended before.
    #[error("Orthanc ended with {status}; its log:\n{log}")]
    Unclean {
        /// How it ended.
        status: ExitStatus,
        /// All that it logged.
        log: String,
    },
    /// It had to be killed.
    #[error("Orthanc has not stopped within {STOP_TIMEOUT:?} and was killed; its log:\n{log}")]
    TimedOut {
        /// All that it logged.
        log: String,
    },
}
