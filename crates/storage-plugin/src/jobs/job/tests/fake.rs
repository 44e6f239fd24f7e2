//! An index that is computed, not stored, and work that only counts attachments.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak, mpsc};

use bucket::{Cause, StorageError};
use hybrid::{Purpose, StateDirectory};
use orthanc_ffi::{ErrorCode, OrthancError, OrthancVersion};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::catalog::{Catalog, CatalogError, Indexed, Level, Resource, Rest};
use crate::jobs::{Batch, Courtesy, Family, Handled, Host, Problem, Reports, Tally, Turn, Work};
use crate::stop::Stop;

/// Children of each patient, study and series.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape(pub(crate) [u32; 3]);

impl Shape {
    pub(crate) fn instances(self) -> u32 {
        self.0.iter().product()
    }

    /// Number of resources below one of this level, at the level of instances.
    fn width(self, level: Level) -> u32 {
        self.0[level as usize..].iter().product()
    }
}

/// The resource of this level that has the instance with this number, the first one, below it.
pub(crate) fn resource(level: Level, instance: u32) -> Resource {
    Resource::new(level, format!("{:08x}-{instance:08x}-00000000-00000000-00000000", level as u32))
}

pub(crate) fn number(id: &str) -> u32 {
    u32::from_str_radix(&id[9..17], 16).unwrap()
}

/// Patients with everything below.
#[derive(Debug)]
pub(crate) struct FakeRest {
    patients: u32,
    shape: Shape,
    pub(crate) calls: AtomicUsize,
    pub(crate) deleted: Mutex<BTreeSet<Resource>>,
    /// How often attachments are still found, by the number of their instances.
    pub(crate) looks_left: Mutex<BTreeMap<u32, usize>>,
    /// Orthanc's jobs, by their ids.
    pub(crate) jobs: Mutex<BTreeMap<String, Value>>,
}

impl FakeRest {
    fn answer(&self, path: &str) -> Option<Value> {
        match path {
            "/patients" => {
                let first = |patient| resource(Level::Patient, patient * self.shape.instances());
                return Some((0..self.patients).rev().map(|patient| json!(first(patient).id)).collect());
            }
            _ if path.starts_with("/instances?") => {
                let first =
                    (0..self.shape.instances().min(16)).map(|number| resource(Level::Instance, number));
                return Some(first.map(|instance| json!(instance.id)).collect());
            }
            "/statistics" => return Some(json!({"CountInstances": self.patients * self.shape.instances()})),
            _ => {}
        }
        if let Some(id) = path.strip_prefix("/jobs/") {
            return self.jobs.lock().get(id).cloned();
        }
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
                if let Some(left) = self.looks_left.lock().get_mut(&instance) {
                    *left = left.checked_sub(1)?;
                }
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

/// Gives a fake reports in a temporary state directory.
pub(crate) fn with_reports(fake: &mut Fake) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let purpose = Purpose { bucket: "memory".to_owned(), settings: String::new() };
    let state = StateDirectory::open(folder.path(), &purpose).unwrap();
    fake.host.reports = Some(Arc::new(Reports::new(&state)));
    folder
}

/// Why the attachment of an instance cannot be handled.
type Trouble = fn(u32) -> Option<StorageError>;

/// What a second pass is to do, and has done.
#[derive(Debug, Default)]
pub(crate) struct Second {
    pub(crate) later: BTreeSet<u32>,
    pub(crate) handled: Vec<u32>,
}

#[derive(Debug, Clone)]
pub(crate) struct Fake {
    pub(crate) rest: Arc<FakeRest>,
    pub(crate) host: Host,
    pub(crate) job_type: &'static str,
    pub(crate) capacity: Option<u64>,
    pub(crate) parameters: Map<String, Value>,
    /// Whether nothing is noted of single attachments.
    pub(crate) counts_only: bool,
    /// How often each attachment was handled, by the number of its instance.
    pub(crate) handled: Arc<Mutex<BTreeMap<u32, u32>>>,
    pub(crate) error: Arc<Mutex<Trouble>>,
    pub(crate) needs_report: bool,
    /// Whether a turn is held when the results are known.
    pub(crate) is_slow: Arc<AtomicBool>,
    pub(crate) in_progress: Arc<Mutex<Option<Turn>>>,
    /// In a second pass: the instances whose attachments are handed back once, and those that were handled.
    pub(crate) second: Arc<Mutex<Option<Second>>>,
    /// The turn of the job that has entered last. Another job waits for its end.
    turn: Arc<Mutex<Weak<()>>>,
}

impl Fake {
    pub(crate) fn new(shape: [u32; 3]) -> Self {
        Self::with_patients(1, shape)
    }

    pub(crate) fn with_patients(patients: u32, shape: [u32; 3]) -> Self {
        let calls = AtomicUsize::new(0);
        let rest = Arc::new(FakeRest {
            patients,
            shape: Shape(shape),
            calls,
            deleted: Mutex::default(),
            looks_left: Mutex::default(),
            jobs: Mutex::default(),
        });
        let host = Host {
            catalog: Catalog::new(Arc::clone(&rest)),
            stop: Stop::new(),
            courtesy: Courtesy::default(),
            place: "memory".into(),
            reports: None,
            alarm: None,
        };
        Self {
            rest,
            host,
            job_type: "Fake",
            capacity: None,
            parameters: Map::new(),
            counts_only: false,
            handled: Arc::default(),
            error: Arc::new(Mutex::new(|_| None)),
            needs_report: false,
            is_slow: Arc::default(),
            in_progress: Arc::default(),
            second: Arc::default(),
            turn: Arc::default(),
        }
    }

    pub(crate) fn calls(&self) -> usize {
        self.rest.calls.load(Ordering::Relaxed)
    }

    /// The instances whose attachments were handled.
    pub(crate) fn instances(&self) -> Vec<u32> {
        self.handled.lock().keys().copied().collect()
    }

    /// Whether each attachment of `instances` was handled once, and no other one.
    pub(crate) fn handled_once(&self, instances: impl Iterator<Item = u32>) -> bool {
        let handled = self.handled.lock();
        handled
            .iter()
            .map(|(instance, times)| (*instance, *times))
            .eq(instances.map(|instance| (instance, 1)))
    }
}

impl Work for Fake {
    fn job_type(&self) -> &'static str {
        self.job_type
    }

    fn parameters(&self) -> Map<String, Value> {
        self.parameters.clone()
    }

    fn counters(&self) -> &'static [&'static str] {
        &["Handled", "Bytes"]
    }

    fn aim(&self) -> String {
        "count attachments".to_owned()
    }

    fn outcome_of_problem(&self) -> String {
        "not counted".to_owned()
    }

    fn fails_with_problems(&self) -> bool {
        true
    }

    fn needs_report(&self) -> bool {
        self.needs_report
    }

    fn capacity(&self) -> Option<u64> {
        self.capacity
    }

    fn enter(&self, _: &Arc<Family>) -> Option<Turn> {
        let mut last = self.turn.lock();
        if last.upgrade().is_some() {
            return None;
        }
        let turn = Arc::new(());
        *last = Arc::downgrade(&turn);
        Some(turn)
    }

    fn waiting_for(&self) -> String {
        "another job".to_owned()
    }

    fn has_second_pass(&self, tally: &Tally) -> bool {
        tally.count("Handled") > 0 && self.second.lock().is_some()
    }

    fn begin_again(&self, attachments: Vec<Indexed>, _: usize, _: Turn) -> Batch {
        let (sender, results) = mpsc::channel();
        let mut second = self.second.lock();
        let second = second.get_or_insert_default();
        for indexed in attachments {
            let instance = number(&indexed.resource.id);
            let is_later = second.later.remove(&instance);
            let handled = if is_later {
                Handled { counts: vec![("Handled", 1)], ..Handled::later() }
            } else {
                second.handled.push(instance);
                Handled::counted("Bytes")
            };
            sender.send((indexed, handled)).unwrap();
        }
        Batch { results, ending: Arc::default(), task: None }
    }

    fn begin(&self, attachments: Vec<Indexed>, _: usize, turn: Turn) -> Batch {
        let (sender, results) = mpsc::channel();
        for indexed in attachments {
            let instance = number(&indexed.resource.id);
            let handled = match (*self.error.lock())(instance) {
                Some(StorageError { cause: Cause::NotFound, .. }) => Handled::problem(Problem::missing()),
                Some(error) => Handled::problem(Problem::of("not-counted", &error)),
                None => {
                    if !self.counts_only {
                        *self.handled.lock().entry(instance).or_default() += 1;
                    }
                    Handled { counts: vec![("Handled", 1), ("Bytes", 10)], ..Handled::default() }
                }
            };
            sender.send((indexed, handled)).unwrap();
        }
        *self.in_progress.lock() = self.is_slow.load(Ordering::Relaxed).then_some(turn);
        Batch { results, ending: Arc::default(), task: None }
    }
}
