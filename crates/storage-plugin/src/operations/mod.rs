//! `GET /object-storage/status` and `GET /object-storage/locations/{id}`.

pub(crate) mod metrics;

use std::sync::Arc;

use bucket::{Naming, StorageError};
use crypto_envelope::{INSPECT_LEN, identify};
use futures_util::StreamExt as _;
use hybrid::{HybridStorage, Side, StoredCopy};
use orthanc_ffi::{Method, Orthanc, OrthancError, RestAnswer, RestFailure, RestRequest};
use serde_json::{Value, json};

use crate::catalog::Indexed;
use crate::moving::move_storage;
use crate::moving::mover::Engine;
use crate::offload::Offload;
use crate::operations::metrics::Metrics;
use crate::runtime::Panicked;

/// Attachments that are looked for at once.
const AT_ONCE: usize = 16;

/// What `status` tells that does not change.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) version: String,
    pub(crate) provider: &'static str,
    pub(crate) bucket: String,
    /// `HybridMode`, as the configuration calls it.
    pub(crate) mode: &'static str,
    /// Format and key ids; null without encryption.
    pub(crate) encryption: Value,
}

/// What the routes answer from.
pub(crate) struct Routes {
    pub(crate) engine: Engine,
    pub(crate) facts: Facts,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) offload: Option<Arc<Offload>>,
}

impl Routes {
    /// Registers them.
    pub(crate) fn register(self, orthanc: &Orthanc) -> Result<(), OrthancError> {
        let routes = Arc::new(self);
        if routes.engine.storage.files().is_some() {
            let engine = routes.engine.clone();
            orthanc.register_rest("/move-storage", move |request| move_storage(&engine, request))?;
        }
        let status = Arc::clone(&routes);
        orthanc.register_rest("/object-storage/status", move |request| {
            only_get(request)?;
            Ok(RestAnswer::json(&status.status()))
        })?;
        orthanc.register_rest("/object-storage/locations/([^/]*)", move |request| {
            only_get(request)?;
            routes.locations(request.groups().first().copied().unwrap_or_default())
        })
    }

    fn status(&self) -> Value {
        let storage = &self.engine.storage;
        let mut status = json!({
            "Plugin": self.engine.orthanc.plugin_name(),
            "Version": self.facts.version,
            "Provider": self.facts.provider,
            "Bucket": self.facts.bucket,
            "HybridMode": self.facts.mode,
            "Encryption": self.facts.encryption,
            "UptimeSeconds": self.metrics.uptime(),
            "Requests": self.metrics.to_json(),
        });
        if let Some(files) = storage.files() {
            status["StorageDirectory"] = json!(files.root());
            status["ReadsFromSecondStorage"] = json!(storage.reads_from_second());
        }
        if let Some(offload) = &self.offload {
            status["Offload"] = offload.to_json();
        }
        status
    }

    /// Where the attachments of a resource, and of all that is below it, are.
    fn locations(&self, id: &str) -> Result<RestAnswer, RestFailure> {
        let catalog = self.engine.catalog();
        let resource = catalog.find(id)?.ok_or_else(|| RestFailure::Status {
            status: 404,
            message: format!("no patient, study, series or instance has the Orthanc id {id:?}"),
        })?;
        let mut attachments = Vec::new();
        for resource in catalog.with_descendants(&resource)? {
            attachments.extend(catalog.attachments(&resource)?);
        }
        let storage = self.engine.storage.clone();
        let located = self.engine.runtime.run(locate(storage, attachments));
        let located = located.map_err(|Panicked| RestFailure::Status {
            status: 500,
            message: "a task of the plugin ended unexpectedly".to_owned(),
        })?;
        match located.into_iter().collect::<Result<Vec<Value>, StorageError>>() {
            Ok(locations) => Ok(RestAnswer::json(&Value::Array(locations))),
            Err(error) => Err(RestFailure::Status { status: 502, message: error.to_string() }),
        }
    }
}

fn only_get(request: &RestRequest<'_>) -> Result<(), RestFailure> {
    match request.method() {
        Method::Get => Ok(()),
        _ => Err(RestFailure::MethodNotAllowed { allow: "GET" }),
    }
}

/// Looks for several attachments at once; the answers are in their order.
async fn locate(storage: HybridStorage, attachments: Vec<Indexed>) -> Vec<Result<Value, StorageError>> {
    let looks = attachments.into_iter().map(|indexed| {
        let storage = storage.clone();
        async move {
            let copies = storage.locate(&indexed.attachment, INSPECT_LEN as u64).await?;
            Ok(location(&storage, &indexed, &copies))
        }
    });
    futures_util::stream::iter(looks).buffered(AT_ONCE).collect().await
}

fn location(storage: &HybridStorage, indexed: &Indexed, copies: &[StoredCopy]) -> Value {
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
        "ObjectName": storage.objects().object_name(&indexed.attachment),
        "Copies": copies.iter().map(copy).collect::<Vec<_>>(),
    });
    if let Some(object) = copies.iter().find(|copy| copy.side == Side::ObjectStorage) {
        location["ObjectName"] = json!(object.name);
    }
    // What a read would get.
    if let Some(first) = copies.first() {
        let (format, key_id) = format_of(first);
        location["Format"] = json!(format);
        location["KeyId"] = json!(key_id);
    }
    location
}

fn copy(copy: &StoredCopy) -> Value {
    let (format, key_id) = format_of(copy);
    json!({
        "Storage": copy.side.as_str(),
        "Name": copy.name,
        "StoredSize": copy.size,
        "Format": format,
        "KeyId": key_id,
    })
}

/// `clear`, `A1` or `A2`, and the id of the master key.
fn format_of(copy: &StoredCopy) -> (String, Option<u32>) {
    match identify(&copy.start) {
        Some(header) if copy.naming != Naming::Clear => (header.format.to_string(), Some(header.key_id)),
        _ => ("clear".to_owned(), None),
    }
}
