//! Searches in a bucket in memory, with a computed index.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bucket::{
    Bucket, BucketOptions, ListObjects, ListPage, ListRequest, ListedObject, NextPage, ObjectStorage, Payload,
};
use futures_util::TryStreamExt as _;
use hybrid::{HybridStorage, Purpose, StateDirectory};
use object_store::ObjectStore as _;
use object_store::memory::InMemory;
use orthanc_ffi::{Job, JobStep, StopReason};
use parking_lot::Mutex;
use serde_json::Value;
use storage_layout::{Attachment, ContentType, Layout};

mod bounds;
mod copies;

use super::database::Database;
use super::keeper::ensure_marker;
use super::request::Parameters;
use super::work::Finder;
use crate::catalog::{CatalogError, Indexed, Level, Resource};
use crate::jobs::fake::{Fake, resource};
use crate::jobs::{After, Family, Reports, Scope, StorageJob};
use crate::runtime::Runtime;
use crate::stop::Stop;

/// The id, the number of the last change, and the dates of some changes.
#[derive(Debug)]
pub(super) struct FakeDatabase(
    pub(super) Mutex<&'static str>,
    pub(super) Mutex<Option<u64>>,
    pub(super) Mutex<HashMap<u64, &'static str>>,
);

impl Database for FakeDatabase {
    fn id(&self) -> Result<String, CatalogError> {
        Ok(format!("{:0>32}", *self.0.lock()))
    }

    fn last_change(&self) -> Result<Option<u64>, CatalogError> {
        Ok(*self.1.lock())
    }

    fn date_of_change(&self, number: u64) -> Result<Option<String>, CatalogError> {
        Ok(self.2.lock().get(&number).map(|date| (*date).to_owned()))
    }
}

/// An Orthanc with as many instances as the fake index, and a bucket.
struct Setup {
    fake: Fake,
    finder: Finder,
    database: Arc<FakeDatabase>,
    bucket: Bucket,
    objects: ObjectStorage,
    runtime: Arc<Runtime>,
    _folder: tempfile::TempDir,
    jobs: u32,
}

fn attachment(number: u32) -> Attachment {
    Attachment::new(&format!("{number:08x}-0000-4000-8000-000000000000"), ContentType::DICOM).unwrap()
}

impl Setup {
    fn with(instances: u32, options: BucketOptions) -> Self {
        let runtime = Arc::new(Runtime::new("test", Stop::new(), || {}, || {}).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let purpose = Purpose { bucket: "bucket".to_owned(), settings: String::new() };
        let state = Arc::new(StateDirectory::open(folder.path(), &purpose).unwrap());
        let patients = instances.min(1);
        let fake = Fake::with_patients(patients, [1, 1, instances.max(1)]);
        let mut host = fake.host.clone();
        host.reports = Some(Arc::new(Reports::new(&state)));
        let bucket = Bucket::new(options);
        let objects = ObjectStorage::new(bucket.clone(), Layout::default(), false, false);
        let objects = objects.with_key_vault_blobs();
        host.place = objects.identity().into();
        let database = Arc::new(FakeDatabase(Mutex::new("1"), Mutex::new(Some(100)), Mutex::default()));
        let finder = Finder {
            host,
            storage: HybridStorage::objects_only(objects.clone()),
            runtime: Arc::clone(&runtime),
            state: Some(state),
            database: Arc::<FakeDatabase>::clone(&database),
        };
        Self { fake, finder, database, bucket, objects, runtime, _folder: folder, jobs: 0 }
    }

    /// The objects of all instances.
    fn new(instances: u32) -> Self {
        let setup = Self::with(instances, BucketOptions::new(Arc::new(InMemory::new()), "memory://bucket"));
        (0..instances).for_each(|number| setup.store(number));
        setup
    }

    fn store(&self, number: u32) {
        let objects = self.objects.clone();
        let create = async move { objects.create(&attachment(number), Payload::Owned("DICM".into())).await };
        self.runtime.run(create).unwrap();
    }

    /// Writes an object with any name.
    fn put(&self, name: &str) {
        let bucket = self.bucket.clone();
        let name = name.to_owned();
        let put = async move { bucket.put(&name, Payload::Owned("x".into())).await };
        self.runtime.run(put).unwrap();
    }

    fn remove(&self, name: &str) {
        let bucket = self.bucket.clone();
        let name = name.to_owned();
        self.runtime.run(async move { bucket.delete(&name).await }).unwrap();
    }

    fn names(&self) -> Vec<String> {
        let mut listing = self.objects.list();
        let list = async move {
            let mut names = Vec::new();
            while let Some(page) = listing.next_page().await.unwrap() {
                names.extend(page.objects.into_iter().map(|object| object.name));
            }
            names
        };
        self.runtime.run(list)
    }

    /// Writes the marker as it is written from time to time.
    fn keep_marker(&self) {
        let database: Arc<dyn Database> = Arc::<FakeDatabase>::clone(&self.database);
        let catalog = self.finder.host.catalog.clone();
        let objects = self.objects.clone();
        self.runtime.run(async move { ensure_marker(&database, &catalog, &objects).await }).unwrap();
    }

    fn delete_instance(&self, number: u32) {
        self.fake.rest.deleted.lock().insert(resource(Level::Instance, number));
    }

    /// Runs a job, and returns its content and the kinds and objects of its findings.
    fn search(&mut self, delete: bool, min_age_hours: f64) -> (Value, Vec<(String, String)>) {
        let work = self.finder.work(Parameters { delete, min_age_hours });
        let mut job = StorageJob::new(self.finder.host.clone(), work, Scope::Everything);
        self.jobs += 1;
        let id = format!("JOB-{}", self.jobs);
        job.watch().set_job_id(&id);
        let mut step = JobStep::Continue;
        while step == JobStep::Continue {
            step = job.step();
        }
        assert_eq!(step, JobStep::Success, "{}", job.content());
        job.stop(StopReason::Success);
        let page = self.finder.host.reports.as_ref().unwrap().page(&id, 0, 1000).unwrap().unwrap();
        let text = |finding: &Value, field: &str| finding[field].as_str().unwrap_or_default().to_owned();
        let findings =
            page.findings.iter().map(|finding| (text(finding, "Problem"), text(finding, "Object")));
        (job.content(), findings.collect())
    }

    /// Runs a job that must refuse to delete. Returns the reason.
    fn refused(&mut self) -> String {
        let before = self.names();
        let (content, findings) = self.search(true, 0.0);
        assert_eq!(self.names(), before, "{content}");
        assert!(findings.iter().any(|(kind, _)| kind == "deletion-refused"), "{findings:?}");
        content["DeletionRefused"].as_str().unwrap().to_owned()
    }
}

fn name(number: u32) -> String {
    format!("{}.dcm", attachment(number).uuid)
}

fn url(name: &str) -> String {
    format!("memory://bucket/{name}")
}

#[test]
fn orphans_of_two_searches_are_deleted_and_nothing_else() {
    let mut setup = Setup::new(10);
    let uuid = attachment(77).uuid;
    let orphans =
        [format!("{uuid}.json.enc"), format!("00/00/{uuid}"), format!("{uuid}-1"), format!("{uuid}-1.info")];
    let foreign = ["readme".to_owned(), format!("{uuid}.bak"), "other/readme".to_owned()];
    orphans.iter().chain(&foreign).for_each(|name| setup.put(name));
    let all = setup.names();
    let (content, findings) = setup.search(true, 0.0);
    assert_eq!(content["DeletionRefused"], super::refusal::Refusal::FirstSearch.to_string());
    assert_eq!((&content["Attachments"], &content["Objects"]), (&10.into(), &17.into()));
    assert_eq!((&content["OrphanObjects"], &content["ForeignObjects"]), (&4.into(), &3.into()));
    let mut found: Vec<_> = findings
        .iter()
        .filter(|(kind, _)| kind == "orphan-object")
        .map(|(_, object)| object.clone())
        .collect();
    found.sort();
    let mut expected = orphans.clone().map(|name| url(&name));
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(setup.names(), all);

    // One that the first search has not found.
    setup.store(78);
    let (content, _) = setup.search(true, 0.0);
    assert_eq!(content["DeletionRefused"], Value::Null);
    assert_eq!((&content["DeletedObjects"], &content["NotDeleted"]), (&4.into(), &0.into()));
    let mut left: Vec<_> = (0..10).chain([78]).map(name).chain(foreign).collect();
    left.sort();
    let mut names = setup.names();
    names.sort();
    assert_eq!(names, left);
    let (content, _) = setup.search(false, 0.0);
    assert_eq!(content["OrphanObjects"], 1);
}

#[test]
fn young_objects_and_pending_deletions_are_no_orphans() {
    let mut setup = Setup::new(3);
    [77, 78].into_iter().for_each(|number| setup.store(number));
    let (content, findings) = setup.search(false, 24.0);
    assert_eq!((&content["YoungObjects"], &content["OrphanObjects"]), (&2.into(), &0.into()));
    assert_eq!(findings, []);
    setup.finder.state.as_ref().unwrap().markers().add(&attachment(77)).unwrap();
    let (content, findings) = setup.search(false, 0.0);
    assert_eq!((&content["PendingDeletions"], &content["OrphanObjects"]), (&1.into(), &1.into()));
    assert_eq!(findings, [("orphan-object".to_owned(), url(&name(78)))]);
}

#[test]
fn another_database_prevents_deletions() {
    let mut setup = Setup::new(5);
    setup.store(77);
    *setup.database.0.lock() = "2";
    setup.search(false, 0.0);
    // The marker names attachments of the same index, as that of another Orthanc on this database does.
    *setup.database.0.lock() = "1";
    setup.search(false, 0.0);
    let other = format!(".orthanc-object-storage/databases/{:0>32}", 3);
    setup.put(&other);
    let reason = setup.refused();
    assert!(reason.contains(&url(&other)), "{reason}");
    setup.remove(&other);
    let (content, _) = setup.search(true, 0.0);
    assert_eq!((&content["DeletedObjects"], &content["DeletionRefused"]), (&1.into(), &Value::Null));
}

#[test]
fn lost_index_deletes_nothing() {
    // The objects of a database that is lost, and of which there is no marker.
    let mut setup = Setup::with(0, BucketOptions::new(Arc::new(InMemory::new()), "memory://bucket"));
    (1000..1010).for_each(|number| setup.store(number));
    assert!(setup.refused().contains("has no attachments"));
    assert!(setup.refused().contains("has no attachments"));
    // The new database gets some attachments, and then more than the old one had.
    for (instances, reason) in [(3, "incomplete"), (20, "")] {
        let fake = Fake::new([1, 1, instances]);
        setup.finder.host.catalog = fake.host.catalog.clone();
        (0..instances).for_each(|number| setup.store(number));
        for _ in 0..2 {
            let before = setup.names();
            let (content, _) = setup.search(true, 0.0);
            assert_eq!(setup.names(), before);
            let refused = content["DeletionRefused"].as_str().unwrap_or_default();
            assert!(refused.contains(reason) && refused.is_empty() == reason.is_empty(), "{content}");
            assert_eq!(content["OlderThanIndex"], if reason.is_empty() { 10 } else { 0 });
        }
    }
}

#[test]
fn older_copy_of_the_database_deletes_nothing() {
    let mut setup = Setup::new(10);
    setup.search(false, 0.0);
    // The last attachments are in the marker. A copy of the database does not have them.
    setup.delete_instance(9);
    for _ in 0..3 {
        let reason = setup.refused();
        assert!(
            reason.contains("older copy") && reason.contains(&attachment(9).uuid.to_string()),
            "{reason}"
        );
    }
    setup.remove(&format!(".orthanc-object-storage/databases/{:0>32}", 1));
    let (content, _) = setup.search(true, 0.0);
    assert_eq!(content["DeletedObjects"], 1);
}

#[test]
fn database_with_fewer_changes_is_an_older_copy() {
    let mut setup = Setup::new(10);
    setup.search(false, 0.0);
    // Stored after the search, and not in the copy.
    setup.store(77);
    *setup.database.1.lock() = Some(90);
    let reason = setup.refused();
    assert!(reason.contains("number 90, and had 100"), "{reason}");
    // The copy has had more changes since.
    *setup.database.1.lock() = Some(200);
    let reason = setup.refused();
    assert!(reason.contains("noticed earlier"), "{reason}");
    setup.remove(&format!(".orthanc-object-storage/databases/{:0>32}", 1));
    let (content, _) = setup.search(true, 0.0);
    assert_eq!(content["DeletedObjects"], 1);
}

#[test]
fn older_copy_that_only_the_keeper_notices_deletes_nothing() {
    let mut setup = Setup::new(10);
    setup.keep_marker();
    setup.store(77);
    setup.search(false, 0.0);
    // There is no search until the copy has had more changes than the database before.
    *setup.database.1.lock() = Some(90);
    setup.keep_marker();
    *setup.database.1.lock() = Some(200);
    setup.keep_marker();
    let reason = setup.refused();
    assert!(reason.contains("noticed earlier"), "{reason}");
}

#[test]
fn failed_list_deletes_nothing() {
    let store = Arc::new(InMemory::new());
    let list = Arc::new(FailingList { store: Arc::clone(&store), fails: AtomicBool::new(false) });
    let options = BucketOptions {
        list: Some(Arc::<FailingList>::clone(&list)),
        list_page: 4,
        ..BucketOptions::new(store, "memory://bucket")
    };
    let mut setup = Setup::with(5, options);
    (0..5).chain([77]).for_each(|number| setup.store(number));
    setup.search(false, 0.0);
    let before = setup.names();
    list.fails.store(true, Ordering::Relaxed);
    let work = setup.finder.work(Parameters { delete: true, min_age_hours: 0.0 });
    let mut job = StorageJob::new(setup.finder.host.clone(), work, Scope::Everything);
    let mut step = JobStep::Continue;
    while step == JobStep::Continue {
        step = job.step();
    }
    assert_eq!(step, JobStep::Failure);
    // One of these is an orphan of both searches.
    assert_eq!((&job.content()["Objects"], &job.content()["OrphanObjects"]), (&4.into(), &1.into()));
    job.stop(StopReason::Failure);
    list.fails.store(false, Ordering::Relaxed);
    assert_eq!(setup.names(), before);
    let (content, _) = setup.search(true, 0.0);
    assert_eq!((&content["DeletedObjects"], setup.names().len()), (&1.into(), 5));
}

/// Lists a bucket in memory, the last names first. The second page fails if it is told to.
struct FailingList {
    store: Arc<InMemory>,
    fails: AtomicBool,
}

#[async_trait]
impl ListObjects for FailingList {
    async fn list(&self, request: &ListRequest) -> object_store::Result<ListPage> {
        let begin: usize = match &request.next {
            Some(NextPage::Token(_)) if self.fails.load(Ordering::Relaxed) => return Err(list_error()),
            Some(NextPage::Token(token)) => token.parse().unwrap(),
            _ => 0,
        };
        let mut found: Vec<_> = self.store.list(None).try_collect().await?;
        found.retain(|object| object.location.as_ref().starts_with(&request.prefix));
        found.sort_by(|one, other| other.location.cmp(&one.location));
        let end = found.len().min(begin + request.limit);
        let objects = found[begin..end].iter().map(|object| ListedObject {
            name: object.location.to_string(),
            size: object.size,
            modified: object.last_modified.into(),
        });
        Ok(ListPage {
            objects: objects.collect(),
            next: (end < found.len()).then(|| NextPage::Token(end.to_string())),
            server_time: None,
        })
    }
}

fn list_error() -> object_store::Error {
    object_store::Error::NotImplemented { operation: "list".to_owned(), implementer: "test".to_owned() }
}

/// A bucket with the objects of many attachments, of which nothing is in memory.
struct FakeList {
    /// The number of the first one.
    first: u32,
    objects: u32,
}

#[async_trait]
impl ListObjects for FakeList {
    async fn list(&self, request: &ListRequest) -> object_store::Result<ListPage> {
        if request.prefix.contains("databases") {
            return Ok(ListPage::default());
        }
        let begin: u32 = match &request.next {
            Some(NextPage::Token(token)) => token.parse().unwrap(),
            _ => self.first,
        };
        let end = self.objects.min(begin + u32::try_from(request.limit).unwrap());
        let objects = (begin..end).map(|number| ListedObject {
            name: name(number),
            size: 100,
            modified: UNIX_EPOCH + Duration::from_secs(number.into()),
        });
        Ok(ListPage {
            objects: objects.collect(),
            next: (end < self.objects).then(|| NextPage::Token(end.to_string())),
            server_time: Some(SystemTime::now()),
        })
    }
}

/// Most memory that this process has had, in bytes.
#[cfg(target_os = "linux")]
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
#[cfg(target_os = "linux")]
fn million_attachments_take_little_memory() {
    const MANY: u32 = 1_000_000;
    const LISTED: u32 = 100_000;
    // The rest of the list would only take time: one page is in memory.
    let list = FakeList { first: MANY - LISTED, objects: MANY + 5 };
    let options = BucketOptions {
        list: Some(Arc::new(list)),
        ..BucketOptions::new(Arc::new(InMemory::new()), "memory://bucket")
    };
    let setup = Setup::with(0, options);
    let before = peak_memory();
    let work = setup.finder.work(Parameters { delete: false, min_age_hours: 24.0 });
    let turn = work.enter(&Arc::new(Family::default())).unwrap();
    for begin in (0..MANY).step_by(1000) {
        let batch = (begin..begin + 1000).map(|number| Indexed {
            resource: Resource::new(Level::Instance, String::new()),
            name: String::new(),
            attachment: attachment(number),
            size: 100,
            md5: None,
        });
        let batch = work.begin(batch.collect(), 8, Arc::clone(&turn));
        assert_eq!(batch.results.iter().count(), 1000);
    }
    let mut orphans = Vec::new();
    let mut objects = 0;
    while let After::More(handled) = work.after().unwrap() {
        objects += handled.counts.iter().filter(|(name, _)| *name == "Objects").count();
        orphans.extend(handled.problems.into_iter().filter_map(|problem| problem.object));
    }
    assert_eq!(objects, LISTED as usize + 5);
    assert_eq!(orphans, (MANY..MANY + 5).map(|number| url(&name(number))).collect::<Vec<_>>());
    let taken = peak_memory() - before;
    assert!(taken < 32 * u64::from(MANY) + 10_000_000, "{taken}");
}
