//! `GET /object-storage/locations/{id}`: where the attachments of a resource are.

use std::time::Duration;

use bucket::{ArchiveState, Naming, RetryPolicy, Seeker, StorageError};
use crypto_envelope::{RECOGNIZE_LEN, identify, recognize};
use futures_util::{StreamExt as _, TryStreamExt as _};
use hybrid::{HybridStorage, Side, StoredCopy};
use orthanc_ffi::{RestAnswer, RestFailure, RestRequest};
use serde_json::{Value, json};

use super::query::number;
use crate::catalog::{Catalog, CatalogError, Indexed, Resource, unknown_id};
use crate::context::Context;
use crate::operations::metrics::iso_8601;
use crate::walk::{Cursor, Walk};

/// Attachments located at once.
const AT_ONCE: usize = 16;
/// Attachments in an answer, unless the request says otherwise.
const PAGE: usize = 1000;
/// Maximum number of attachments in an answer.
const LARGEST_PAGE: usize = 10_000;
/// The location of attachments that are nowhere.
const MISSING: &str = "missing";
/// A user waits for the answer, so an unreachable bucket must end it soon.
const IMPATIENT: RetryPolicy = RetryPolicy {
    max_retries: 2,
    deadline: Duration::from_secs(10),
    patience: Duration::from_secs(10),
    first_pause: Duration::from_millis(100),
    longest_pause: Duration::from_secs(1),
};

/// Locates the attachments of a resource and of everything below it, in pages.
pub(super) fn answer(context: &Context, request: &RestRequest<'_>) -> Result<RestAnswer, RestFailure> {
    let id = request.groups().first().copied().unwrap_or_default();
    let since = number(request, "since", 0, 0..=usize::MAX)?;
    let limit = number(request, "limit", PAGE, 1..=LARGEST_PAGE)?;
    let catalog = context.catalog();
    let resource = catalog.find(id)?.ok_or_else(|| unknown_id(id))?;
    let attachments = page(&catalog, resource, since, limit)?;
    let storage = context.storage.clone().with_retry(IMPATIENT);
    let located = context.run_until_stopped(locate(storage, attachments));
    match located.ok_or(CatalogError::Stopped)? {
        Ok(locations) => Ok(RestAnswer::json(&Value::Array(locations))),
        Err(error) => Err(RestFailure::Status { status: 502, message: error.to_string() }),
    }
}

/// The attachments from number `since` on, at most `limit`. Their order does not change while nothing is added
/// or deleted.
fn page(
    catalog: &Catalog,
    resource: Resource,
    since: usize,
    limit: usize,
) -> Result<Vec<Indexed>, CatalogError> {
    let mut walk = Walk::new(vec![resource], &Cursor::default());
    let mut left = since;
    let mut page = Vec::new();
    while page.len() < limit
        && let Some(resource) = walk.next(catalog)?
    {
        let attachments = catalog.attachments(&resource)?;
        let passed = left.min(attachments.len());
        left -= passed;
        page.extend(attachments.into_iter().skip(passed));
    }
    page.truncate(limit);
    Ok(page)
}

/// Locates attachments, several at once, until one cannot be looked for. The answers are in the order of
/// `attachments`.
async fn locate(storage: HybridStorage, attachments: Vec<Indexed>) -> Result<Vec<Value>, StorageError> {
    let lookups = attachments.into_iter().map(|indexed| {
        let storage = storage.clone();
        async move {
            let copies = storage.locate(&indexed.attachment, RECOGNIZE_LEN as u64).await?;
            let mut location = location(&storage, &indexed, &copies);
            if location["Location"] == MISSING
                && let Some(hint) = storage.objects().hint(&indexed.attachment, Seeker::Locations).await
            {
                location["Hint"] = json!(hint);
            }
            Ok(location)
        }
    });
    futures_util::stream::iter(lookups).buffered(AT_ONCE).try_collect().await
}

fn location(storage: &HybridStorage, indexed: &Indexed, copies: &[StoredCopy]) -> Value {
    let object = copies.iter().find(|copy| copy.side == Side::ObjectStorage);
    let object_name = match object {
        Some(copy) => copy.head.name.clone(),
        None => storage.objects().object_name(&indexed.attachment),
    };
    let mut location = json!({
        "Level": indexed.resource.level.field(),
        "Resource": indexed.resource.id,
        "Name": indexed.name,
        "Uuid": indexed.attachment.uuid.as_str(),
        "Type": indexed.attachment.content_type.0,
        "Size": indexed.size,
        "Location": summary(copies.iter().map(|copy| copy.side)),
        "ObjectName": object_name,
        "Copies": copies.iter().map(copy_to_json).collect::<Vec<_>>(),
    });
    show_archive(&mut location, object.map(|copy| copy.archive).unwrap_or_default());
    // The form of the copy that a read would get.
    if let Some(first) = copies.first() {
        let Form { format, key_id } = form(first);
        location["Format"] = json!(format);
        location["KeyId"] = json!(key_id);
    }
    location
}

/// Where an attachment is. A cached copy alone does not count, since it can be evicted at any time.
fn summary(copies: impl Iterator<Item = Side>) -> &'static str {
    let sides: Vec<Side> = copies.collect();
    let has = |side| sides.contains(&side);
    match (has(Side::ObjectStorage), has(Side::FileSystem)) {
        _ if has(Side::Pending) => Side::Pending.as_str(),
        (true, true) => "both",
        (true, false) if has(Side::Cache) => Side::Cache.as_str(),
        (true, false) => Side::ObjectStorage.as_str(),
        (false, true) => Side::FileSystem.as_str(),
        (false, false) => MISSING,
    }
}

fn copy_to_json(copy: &StoredCopy) -> Value {
    let Form { format, key_id } = form(copy);
    let mut shown = json!({
        "Storage": copy.side.as_str(),
        "Name": copy.head.name,
        "StoredSize": copy.head.size,
        "Format": format,
        "KeyId": key_id,
    });
    show_archive(&mut shown, copy.archive);
    shown
}

fn show_archive(fields: &mut Value, state: ArchiveState) {
    let until = match state {
        ArchiveState::Restored { until } => until.map(iso_8601),
        ArchiveState::Online | ArchiveState::Archived { .. } | ArchiveState::Restoring => None,
    };
    fields["Archived"] = json!(!state.is_readable());
    fields["Restoring"] = json!(state == ArchiveState::Restoring);
    fields["RestoredUntil"] = json!(until);
}

struct Form {
    /// `clear`, `A1`, `A2` or `key-vault-cbc`; `None` if the content cannot be read.
    format: Option<String>,
    /// The id of the master key, unless it is in a key service.
    key_id: Option<u32>,
}

fn form(copy: &StoredCopy) -> Form {
    let header = match copy.head.naming {
        Naming::KeyVault => return Form { format: Some("key-vault-cbc".to_owned()), key_id: None },
        Naming::Clear => None,
        Naming::Either => recognize(&copy.start, None),
        Naming::Envelope => identify(&copy.start),
    };
    match header {
        _ if copy.is_archived() => Form { format: None, key_id: None },
        Some(header) => Form { format: Some(header.format.to_string()), key_id: header.master_key_id() },
        None => Form { format: Some("clear".to_owned()), key_id: None },
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use crypto_envelope::{Format, KeyRing, MasterKey, encrypt};
    use hybrid::{Head, Version};

    use super::*;

    #[test]
    fn cached_copy_alone_does_not_count() {
        use Side::{Cache, FileSystem, ObjectStorage, Pending};
        for (sides, expected) in [
            (&[][..], "missing"),
            (&[Cache], "missing"),
            (&[Cache, ObjectStorage], "cached"),
            (&[Cache, FileSystem], "file-system"),
            (&[Cache, ObjectStorage, FileSystem], "both"),
            (&[ObjectStorage, FileSystem], "both"),
            (&[ObjectStorage], "object-storage"),
            (&[FileSystem], "file-system"),
            (&[Pending], "pending"),
            // The upload may have ended without a confirmation.
            (&[Pending, ObjectStorage], "pending"),
        ] {
            assert_eq!(summary(sides.iter().copied()), expected, "{sides:?}");
        }
    }

    #[test]
    fn content_decides_where_the_name_does_not() {
        let ring = KeyRing::new(3, MasterKey::new(&[7; 32]).unwrap(), []).unwrap();
        let envelope = encrypt(&ring, Format::A1, "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11", &[0; 500]).unwrap();
        let dicom = [b"A1\x03\0\0\0".as_slice(), &[0; 122], b"DICM", &[0; 500]].concat();
        let clear = (Some("clear".to_owned()), None);
        let a1 = (Some("A1".to_owned()), Some(3));
        // Key wrap algorithm 3, and random bytes.
        let of_service = [b"A2\0\0\0\0\x03\x10\x80\0".as_slice(), &envelope[10..]].concat();
        let a2 = (Some("A2".to_owned()), None);
        let blob = (Some("key-vault-cbc".to_owned()), None);
        for (naming, content, expected) in [
            (Naming::Either, &envelope, &a1),
            (Naming::Either, &dicom, &clear),
            (Naming::Envelope, &envelope, &a1),
            (Naming::Clear, &envelope, &clear),
            (Naming::Either, &of_service, &a2),
            (Naming::Envelope, &of_service, &a2),
            (Naming::KeyVault, &envelope, &blob),
        ] {
            let size = content.len() as u64;
            let version = Version::File(SystemTime::UNIX_EPOCH);
            let head = Head { name: String::new(), naming, size, range: 0..size, sidecar: None, version };
            let start = content[..RECOGNIZE_LEN].to_vec().into();
            let Form { format, key_id } =
                form(&StoredCopy { side: Side::FileSystem, head, start, archive: ArchiveState::Online });
            assert_eq!((format, key_id), *expected, "{naming:?}");
        }
    }
}
