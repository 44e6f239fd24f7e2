//! The markers of the databases that have attachments in the bucket: one object for each,
//! `.orthanc-object-storage/databases/{id}` below the root path.
//!
//! The id is a random number in a property of Orthanc's database. Orthancs that share a database have properties of their
//! own, and so an id each. Therefore a marker also names some attachments: it is one of this database if one of these is
//! in the index. It also has the number of the database's last change, which shows that an older copy was restored.

use std::fmt;
use std::time::Duration;

use bucket::{ObjectStorage, RetryPolicy, StorageError};
use bytes::Bytes;
use chrono::{SecondsFormat, Utc};
use orthanc_ffi::{Orthanc, OrthancError, OrthancVersion};
use serde_json::{Value, json};
use storage_layout::AttachmentUuid;

use super::index::Index;
use crate::catalog::{Catalog, CatalogError, Level, Resource, Rest};
use crate::stop::Stop;

/// The property of Orthanc's database. Those below 1024 are Orthanc's; this one is far from those of other plugins.
const PROPERTY: i32 = 1_633_906_036;
/// The folder of the markers, among the plugin's own objects.
const FOLDER: &str = "databases";
/// Maximum number of markers that are read.
const MOST: usize = 1000;
/// Number of attachments in a marker.
const SAMPLE: usize = 16;
/// How long after the start the marker is written. Nothing waits for it, and a start has other requests.
const AFTER_START: Duration = Duration::from_secs(60);
/// The time until a marker that could not be written is tried again.
const AFTER_FAILURE: Duration = Duration::from_secs(600);
/// The time until a marker is written again.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Orthanc's database.
pub(crate) trait Database: fmt::Debug + Send + Sync {
    /// The id of the database, which is made on first use.
    ///
    /// # Errors
    ///
    /// Why Orthanc does not say it.
    fn id(&self) -> Result<String, CatalogError>;

    /// The number of the last change, which never decreases; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Why Orthanc does not say it.
    fn last_change(&self) -> Result<Option<u64>, CatalogError>;
}

/// Orthanc until it stops, without the runtime, so that tasks can hold it.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) orthanc: Orthanc,
    pub(crate) stop: Stop,
}

impl Server {
    fn call<T>(&self, call: impl FnOnce(&Orthanc) -> Result<T, OrthancError>) -> Result<T, CatalogError> {
        match self.stop.call(|| call(&self.orthanc)) {
            None | Some(Err(OrthancError::Finalized)) => Err(CatalogError::Stopped),
            Some(answer) => Ok(answer?),
        }
    }
}

impl Rest for Server {
    fn version(&self) -> OrthancVersion {
        self.orthanc.version()
    }

    fn get(&self, path: &str) -> Result<Vec<u8>, CatalogError> {
        self.call(|orthanc| orthanc.rest_get(path))
    }
}

impl Database for Server {
    fn id(&self) -> Result<String, CatalogError> {
        let known = self.call(|orthanc| orthanc.global_property(PROPERTY))?;
        if is_id(&known) {
            return Ok(known);
        }
        let id = format!("{:032x}", rand::random::<u128>());
        self.call(|orthanc| orthanc.set_global_property(PROPERTY, &id))?;
        Ok(id)
    }

    fn last_change(&self) -> Result<Option<u64>, CatalogError> {
        // Orthanc deletes the changes of a resource with it, also the last one. The number in this answer stays: without
        // changes after the greatest number, it is that of the last change that there was.
        let answer = Catalog::new(self.clone()).get(&format!("/changes?since={}&limit=1", i64::MAX))?;
        Ok(answer.and_then(|answer| answer["Last"].as_u64()))
    }
}

/// Whether a text is an id. Other text must not become part of an object's name.
fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What a marker says about its database.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Marker {
    /// Some attachments in the index.
    pub(super) attachments: Vec<AttachmentUuid>,
    /// The number of the database's last change. It only grows, except if an older copy of the database is restored.
    pub(super) changes: Option<u64>,
    /// Whether an older copy has been noticed.
    pub(super) is_older: bool,
}

impl Marker {
    /// Reads a marker. One that cannot be understood is one of a database of which nothing is known.
    fn read(content: &[u8]) -> Self {
        let content: Value = serde_json::from_slice(content).unwrap_or_default();
        let list = content["Attachments"].as_array().into_iter().flatten();
        Self {
            attachments: list.filter_map(|uuid| AttachmentUuid::new(uuid.as_str()?).ok()).collect(),
            changes: content["Changes"].as_u64(),
            is_older: content["Older"].as_bool().unwrap_or_default(),
        }
    }

    fn content(&self, id: &str) -> Bytes {
        let about = "A database of Orthanc has attachments in this bucket. Delete this object when that database is gone.";
        let attachments: Vec<_> = self.attachments.iter().take(SAMPLE).map(AttachmentUuid::as_str).collect();
        let content = json!({
            "About": about,
            "Database": id,
            "Written": Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
            "Attachments": attachments,
            "Changes": self.changes,
            "Older": self.is_older,
        });
        format!("{content}\n").into()
    }

    /// Why the database, whose last change has this number, seems to be an older copy of the one that the marker is about.
    fn evidence(&self, changes: Option<u64>) -> Option<String> {
        match (self.changes, changes) {
            (Some(before), Some(now)) if now < before => {
                Some(format!("its last change has the number {now}, and had {before} before"))
            }
            _ => self.is_older.then(|| "this was noticed earlier".to_owned()),
        }
    }
}

/// What the markers in the bucket say.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Markers {
    /// That of Orthanc's database.
    pub(super) own: Marker,
    /// Those of other ids, by their names.
    others: Vec<(String, Marker)>,
}

impl Markers {
    /// Reads all markers. Writes that of the database `id` if it is missing.
    pub(super) async fn read(objects: &ObjectStorage, id: &str) -> Result<Self, StorageError> {
        let policy = objects.retry();
        let names = objects.notes(FOLDER, MOST).await?;
        if !names.iter().any(|name| name == id) {
            objects.create_note(&note(id), Marker::default().content(id), policy).await?;
        }
        let mut markers = Self::default();
        for name in names {
            let content = objects.read_note(&note(&name), policy).await?;
            let marker = content.as_deref().map(Marker::read).unwrap_or_default();
            if name == id {
                markers.own = marker;
            } else {
                markers.others.push((name, marker));
            }
        }
        Ok(markers)
    }

    /// The name of a marker in messages that is not of the database whose attachments are in `index`.
    pub(super) fn of_another(&self, objects: &ObjectStorage, index: &Index) -> Option<String> {
        let is_another =
            |(_, marker): &&(String, Marker)| !marker.attachments.iter().any(|uuid| index.contains(uuid));
        self.others.iter().find(is_another).map(|(name, _)| marker_url(objects, name))
    }

    /// The attachments in the database's own marker that are not in `index`.
    pub(super) fn missing(&self, index: &Index) -> Vec<AttachmentUuid> {
        self.own.attachments.iter().filter(|uuid| !index.contains(uuid)).copied().collect()
    }

    /// See [`Marker::evidence`].
    pub(super) fn evidence(&self, changes: Option<u64>) -> Option<String> {
        self.own.evidence(changes)
    }
}

/// The name of a marker in messages.
pub(super) fn marker_url(objects: &ObjectStorage, id: &str) -> String {
    objects.note_url(&note(id))
}

/// Writes the marker of the database `id`.
pub(super) async fn write_marker(
    objects: &ObjectStorage,
    id: &str,
    marker: &Marker,
) -> Result<(), StorageError> {
    objects.replace_note(&note(id), marker.content(id), objects.retry()).await
}

fn note(id: &str) -> String {
    format!("{FOLDER}/{id}")
}

/// Sees to it that the bucket has the marker of Orthanc's database, some time after the start.
pub(crate) async fn keep_marker(server: Server, objects: ObjectStorage) {
    tokio::time::sleep(AFTER_START).await;
    loop {
        let pause = match ensure_marker(&server, &objects).await {
            Ok(()) => DAY,
            Err(error) => {
                tracing::info!(
                    "cannot write the marker of Orthanc's database into the bucket: {error}; retrying later"
                );
                AFTER_FAILURE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Why the marker could not be written.
#[derive(Debug, thiserror::Error)]
enum MarkerError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Writes the marker with the number of the last change, unless the database seems to be an older copy: that is noted.
async fn ensure_marker(server: &Server, objects: &ObjectStorage) -> Result<(), MarkerError> {
    let asked = server.clone();
    let (id, changes) = off_the_runtime(move || Ok((asked.id()?, asked.last_change()?))).await?;
    let content = objects.read_note(&note(&id), RetryPolicy::default()).await?;
    let mut marker = content.as_deref().map(Marker::read).unwrap_or_default();
    if marker.is_older {
        return Ok(());
    }
    if let Some(evidence) = marker.evidence(changes) {
        let url = marker_url(objects, &id);
        tracing::warn!(
            "Orthanc's database seems to be an older copy: {evidence}; orphans are not deleted until {url} is deleted"
        );
        marker.is_older = true;
        return Ok(write_marker(objects, &id, &marker).await?);
    }
    if marker.attachments.is_empty() {
        let asked = server.clone();
        marker.attachments = off_the_runtime(move || first_attachments(&Catalog::new(asked))).await?;
    }
    marker.changes = changes;
    Ok(write_marker(objects, &id, &marker).await?)
}

/// Calls Orthanc, whose database may be slow.
async fn off_the_runtime<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, CatalogError> {
    tokio::task::spawn_blocking(call).await.unwrap_or(Err(CatalogError::Stopped))
}

/// Attachments of the first instances.
fn first_attachments(catalog: &Catalog) -> Result<Vec<AttachmentUuid>, CatalogError> {
    let path = format!("/instances?since=0&limit={SAMPLE}");
    let instances = catalog.get(&path)?.unwrap_or_default();
    let mut attachments = Vec::new();
    for id in instances.as_array().into_iter().flatten().filter_map(Value::as_str) {
        let found = catalog.attachments(&Resource::new(Level::Instance, id))?;
        attachments.extend(found.first().map(|indexed| indexed.attachment.uuid));
    }
    attachments.truncate(SAMPLE);
    Ok(attachments)
}
