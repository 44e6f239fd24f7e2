//! The markers of the databases that have attachments in the bucket: one object for each,
//! `.orthanc-object-storage/databases/{id}` below the root path.
//!
//! The id is a random number in a property of Orthanc's database. Orthancs that share a database have properties of their
//! own, and so an id each; a database that is restored on another machine has a new one. Therefore a marker also names some
//! attachments: it is one of this database, or of a copy of it, if one of these is in the index. Which of both it is, the
//! number and the date of the database's last change show (see [`Past`]).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bucket::{ObjectStorage, RetryPolicy, StorageError};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
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

    /// The date of the change with this number; `None` if Orthanc does not have that change: it deletes the changes of a
    /// resource with the resource.
    ///
    /// # Errors
    ///
    /// Why Orthanc does not say it.
    fn date_of_change(&self, number: u64) -> Result<Option<String>, CatalogError>;
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

    fn date_of_change(&self, number: u64) -> Result<Option<String>, CatalogError> {
        let Some(before) = number.checked_sub(1) else { return Ok(None) };
        let answer = Catalog::new(self.clone()).get(&format!("/changes?since={before}&limit=1"))?;
        let answer = answer.unwrap_or_default();
        let change = &answer["Changes"][0];
        let date = change["Date"].as_str().filter(|_| change["Seq"] == number);
        Ok(date.map(str::to_owned))
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
    /// The date of that change, if Orthanc has it.
    pub(super) changed_at: Option<String>,
    /// Whether an older copy has been noticed.
    pub(super) is_older: bool,
    /// When the oldest objects of attachments in the index were stored.
    pub(super) oldest: Oldest,
}

/// When the oldest object and the oldest file of attachments that have ever been in the index were stored. A re-encryption
/// stores them again; what is older than the new ones need not be of another database then.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Oldest {
    pub(super) object: Option<SystemTime>,
    pub(super) file: Option<SystemTime>,
}

impl Oldest {
    /// The older ones of both.
    pub(super) fn and(self, other: Self) -> Self {
        let older = |one: Option<SystemTime>, other| one.into_iter().chain(other).min();
        Self { object: older(self.object, other.object), file: older(self.file, other.file) }
    }
}

impl Marker {
    /// Reads a marker. One that cannot be understood is one of a database of which nothing is known.
    fn read(content: &[u8]) -> Self {
        let content: Value = serde_json::from_slice(content).unwrap_or_default();
        let list = content["Attachments"].as_array().into_iter().flatten();
        let oldest = |field: &str| {
            let time = DateTime::parse_from_rfc3339(content[field].as_str()?).ok()?;
            Some(SystemTime::from(time))
        };
        Self {
            attachments: list.filter_map(|uuid| AttachmentUuid::new(uuid.as_str()?).ok()).collect(),
            changes: content["Changes"].as_u64(),
            changed_at: content["Changed"].as_str().map(str::to_owned),
            is_older: content["Older"].as_bool().unwrap_or_default(),
            oldest: Oldest { object: oldest("OldestObject"), file: oldest("OldestFile") },
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
            "Changed": self.changed_at,
            "Older": self.is_older,
            "OldestObject": self.oldest.object.map(precise),
            "OldestFile": self.oldest.file.map(precise),
        });
        format!("{content}\n").into()
    }

    /// Compares the database that the marker is about with the one that Orthanc has now.
    ///
    /// # Errors
    ///
    /// If Orthanc does not say which changes it has.
    pub(super) fn past(&self, database: &dyn Database, changes: Option<u64>) -> Result<Past, CatalogError> {
        if self.is_older {
            return Ok(Past::Other("this was noticed earlier".to_owned()));
        }
        let Some(before) = self.changes else { return Ok(Past::Unknown) };
        if let Some(now) = changes.filter(|now| *now < before) {
            return Ok(Past::Other(format!("its last change has the number {now}, and had {before} before")));
        }
        let Some(date_before) = &self.changed_at else { return Ok(Past::Unknown) };
        Ok(match database.date_of_change(before)? {
            Some(date) if date == *date_before => Past::Same,
            Some(date) => Past::Other(format!("its change {before} is of {date}, and was of {date_before}")),
            None => Past::Unknown,
        })
    }
}

/// A time in a marker: what was stored shortly before is older.
fn precise(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// What a marker shows about the database that Orthanc has now.
///
/// Not the attachments that have vanished from the index decide alone: another Orthanc on the same database may have
/// deleted them, with objects that wait for its `DeletionDelay`, or that a deletion has left behind. Nor does the number
/// of the last change: a copy of the database has further changes of its own, and soon more than the marker knows. But a
/// copy never makes the same change at the same second.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) enum Past {
    /// It has the last change that the marker is about. What the marker names was in it, and has been deleted since if it
    /// is not in the index.
    Same,
    /// Orthanc does not have that change any more. What the marker names and the index lacks may have been deleted, or
    /// never have been in this database: if it has an object, nothing is deleted until the object is gone.
    #[default]
    Unknown,
    /// It is an older copy, or a copy that has changed apart; and why.
    Other(String),
}

/// A marker in the bucket.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Known {
    /// The id of its database.
    pub(super) id: String,
    pub(super) marker: Marker,
    pub(super) past: Past,
}

/// What the markers in the bucket say.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Markers {
    /// That of Orthanc's database.
    pub(super) own: Known,
    /// Those of other ids.
    others: Vec<Known>,
    /// The number of the last change of Orthanc's database.
    pub(super) changes: Option<u64>,
    /// The date of that change.
    pub(super) changed_at: Option<String>,
}

impl Markers {
    /// Reads all markers. Writes that of the database `id` if it is missing.
    pub(super) async fn read(
        objects: &ObjectStorage,
        id: &str,
        database: Arc<dyn Database>,
    ) -> Result<Self, MarkerError> {
        let policy = objects.retry();
        let names = objects.notes(FOLDER, MOST).await?;
        if !names.iter().any(|name| name == id) {
            objects.create_note(&note(id), Marker::default().content(id), policy).await?;
        }
        let mut markers = Self { own: Known { id: id.to_owned(), ..Known::default() }, ..Self::default() };
        for name in names {
            let marker = read_marker(objects, &name, policy).await?.unwrap_or_default();
            if name == id {
                markers.own.marker = marker;
            } else {
                markers.others.push(Known { id: name, marker, past: Past::Unknown });
            }
        }
        // Another Orthanc on the same database may write its marker now. Each change in a marker that has been read is one
        // that the database has by now.
        Ok(off_the_runtime(move || markers.compared(&*database)).await?)
    }

    /// Compares all markers with the database.
    fn compared(mut self, database: &dyn Database) -> Result<Self, CatalogError> {
        self.changes = database.last_change()?;
        self.changed_at = self.changes.map(|number| database.date_of_change(number)).transpose()?.flatten();
        for known in self.others.iter_mut().chain([&mut self.own]) {
            known.past = known.marker.past(database, self.changes)?;
        }
        Ok(self)
    }

    /// The name of a marker in messages that is not of the database whose attachments are in `index`.
    pub(super) fn of_another(&self, objects: &ObjectStorage, index: &Index) -> Option<String> {
        let another = self.others.iter().find(|known| !known.overlaps(index));
        another.map(|known| marker_url(objects, &known.id))
    }

    /// The markers of the database whose attachments are in `index`, and of its copies.
    pub(super) fn related<'a>(&'a self, index: &'a Index) -> impl Iterator<Item = &'a Known> {
        [&self.own].into_iter().chain(self.others.iter().filter(|known| known.overlaps(index)))
    }

    /// The attachments that are not in `index`, although the database, or one of which it is a copy, has had them; with the
    /// id in the marker.
    pub(super) fn missing(&self, index: &Index) -> HashMap<AttachmentUuid, String> {
        let is_unknown = |known: &&Known| known.past == Past::Unknown;
        let missing_in = |known: &Known| {
            let missing = known.marker.attachments.iter().filter(|uuid| !index.contains(uuid));
            missing.map(|uuid| (*uuid, known.id.clone())).collect::<Vec<_>>()
        };
        self.related(index).filter(is_unknown).flat_map(missing_in).collect()
    }

    /// When the oldest objects of attachments were stored, according to the markers of the database.
    pub(super) fn oldest(&self, index: &Index) -> Oldest {
        let all = self.related(index).map(|known| known.marker.oldest);
        all.fold(Oldest::default(), Oldest::and)
    }

    /// Why the database seems to be a copy, according to the changes that it has; with the id in the marker.
    pub(super) fn evidence<'a>(&'a self, index: &'a Index) -> Option<(String, &'a str)> {
        self.related(index).find_map(|known| match &known.past {
            Past::Other(evidence) => Some((evidence.clone(), known.id.as_str())),
            Past::Same | Past::Unknown => None,
        })
    }
}

impl Known {
    fn overlaps(&self, index: &Index) -> bool {
        self.marker.attachments.iter().any(|uuid| index.contains(uuid))
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

/// Why markers could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum MarkerError {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Calls Orthanc, whose database may be slow.
pub(super) async fn off_the_runtime<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, CatalogError> {
    tokio::task::spawn_blocking(call).await.unwrap_or(Err(CatalogError::Stopped))
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
