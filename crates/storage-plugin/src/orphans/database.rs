//! The markers of the databases that have attachments in the bucket: one object for each,
//! `.orthanc-object-storage/databases/{id}` below the root path.
//!
//! The id is a random number in a property of Orthanc's database. Orthancs that share a database have properties of their
//! own, and so an id each. Therefore a marker also names some attachments: it is one of this database if one of these is
//! in the index. It also has the number of the database's last change, which shows that an older copy was restored.

use std::fmt;
use std::sync::Arc;

use bucket::{ObjectStorage, RetryPolicy, StorageError};
use bytes::Bytes;
use chrono::{SecondsFormat, Utc};
use orthanc_ffi::{Orthanc, OrthancError, OrthancVersion};
use parking_lot::Mutex;
use serde_json::{Value, json};
use storage_layout::AttachmentUuid;

use super::index::Index;
use crate::catalog::{Catalog, CatalogError, Rest};
use crate::stop::Stop;

/// The property of Orthanc's database. Those below 1024 are Orthanc's; this one is far from those of other plugins.
const PROPERTY: i32 = 1_633_906_036;
/// The folder of the markers, among the plugin's own objects.
const FOLDER: &str = "databases";
/// Maximum number of markers that are read.
const MOST: usize = 1000;
/// Number of attachments in a marker.
pub(super) const SAMPLE: usize = 16;

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
    orthanc: Orthanc,
    stop: Stop,
    id: Arc<DatabaseId>,
}

impl Server {
    pub(crate) fn new(orthanc: Orthanc, stop: Stop) -> Self {
        Self { orthanc, stop, id: Arc::default() }
    }

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
        self.id.get(
            || self.call(|orthanc| orthanc.global_property(PROPERTY)),
            |id| self.call(|orthanc| orthanc.set_global_property(PROPERTY, id)),
        )
    }

    fn last_change(&self) -> Result<Option<u64>, CatalogError> {
        // Orthanc deletes the changes of a resource with it, also the last one. The number in this answer stays: without
        // changes after the greatest number, it is that of the last change that there was.
        let answer = Catalog::new(self.clone()).get(&format!("/changes?since={}&limit=1", i64::MAX))?;
        Ok(answer.and_then(|answer| answer["Last"].as_u64()))
    }
}

/// The id of the database, once it is known. The keeper of the marker and a search may ask for it at the same time: if
/// each of them made an id, the marker and the report of one would be those of another database.
#[derive(Debug, Default)]
struct DatabaseId(Mutex<Option<String>>);

impl DatabaseId {
    /// The id. If the property has none yet, a new id is written there, and used if it can be read again.
    fn get(
        &self,
        property: impl Fn() -> Result<String, CatalogError>,
        set_property: impl FnOnce(&str) -> Result<(), CatalogError>,
    ) -> Result<String, CatalogError> {
        let mut known = self.0.lock();
        if let Some(id) = &*known {
            return Ok(id.clone());
        }
        let mut id = property()?;
        if !is_id(&id) {
            id = format!("{:032x}", rand::random::<u128>());
            set_property(&id)?;
            if property()? != id {
                return Err(CatalogError::IdNotKept);
            }
        }
        *known = Some(id.clone());
        Ok(id)
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
    pub(super) fn evidence(&self, changes: Option<u64>) -> Option<String> {
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
            let marker = read_marker(objects, &name, policy).await?.unwrap_or_default();
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

/// Reads the marker of the database `id`; `None` if it is missing.
pub(super) async fn read_marker(
    objects: &ObjectStorage,
    id: &str,
    policy: RetryPolicy,
) -> Result<Option<Marker>, StorageError> {
    let content = objects.read_note(&note(id), policy).await?;
    Ok(content.as_deref().map(Marker::read))
}

fn note(id: &str) -> String {
    format!("{FOLDER}/{id}")
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// The property of a database, and how often it was set.
    #[derive(Default)]
    struct Property(Mutex<(String, u32)>);

    impl Property {
        fn id(&self, known: &DatabaseId) -> Result<String, CatalogError> {
            known.get(
                || Ok(self.0.lock().0.clone()),
                |id| {
                    // Another thread gets here meanwhile if it is not kept from that.
                    thread::yield_now();
                    let mut property = self.0.lock();
                    *property = (id.to_owned(), property.1 + 1);
                    Ok(())
                },
            )
        }
    }

    #[test]
    fn id_is_made_once() {
        for _ in 0..50 {
            let property = Property::default();
            let known = DatabaseId::default();
            let ids = thread::scope(|scope| {
                let threads = [(); 2].map(|()| scope.spawn(|| property.id(&known).unwrap()));
                threads.map(|thread| thread.join().unwrap())
            });
            assert_eq!(ids[0], ids[1]);
            assert!(is_id(&ids[0]));
            // After a restart.
            assert_eq!(property.id(&DatabaseId::default()).unwrap(), ids[0]);
            assert_eq!(property.0.lock().1, 1);
        }
    }

    #[test]
    fn unknown_id_is_not_replaced() {
        let known = DatabaseId::default();
        let error = known.get(|| Err(CatalogError::Stopped), |_| panic!("replaced")).unwrap_err();
        assert!(matches!(error, CatalogError::Stopped), "{error}");
        let error = known.get(|| Ok(String::new()), |_| Ok(())).unwrap_err();
        assert!(matches!(error, CatalogError::IdNotKept), "{error}");
        let error = known.get(|| Ok(String::new()), |_| Err(CatalogError::Stopped)).unwrap_err();
        assert!(matches!(error, CatalogError::Stopped), "{error}");
        let id = "0".repeat(32);
        assert_eq!(known.get(|| Ok(id.clone()), |_| panic!("replaced")).unwrap(), id);
    }
}
