//! The report of one job.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::reports::{Reports, ReportsError, summary};
use super::work::{Problem, Work};
use crate::catalog::Indexed;

/// Findings that are written, about 300 bytes each. Further ones are only counted.
const MOST: u64 = 100_000;
/// Fields of a job's content that a summary does not repeat: lists, which can be long.
const LISTS: [&str; 2] = ["Resources", "FailedAttachments"];
/// Fields of a summary that are not of the job's content.
const OWN: [&str; 7] = ["JobId", "Type", "State", "Started", "Ended", "Findings", "FindingsWritten"];

/// Writes the report of one job.
#[derive(Debug)]
pub(super) struct Recorder {
    reports: Arc<Reports>,
    job_type: &'static str,
    /// The name of the report's files: type, time and a random key.
    name: String,
    begun: DateTime<Utc>,
    /// Whether the job fails if the report cannot be written.
    is_needed: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `None` until the job runs.
    file: Option<File>,
    position: Position,
    summary: Summary,
}

/// The end of what has been written for some attachments.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) bytes: u64,
    /// Also those that were only counted.
    pub(super) findings: u64,
}

#[derive(Debug)]
struct Summary {
    job_id: Option<String>,
    state: &'static str,
    ended: Option<DateTime<Utc>>,
    content: Value,
}

impl Recorder {
    /// The report of a new job, which is written as soon as Orthanc has the job.
    pub(super) fn new(reports: Arc<Reports>, work: &dyn Work) -> Self {
        let begun = Utc::now();
        let job_type = work.job_type();
        let name = format!("{job_type}-{}-{:08x}", begun.format("%Y%m%dT%H%M%S%.3fZ"), rand::random::<u32>());
        Self::with(reports, work, name, begun, None)
    }

    /// The report of a job that was saved; `None` if its name is none.
    pub(super) fn of_saved(reports: Arc<Reports>, work: &dyn Work, saved: &Value) -> Option<Self> {
        let job_type = work.job_type();
        let name = saved["Name"].as_str()?;
        let time = name.strip_prefix(job_type)?.strip_prefix('-')?.rsplit_once('-')?.0;
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
        let begun = chrono::NaiveDateTime::parse_from_str(time, "%Y%m%dT%H%M%S%.3fZ").ok()?.and_utc();
        let job_id = saved["JobId"].as_str().map(str::to_owned);
        is_name.then(|| Self::with(reports, work, name.to_owned(), begun, job_id))
    }

    fn with(
        reports: Arc<Reports>,
        work: &dyn Work,
        name: String,
        begun: DateTime<Utc>,
        job_id: Option<String>,
    ) -> Self {
        let summary = Summary { job_id, state: "Pending", ended: None, content: json!({}) };
        let inner = Inner { file: None, position: Position::default(), summary };
        let (job_type, is_needed) = (work.job_type(), work.needs_report());
        Self { reports, job_type, name, begun, is_needed, inner: Mutex::new(inner) }
    }

    /// What is saved with the job.
    pub(super) fn to_save(&self) -> Value {
        json!({"Name": self.name, "JobId": self.inner.lock().summary.job_id})
    }

    /// What a job that has succeeded has written of its content. A restored job finds it if Orthanc was killed before it
    /// saved that the job had ended.
    pub(super) fn succeeded(&self) -> Option<Map<String, Value>> {
        let summary = summary(&self.path("json")).filter(|summary| summary["State"] == "Success")?;
        let Value::Object(mut content) = summary else { return None };
        content.retain(|field, _| !OWN.contains(&field.as_str()));
        Some(content)
    }

    /// Begins to write after `position`, with this content of the job. Returns whether the report has everything before
    /// it: not, for example, after a power failure. Otherwise, the report is empty now, and the job must start again.
    ///
    /// # Errors
    ///
    /// If the report cannot be written, and the job needs it.
    pub(super) fn open(&self, position: Position, content: Value) -> Result<bool, ReportsError> {
        let mut inner = self.inner.lock();
        let opened = self.try_open(&mut inner, position, content);
        self.or_without_report(&mut inner, opened).map(|opened| opened.unwrap_or(true))
    }

    /// Goes on without a report that could not be written, unless the job needs it: then that is an error.
    fn or_without_report<T>(
        &self,
        inner: &mut Inner,
        result: Result<T, ReportsError>,
    ) -> Result<Option<T>, ReportsError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if self.is_needed => Err(error),
            Err(error) => {
                tracing::warn!("{error}; the job goes on without it");
                inner.file = None;
                Ok(None)
            }
        }
    }

    fn try_open(&self, inner: &mut Inner, position: Position, content: Value) -> Result<bool, ReportsError> {
        let path = self.path("jsonl");
        let is_new = !path.exists() && !self.path("json").exists();
        if is_new {
            self.reports.make_room(self.job_type)?;
        }
        let open = || -> io::Result<(File, bool)> {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            let is_whole = file.metadata()?.len() >= position.bytes;
            file.set_len(if is_whole { position.bytes } else { 0 })?;
            file.seek(SeekFrom::End(0))?;
            Ok((file, is_whole))
        };
        let (file, is_whole) = open().map_err(|error| ReportsError::Write { path: path.clone(), error })?;
        inner.file = Some(file);
        inner.position = if is_whole { position } else { Position::default() };
        // Orthanc may have saved the job before its id was known.
        let known = || summary(&self.path("json"))?["JobId"].as_str().map(str::to_owned);
        inner.summary.job_id = inner.summary.job_id.take().or_else(known);
        inner.summary.state = "Running";
        inner.summary.ended = None;
        inner.summary.content = content;
        let written = self.write_summary(inner);
        if written.is_err() && is_new {
            // Without a summary, nothing would ever delete it.
            drop(fs::remove_file(&path));
            inner.file = None;
        }
        written.map(|()| is_whole)
    }

    /// Adds what was found.
    ///
    /// # Errors
    ///
    /// If it cannot be written, and the job needs its report.
    pub(super) fn add(&self, indexed: Option<&Indexed>, problem: &Problem) -> Result<(), ReportsError> {
        let mut inner = self.inner.lock();
        if inner.position.findings < MOST {
            let mut line = finding(indexed, problem).to_string();
            line.push('\n');
            let Some(file) = &mut inner.file else { return Ok(()) };
            let written = file
                .write_all(line.as_bytes())
                .map_err(|error| ReportsError::Write { path: self.path("jsonl"), error });
            if self.or_without_report(&mut inner, written)?.is_none() {
                return Ok(());
            }
            inner.position.bytes += line.len() as u64;
        }
        inner.position.findings += 1;
        Ok(())
    }

    /// The end of what has been written.
    pub(super) fn position(&self) -> Position {
        self.inner.lock().position
    }

    /// Notes the content of a job that has not run yet.
    pub(super) fn describe(&self, content: Value) {
        self.inner.lock().summary.content = content;
    }

    /// Notes the id that Orthanc has given the job, by which its report is found. It may wait for hours until it runs.
    pub(super) fn set_job_id(&self, id: &str) {
        let mut inner = self.inner.lock();
        inner.summary.job_id = Some(id.to_owned());
        let path = self.path("json");
        let prepare = || {
            if !path.exists() {
                self.reports.make_room(self.job_type)?;
            }
            let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
            folder.map_err(|error| ReportsError::Write { path: path.clone(), error })
        };
        self.log(prepare().and_then(|()| self.write_summary(&inner)));
    }

    /// Notes the state of the job, and its content.
    pub(super) fn note(&self, state: &'static str, content: Value) {
        let mut inner = self.inner.lock();
        // A job that Orthanc has restored, although it had ended, adds nothing to its report.
        if inner.file.is_none() && self.succeeded().is_some() {
            return;
        }
        inner.summary.state = state;
        inner.summary.ended = (state != "Running" && state != "Paused").then(Utc::now);
        inner.summary.content = content;
        // A job that cannot begin may have a report that says that it is pending.
        if inner.file.is_some() || self.path("json").exists() {
            self.log(self.write_summary(&inner));
        }
    }

    /// Notes that a job runs again which has rested. Others [open](Self::open) their reports again.
    pub(super) fn note_resumed(&self, content: Value) {
        let is_paused = self.inner.lock().summary.state == "Paused";
        if is_paused {
            self.note("Running", content);
        }
    }

    fn log(&self, written: Result<(), ReportsError>) {
        if let Err(error) = written {
            tracing::warn!("{error}");
        }
    }

    fn write_summary(&self, inner: &Inner) -> Result<(), ReportsError> {
        let Summary { job_id, state, ended, content } = &inner.summary;
        let mut summary = json!({
            "JobId": job_id,
            "Type": self.job_type,
            "State": state,
            "Started": iso_8601(self.begun),
            "Ended": ended.map(iso_8601),
            "Findings": inner.position.findings,
            "FindingsWritten": inner.position.findings.min(MOST),
        });
        let empty = Map::new();
        for (field, value) in content.as_object().unwrap_or(&empty) {
            if !LISTS.contains(&field.as_str()) {
                summary[field] = value.clone();
            }
        }
        self.reports.write_summary(&self.path("json"), &summary)
    }

    fn path(&self, extension: &str) -> PathBuf {
        let mut path = self.reports.path(&self.name).into_os_string();
        path.push(".");
        path.push(extension);
        path.into()
    }
}

fn iso_8601(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A line of a report.
fn finding(indexed: Option<&Indexed>, problem: &Problem) -> Value {
    let mut finding = Map::new();
    if let Some(Indexed { resource, name, attachment, .. }) = indexed {
        finding.insert("Uuid".to_owned(), json!(attachment.uuid.as_str()));
        finding.insert("Name".to_owned(), json!(name));
        finding.insert("Type".to_owned(), json!(attachment.content_type.0));
        finding.insert("Level".to_owned(), json!(resource.level.field()));
        finding.insert("Resource".to_owned(), json!(resource.id));
    }
    finding.insert("Problem".to_owned(), json!(problem.kind));
    finding.insert("Object".to_owned(), json!(problem.object));
    finding.insert("Error".to_owned(), json!(problem.error));
    finding.insert("Advice".to_owned(), json!(problem.advice));
    finding.extend(problem.facts.clone());
    Value::Object(finding)
}
