//! What a search reports.

use std::time::SystemTime;

use bucket::{ListedObject, ObjectStorage, StorageError};
use hybrid::{Orphan, StoredFile, StoredKind};
use serde_json::{Map, Value, json};
use storage_layout::{AttachmentUuid, NameKind};

use super::earlier::time;
use crate::jobs::Problem;

/// An object that belongs to no attachment.
pub(super) fn orphan_object(
    url: String,
    uuid: &AttachmentUuid,
    object: &ListedObject,
    kind: NameKind,
    now: SystemTime,
) -> Problem {
    let advice = match kind {
        NameKind::Flat | NameKind::Legacy => "delete it with {\"Delete\": true} in the next search",
        NameKind::KeyVault | NameKind::Sidecar => {
            "delete it with {\"Delete\": true} in the next search; if any Orthanc uses the container with a RootPath, delete \
             it yourself, since the earlier plugin for Azure Key Vault stored the blobs of all Orthancs in the root of the \
             container"
        }
    };
    orphan("orphan-object", url, uuid, object, now, advice)
}

/// A file in `StorageDirectory` that belongs to no attachment.
pub(super) fn orphan_file(uuid: &AttachmentUuid, file: &ListedObject, now: SystemTime) -> Problem {
    let advice = "delete it with {\"Delete\": true} in the next search";
    orphan("orphan-file", file.name.clone(), uuid, file, now, advice)
}

fn orphan(
    kind: &'static str,
    url: String,
    uuid: &AttachmentUuid,
    object: &ListedObject,
    now: SystemTime,
    advice: &'static str,
) -> Problem {
    let error = format!("it belongs to attachment {uuid}, which is not in Orthanc's index");
    let facts = facts(uuid, object.size, object.modified, now);
    Problem { object: Some(url), advice: Some(advice.to_owned()), facts, ..Problem::new(kind, error) }
}

/// A file in the state directory that belongs to no attachment.
pub(super) fn orphan_state_file(file: &StoredFile, now: SystemTime) -> Problem {
    let (kind, advice) = match file.kind {
        StoredKind::Pending => (
            "orphan-pending",
            "it will be uploaded, and can then be deleted; if Orthanc's index is lost, it may be the only copy",
        ),
        StoredKind::Quarantined => ("orphan-quarantined", "it is damaged; delete it if you do not need it"),
        StoredKind::Cached | StoredKind::Deleting => {
            ("orphan-cached", "nothing need be done: it is evicted like any other cached file")
        }
    };
    let error = format!("it belongs to attachment {}, which is not in Orthanc's index", file.uuid);
    let facts = facts(&file.uuid, file.size, file.modified, now);
    let object = Some(file.path.display().to_string());
    Problem { object, advice: Some(advice.to_owned()), facts, ..Problem::new(kind, error) }
}

/// An orphan that has been deleted.
pub(super) fn deleted(url: String, uuid: &AttachmentUuid) -> Problem {
    let error = format!("deleted, since it belonged to attachment {uuid}, which is not in Orthanc's index");
    Problem { object: Some(url), facts: fact_uuid(uuid), ..Problem::new("deleted", error) }
}

/// A blob of the earlier plugin for Azure Key Vault that may be of another Orthanc.
pub(super) fn kept_shared(objects: &ObjectStorage, Orphan { uuid, object }: &Orphan) -> Problem {
    let error = "it may belong to another Orthanc: the container is used with a RootPath, which the earlier plugin for Azure \
                 Key Vault ignored";
    let advice = "delete it yourself if no other Orthanc has its attachment";
    let object = Some(objects.named_url(&object.name));
    let facts = fact_uuid(uuid);
    Problem {
        object,
        advice: Some(advice.to_owned()),
        facts,
        ..Problem::new("not-deleted", error.to_owned())
    }
}

/// An orphan that is older than everything that the index knows.
pub(super) fn older_than_index(url: String, uuid: &AttachmentUuid) -> Problem {
    let error = "it is older than everything that the database has been seen to know, so that it may be of an earlier database";
    let advice = "delete it yourself if there is no such database";
    let facts = fact_uuid(uuid);
    Problem {
        object: Some(url),
        advice: Some(advice.to_owned()),
        facts,
        ..Problem::new("not-deleted", error.to_owned())
    }
}

/// An orphan that could not be deleted.
pub(super) fn not_deleted(url: String, uuid: &AttachmentUuid, error: &StorageError) -> Problem {
    Problem { object: Some(url), facts: fact_uuid(uuid), ..Problem::of("not-deleted", error) }
}

fn fact_uuid(uuid: &AttachmentUuid) -> Map<String, Value> {
    Map::from_iter([("Uuid".to_owned(), json!(uuid.as_str()))])
}

fn facts(uuid: &AttachmentUuid, size: u64, modified: SystemTime, now: SystemTime) -> Map<String, Value> {
    let hours = now.duration_since(modified).unwrap_or_default().as_secs() / 3600;
    let mut facts = fact_uuid(uuid);
    for (field, value) in
        [("Size", json!(size)), ("Modified", json!(time(modified))), ("AgeHours", json!(hours))]
    {
        facts.insert(field.to_owned(), value);
    }
    facts
}
