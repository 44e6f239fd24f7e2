//! Deletes orphans, in portions.

use bucket::{ListedObject, ObjectStorage, StorageError};
use hybrid::{HybridStorage, Orphan, OrphanRemoval};
use storage_layout::Attachment;

use super::findings::{deleted, not_deleted};
use super::task::Task;
use super::work::Finder;
use crate::jobs::{Handled, JobError};

/// Orphans that are deleted together.
const BATCH: usize = 64;

type Outcome = Result<OrphanRemoval, StorageError>;

/// Deletes orphans.
#[derive(Debug)]
pub(super) struct Removal {
    /// In reverse order.
    left: Vec<(Place, Orphan)>,
    running: Option<Running>,
}

/// Where orphans are, in the order in which they are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    File,
    Object,
    /// Deleted after its blob, which would be taken for content in clear without it.
    Sidecar,
}

#[derive(Debug)]
struct Running {
    place: Place,
    orphans: Vec<Orphan>,
    task: Task<Vec<Outcome>>,
}

impl Removal {
    pub(super) fn new(objects: Vec<Orphan>, files: Vec<Orphan>) -> Self {
        let files = files.into_iter().map(|orphan| (Place::File, orphan));
        let objects = objects.into_iter().map(|orphan| {
            let is_sidecar = Attachment::blob_of_sidecar(&orphan.object.name).is_some();
            (if is_sidecar { Place::Sidecar } else { Place::Object }, orphan)
        });
        let mut left: Vec<_> = files.chain(objects).collect();
        left.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
        Self { left, running: None }
    }

    /// Does one portion. Returns whether it was the last one.
    pub(super) fn advance(&mut self, finder: &Finder, handled: &mut Handled) -> Result<bool, JobError> {
        if let Some(running) = self.running.take() {
            match running.task.wait()? {
                None => self.running = Some(running),
                Some(outcomes) => running.finish(outcomes, finder.storage.objects(), handled),
            }
            return Ok(false);
        }
        let Some(place) = self.left.last().map(|(place, _)| *place) else { return Ok(true) };
        let mut orphans = Vec::new();
        while orphans.len() < BATCH
            && let Some((_, orphan)) = self.left.pop_if(|(next, _)| *next == place)
        {
            orphans.push(orphan);
        }
        let (storage, batch) = (finder.storage.clone(), orphans.clone());
        let work = async move { remove(&storage, place, &batch).await };
        let task = Task::spawn(finder.runtime.handle(), work);
        self.running = Some(Running { place, orphans, task });
        Ok(false)
    }
}

async fn remove(storage: &HybridStorage, place: Place, orphans: &[Orphan]) -> Vec<Outcome> {
    match place {
        Place::Object => storage.remove_orphans(orphans).await,
        Place::File => {
            let mut outcomes = Vec::new();
            for orphan in orphans {
                outcomes.push(storage.remove_orphan_file(orphan).await);
            }
            outcomes
        }
        Place::Sidecar => {
            let mut outcomes = Vec::new();
            for orphan in orphans {
                outcomes.push(remove_sidecar(storage, orphan).await);
            }
            outcomes
        }
    }
}

/// Deletes a sidecar, unless its blob is still there.
async fn remove_sidecar(storage: &HybridStorage, sidecar: &Orphan) -> Outcome {
    let blob = Attachment::blob_of_sidecar(&sidecar.object.name);
    if let Some(blob) = blob
        && storage.objects().inspect(blob).await?.is_some()
    {
        return Ok(OrphanRemoval::Kept);
    }
    let mut outcomes = storage.remove_orphans(std::slice::from_ref(sidecar)).await;
    outcomes.pop().unwrap_or(Ok(OrphanRemoval::Kept))
}

impl Running {
    fn finish(self, outcomes: Vec<Outcome>, objects: &ObjectStorage, handled: &mut Handled) {
        for (Orphan { uuid, object }, outcome) in self.orphans.into_iter().zip(outcomes) {
            let ListedObject { name, size, .. } = object;
            let url = if self.place == Place::File { name } else { objects.named_url(&name) };
            match outcome {
                Ok(OrphanRemoval::Removed) => {
                    tracing::info!("deleted {url}, which belongs to no attachment");
                    let count = if self.place == Place::File { "DeletedFiles" } else { "DeletedObjects" };
                    handled.counts.extend([(count, 1), ("DeletedBytes", size)]);
                    handled.problems.push(deleted(url, &uuid));
                }
                Ok(OrphanRemoval::Gone) => {}
                Ok(OrphanRemoval::Kept) => handled.counts.push(("NotDeleted", 1)),
                Err(error) => {
                    handled.counts.push(("NotDeleted", 1));
                    handled.problems.push(not_deleted(url, &uuid, &error));
                }
            }
        }
    }
}
