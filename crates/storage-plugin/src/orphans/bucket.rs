//! What the list of the bucket says.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use bucket::{ListedObject, ObjectStorage};
use hybrid::Orphan;
use storage_layout::{AttachmentUuid, NameKind, NamedObject, ObjectNames};

use super::earlier::Earlier;
use super::findings::orphan_object;
use super::index::Index;
use super::search::{NEWEST, is_busy};
use crate::jobs::Handled;

/// What the list has said so far.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// When the search has begun, by the clock that the objects' times are compared with.
    pub(super) now: Option<SystemTime>,
    /// Objects of attachments in the index.
    pub(super) known: u64,
    pub(super) orphans: u64,
    /// When the oldest object of an attachment in the index was stored.
    pub(super) oldest: Option<SystemTime>,
    /// The attachments in the index whose objects were stored last.
    pub(super) newest: Vec<(SystemTime, AttachmentUuid)>,
    /// Attachments that were in the index, or in that of another database of which this one is a copy, according to the
    /// markers with these ids.
    pub(super) missing: HashMap<AttachmentUuid, String>,
    /// Those of these that have an object.
    pub(super) lost: BTreeMap<AttachmentUuid, String>,
    /// Orphans that the search before has found too.
    pub(super) candidates: Vec<Orphan>,
    /// Those among them that may be of Orthancs with other root paths, if there are any.
    pub(super) shared: Vec<Orphan>,
    /// Whether an Orthanc with another root path has attachments in the bucket.
    pub(super) has_other_root: bool,
}

impl Bucket {
    /// Takes note of objects: those that were stored after `limit` are too young to be orphans.
    #[expect(clippy::too_many_arguments, reason = "all of them are compared with each object")]
    pub(super) fn take(
        &mut self,
        objects: Vec<ListedObject>,
        storage: &ObjectStorage,
        index: &Index,
        busy: &[u128],
        limit: SystemTime,
        earlier: Option<&Earlier>,
        handled: &mut Handled,
    ) {
        let names = storage.object_names();
        for object in objects {
            handled.counts.push(("Objects", 1));
            let Some(NamedObject { uuid, kind }) = names.attachment_of(&object.name) else {
                handled.counts.push(("ForeignObjects", 1));
                self.has_other_root |= is_of_other_root(&object.name);
                continue;
            };
            if index.contains(&uuid) {
                self.take_known(uuid, object.modified);
                continue;
            }
            if is_busy(busy, &uuid) {
                handled.counts.push(("PendingDeletions", 1));
                continue;
            }
            if let Some(id) = self.missing.remove(&uuid) {
                self.lost.insert(uuid, id);
            }
            if object.modified > limit {
                handled.counts.push(("YoungObjects", 1));
                continue;
            }
            self.orphans += 1;
            handled.counts.extend([("OrphanObjects", 1), ("OrphanBytes", object.size)]);
            let url = storage.named_url(&object.name);
            let is_candidate = earlier.is_some_and(|earlier| earlier.has(&url, &object));
            let now = self.now.unwrap_or(object.modified);
            handled.problems.push(orphan_object(url, &uuid, &object, kind, now));
            match kind {
                _ if !is_candidate => {}
                NameKind::Flat | NameKind::Legacy => self.candidates.push(Orphan { uuid, object }),
                NameKind::KeyVault | NameKind::Sidecar => self.shared.push(Orphan { uuid, object }),
            }
        }
    }

    /// Gives up the blobs of the earlier plugin for Azure Key Vault if they may be of another Orthanc: that plugin stored
    /// the blobs of all Orthancs in the root of the container, whatever their root paths. Returns what must be kept.
    pub(super) fn keep_shared(&mut self, names: &ObjectNames) -> Vec<Orphan> {
        let shared = std::mem::take(&mut self.shared);
        if self.has_other_root || !names.root.join("").is_empty() {
            return shared;
        }
        self.candidates.extend(shared);
        Vec::new()
    }

    fn take_known(&mut self, uuid: AttachmentUuid, modified: SystemTime) {
        self.known += 1;
        self.oldest = Some(self.oldest.map_or(modified, |oldest| oldest.min(modified)));
        self.newest.push((modified, uuid));
        if self.newest.len() > NEWEST {
            self.newest.sort_unstable_by(|one, other| other.cmp(one));
            self.newest.truncate(NEWEST);
        }
    }
}

/// Whether a foreign object shows that an Orthanc with a root path uses the bucket.
fn is_of_other_root(name: &str) -> bool {
    let Some((folders, last)) = name.rsplit_once('/') else { return false };
    let is_attachment = |name| ObjectNames::default().attachment_of(name).is_some();
    is_attachment(last)
        || is_legacy_below_folder(name)
        || (folders.ends_with("/.orthanc-object-storage/databases") && !last.is_empty())
}

/// Whether a name is a folder, and a name in the legacy structure.
fn is_legacy_below_folder(name: &str) -> bool {
    let begin = name.rmatch_indices('/').nth(2).map(|(slash, _)| slash + 1);
    begin.and_then(|begin| name.get(begin..)).is_some_and(|rest| {
        ObjectNames::default().attachment_of(rest).is_some_and(|found| found.kind == NameKind::Legacy)
    })
}
