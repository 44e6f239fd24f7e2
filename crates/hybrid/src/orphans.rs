//! Removes what belongs to no attachment, if it is still what was found.

use std::collections::HashMap;

use bucket::{ListedObject, StorageError, blocking};
use futures_util::{StreamExt as _, stream};
use storage_layout::AttachmentUuid;

use crate::storage::HybridStorage;

/// Maximum number of simultaneous requests that look at objects before they are deleted.
const CONNECTIONS: usize = 4;

/// An object or a file that belongs to no attachment of Orthanc's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// The attachment that it belonged to.
    pub uuid: AttachmentUuid,
    /// As it was listed.
    pub object: ListedObject,
}

/// What became of an orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrphanRemoval {
    /// It has been deleted.
    Removed,
    /// It had been deleted before.
    Gone,
    /// It has been replaced, or something works on the attachment, so that it was not deleted.
    Kept,
}

impl HybridStorage {
    /// Deletes orphans in the bucket. Looks at each object just before: one that has changed is kept, and so is one whose
    /// attachment is being moved or is pending. Returns a result for each orphan, in their order.
    pub async fn remove_orphans(&self, orphans: &[Orphan]) -> Vec<Result<OrphanRemoval, StorageError>> {
        // An attachment may have several objects.
        let mut claims = HashMap::new();
        for Orphan { uuid, .. } in orphans {
            claims.entry(*uuid).or_insert_with(|| self.claims.try_for_orphan(*uuid));
        }
        let looks = orphans.iter().map(|Orphan { uuid, object }| {
            let is_claimed = matches!(claims.get(uuid), Some(Some(_)));
            self.look_at(object.clone(), is_claimed)
        });
        let looked: Vec<Look> = stream::iter(looks.collect::<Vec<_>>()).buffered(CONNECTIONS).collect().await;
        let to_remove = orphans.iter().zip(&looked).filter(|(_, look)| look.is_none());
        let names: Vec<String> = to_remove.map(|(orphan, _)| orphan.object.name.clone()).collect();
        let mut deleted = self.objects().delete_objects(&names).await.into_iter();
        let outcome = |look: Look| match look {
            Some(removal) => removal,
            None => deleted
                .next()
                .map_or(Ok(OrphanRemoval::Kept), |deleted| deleted.map(|()| OrphanRemoval::Removed)),
        };
        let outcomes = looked.into_iter().map(outcome).collect();
        drop(claims);
        outcomes
    }

    /// Looks at an object before it is deleted.
    async fn look_at(&self, object: ListedObject, is_claimed: bool) -> Look {
        if !is_claimed {
            return Some(Ok(OrphanRemoval::Kept));
        }
        match self.objects().inspect(&object.name).await {
            Ok(Some(now)) if is_same(&now, &object) => None,
            Ok(Some(_)) => Some(Ok(OrphanRemoval::Kept)),
            Ok(None) => Some(Ok(OrphanRemoval::Gone)),
            Err(error) => Some(Err(error)),
        }
    }

    /// Deletes the file of an orphan in `StorageDirectory`, if it is still what was found.
    ///
    /// # Errors
    ///
    /// If the file still exists.
    pub async fn remove_orphan_file(&self, orphan: &Orphan) -> Result<OrphanRemoval, StorageError> {
        let Some(files) = self.files().cloned() else { return Ok(OrphanRemoval::Kept) };
        let Some(claim) = self.claims.try_for_orphan(orphan.uuid) else { return Ok(OrphanRemoval::Kept) };
        let Orphan { uuid, object } = orphan.clone();
        blocking(move || {
            let _claim = claim;
            match files.listed(&uuid) {
                Some(now) if is_same(&now, &object) => files
                    .remove(&uuid)
                    .map(|existed| if existed { OrphanRemoval::Removed } else { OrphanRemoval::Gone }),
                Some(_) => Ok(OrphanRemoval::Kept),
                None => Ok(OrphanRemoval::Gone),
            }
        })
        .await
    }
}

/// What a look at an orphan says: what has become of it, or nothing if it is to be deleted.
type Look = Option<Result<OrphanRemoval, StorageError>>;

/// Whether an object is still the one that was listed. Lists have fractions of seconds that other answers do not have.
fn is_same(now: &ListedObject, listed: &ListedObject) -> bool {
    let seconds = |object: &ListedObject| {
        let time = object.modified.duration_since(std::time::UNIX_EPOCH);
        time.map(|time| time.as_secs()).unwrap_or_default()
    };
    now.size == listed.size && seconds(now) == seconds(listed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use bucket::{Bucket, BucketOptions, ObjectStorage, Payload};
    use object_store::memory::InMemory;
    use storage_layout::{Attachment, ContentType, Layout};

    use super::*;

    fn uuid(number: u32) -> AttachmentUuid {
        AttachmentUuid::new(&format!("fb4b5a2e-8b2d-4c5f-9d62-7d0d{number:08x}")).unwrap()
    }

    async fn with_objects(count: u32) -> (HybridStorage, Vec<Orphan>) {
        let bucket = Bucket::new(BucketOptions::new(Arc::new(InMemory::new()), "memory://bucket"));
        let objects = ObjectStorage::new(bucket, Layout::default(), false, false);
        for number in 0..count {
            let attachment = Attachment { uuid: uuid(number), content_type: ContentType::DICOM };
            objects.create(&attachment, Payload::Owned("DICM".into())).await.unwrap();
        }
        let page = objects.list().next_page().await.unwrap().unwrap();
        let names = objects.object_names();
        let orphans = page
            .objects
            .into_iter()
            .map(|object| Orphan { uuid: names.attachment_of(&object.name).unwrap().uuid, object });
        (HybridStorage::objects_only(objects), orphans.collect())
    }

    #[tokio::test]
    async fn only_what_was_listed_is_deleted() {
        let (storage, mut orphans) = with_objects(6).await;
        assert_eq!(orphans.len(), 6);
        orphans[0].object.size += 1;
        orphans[1].object.modified = UNIX_EPOCH + Duration::from_secs(1);
        orphans[2].object.name.push_str(".enc");
        let moving = storage.claims.for_move(uuid(3)).await;
        let outcomes: Result<Vec<_>, _> = storage.remove_orphans(&orphans).await.into_iter().collect();
        let (kept, gone, removed) = (OrphanRemoval::Kept, OrphanRemoval::Gone, OrphanRemoval::Removed);
        assert_eq!(outcomes.unwrap(), [kept, kept, gone, kept, removed, removed]);
        assert!(!moving.is_removed(), "the attachment is not deleted");
        let left = storage.objects().list().next_page().await.unwrap().unwrap().objects.len();
        assert_eq!(left, 4);
    }
}
