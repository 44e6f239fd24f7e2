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
            let is_candidate =
                is_own(kind, &names) && earlier.is_some_and(|earlier| earlier.has(&url, &object));
            let now = self.now.unwrap_or(object.modified);
            handled.problems.push(orphan_object(url, &uuid, &object, kind, now));
            if is_candidate {
                self.candidates.push(Orphan { uuid, object });
            }
        }
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

/// Whether an object is certainly of this Orthanc: blobs of the earlier plugin for Azure Key Vault are outside the root
/// path, where those of other Orthancs may be.
fn is_own(kind: NameKind, names: &ObjectNames) -> bool {
    match kind {
        NameKind::Flat | NameKind::Legacy => true,
        NameKind::KeyVault | NameKind::Sidecar => names.root.join("").is_empty(),
    }
}
