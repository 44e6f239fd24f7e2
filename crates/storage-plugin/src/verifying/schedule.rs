//! Verifications that the plugin starts by itself, in a part of the day.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Local, NaiveTime, Utc};
use serde_json::Value;
use tokio::time::timeout;

use super::{Depth, JOB_TYPE, Verifier};
use crate::catalog::CatalogError;
use crate::jobs::{Host, Scope, submit_job};

/// How often to look whether there is something to do.
const LOOK: Duration = Duration::from_secs(30);
/// The first look, when Orthanc has started its REST API.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// How long a failed verification rests before it continues, and a cancelled one before another begins.
const REST: Duration = Duration::from_secs(60 * 60);
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
    match (last.state.as_str(), job) {
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
#[derive(Debug, Clone)]
pub(crate) struct Scheduler {
    verifier: Verifier,
    host: Host,
    schedule: Schedule,
}

impl Scheduler {
    pub(crate) fn new(verifier: Verifier, host: Host, schedule: Schedule) -> Self {
        Self { verifier, host, schedule }
    }

    /// Does what the schedule says until Orthanc stops. Blocks. Not for tasks, which must not hold the runtime that they
    /// run on.
    pub(crate) fn run(&self) {
        let mut pause = FIRST_LOOK;
        while !self.stops_within(pause) {
            if let Err(error) = self.look() {
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

    /// Looks once whether there is something to do.
    fn look(&self) -> Result<(), String> {
        let Some(reports) = &self.host.reports else { return Ok(()) };
        let summaries = reports.list().map_err(|error| error.to_string())?;
        let is_scheduled = |summary: &&Value| summary["Type"] == JOB_TYPE && summary["Scheduled"] == true;
        let last = summaries.into_iter().find(|summary| is_scheduled(&summary));
        let last = last.and_then(|summary| Last::read(&self.host.corrected(summary)));
        let id = last.as_ref().and_then(|last| last.id.clone());
        let job = match id.map(|id| self.host.catalog.get(&format!("/jobs/{id}"))).transpose() {
            Err(CatalogError::Stopped) => return Ok(()),
            job => job.map_err(|error| error.to_string())?.flatten(),
        };
        let state = job.as_ref().and_then(|job| job["State"].as_str());
        let is_open = self.schedule.window.contains(Local::now().time());
        match decide(self.schedule, is_open, Utc::now(), last.as_ref(), state) {
            Action::Nothing => Ok(()),
            Action::Begin => self.begin(),
            Action::Pause(id) => self.control(&id, "pause"),
            Action::Resume(id) => self.control(&id, "resume"),
            Action::Resubmit(id) => self.control(&id, "resubmit"),
        }
    }

    fn begin(&self) -> Result<(), String> {
        let work = self.verifier.scheduled_work(self.schedule.depth);
        let orthanc = &self.verifier.context.orthanc;
        match submit_job(orthanc, &self.host, work, Scope::Everything, PRIORITY) {
            Ok(id) => tracing::info!("scheduled verification: job {id}"),
            // Orthanc is stopping, or has not started its REST API yet.
            Err(error) => tracing::info!("scheduled verification: {error:?}"),
        }
        Ok(())
    }

    fn control(&self, id: &str, action: &str) -> Result<(), String> {
        tracing::info!("scheduled verification: {action} job {id}");
        let path = format!("/jobs/{id}/{action}");
        let post = || self.verifier.context.orthanc.rest_post(&path, b"{}");
        match self.host.stop.call(post) {
            None | Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_may_contain_midnight() {
        let time = |text| NaiveTime::parse_from_str(text, "%H:%M").unwrap();
        for (window, inside, outside) in [
            ("02:00-06:00", ["02:00", "05:59"], ["01:59", "06:00"]),
            ("22:30 - 4:00", ["23:59", "00:00"], ["04:00", "22:29"]),
        ] {
            let window = Window::parse(window).unwrap();
            assert!(inside.iter().all(|inside| window.contains(time(inside))), "{window}");
            assert!(!outside.iter().any(|outside| window.contains(time(outside))), "{window}");
        }
        for text in ["", "02:00", "02:00-02:00", "2-6", "02:00-24:00", "02:00-06:00-07:00", "a-b"] {
            assert_eq!(Window::parse(text), None, "{text}");
        }
    }

    #[test]
    fn each_state_has_its_action() {
        use Action::{Begin, Nothing, Pause, Resubmit, Resume};
        let schedule = Schedule {
            window: Window::parse("02:00-06:00").unwrap(),
            every: DAY * 30,
            depth: Depth::Checksum,
        };
        let now = Utc::now();
        let id = || "ID".to_owned();
        // State, days since the start, hours since the end, the job's state; what to do in the window and outside.
        for (state, days, hours, job, open, closed) in [
            ("Success", 29, 1, None, Nothing, Nothing),
            ("Success", 30, 1, None, Begin, Nothing),
            ("Success", 1, 1, Some("Success"), Nothing, Nothing),
            ("Canceled", 0, 1, Some("Failure"), Nothing, Nothing),
            ("Canceled", 1, 24, Some("Failure"), Begin, Nothing),
            // It was paused for some days.
            ("Canceled", 3, 1, Some("Failure"), Nothing, Nothing),
            ("Running", 0, 0, Some("Running"), Nothing, Pause(id())),
            ("Running", 0, 0, Some("Pending"), Nothing, Pause(id())),
            ("Running", 40, 0, Some("Paused"), Resume(id()), Nothing),
            ("Paused", 3, 0, Some("Paused"), Resume(id()), Nothing),
            ("Paused", 3, 0, None, Begin, Nothing),
            ("Running", 3, 0, None, Begin, Nothing),
            ("Failure", 0, 0, Some("Failure"), Nothing, Nothing),
            ("Failure", 0, 1, Some("Failure"), Resubmit(id()), Nothing),
            ("Failure", 0, 1, None, Begin, Nothing),
        ] {
            let last = Last {
                id: Some(id()),
                state: state.to_owned(),
                started: now - DAY * days,
                ended: Some(now - REST * hours),
            };
            for (is_open, expected) in [(true, open), (false, closed)] {
                let action = decide(schedule, is_open, now, Some(&last), job);
                assert_eq!(action, expected, "{last:?}, {job:?}, {is_open}");
            }
        }
        assert_eq!(decide(schedule, true, now, None, None), Begin);
        assert_eq!(decide(schedule, false, now, None, None), Nothing);
    }
}
