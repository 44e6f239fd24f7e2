//! Reasons why Orthanc did not start.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use thiserror::Error;

/// Logged by Orthanc when another process has taken its port.
const PORT_TAKEN: &str = "is privileged or already in use";

/// Why Orthanc did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// Orthanc could not be started at all: no folder, no port, no program, no plugin library, or already
    /// running.
    #[error("cannot start Orthanc: {0}")]
    Prepare(#[from] io::Error),
    /// Orthanc ended before it answered, for instance because a plugin refused its configuration.
    #[error("Orthanc ended with {status}:\n{}", error_lines(log).join("\n"))]
    Exited {
        /// The exit status.
        status: ExitStatus,
        /// The whole log.
        log: String,
    },
    /// Orthanc ran but did not answer; it has been killed.
    #[error("Orthanc did not answer within {timeout:?}; its log:\n{log}")]
    TimedOut {
        /// How long it had.
        timeout: Duration,
        /// The whole log.
        log: String,
    },
}

impl StartError {
    /// The lines that Orthanc logged at error level.
    pub fn errors(&self) -> Vec<&str> {
        match self {
            Self::Exited { log, .. } | Self::TimedOut { log, .. } => error_lines(log),
            Self::Prepare(_) => Vec::new(),
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
