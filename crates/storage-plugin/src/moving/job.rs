//! The job that moves attachments, or copies them to the cache. It can be interrupted at any moment and resumed,
//! since each attachment moves on its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hybrid::Side;
use orthanc_ffi::{Job, JobStep, StopReason};
use parking_lot::{Condvar, Mutex};
use serde_json::{Map, Value, json};

use super::mover::{JobContext, MoveError, Unavailable};
use super::report::Report;
use super::run::{Progress, Run};
use crate::catalog::{Level, Resource};
use crate::walk::Cursor;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Moves attachments.
    Move,
    /// Copies attachments to the cache.
    Prefetch,
}

impl Task {
    /// The job's type in Orthanc. That of moves is the one of the C++ plugins.
    pub(crate) fn job_type(self) -> &'static str {
        match self {
            Self::Move => "MoveStorage",
            Self::Prefetch => "PrefetchStorage",
        }
    }

    /// The task of a job of this type.
    pub(crate) fn of(job_type: &str) -> Option<Self> {
        [Self::Move, Self::Prefetch].into_iter().find(|task| task.job_type() == job_type)
    }
}

/// Duration of one step, after which Orthanc may pause or cancel the job. Orthanc also gets the state of the
/// job, which contains the ids of the request, so shorter steps would be expensive.
const STEP: Duration = Duration::from_secs(1);

/// Moves the attachments of resources, or copies them.
#[derive(Debug)]
pub(crate) struct MoveJob {
    task: Task,
    /// An error if the configuration was changed after the job had been saved.
    context: Result<Arc<dyn JobContext>, Unavailable>,
    target: Side,
    /// The ids in the request, by level.
    requested: BTreeMap<Level, Vec<String>>,
    progress: Progress,
    /// Whether the job ended before all attachments were tried, and continues when it is resubmitted.
    gave_up: bool,
    error: Option<String>,
    /// `None` before the first step, and after an interruption.
    run: Option<Run>,
    step: Duration,
    watch: Arc<Watch>,
}

/// Lets a synchronous request wait for the end of the job.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    end: Mutex<Option<End>>,
    ended: Condvar,
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
    fn set(&self, end: End) {
        *self.end.lock() = Some(end);
        self.ended.notify_all();
    }

    /// Waits for the end of the job, at most for `limit`.
    pub(crate) fn wait(&self, limit: Duration) -> Option<End> {
        let mut end = self.end.lock();
        if end.is_none() {
            self.ended.wait_for(&mut end, limit);
        }
        end.clone()
    }
}

impl MoveJob {
    /// A job for `requested` and everything below.
    pub(crate) fn new(
        context: Arc<dyn JobContext>,
        task: Task,
        target: Side,
        requested: Vec<Resource>,
    ) -> Self {
        let mut by_level: BTreeMap<Level, Vec<String>> = BTreeMap::new();
        for resource in requested {
            by_level.entry(resource.level).or_default().push(resource.id);
        }
        Self {
            task,
            context: Ok(context),
            target,
            requested: by_level,
            progress: Progress::default(),
            gave_up: false,
            error: None,
            run: None,
            step: STEP,
            watch: Arc::default(),
        }
    }

    pub(crate) fn watch(&self) -> Arc<Watch> {
        Arc::clone(&self.watch)
    }

    fn advance(&mut self) -> Result<JobStep, MoveError> {
        let context = self.context.as_ref().map_err(|unavailable| *unavailable)?;
        let start = || {
            let requested = self.requested.iter();
            let resources = requested.flat_map(|(level, ids)| ids.iter().map(|id| Resource::new(*level, id)));
            Run::new(Arc::clone(context), self.target, resources.collect())
        };
        let run = self.run.get_or_insert_with(start);
        if !run.advance(&mut self.progress, Instant::now() + self.step)? {
            return Ok(JobStep::Continue);
        }
        match self.progress.report.error() {
            None => Ok(JobStep::Success),
            Some(error) => Err(error),
        }
    }

    fn end_run(&mut self) {
        if let Some(run) = self.run.take() {
            run.end();
        }
    }
}

impl Job for MoveJob {
    fn step(&mut self) -> JobStep {
        match self.advance() {
            Ok(step) => step,
            Err(MoveError::Stopped) => {
                self.end_run();
                // Orthanc keeps asking for steps until it has stopped.
                thread::sleep(Duration::from_millis(50));
                JobStep::Continue
            }
            Err(error) => {
                self.end_run();
                match (self.task, self.target) {
                    (Task::Move, target) => tracing::error!("cannot move attachments to {target}: {error}"),
                    (Task::Prefetch, _) => tracing::error!("cannot prefetch attachments: {error}"),
                }
                self.gave_up = matches!(error, MoveError::GaveUp { .. });
                self.error = Some(error.to_string());
                JobStep::Failure
            }
        }
    }

    fn stop(&mut self, reason: StopReason) {
        self.end_run();
        self.watch.set(match reason {
            StopReason::Success => End::Success(self.content()),
            StopReason::Failure => {
                let panicked = || MoveError::Panicked.to_string();
                End::Failure(self.error.clone().unwrap_or_else(panicked))
            }
            StopReason::Paused => End::Paused,
            StopReason::Canceled => End::Canceled,
        });
    }

    fn reset(&mut self) {
        if !self.gave_up {
            self.progress = Progress::default();
        }
        self.gave_up = false;
        self.error = None;
    }

    #[expect(clippy::cast_precision_loss, reason = "a fraction for display")]
    fn progress(&self) -> f32 {
        match self.progress.instances {
            None => 0.0,
            Some(0) => 1.0,
            Some(all) => self.progress.done as f32 / all as f32,
        }
    }

    fn content(&self) -> Value {
        let by_level = self.requested.iter().map(|(level, ids)| (level.field().to_owned(), json!(ids)));
        let mut content = Map::new();
        content.insert("Resources".to_owned(), Value::Object(by_level.collect()));
        content.insert("TargetStorage".to_owned(), json!(self.target.as_str()));
        if let Some(instances) = self.progress.instances {
            content.insert("InstancesCount".to_owned(), json!(instances));
        }
        self.progress.report.show(&mut content);
        if self.run.as_ref().is_some_and(Run::is_waiting) {
            let source = self.target.other();
            let reason = format!("another job is moving some of these resources to {source}");
            content.insert("WaitingFor".to_owned(), json!(reason));
        }
        if let Some(error) = &self.error {
            content.insert("Error".to_owned(), json!(error));
        }
        Value::Object(content)
    }

    fn serialized(&self) -> Option<Value> {
        // The first two fields are those of the C++ plugins.
        Some(json!({
            "Content": self.content(),
            "TargetStorage": self.target.as_str(),
            "Cursor": self.progress.cursor.0.iter().map(Resource::to_string).collect::<Vec<_>>(),
            "InstancesDone": self.progress.done,
            "GaveUp": self.gave_up,
        }))
    }
}

impl Drop for MoveJob {
    fn drop(&mut self) {
        let mut end = self.watch.end.lock();
        end.get_or_insert(End::Gone);
        self.watch.ended.notify_all();
    }
}

/// Restores a job that this plugin or a C++ plugin saved (see [`Job::serialized`]). A job without a cursor, as
/// the C++ plugins save it, starts again; attachments that were already moved are skipped.
///
/// `context` returns what the job needs to run with this target.
pub(crate) fn resume(
    task: Task,
    saved: &Value,
    context: impl FnOnce(Side) -> Result<Arc<dyn JobContext>, Unavailable>,
) -> Option<MoveJob> {
    let target = target(saved["TargetStorage"].as_str()?)?;
    let content = &saved["Content"];
    let by_level = content.get("Resources").unwrap_or(content);
    let mut requested: BTreeMap<Level, Vec<String>> =
        Level::ALL.into_iter().map(|level| (level, ids(by_level, level))).collect();
    if requested.values().all(Vec::is_empty) {
        requested.insert(Level::Instance, ids(saved, Level::Instance));
    }
    requested.retain(|_, ids| !ids.is_empty());
    Some(MoveJob {
        task,
        context: context(target),
        target,
        requested,
        progress: saved_progress(saved).unwrap_or_default(),
        gave_up: saved["GaveUp"].as_bool().unwrap_or_default(),
        error: content["Error"].as_str().map(str::to_owned),
        run: None,
        step: STEP,
        watch: Arc::default(),
    })
}

fn saved_progress(saved: &Value) -> Option<Progress> {
    let content = &saved["Content"];
    let path = saved["Cursor"].as_array()?.iter().map(|step| Resource::parse(step.as_str()?));
    Some(Progress {
        cursor: Cursor(path.collect::<Option<_>>()?),
        done: saved["InstancesDone"].as_u64()?,
        instances: content["InstancesCount"].as_u64(),
        report: Report::read(content),
    })
}

/// The side with this name in requests.
pub(crate) fn target(name: &str) -> Option<Side> {
    [Side::FileSystem, Side::ObjectStorage].into_iter().find(|side| side.as_str() == name)
}

/// The strings in the list of a level's field, whose name is matched without regard to case.
fn ids(fields: &Value, level: Level) -> Vec<String> {
    let empty = Map::new();
    let mut fields = fields.as_object().unwrap_or(&empty).iter();
    let field = fields.find(|(name, _)| name.eq_ignore_ascii_case(level.field()));
    let list = field.and_then(|(_, list)| list.as_array());
    list.into_iter().flatten().filter_map(|id| id.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests;
