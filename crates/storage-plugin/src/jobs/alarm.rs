//! A job that waits for hours must not hold one of Orthanc's few workers: it asks Orthanc to pause it, and is resumed when
//! there is something to do.

use std::fmt;
use std::time::Duration;

use bucket::blocking;
use orthanc_ffi::{Orthanc, OrthancError};
use serde_json::Value;
use tokio::runtime::Handle;

use crate::stop::Stop;

/// The pause between two attempts to resume a job.
const AGAIN: Duration = Duration::from_secs(1);
/// Attempts to resume a job that is not paused yet, or that Orthanc does not know yet after its start.
const ATTEMPTS: u32 = 60;

/// Pauses and resumes jobs.
#[derive(Clone)]
pub(crate) struct Alarm {
    orthanc: Orthanc,
    runtime: Handle,
    stop: Stop,
}

impl Alarm {
    pub(crate) fn new(orthanc: Orthanc, runtime: Handle, stop: Stop) -> Self {
        Self { orthanc, runtime, stop }
    }

    /// Asks Orthanc to pause a running job after the present step. Returns whether it will.
    pub(super) fn pause(&self, id: &str) -> bool {
        self.tried(id, "pause")
    }

    /// Resumes a paused job after a while.
    pub(super) fn wake(&self, id: &str, after: Duration) {
        let alarm = self.clone();
        let id = id.to_owned();
        self.runtime.spawn(async move {
            let stop = alarm.stop.clone();
            let waking = async {
                tokio::time::sleep(after).await;
                for _ in 0..ATTEMPTS {
                    let alarm = alarm.clone();
                    let id = id.clone();
                    if blocking(move || alarm.resume(&id)).await {
                        return;
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            };
            tokio::select! {
                () = waking => {}
                () = stop.signal() => {}
            }
        });
    }

    /// Returns whether nothing remains to be done.
    fn resume(&self, id: &str) -> bool {
        let Some(answer) = self.stop.call(|| self.orthanc.rest_get(&format!("/jobs/{id}"))) else {
            return true;
        };
        let job: Value = answer.ok().and_then(|job| serde_json::from_slice(&job).ok()).unwrap_or_default();
        match job["State"].as_str() {
            Some("Paused") => self.tried(id, "resume"),
            Some("Success" | "Failure") => true,
            _ => false,
        }
    }

    /// Asks Orthanc to `pause`, `resume` or `resubmit` a job. Returns whether it was asked, which it is not while it stops.
    ///
    /// # Errors
    ///
    /// If Orthanc refuses.
    pub(crate) fn control(&self, id: &str, action: &str) -> Result<bool, OrthancError> {
        let path = format!("/jobs/{id}/{action}");
        let answer = self.stop.call(|| self.orthanc.rest_post(&path, b"{}")).transpose()?;
        Ok(answer.is_some())
    }

    /// As [`control`](Self::control). A refusal is logged: it may be tried again.
    fn tried(&self, id: &str, action: &str) -> bool {
        self.control(id, action).unwrap_or_else(|error| {
            tracing::info!("{error}");
            false
        })
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Alarm")
    }
}
