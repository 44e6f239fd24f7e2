//! An index that is computed, not stored, and a plugin that only counts moves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use bucket::StorageError;
use hybrid::{MoveOutcome, Side};
use orthanc_ffi::{ErrorCode, OrthancError, OrthancVersion};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::catalog::{Catalog, CatalogError, Indexed, Level, Resource, Rest};
use crate::moving::mover::{JobContext, Moves};
use crate::moving::turns::{Turn, Turns};

/// Children of each patient, study and series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape(pub(super) [u32; 3]);

impl Shape {
    pub(super) fn instances(self) -> u32 {
        self.0.iter().product()
    }

    /// Number of resources below one of this level, at the level of instances.
    fn width(self, level: Level) -> u32 {
        self.0[level as usize..].iter().product()
    }
}

/// The resource of this level that has the instance with this number, the first one, below it.
pub(super) fn resource(level: Level, instance: u32) -> Resource {
    Resource::new(level, format!("{:08x}-{instance:08x}-00000000-00000000-00000000", level as u32))
}

fn number(id: &str) -> u32 {
    u32::from_str_radix(&id[9..17], 16).unwrap()
}

/// One patient with everything below.
#[derive(Debug)]
pub(super) struct FakeRest {
    shape: Shape,
    pub(super) calls: AtomicUsize,
    pub(super) deleted: Mutex<BTreeSet<Resource>>,
}

impl FakeRest {
    fn answer(&self, path: &str) -> Option<Value> {
        let mut parts = path[1..].splitn(3, '/');
        let found = Resource::parse(&format!("{}/{}", parts.next()?, parts.next()?))?;
        if self.deleted.lock().contains(&found) {
            return None;
        }
        let instance = number(&found.id);
        match parts.next() {
            None => Some(self.describe(found.level, instance)),
            Some("statistics") => {
                let size = 10 * u64::from(self.shape.width(found.level));
                Some(json!({"DiskSize": size.to_string()}))
            }
            Some("attachments") if found.level == Level::Instance => Some(json!(["dicom"])),
            Some("attachments") => Some(json!([])),
            Some("attachments/dicom/info") => {
                let uuid = format!("{instance:08x}-0000-4000-8000-000000000000");
                Some(json!({"ContentType": 1, "Uuid": uuid, "CompressedSize": 10}))
            }
            Some(other) => panic!("{other}"),
        }
    }

    fn describe(&self, level: Level, instance: u32) -> Value {
        let mut answer = json!({});
        if let Some(child) = level.child() {
            let width = self.shape.width(child);
            let children = (0..self.shape.0[level as usize]).map(|child| instance + child * width);
            // Orthanc's order is not that of the ids.
            let ids = children.rev().map(|number| json!(resource(child, number).id));
            answer[child.field()] = ids.collect();
        }
        if let Some((parent, field)) = level.parent() {
            let width = self.shape.width(parent);
            answer[field] = json!(resource(parent, instance / width * width).id);
        }
        answer
    }
}

impl Rest for Arc<FakeRest> {
    fn version(&self) -> OrthancVersion {
        OrthancVersion::new(1, 13, 0)
    }

    fn get(&self, path: &str) -> Result<Vec<u8>, CatalogError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let answer = self.answer(path).map(|answer| answer.to_string().into_bytes());
        let missing =
            OrthancError::Rest { method: "GET", path: path.to_owned(), code: ErrorCode::UNKNOWN_RESOURCE };
        Ok(answer.ok_or(missing)?)
    }
}

/// Why the attachment of an instance cannot be moved.
type Trouble = fn(u32) -> Option<StorageError>;

#[derive(Debug, Clone)]
pub(super) struct Fake {
    pub(super) rest: Arc<FakeRest>,
    catalog: Catalog,
    turns: Turns,
    pub(super) is_stopping: Arc<AtomicBool>,
    pub(super) capacity: Option<u64>,
    /// How often each attachment was moved, by the number of its instance.
    pub(super) moves: Arc<Mutex<BTreeMap<u32, u32>>>,
    pub(super) error: Arc<Mutex<Trouble>>,
    /// Whether moves go on after their results are known.
    pub(super) is_slow: Arc<AtomicBool>,
    pub(super) in_progress: Arc<Mutex<Option<Arc<Turn>>>>,
}

impl Fake {
    pub(super) fn new(shape: [u32; 3]) -> Self {
        let rest = FakeRest { shape: Shape(shape), calls: AtomicUsize::new(0), deleted: Mutex::default() };
        let rest = Arc::new(rest);
        Self {
            catalog: Catalog::new(Arc::clone(&rest)),
            rest,
            turns: Turns::default(),
            is_stopping: Arc::default(),
            capacity: None,
            moves: Arc::default(),
            error: Arc::new(Mutex::new(|_| None)),
            is_slow: Arc::default(),
            in_progress: Arc::default(),
        }
    }

    pub(super) fn calls(&self) -> usize {
        self.rest.calls.load(Ordering::Relaxed)
    }

    /// The instances whose attachments were moved.
    pub(super) fn moved(&self) -> Vec<u32> {
        self.moves.lock().keys().copied().collect()
    }

    /// Whether each attachment of `instances` was moved once, and no other one.
    pub(super) fn moved_once(&self, instances: impl Iterator<Item = u32>) -> bool {
        let moves = self.moves.lock();
        moves.iter().map(|(instance, times)| (*instance, *times)).eq(instances.map(|instance| (instance, 1)))
    }
}

impl JobContext for Fake {
    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn turns(&self) -> &Turns {
        &self.turns
    }

    fn capacity(&self, _: Side) -> Option<u64> {
        self.capacity
    }

    fn begin(&self, attachments: Vec<Indexed>, _: Side, turn: Arc<Turn>) -> Moves {
        let (sender, results) = mpsc::channel();
        for indexed in attachments {
            let instance = number(&indexed.resource.id);
            let error = (*self.error.lock())(instance);
            if error.is_none() {
                *self.moves.lock().entry(instance).or_default() += 1;
            }
            let moved = error.map_or(Ok(MoveOutcome::Moved { bytes: 10 }), Err);
            sender.send((indexed, moved)).unwrap();
        }
        *self.in_progress.lock() = self.is_slow.load(Ordering::Relaxed).then_some(turn);
        Moves { results, ending: Arc::default(), task: None }
    }
}
