//! The job that moves attachments. It can be interrupted at any moment and resumed, since each attachment
//! moves on its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use hybrid::Side;
use orthanc_ffi::{Job, JobStep, StopReason};
use parking_lot::{Condvar, Mutex};
use serde_json::{Map, Value, json};

use crate::catalog::{CatalogError, Level, Resource};
use crate::moving::mover::{MoveError, Mover, Tally};

/// The job's type, as in the C++ plugins.
pub(crate) const JOB_TYPE: &str = "MoveStorage";
/// Attachments moved in one step, after which Orthanc may save, pause or cancel the job.
const STEP: usize = 16;
/// Attachments that one job moves at once.
const AT_ONCE: usize = 8;

/// Moves the attachments of resources.
#[derive(Debug)]
pub(crate) struct MoveJob {
    /// `None` if hybrid storage was switched off after the job had been saved.
    mover: Option<Mover>,
    target: Side,
    /// The ids in the request, by level.
    requested: BTreeMap<Level, Vec<String>>,
    /// The resources whose attachments are moved, in this order.
    resources: Vec<Resource>,
    /// Number of resources done.
    position: usize,
    tally: Tally,
    error: Option<String>,
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
    pub(crate) fn wait(&self, limit: std::time::Duration) -> Option<End> {
        let mut end = self.end.lock();
        if end.is_none() {
            self.ended.wait_for(&mut end, limit);
        }
        end.clone()
    }
}

impl MoveJob {
    /// A job for `requested` and everything below.
    pub(crate) fn new(mover: Mover, target: Side, requested: &[Resource]) -> Result<Self, CatalogError> {
        let catalog = mover.context.catalog();
        let mut resources = Vec::new();
        for resource in requested {
            resources.extend(catalog.with_descendants(resource)?);
        }
        // Instances come first, and each resource once even if a study and its patient were requested.
        resources.sort_by(|one, other| (other.level, &one.id).cmp(&(one.level, &other.id)));
        resources.dedup();
        let mut by_level: BTreeMap<Level, Vec<String>> = BTreeMap::new();
        for resource in requested {
            by_level.entry(resource.level).or_default().push(resource.id.clone());
        }
        Ok(Self {
            mover: Some(mover),
            target,
            requested: by_level,
            resources,
            position: 0,
            tally: Tally::default(),
            error: None,
            watch: Arc::default(),
        })
    }

    pub(crate) fn watch(&self) -> Arc<Watch> {
        Arc::clone(&self.watch)
    }

    fn advance(&mut self) -> Result<JobStep, MoveError> {
        let Some(mover) = self.mover.clone() else { return Err(MoveError::NotHybrid) };
        let catalog = mover.context.catalog();
        let mut attachments = Vec::new();
        let mut position = self.position;
        while attachments.len() < STEP && position < self.resources.len() {
            attachments.extend(catalog.attachments(&self.resources[position])?);
            position += 1;
        }
        self.tally.add(mover.move_all(attachments, self.target, AT_ONCE)?);
        self.position = position;
        Ok(if position < self.resources.len() { JobStep::Continue } else { JobStep::Success })
    }

    fn of_level(&self, wanted: impl Fn(Level) -> bool) -> Vec<&Resource> {
        self.resources.iter().filter(|resource| wanted(resource.level)).collect()
    }
}

impl Job for MoveJob {
    fn step(&mut self) -> JobStep {
        match self.advance() {
            Ok(step) => step,
            Err(MoveError::Stopped) => {
                // Orthanc keeps asking for steps until it has stopped.
                std::thread::sleep(std::time::Duration::from_millis(50));
                JobStep::Continue
            }
            Err(error) => {
                let target = self.target;
                tracing::error!("cannot move attachments to {target}: {error}");
                self.error = Some(error.to_string());
                JobStep::Failure
            }
        }
    }

    fn stop(&mut self, reason: StopReason) {
        self.watch.set(match reason {
            StopReason::Success => End::Success(self.content()),
            StopReason::Failure => {
                let panicked = || "an internal error occurred, which the log describes".to_owned();
                End::Failure(self.error.clone().unwrap_or_else(panicked))
            }
            StopReason::Paused => End::Paused,
            StopReason::Canceled => End::Canceled,
        });
    }

    fn reset(&mut self) {
        self.position = 0;
        self.tally = Tally::default();
        self.error = None;
    }

    #[expect(clippy::cast_precision_loss, reason = "a fraction for display")]
    fn progress(&self) -> f32 {
        match self.resources.len() {
            0 => 1.0,
            all => self.position as f32 / all as f32,
        }
    }

    fn content(&self) -> Value {
        let by_level = self.requested.iter().map(|(level, ids)| (level.field().to_owned(), json!(ids)));
        let mut content = json!({
            "Resources": Value::Object(by_level.collect()),
            "TargetStorage": self.target.as_str(),
            "InstancesCount": self.of_level(|level| level == Level::Instance).len(),
            "MovedAttachments": self.tally.moved,
            "MovedBytes": self.tally.bytes,
            "AlreadyThere": self.tally.already_there,
            "DeletedMeanwhile": self.tally.deleted,
        });
        if let Some(error) = &self.error {
            content["Error"] = json!(error);
        }
        content
    }

    fn serialized(&self) -> Option<Value> {
        let instances = self.of_level(|level| level == Level::Instance);
        let instances: Vec<&str> = instances.into_iter().map(|resource| resource.id.as_str()).collect();
        let mut others: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for resource in self.of_level(|level| level != Level::Instance) {
            others.entry(resource.level.field()).or_default().push(&resource.id);
        }
        // The first three fields are those of the C++ plugins.
        Some(json!({
            "Content": self.content(),
            "TargetStorage": self.target.as_str(),
            "Instances": instances,
            "Parents": others,
            "Position": self.position,
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

/// Restores a job that this plugin or a C++ plugin saved (see [`Job::serialized`]).
pub(crate) fn resume(mover: Option<Mover>, saved: &Value) -> Option<MoveJob> {
    let target = target(saved["TargetStorage"].as_str()?)?;
    let by_level = saved["Content"].get("Resources").unwrap_or(&saved["Content"]);
    let requested: BTreeMap<Level, Vec<String>> = Level::ALL
        .into_iter()
        .map(|level| (level, ids(by_level, level)))
        .filter(|(_, ids)| !ids.is_empty())
        .collect();
    let mut resources: Vec<Resource> =
        ids(saved, Level::Instance).into_iter().map(|id| Resource::new(Level::Instance, id)).collect();
    for level in [Level::Series, Level::Study, Level::Patient] {
        let parents = match &saved["Parents"] {
            Value::Object(_) => ids(&saved["Parents"], level),
            _ => requested.get(&level).cloned().unwrap_or_default(),
        };
        resources.extend(parents.into_iter().map(|id| Resource::new(level, id)));
    }
    let saved_position = saved["Position"].as_u64().and_then(|position| usize::try_from(position).ok());
    Some(MoveJob {
        mover,
        target,
        requested,
        position: saved_position.unwrap_or_default().min(resources.len()),
        resources,
        tally: Tally::default(),
        error: None,
        watch: Arc::default(),
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
mod tests {
    use super::*;

    const ID: &str = "06d643a1-e154382d-aafc1b39-a940d6df-7b2ccebc";

    fn job(resources: &[(Level, &str)]) -> MoveJob {
        MoveJob {
            mover: None,
            target: Side::ObjectStorage,
            requested: BTreeMap::from([(Level::Study, vec![ID.to_owned()])]),
            resources: resources.iter().map(|(level, id)| Resource::new(*level, *id)).collect(),
            position: 1,
            tally: Tally::default(),
            error: None,
            watch: Arc::default(),
        }
    }

    #[test]
    fn saved_job_resumes_at_its_position() {
        let before =
            job(&[(Level::Instance, "a"), (Level::Instance, "b"), (Level::Series, "c"), (Level::Study, ID)]);
        let saved = before.serialized().unwrap();
        let after = resume(None, &saved).unwrap();
        assert_eq!(after.resources, before.resources);
        assert_eq!(after.position, 1);
        assert_eq!(after.requested, before.requested);
        assert_eq!(after.serialized().unwrap(), saved);
    }

    #[test]
    fn job_saved_by_a_cpp_plugin_is_resumed() {
        let saved = json!({
            "Type": "MoveStorage", "Content": {"Studies": [ID]}, "Instances": ["a", "b"], "TargetStorage": "file-system",
        });
        let job = resume(None, &saved).unwrap();
        let expected = [(Level::Instance, "a"), (Level::Instance, "b"), (Level::Study, ID)]
            .map(|(level, id)| Resource::new(level, id));
        assert_eq!(job.resources, expected);
        assert_eq!(job.position, 0);
        assert_eq!(job.target, Side::FileSystem);
    }

    #[test]
    fn reset_job_starts_from_the_beginning() {
        let mut job = job(&[(Level::Instance, "a"), (Level::Instance, "b")]);
        job.error = Some("the disk is full".to_owned());
        job.reset();
        assert_eq!(job.position, 0);
        assert_eq!(job.content().get("Error"), None);
    }

    #[test]
    fn job_fails_without_hybrid_storage() {
        let mut job = job(&[(Level::Instance, "a")]);
        assert_eq!(job.step(), JobStep::Failure);
        assert!(job.content()["Error"].as_str().unwrap().contains("HybridMode"));
    }
}
