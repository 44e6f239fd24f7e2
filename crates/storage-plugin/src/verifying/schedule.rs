//! Verifications that the plugin starts by itself, in a part of the day.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Local, NaiveTime, Utc};
use orthanc_ffi::RestFailure;
use serde_json::Value;
use tokio::time::timeout;

use super::{Depth, JOB_TYPE, Verifier};
use crate::catalog::CatalogError;
use crate::jobs::{Host, Scope, submit_job};
use crate::orphans::Database;

/// How often to look whether there is something to do.
const LOOK: Duration = Duration::from_secs(30);
/// The first look, when Orthanc has started its REST API.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// How long a failed verification rests before it continues, and the least time between two starts.
const REST: Duration = Duration::from_secs(60 * 60);
/// Number of looks in this time.
const LOOKS_IN_REST: u64 = REST.as_secs() / LOOK.as_secs();
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The priority of the jobs. Those of users have 0 unless they say otherwise.
const PRIORITY: i32 = -10;

/// When the plugin verifies the archive, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    pub(crate) window: Window,
    /// The time from the beginning of one verification to that of the next.
    pub(crate) every: Duration,
    pub(crate) depth: Depth,
}

/// A part of each day in local time, which may contain midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    from: NaiveTime,
    to: NaiveTime,
}

impl Window {
    /// Reads `02:00-06:00`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.split_once('-')?;
        let time = |text: &str| NaiveTime::parse_from_str(text.trim(), "%H:%M").ok();
        let window = Self { from: time(from)?, to: time(to)? };
        (window.from != window.to).then_some(window)
    }

    fn contains(self, time: NaiveTime) -> bool {
        if self.from < self.to {
            (self.from..self.to).contains(&time)
        } else {
            time >= self.from || time < self.to
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from.format("%H:%M"), self.to.format("%H:%M"))
    }
}

/// The last scheduled verification, as its report says.
#[derive(Debug, Clone)]
struct Last {
    id: Option<String>,
    state: String,
    started: DateTime<Utc>,
    ended: Option<DateTime<Utc>>,
}

impl Last {
    fn read(summary: &Value) -> Option<Self> {
        let time = |field: &str| {
            DateTime::parse_from_rfc3339(summary[field].as_str()?).ok().map(|time| time.with_timezone(&Utc))
        };
        Some(Self {
            id: summary["JobId"].as_str().map(str::to_owned),
            state: summary["State"].as_str()?.to_owned(),
            started: time("Started")?,
            ended: time("Ended"),
        })
    }
}

/// What to do about the last verification.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Nothing,
    /// Another verification begins.
    Begin,
    Pause(String),
    Resume(String),
    /// A verification that has failed continues.
    Resubmit(String),
}

/// Decides what to do. `job` is the state of the last verification's job in Orthanc; `None` if Orthanc has no such job.
fn decide(
    schedule: Schedule,
    is_open: bool,
    now: DateTime<Utc>,
    last: Option<&Last>,
    job: Option<&str>,
) -> Action {
    let Some(last) = last else { return if is_open { Action::Begin } else { Action::Nothing } };
    let since = |time: DateTime<Utc>| (now - time).to_std().unwrap_or_default();
    let id = last.id.clone().unwrap_or_default();
    let state = match (last.state.as_str(), job) {
        // The report could not be written.
        ("Pending" | "Running" | "Paused", Some("Success")) => "Success",
        (state, _) => state,
    };
    match (state, job) {
        ("Success", _) if since(last.started) < schedule.every => Action::Nothing,
        ("Canceled", _) if since(last.ended.unwrap_or(last.started)) < DAY => Action::Nothing,
        ("Success" | "Canceled", _) => if_open(is_open, Action::Begin),
        (_, Some("Running" | "Pending" | "Retry")) if is_open => Action::Nothing,
        (_, Some("Running" | "Pending" | "Retry")) => Action::Pause(id),
        (_, Some("Paused")) => if_open(is_open, Action::Resume(id)),
        ("Failure", _) if last.ended.is_some_and(|ended| since(ended) < REST) => Action::Nothing,
        (_, Some("Failure")) => if_open(is_open, Action::Resubmit(id)),
        // Orthanc was killed before it saved the job, or does not save jobs.
        (_, _) => if_open(is_open, Action::Begin),
    }
}

fn if_open(is_open: bool, action: Action) -> Action {
    if is_open { action } else { Action::Nothing }
}

/// Starts, pauses and resumes verifications.
#[derive(Debug)]
pub(crate) struct Scheduler {
    verifier: Verifier,
    host: Host,
    database: Arc<dyn Database>,
    schedule: Schedule,
}

/// What is done with jobs.
trait Jobs {
    /// Submits a verification. Returns the id of the job.
    fn begin(&self, depth: Depth, database: &str) -> Result<String, RestFailure>;

    /// Asks Orthanc to `pause`, `resume` or `resubmit` a job.
    fn control(&self, id: &str, action: &str) -> Result<(), String>;
}

/// What the scheduler remembers: reports may be missing, for example if the disk is full.
#[derive(Debug, Default)]
struct Memory {
    /// The job that was submitted last.
    submitted: Option<Last>,
    /// When a job was started or resubmitted last, or could not be.
    tried: Option<DateTime<Utc>>,
}

impl Scheduler {
    pub(crate) fn new(
        verifier: Verifier,
        host: Host,
        database: Arc<dyn Database>,
        schedule: Schedule,
    ) -> Self {
        Self { verifier, host, database, schedule }
    }

    /// Does what the schedule says until Orthanc stops. Blocks. Not for tasks, which must not hold the runtime that they
    /// run on.
    pub(crate) fn run(&self) {
        let mut memory = Memory::default();
        let mut failures = 0;
        let mut pause = FIRST_LOOK;
        while !self.stops_within(pause) {
            let is_open = self.schedule.window.contains(Local::now().time());
            let database = self.database.id().map_err(|error| error.to_string());
            let looked = database.and_then(|database| {
                memory.look(&self.host, self, self.schedule, &database, is_open, Utc::now())
            });
            failures = if looked.is_ok() { 0 } else { failures + 1 };
            // The first one may be due to Orthanc, which has not started its REST API yet.
            if let Err(error) = looked
                && failures % LOOKS_IN_REST == 2
            {
                tracing::warn!("scheduled verification: {error}");
            }
            pause = LOOK;
        }
    }

    /// Waits, and returns whether Orthanc is stopping.
    fn stops_within(&self, pause: Duration) -> bool {
        let stop = self.host.stop.clone();
        let waiting = async move { timeout(pause, stop.signal()).await.is_ok() };
        self.verifier.context.runtime.handle().block_on(waiting)
    }
}

impl Jobs for Scheduler {
    fn begin(&self, depth: Depth, database: &str) -> Result<String, RestFailure> {
        let work = self.verifier.scheduled_work(depth, database);
        submit_job(&self.verifier.context.orthanc, &self.host, work, Scope::Everything, PRIORITY)
    }

    fn control(&self, id: &str, action: &str) -> Result<(), String> {
        let Some(alarm) = &self.host.alarm else { return Ok(()) };
        alarm.control(id, action).map(drop).map_err(|error| error.to_string())
    }
}

impl Memory {
    /// Looks once whether there is something to do for the Orthanc whose database has this id, and does it.
    fn look(
        &mut self,
        host: &Host,
        jobs: &dyn Jobs,
        schedule: Schedule,
        database: &str,
        is_open: bool,
        now: DateTime<Utc>,
    ) -> Result<(), String> {
        let last = self.last(host, database)?;
        let id = last.as_ref().and_then(|last| last.id.clone());
        let job = match id.map(|id| host.catalog.get(&format!("/jobs/{id}"))).transpose() {
            Err(CatalogError::Stopped) => return Ok(()),
            job => job.map_err(|error| error.to_string())?.flatten(),
        };
        let state = job.as_ref().and_then(|job| job["State"].as_str());
        let control = |id: &str, action: &str| {
            tracing::info!("scheduled verification: {action} job {id}");
            jobs.control(id, action)
        };
        let action = decide(schedule, is_open, now, last.as_ref(), state);
        if matches!(action, Action::Begin | Action::Resubmit(_)) {
            // Limits the number of starts whatever the reports say.
            if self.tried.is_some_and(|tried| (now - tried).to_std().unwrap_or_default() < REST) {
                return Ok(());
            }
            self.tried = Some(now);
        }
        match action {
            Action::Nothing => Ok(()),
            Action::Begin => self.begin(jobs, schedule.depth, database, now),
            Action::Pause(id) => control(&id, "pause"),
            Action::Resume(id) => control(&id, "resume"),
            Action::Resubmit(id) => control(&id, "resubmit"),
        }
    }

    /// The last verification of this database and bucket. Several Orthancs can share the reports.
    fn last(&self, host: &Host, database: &str) -> Result<Option<Last>, String> {
        let Some(reports) = &host.reports else { return Ok(self.submitted.clone()) };
        let is_own = |summary: &Value| {
            summary["Scheduled"] == true && summary["Place"] == *host.place && summary["Database"] == database
        };
        let last = reports.last(&[JOB_TYPE], is_own).map_err(|error| error.to_string())?;
        let reported = last.and_then(|summary| Last::read(&host.corrected(summary)));
        let submitted = self.submitted.as_ref();
        let is_missing = submitted
            .is_some_and(|submitted| reported.as_ref().is_none_or(|reported| reported.id != submitted.id));
        Ok(if is_missing { self.submitted.clone() } else { reported })
    }

    fn begin(
        &mut self,
        jobs: &dyn Jobs,
        depth: Depth,
        database: &str,
        now: DateTime<Utc>,
    ) -> Result<(), String> {
        match jobs.begin(depth, database) {
            Ok(id) => {
                tracing::info!("scheduled verification: job {id}");
                self.submitted =
                    Some(Last { id: Some(id), state: "Pending".to_owned(), started: now, ended: None });
            }
            // Orthanc is stopping, or has not started its REST API yet.
            Err(RestFailure::Status { status: 503, message }) => {
                self.tried = None;
                return Err(message);
            }
            Err(error) => {
                tracing::warn!("scheduled verification: {error:?}; trying again in an hour");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
