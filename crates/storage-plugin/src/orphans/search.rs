//! One search, in portions.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bucket::{ListPage, Listing, ObjectStorage, StorageError};
use hybrid::{FileListing, Orphan, StoredFiles, StoredKind};
use storage_layout::AttachmentUuid;

use super::JOB_TYPE;
use super::bucket::Bucket;
use super::database::{Known, Marker, MarkerError, Markers, Oldest, Past, marker_url, write_marker};
use super::earlier::Earlier;
use super::findings;
use super::index::Index;
use super::refusal::Refusal;
use super::removal::Removal;
use super::request::Parameters;
use super::task::Task;
use super::work::{Facts, Finder};
use crate::catalog::CatalogError;
use crate::jobs::{After, Handled, JobError, Problem};

/// The count of attachments in the index.
pub(super) const ATTACHMENTS: &str = "Attachments";
/// All counts in the content of the job.
pub(super) const COUNTERS: [&str; 15] = [
    ATTACHMENTS,
    "Objects",
    "ForeignObjects",
    "YoungObjects",
    "PendingDeletions",
    "OrphanObjects",
    "OrphanBytes",
    "OrphanFiles",
    "OrphanFileBytes",
    "OrphanStateFiles",
    "DeletedObjects",
    "DeletedFiles",
    "DeletedBytes",
    "NotDeleted",
    "OlderThanIndex",
];
/// Number of attachments in a marker that were stored last. As many are from all over the index.
pub(super) const NEWEST: usize = 8;

/// A search.
#[derive(Debug)]
pub(super) struct Search {
    parameters: Parameters,
    begun: Instant,
    /// By this machine's clock.
    begun_at: SystemTime,
    pub(super) index: Index,
    stage: Stage,
    /// The id of Orthanc's database; or why it is not known, or cannot be compared with others.
    database: Result<String, String>,
    markers: Markers,
    earlier: Option<Earlier>,
    /// Attachments whose deletion or upload is pending, sorted.
    busy: Vec<u128>,
    bucket: Bucket,
    /// Files in `StorageDirectory` that may be deleted.
    files: Vec<Orphan>,
    /// When the oldest file of an attachment was written.
    oldest_file: Option<SystemTime>,
}

#[derive(Debug)]
enum Stage {
    /// The index is being read.
    Index,
    /// The pending deletions and uploads are being read.
    Busy(StoredFiles),
    Markers(Task<Result<Markers, MarkerError>>),
    Pages(Task<(Listing, Result<Option<ListPage>, StorageError>)>),
    Files(FileListing),
    StateFiles(StoredFiles),
    Deciding,
    Removing(Removal),
    Noting(Task<Result<(), StorageError>>),
    Done,
}

impl Search {
    pub(super) fn new(parameters: Parameters) -> Self {
        Self {
            parameters,
            begun: Instant::now(),
            begun_at: SystemTime::now(),
            index: Index::default(),
            stage: Stage::Index,
            database: Err(String::new()),
            markers: Markers::default(),
            earlier: None,
            busy: Vec::new(),
            bucket: Bucket::default(),
            files: Vec::new(),
            oldest_file: None,
        }
    }

    /// Does one portion.
    ///
    /// # Errors
    ///
    /// If the bucket or a folder cannot be listed.
    pub(super) fn advance(&mut self, finder: &Finder, facts: &mut Facts) -> Result<After, JobError> {
        let mut handled = Handled::default();
        let stage = std::mem::replace(&mut self.stage, Stage::Done);
        self.stage = match stage {
            Stage::Index => self.after_index(finder, facts)?,
            Stage::Busy(mut files) => match files.next_folder()? {
                Some(found) => {
                    self.busy.extend(found.iter().map(|file| file.uuid.to_u128()));
                    Stage::Busy(files)
                }
                None => self.after_busy(finder, facts)?,
            },
            Stage::Markers(task) => match task.wait()? {
                None => Stage::Markers(task),
                Some(markers) => self.after_markers(markers, finder)?,
            },
            Stage::Pages(task) => match task.wait()? {
                None => Stage::Pages(task),
                Some((listing, Ok(Some(page)))) => {
                    self.take_page(page, finder, facts, &mut handled);
                    pages(finder, listing)
                }
                Some((_, Ok(None))) => match finder.storage.files() {
                    Some(files) => Stage::Files(files.list()),
                    None => state_files(finder)?,
                },
                Some((_, Err(error))) => return Err(error.into()),
            },
            Stage::Files(mut listing) => match listing.next_folder()? {
                Some(files) => {
                    files.into_iter().for_each(|file| self.take_file(file, &mut handled));
                    Stage::Files(listing)
                }
                None => state_files(finder)?,
            },
            Stage::StateFiles(mut files) => match files.next_folder()? {
                Some(found) => {
                    self.take_state_files(&found, &mut handled);
                    Stage::StateFiles(files)
                }
                None => Stage::Deciding,
            },
            Stage::Deciding => self.decide(finder, facts, &mut handled),
            Stage::Removing(mut removal) => match removal.advance(finder, &mut handled)? {
                true => self.note(finder),
                false => Stage::Removing(removal),
            },
            Stage::Noting(task) => match task.wait()? {
                None => Stage::Noting(task),
                Some(noted) => {
                    if let Err(error) = noted {
                        tracing::info!(
                            "cannot write the marker of Orthanc's database into the bucket: {error}"
                        );
                    }
                    Stage::Done
                }
            },
            Stage::Done => return Ok(After::Done),
        };
        if finder.host.reports.is_none() {
            log(&handled);
        }
        Ok(After::More(handled))
    }

    /// Begins to read the pending deletions and uploads.
    fn after_index(&mut self, finder: &Finder, facts: &mut Facts) -> Result<Stage, JobError> {
        self.index.seal();
        match &finder.state {
            Some(state) => Ok(Stage::Busy(state.stored_files(&[StoredKind::Deleting, StoredKind::Pending])?)),
            None => self.after_busy(finder, facts),
        }
    }

    /// Begins to read the markers.
    fn after_busy(&mut self, finder: &Finder, facts: &mut Facts) -> Result<Stage, JobError> {
        self.busy.sort_unstable();
        let objects = finder.storage.objects().clone();
        let id = match finder.database.id() {
            Ok(id) => id,
            Err(CatalogError::Stopped) => return Err(JobError::Stopped),
            Err(error) => {
                self.database = Err(error.to_string());
                return Ok(pages(finder, objects.list()));
            }
        };
        self.database = Ok(id.clone());
        facts.database = Some(id.clone());
        let database = Arc::clone(&finder.database);
        let read = async move { Markers::read(&objects, &id, database).await };
        Ok(Stage::Markers(Task::spawn(finder.runtime.handle(), read)))
    }

    /// Prepares what the objects are compared with.
    fn after_markers(
        &mut self,
        markers: Result<Markers, MarkerError>,
        finder: &Finder,
    ) -> Result<Stage, JobError> {
        let objects = finder.storage.objects();
        match markers {
            Ok(markers) => self.markers = markers,
            // Nothing will be deleted. The list shows whether the bucket can be read.
            Err(error) => {
                self.database = Err(error.to_string());
                return Ok(pages(finder, objects.list()));
            }
        }
        self.bucket.missing = self.markers.missing(&self.index);
        if let Some(reports) = &finder.host.reports {
            // Orthanc has another id after its machine or a port has changed.
            let ids: Vec<_> = self.markers.related(&self.index).map(|known| known.id.as_str()).collect();
            self.earlier = Earlier::read(reports, JOB_TYPE, &finder.host.place, &ids)?;
        }
        Ok(pages(finder, objects.list()))
    }

    fn take_page(&mut self, page: ListPage, finder: &Finder, facts: &mut Facts, handled: &mut Handled) {
        if self.bucket.now.is_none() {
            facts.clock = Some(if page.server_time.is_some() { "server" } else { "local" });
            // The server rounds its time down.
            let second = std::time::Duration::from_secs(1);
            let now = page.server_time.map(|time| time + second);
            let begun = now.map_or(Some(self.begun_at), |now| now.checked_sub(self.begun.elapsed()));
            self.bucket.now = Some(begun.unwrap_or(UNIX_EPOCH));
        }
        let newest = self.limit(self.bucket.now.unwrap_or(UNIX_EPOCH));
        self.bucket.take(
            page.objects,
            finder.storage.objects(),
            &self.index,
            &self.busy,
            newest,
            self.earlier.as_ref().filter(|_| self.parameters.delete),
            handled,
        );
    }

    /// The time after which objects are too young, if the search has begun at `begun`.
    fn limit(&self, begun: SystemTime) -> SystemTime {
        begun.checked_sub(self.parameters.min_age()).unwrap_or(UNIX_EPOCH)
    }

    fn take_file(&mut self, file: Orphan, handled: &mut Handled) {
        if self.index.contains(&file.uuid) {
            let modified = file.object.modified;
            self.oldest_file = Some(self.oldest_file.map_or(modified, |oldest| oldest.min(modified)));
            return;
        }
        if file.object.modified > self.limit(self.begun_at) || is_busy(&self.busy, &file.uuid) {
            return;
        }
        handled.counts.extend([("OrphanFiles", 1), ("OrphanFileBytes", file.object.size)]);
        handled.problems.push(findings::orphan_file(&file.uuid, &file.object, self.begun_at));
        let earlier = self.earlier.as_ref().filter(|_| self.parameters.delete);
        if earlier.is_some_and(|earlier| earlier.has(&file.object.name, &file.object)) {
            self.files.push(file);
        }
    }

    fn take_state_files(&mut self, files: &[hybrid::StoredFile], handled: &mut Handled) {
        let limit = self.limit(self.begun_at);
        for file in files.iter().filter(|file| file.modified <= limit && !self.index.contains(&file.uuid)) {
            handled.counts.push(("OrphanStateFiles", 1));
            handled.problems.push(findings::orphan_state_file(file, self.begun_at));
        }
    }

    /// Decides whether to delete what was found.
    fn decide(&mut self, finder: &Finder, facts: &mut Facts, handled: &mut Handled) -> Stage {
        if !self.parameters.delete {
            return self.note(finder);
        }
        if let Some(refusal) = self.refusal(finder) {
            tracing::warn!("orphans are not deleted: {refusal}");
            facts.refusal = Some(refusal.to_string());
            handled.problems.push(Problem::new("deletion-refused", refusal.to_string()));
            return self.note(finder);
        }
        for kept in self.bucket.keep_shared(&finder.storage.objects().object_names()) {
            handled.counts.push(("NotDeleted", 1));
            handled.problems.push(findings::kept_shared(finder.storage.objects(), &kept));
        }
        let objects = std::mem::take(&mut self.bucket.candidates);
        let files = std::mem::take(&mut self.files);
        // What is older than everything that the index knows may be of another database.
        let oldest = self.oldest();
        let mut known = |mut orphans: Vec<Orphan>,
                         oldest: Option<SystemTime>,
                         url: fn(&ObjectStorage, &str) -> String| {
            let is_known =
                |orphan: &mut Orphan| oldest.is_some_and(|oldest| orphan.object.modified >= oldest);
            let known = orphans.extract_if(.., is_known).collect::<Vec<_>>();
            handled.counts.push(("OlderThanIndex", orphans.len() as u64));
            let kept = orphans.iter().map(|orphan| {
                findings::older_than_index(url(finder.storage.objects(), &orphan.object.name), &orphan.uuid)
            });
            handled.problems.extend(kept);
            known
        };
        let objects = known(objects, oldest.object, ObjectStorage::named_url);
        let files = known(files, oldest.file, |_, path| path.to_owned());
        Stage::Removing(Removal::new(objects, files))
    }

    /// When the oldest object and file of attachments in the index were stored, now or at the time of earlier searches.
    fn oldest(&self) -> Oldest {
        let now = Oldest { object: self.bucket.oldest, file: self.oldest_file };
        now.and(self.markers.oldest(&self.index))
    }

    fn refusal(&self, finder: &Finder) -> Option<Refusal> {
        let objects = finder.storage.objects();
        if let Err(error) = &self.database {
            return Some(Refusal::UnknownDatabase(error.clone()));
        }
        if finder.host.reports.is_none() {
            return Some(Refusal::NoReports);
        }
        if let Some(marker) = self.markers.of_another(objects, &self.index) {
            return Some(Refusal::OtherDatabase { marker });
        }
        if self.index.len() == 0 {
            return Some(Refusal::EmptyIndex);
        }
        if let Some((evidence, id)) = self.evidence() {
            return Some(Refusal::OlderIndex { evidence, marker: marker_url(objects, id) });
        }
        let &Bucket { orphans, known, .. } = &self.bucket;
        if orphans > known {
            return Some(Refusal::MostlyOrphans { orphans, known });
        }
        self.earlier.is_none().then_some(Refusal::FirstSearch)
    }

    /// Why the index seems to be older than the one that a marker is about, or to be one of a copy; with the id in the marker.
    fn evidence(&self) -> Option<(String, &str)> {
        let of_object = self.bucket.lost.iter().next().map(|(uuid, id)| {
            let evidence = format!(
                "there is an object of attachment {uuid}, which was in the index, and was not deleted since"
            );
            (evidence, id.as_str())
        });
        self.markers.evidence(&self.index).or(of_object)
    }

    /// Notes attachments in the marker of the database, or that the index is an older one.
    fn note(&mut self, finder: &Finder) -> Stage {
        let oldest = self.oldest();
        let Ok(id) = self.database.clone() else { return Stage::Done };
        let Known { marker: own, past, .. } = &self.markers.own;
        let marker = match past {
            Past::Other(_) => Marker { is_older: true, ..own.clone() },
            // The marker is what shows it. This may end when another Orthanc carries out its deletions.
            _ if self.bucket.lost.values().any(|of| *of == id) => return Stage::Done,
            Past::Same | Past::Unknown => {
                let mut attachments = self.index.sample(NEWEST);
                let newest = std::mem::take(&mut self.bucket.newest);
                attachments.extend(newest.into_iter().map(|(_, uuid)| uuid));
                let Markers { changes, changed_at, .. } = self.markers.clone();
                Marker { attachments, changes, changed_at, is_older: false, oldest }
            }
        };
        let objects = finder.storage.objects().clone();
        let write = async move { write_marker(&objects, &id, &marker).await };
        Stage::Noting(Task::spawn(finder.runtime.handle(), write))
    }
}

/// Asks for the next page.
fn pages(finder: &Finder, mut listing: Listing) -> Stage {
    let work = async move {
        let page = listing.next_page().await;
        (listing, page)
    };
    Stage::Pages(Task::spawn(finder.runtime.handle(), work))
}

fn state_files(finder: &Finder) -> Result<Stage, StorageError> {
    const KINDS: [StoredKind; 3] = [StoredKind::Pending, StoredKind::Quarantined, StoredKind::Cached];
    match &finder.state {
        Some(state) => Ok(Stage::StateFiles(state.stored_files(&KINDS)?)),
        None => Ok(Stage::Deciding),
    }
}

pub(super) fn is_busy(busy: &[u128], uuid: &AttachmentUuid) -> bool {
    busy.binary_search(&uuid.to_u128()).is_ok()
}

/// Logs what cannot be reported.
fn log(handled: &Handled) {
    for Problem { object, error, .. } in &handled.problems {
        tracing::warn!("{}: {error}", object.as_deref().unwrap_or("search for orphans"));
    }
}
