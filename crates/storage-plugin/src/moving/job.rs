//! The job that moves attachments. It can be broken off at any moment and begun again: what is moved is moved.

use std::collections::BTreeMap;
use std::sync::Arc;

use hybrid::Side;
use orthanc_ffi::{Job, JobStep, StopReason};
use parking_lot::{Condvar, Mutex};
use serde_json::{Map, Value, json};

use crate::catalog::{CatalogError, Level, Resource};
use crate::moving::mover::{Engine, MoveError, Tally};

/// The job's type, as the C++ plugins call it.
pub(crate) const JOB_TYPE: &str = "MoveStorage";
/// Attachments of one step, after which Orthanc may save, pause or cancel the job.
const STEP: usize = 16;
/// Attachments of one job that are on their way at once.
const AT_ONCE: usize = 8;

/// Moves the attachments of some resources.
#[derive(Debug)]
pub(crate) struct MoveJob {
    /// `None` where hybrid storage is off: a job that was saved before.
    engine: Option<Engine>,
    target: Side,
    /// Those that were asked for, by level.
    asked: BTreeMap<Level, Vec<String>>,
    /// All whose attachments are moved, in this order.
    resources: Vec<Resource>,
    /// How many of them are done.
    position: usize,
    tally: Tally,
    error: Option<String>,
    watch: Arc<Watch>,
}

/// Tells somebody how the job ends.
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
    /// Orthanc has dropped it.
    Gone,
}

impl Watch {
    fn tell(&self, end: End) {
        *self.end.lock() = Some(end);
        self.ended.notify_all();
    }

    /// Waits for the end, or for some time.
    pub(crate) fn wait(&self, limit: std::time::Duration) -> Option<End> {
        let mut end = self.end.lock();
        if end.is_none() {
            self.ended.wait_for(&mut end, limit);
        }
        end.clone()
    }
}

impl MoveJob {
    /// A job for `asked`, and all that is below it.
    pub(crate) fn new(engine: Engine, target: Side, asked: &[Resource]) -> Result<Self, CatalogError> {
        let catalog = engine.catalog();
        let mut resources = Vec::new();
        for resource in asked {
            resources.extend(catalog.with_descendants(resource)?);
        }
        // Instances first, and each once, where a study and its patient are asked for.
        resources.sort_by(|one, other| (other.level, &one.id).cmp(&(one.level, &other.id)));
        resources.dedup();
        let mut by_level: BTreeMap<Level, Vec<String>> = BTreeMap::new();
        for resource in asked {
            by_level.entry(resource.level).or_default().push(resource.id.clone());
        }
        Ok(Self {
            engine: Some(engine),
            target,
            asked: by_level,
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
        let Some(engine) = self.engine.clone() else { return Err(MoveError::NotHybrid) };
        let (catalog, mut attachments, mut position) = (engine.catalog(), Vec::new(), self.position);
        while attachments.len() < STEP && position < self.resources.len() {
            attachments.extend(catalog.attachments(&self.resources[position])?);
            position += 1;
        }
        self.tally.add(engine.relocate(attachments, self.target, AT_ONCE)?);
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
                // Orthanc asks for the next step until it has come to its end.
                std::thread::sleep(std::time::Duration::from_millis(50));
                JobStep::Continue
            }
            Err(error) => {
                let target = self.target;
                tracing::error!("cannot move to the {target}: {error}");
                self.error = Some(error.to_string());
                JobStep::Failure
            }
        }
    }

    fn stop(&mut self, reason: StopReason) {
        self.watch.tell(match reason {
            StopReason::Success => End::Success(self.content()),
            StopReason::Failure => End::Failure(self.error.clone().unwrap_or_default()),
            StopReason::Paused => End::Paused,
            StopReason::Canceled => End::Canceled,
        });
    }

    fn reset(&mut self) {
        self.position = 0;
        self.tally = Tally::default();
        self.error = None;
    }

    #[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
    fn progress(&self) -> f32 {
        match self.resources.len() {
            0 => 1.0,
            all => self.position as f32 / all as f32,
        }
    }

    fn content(&self) -> Value {
        let by_level = self.asked.iter().map(|(level, ids)| (level.field().to_owned(), json!(ids)));
        let mut content = json!({
            "Resources": Value::Object(by_level.collect()),
            "TargetStorage": self.target.as_str(),
            "InstancesCount": self.of_level(|level| level == Level::Instance).len(),
            "MovedAttachments": self.tally.moved,
            "MovedBytes": self.tally.bytes,
            "AlreadyThere": self.tally.there,
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
        // The first three are the C++ plugins' fields.
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

/// A job from what [`Job::serialized`] returned, be it this plugin's or a C++ plugin's.
pub(crate) fn resume(engine: Option<Engine>, saved: &Value) -> Option<MoveJob> {
    let target = target(saved["TargetStorage"].as_str()?)?;
    let asked = saved["Content"].get("Resources").unwrap_or(&saved["Content"]);
    let asked: BTreeMap<Level, Vec<String>> = Level::ALL
        .into_iter()
        .map(|level| (level, ids(asked, level)))
        .filter(|(_, ids)| !ids.is_empty())
        .collect();
    let mut resources: Vec<Resource> =
        ids(saved, Level::Instance).into_iter().map(|id| Resource::new(Level::Instance, id)).collect();
    for level in [Level::Series, Level::Study, Level::Patient] {
        let parents = match &saved["Parents"] {
            Value::Object(_) => ids(&saved["Parents"], level),
            _ => asked.get(&level).cloned().unwrap_or_default(),
        };
        resources.extend(parents.into_iter().map(|id| Resource::new(level, id)));
    }
    let position = saved["Position"].as_u64().and_then(|position| usize::try_from(position).ok());
    let position = position.unwrap_or_default().min(resources.len());
    let (tally, error, watch) = (Tally::default(), None, Arc::default());
    Some(MoveJob { engine, target, asked, resources, position, tally, error, watch })
}

/// A storage by its name in requests.
pub(crate) fn target(name: &str) -> Option<Side> {
    [Side::FileSystem, Side::ObjectStorage].into_iter().find(|side| side.as_str() == name)
}

/// The texts of the list in the field of a level, whatever its case.
fn ids(fields: &Value, level: Level) -> Vec<String> {
    let empty = Map::new();
    let fields = fields.as_object().unwrap_or(&empty);
    let list = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(level.field()));
    let list = list.and_then(|(_, list)| list.as_array()).into_iter().flatten();
    list.filter_map(|id| id.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "06d643a1-e154382d-aafc1b39-a940d6df-7b2ccebc";

    fn job(resources: &[(Level, &str)]) -> MoveJob {
        MoveJob {
            engine: None,
            target: Side::ObjectStorage,
            asked: BTreeMap::from([(Level::Study, vec![ID.to_owned()])]),
            resources: resources.iter().map(|(level, id)| Resource::new(*level, *id)).collect(),
            position: 1,
            tally: Tally::default(),
            error: None,
            watch: Arc::default(),
        }
    }

    #[test]
    fn a_saved_job_goes_on_where_it_was() {
        let before =
            job(&[(Level::Instance, "a"), (Level::Instance, "b"), (Level::Series, "c"), (Level::Study, ID)]);
        let saved = before.serialized().unwrap();
        let after = resume(None, &saved).unwrap();
        assert_eq!((&after.resources, after.position, &after.asked), (&before.resources, 1, &before.asked));
        assert_eq!(after.serialized().unwrap(), saved);
    }

    #[test]
    fn a_job_that_a_cpp_plugin_saved_is_taken_over() {
        let saved = json!({
            "Type": "MoveStorage", "Content": {"Studies": [ID]}, "Instances": ["a", "b"], "TargetStorage": "file-system",
        });
        let job = resume(None, &saved).unwrap();
        let expected = [(Level::Instance, "a"), (Level::Instance, "b"), (Level::Study, ID)]
            .map(|(level, id)| Resource::new(level, id));
        assert_eq!(
            (job.resources.as_slice(), job.position, job.target),
            (&expected[..], 0, Side::FileSystem)
        );
    }

    #[test]
    fn a_job_begins_anew_when_it_is_reset() {
        let mut job = job(&[(Level::Instance, "a"), (Level::Instance, "b")]);
        job.error = Some("the disk is full".to_owned());
        job.reset();
        assert_eq!((job.position, job.content().get("Error")), (0, None));
    }

    #[test]
    fn a_job_that_hybrid_storage_was_switched_off_for_fails_and_says_so() {
        let mut job = job(&[(Level::Instance, "a")]);
        assert_eq!(job.step(), JobStep::Failure);
        assert!(job.content()["Error"].as_str().unwrap().contains("HybridMode"));
    }
}
