//! The job that Orthanc sees. It can be interrupted at any moment and resumed, since each attachment is handled on its
//! own.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use orthanc_ffi::{Job, JobStep, StopReason};
use parking_lot::{Condvar, Mutex};
use serde_json::{Map, Value, json};

use super::error::JobError;
use super::host::Host;
use super::recorder::{Position, Recorder};
use super::run::{Bench, Progress, Run};
use super::scope::Scope;
use super::tally::Tally;
use super::work::Work;
use crate::catalog::Resource;
use crate::walk::Cursor;

/// Duration of one step, after which Orthanc may pause or cancel the job. Orthanc also gets the state of the
/// job, which contains the ids of the request, so shorter steps would be expensive.
const STEP: Duration = Duration::from_secs(1);
/// How long after Orthanc's start a job is resumed that had nothing to do when Orthanc stopped.
const AFTER_START: Duration = Duration::from_secs(1);

/// Handles many attachments.
#[derive(Debug)]
pub(crate) struct StorageJob {
    host: Host,
    work: Arc<dyn Work>,
    scope: Scope,
    progress: Progress,
    /// Whether the job ended before all attachments were tried, and continues when it is resubmitted.
    gave_up: bool,
    error: Option<String>,
    /// What the report says about the job, if it had already succeeded when Orthanc restored it. Then nothing is done
    /// again: another search for orphans, for example, would empty the report of what it has deleted.
    succeeded: Option<Map<String, Value>>,
    /// `None` before the first step, and after an interruption.
    run: Option<Run>,
    /// How long Orthanc is to pause the job, which has nothing to do meanwhile.
    resting: Option<Duration>,
    step: Duration,
    watch: Arc<Watch>,
}

/// Lets a request wait for the end of the job, and tells the job its id.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    end: Mutex<Option<End>>,
    ended: Condvar,
    job_id: Mutex<Option<String>>,
    /// `None` without a state directory.
    recorder: Option<Recorder>,
}

/// How a job left the running state.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum End {
    Success(Value),
    Failure(String),
    Paused,
    Canceled,
    /// Orthanc dropped the job.
    Gone,
}

impl Watch {
    fn new(recorder: Option<Recorder>) -> Arc<Self> {
        Arc::new(Self { recorder, ..Self::default() })
    }

    fn set(&self, end: End) {
        *self.end.lock() = Some(end);
        self.ended.notify_all();
    }

    /// Waits for the end of the job, at most for `limit`.
    pub(super) fn wait(&self, limit: Duration) -> Option<End> {
        let mut end = self.end.lock();
        if end.is_none() {
            self.ended.wait_for(&mut end, limit);
        }
        end.clone()
    }

    /// Notes the job's id, by which its report is found, and Orthanc pauses and resumes it.
    pub(crate) fn set_job_id(&self, id: &str) {
        *self.job_id.lock() = Some(id.to_owned());
        if let Some(recorder) = &self.recorder {
            recorder.set_job_id(id);
        }
    }
}

impl StorageJob {
    pub(crate) fn new(host: Host, work: Arc<dyn Work>, scope: Scope) -> Self {
        let reports = host.reports.clone();
        let recorder = reports.map(|reports| Recorder::new(reports, &*work));
        let progress = Progress::new(work.counters());
        let job = Self::with(host, work, scope, progress, recorder);
        if let Some(recorder) = &job.watch.recorder {
            recorder.describe(job.content());
        }
        job
    }

    fn with(
        host: Host,
        work: Arc<dyn Work>,
        scope: Scope,
        progress: Progress,
        recorder: Option<Recorder>,
    ) -> Self {
        Self {
            host,
            work,
            scope,
            progress,
            gave_up: false,
            error: None,
            succeeded: None,
            run: None,
            resting: None,
            step: STEP,
            watch: Watch::new(recorder),
        }
    }

    pub(crate) fn watch(&self) -> Arc<Watch> {
        Arc::clone(&self.watch)
    }

    fn advance(&mut self) -> Result<JobStep, JobError> {
        self.work.check().map_err(JobError::Unavailable)?;
        let watch = Arc::clone(&self.watch);
        let recorder = watch.recorder.as_ref();
        if self.run.is_none() && !self.host.stop.is_given() {
            self.succeeded = recorder.and_then(Recorder::succeeded);
            if self.succeeded.is_some() {
                return Ok(JobStep::Success);
            }
            if self.work.starts_again() {
                self.progress = Progress::new(self.work.counters());
            }
            if let Some(recorder) = recorder
                && !recorder.open(self.progress.reported, self.content())?
            {
                tracing::warn!("the report of the job is not complete, so that the job starts again");
                self.progress = Progress::new(self.work.counters());
            }
        }
        let bench = Bench { host: &self.host, work: &*self.work, recorder };
        let run = self.run.get_or_insert_with(|| Run::new(&self.scope, bench.work));
        if !run.advance(&bench, &mut self.progress, Instant::now() + self.step)? {
            if let Some(rest) = self.run.as_ref().and_then(Run::rest) {
                self.rest(rest);
            }
            return Ok(JobStep::Continue);
        }
        if self.progress.pass == 0 && self.work.has_second_pass(&self.progress.tally) {
            self.progress.begin_second_pass();
            self.run = None;
            return Ok(JobStep::Continue);
        }
        match self.progress.tally.error().filter(|_| self.work.fails_with_problems()) {
            None => Ok(JobStep::Success),
            Some(error) => Err(error),
        }
    }

    /// Lets Orthanc pause the job while there is nothing to do.
    fn rest(&mut self, rest: Duration) {
        let id = self.watch.job_id.lock().clone();
        // A pause that is almost over is not worth it.
        let is_paused = rest > Duration::ZERO
            && self.host.alarm.as_ref().zip(id).is_some_and(|(alarm, id)| alarm.pause(&id));
        self.resting = is_paused.then_some(rest);
    }

    /// Resumes the job after a pause that Orthanc has made for [`rest`](Self::rest).
    fn wake_after(&self, rest: Duration) {
        if let Some((alarm, id)) = self.host.alarm.as_ref().zip(self.watch.job_id.lock().clone()) {
            alarm.wake(&id, rest);
        }
    }

    fn end_run(&mut self) {
        if let Some(run) = self.run.take() {
            let bench = Bench { host: &self.host, work: &*self.work, recorder: self.watch.recorder.as_ref() };
            run.end(&bench, &mut self.progress);
        }
    }
}

impl Job for StorageJob {
    fn step(&mut self) -> JobStep {
        if self.resting.take().is_some()
            && let Some(recorder) = &self.watch.recorder
        {
            recorder.note_resumed(self.content());
        }
        match self.advance() {
            Ok(step) => step,
            Err(JobError::Stopped) => {
                self.end_run();
                // Orthanc keeps asking for steps until it has stopped.
                thread::sleep(Duration::from_millis(50));
                JobStep::Continue
            }
            Err(error) => {
                self.end_run();
                tracing::error!("cannot {}: {error}", self.work.aim());
                self.gave_up = error.can_continue();
                self.error = Some(error.to_string());
                JobStep::Failure
            }
        }
    }

    fn stop(&mut self, reason: StopReason) {
        if reason == StopReason::Paused
            && let Some(rest) = self.resting
        {
            if let Some(recorder) = &self.watch.recorder {
                // The job is not told if it is cancelled now.
                recorder.note("Paused", self.content());
            }
            self.wake_after(rest);
            return;
        }
        self.resting = None;
        self.end_run();
        let (state, end) = match reason {
            StopReason::Success => ("Success", End::Success(self.content())),
            StopReason::Failure => {
                let panicked = || JobError::Panicked.to_string();
                ("Failure", End::Failure(self.error.clone().unwrap_or_else(panicked)))
            }
            StopReason::Paused => ("Paused", End::Paused),
            StopReason::Canceled => ("Canceled", End::Canceled),
        };
        if let Some(recorder) = &self.watch.recorder {
            recorder.note(state, self.content());
        }
        self.work.release();
        self.watch.set(end);
    }

    fn reset(&mut self) {
        // Orthanc cancels a job that it has paused without stopping it, and one that waits has kept its position.
        self.resting = None;
        self.end_run();
        if !self.gave_up {
            self.progress = Progress::new(self.work.counters());
        }
        self.gave_up = false;
        self.error = None;
    }

    #[expect(clippy::cast_precision_loss, reason = "a fraction for display")]
    fn progress(&self) -> f32 {
        if self.succeeded.is_some() {
            return 1.0;
        }
        let of_pass = match self.progress.instances {
            None => 0.0,
            Some(0) => 1.0,
            Some(all) => self.progress.done as f32 / all as f32,
        };
        let is_second = self.progress.pass > 0;
        let has_second = is_second || self.work.has_second_pass(&self.progress.tally);
        if has_second { (of_pass + f32::from(u8::from(is_second))) / 2.0 } else { of_pass }
    }

    fn content(&self) -> Value {
        let mut content = self.work.parameters();
        content.insert("Place".to_owned(), json!(&*self.host.place));
        self.scope.show(&mut content);
        if let Some(instances) = self.progress.instances {
            content.insert("InstancesCount".to_owned(), json!(instances));
        }
        self.progress.tally.show(&mut content);
        if self.run.as_ref().is_some_and(Run::is_waiting) {
            content.insert("WaitingFor".to_owned(), json!(self.work.waiting_for()));
        }
        if let Some(error) = &self.error {
            content.insert("Error".to_owned(), json!(error));
        }
        content.extend(self.succeeded.clone().unwrap_or_default());
        Value::Object(content)
    }

    fn serialized(&self) -> Option<Value> {
        let mut saved = Map::new();
        saved.insert("Content".to_owned(), self.content());
        saved.extend(self.work.parameters());
        for (field, value) in [
            ("Cursor", self.progress.cursor.0.iter().map(Resource::to_string).collect()),
            ("Pass", json!(self.progress.pass)),
            ("InstancesDone", json!(self.progress.done)),
            ("JobId", json!(*self.watch.job_id.lock())),
            ("Resting", json!(self.resting.is_some())),
            ("GaveUp", json!(self.gave_up)),
        ] {
            saved.insert(field.to_owned(), value);
        }
        if let Some(recorder) = &self.watch.recorder {
            let mut report = recorder.to_save();
            report["Bytes"] = json!(self.progress.reported.bytes);
            report["Findings"] = json!(self.progress.reported.findings);
            saved.insert("Report".to_owned(), report);
        }
        Some(Value::Object(saved))
    }
}

impl Drop for StorageJob {
    fn drop(&mut self) {
        let mut end = self.watch.end.lock();
        end.get_or_insert(End::Gone);
        self.watch.ended.notify_all();
    }
}

/// Restores a job that was saved (see [`Job::serialized`]). A job without a cursor, or of another bucket, starts again.
pub(crate) fn resume(host: Host, work: Arc<dyn Work>, scope: Scope, saved: &Value) -> StorageJob {
    let mut progress = saved_progress(&host, &*work, saved).unwrap_or_else(|| Progress::new(work.counters()));
    let recorder = host.reports.clone().map(|reports| {
        let of_saved = Recorder::of_saved(Arc::clone(&reports), &*work, &saved["Report"]);
        of_saved.unwrap_or_else(|| Recorder::new(reports, &*work))
    });
    if recorder.is_none() {
        progress.reported = Position::default();
    }
    let mut job = StorageJob::with(host, work, scope, progress, recorder);
    job.gave_up = saved["GaveUp"].as_bool().unwrap_or_default();
    job.error = saved["Content"]["Error"].as_str().map(str::to_owned);
    let is_id = |id: &&str| id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    *job.watch.job_id.lock() = saved["JobId"].as_str().filter(is_id).map(str::to_owned);
    if saved["Resting"] == true {
        // Orthanc keeps it paused.
        job.resting = Some(AFTER_START);
        job.wake_after(AFTER_START);
    }
    job
}

/// Where a saved job was. `None` if it must start again: what it has done in another bucket does not count for this one.
fn saved_progress(host: &Host, work: &dyn Work, saved: &Value) -> Option<Progress> {
    let content = &saved["Content"];
    if content["Place"].as_str().is_some_and(|place| place != &*host.place) {
        tracing::info!(
            "a {} job starts again, since the bucket or its root path was changed",
            work.job_type()
        );
        return None;
    }
    let path = saved["Cursor"].as_array()?.iter().map(|step| Resource::parse(step.as_str()?));
    let reported = |field: &str| saved["Report"][field].as_u64().unwrap_or_default();
    Some(Progress {
        cursor: Cursor(path.collect::<Option<_>>()?),
        pass: saved["Pass"].as_u64().unwrap_or_default().min(1),
        done: saved["InstancesDone"].as_u64()?,
        instances: content["InstancesCount"].as_u64(),
        tally: Tally::read(work.counters(), content),
        reported: Position { bytes: reported("Bytes"), findings: reported("Findings") },
    })
}

#[cfg(test)]
pub(crate) mod tests;
