//! `GET /object-storage/locations/{id}`: where the attachments of a resource are.

use bucket::{Naming, StorageError};
use crypto_envelope::{RECOGNIZE_LEN, identify, recognize};
use futures_util::StreamExt as _;
use hybrid::{HybridStorage, Side, StoredCopy};
use orthanc_ffi::{RestAnswer, RestFailure};
use serde_json::{Value, json};

use crate::catalog::{CatalogError, Indexed, unknown_id};
use crate::context::Context;

/// Attachments located at once.
const AT_ONCE: usize = 16;

/// Locates the attachments of a resource and of everything below it.
pub(super) fn answer(context: &Context, id: &str) -> Result<RestAnswer, RestFailure> {
    let catalog = context.catalog();
    let resource = catalog.find(id)?.ok_or_else(|| unknown_id(id))?;
    let mut attachments = Vec::new();
    for resource in catalog.with_descendants(&resource)? {
        attachments.extend(catalog.attachments(&resource)?);
    }
    let located = context
        .run_until_stopped(locate(context.storage.clone(), attachments))
        .ok_or(RestFailure::from(CatalogError::Stopped))?;
    match located.into_iter().collect::<Result<Vec<Value>, StorageError>>() {
        Ok(locations) => Ok(RestAnswer::json(&Value::Array(locations))),
        Err(error) => Err(RestFailure::Status { status: 502, message: error.to_string() }),
    }
}

/// Locates attachments, several at once. The answers are in the order of `attachments`.
async fn locate(storage: HybridStorage, attachments: Vec<Indexed>) -> Vec<Result<Value, StorageError>> {
    let lookups = attachments.into_iter().map(|indexed| {
        let storage = storage.clone();
        async move {
            let copies = storage.locate(&indexed.attachment, RECOGNIZE_LEN as u64).await?;
            Ok(location(&storage, &indexed, &copies))
        }
    });
    futures_util::stream::iter(lookups).buffered(AT_ONCE).collect().await
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
        "Location": match copies {
            [] => "missing",
            [only] => only.side.as_str(),
            _ => "both",
        },
        "ObjectName": object_name,
        "Copies": copies.iter().map(copy_to_json).collect::<Vec<_>>(),
    });
    // The form of the copy that a read would get.
    if let Some(first) = copies.first() {
        let Form { format, key_id } = form(first);
        location["Format"] = json!(format);
        location["KeyId"] = json!(key_id);
    }
    location
}

fn copy_to_json(copy: &StoredCopy) -> Value {
    let Form { format, key_id } = form(copy);
    json!({
        "Storage": copy.side.as_str(),
        "Name": copy.head.name,
        "StoredSize": copy.head.size,
        "Format": format,
        "KeyId": key_id,
    })
}

struct Form {
    /// `clear`, `A1` or `A2`.
    format: String,
    /// The id of the master key.
    key_id: Option<u32>,
}

fn form(copy: &StoredCopy) -> Form {
    let header = match copy.head.naming {
        Naming::Clear => None,
        Naming::Either => recognize(&copy.start, None),
        Naming::Envelope => identify(&copy.start),
    };
    match header {
        Some(header) => Form { format: header.format.to_string(), key_id: Some(header.key_id) },
        None => Form { format: "clear".to_owned(), key_id: None },
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use crypto_envelope::{Format, KeyRing, MasterKey, encrypt};
    use hybrid::{Head, Version};

    use super::*;

    #[test]
    fn content_decides_where_the_name_does_not() {
        let ring = KeyRing::new(3, MasterKey::new(&[7; 32]).unwrap(), []).unwrap();
        let envelope = encrypt(&ring, Format::A1, "fb4b5a2e-8b2d-4c5f-9d62-7d0d2f1a9c11", &[0; 500]).unwrap();
        let dicom = [b"A1\x03\0\0\0".as_slice(), &[0; 122], b"DICM", &[0; 500]].concat();
        let clear = ("clear".to_owned(), None);
        let a1 = ("A1".to_owned(), Some(3));
        for (naming, content, expected) in [
            (Naming::Either, &envelope, &a1),
            (Naming::Either, &dicom, &clear),
            (Naming::Envelope, &envelope, &a1),
            (Naming::Clear, &envelope, &clear),
        ] {
            let size = content.len() as u64;
            let version = Version::File(SystemTime::UNIX_EPOCH);
            let head = Head { name: String::new(), naming, size, range: 0..size, version };
            let start = content[..RECOGNIZE_LEN].to_vec().into();
            let Form { format, key_id } = form(&StoredCopy { side: Side::FileSystem, head, start });
            assert_eq!((format, key_id), *expected, "{naming:?}");
        }
    }
}
