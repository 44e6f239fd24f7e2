//! Orthanc's index of resources and attachments, queried through its REST API.

use std::fmt;
use std::sync::Arc;

use orthanc_ffi::{ErrorCode, OrthancError, OrthancVersion, RestFailure};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use storage_layout::{Attachment, ContentType};

use crate::context::Context;

/// The first version of Orthanc that reports the UUIDs of attachments.
const FIRST_WITH_UUIDS: OrthancVersion = OrthancVersion::new(1, 10, 0);

/// A level of the DICOM hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Level {
    Patient,
    Study,
    Series,
    Instance,
}

impl Level {
    pub(crate) const ALL: [Self; 4] = [Self::Patient, Self::Study, Self::Series, Self::Instance];

    /// The level's name in paths of the REST API.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Patient => "patients",
            Self::Study => "studies",
            Self::Series => "series",
            Self::Instance => "instances",
        }
    }

    /// The level's name in JSON fields.
    pub(crate) fn field(self) -> &'static str {
        match self {
            Self::Patient => "Patients",
            Self::Study => "Studies",
            Self::Series => "Series",
            Self::Instance => "Instances",
        }
    }

    pub(crate) fn child(self) -> Option<Self> {
        match self {
            Self::Patient => Some(Self::Study),
            Self::Study => Some(Self::Series),
            Self::Series => Some(Self::Instance),
            Self::Instance => None,
        }
    }

    /// The parent's level, and the field of a resource's JSON that names the parent.
    pub(crate) fn parent(self) -> Option<(Self, &'static str)> {
        match self {
            Self::Patient => None,
            Self::Study => Some((Self::Patient, "ParentPatient")),
            Self::Series => Some((Self::Study, "ParentStudy")),
            Self::Instance => Some((Self::Series, "ParentSeries")),
        }
    }
}

/// A patient, study, series or instance, identified by its Orthanc id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Resource {
    pub(crate) level: Level,
    pub(crate) id: String,
}

impl Resource {
    pub(crate) fn new(level: Level, id: impl Into<String>) -> Self {
        Self { level, id: id.into() }
    }

    /// Reads what [`Display`](fmt::Display) writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (path, id) = text.split_once('/')?;
        let level = Level::ALL.into_iter().find(|level| level.path() == path)?;
        is_resource_id(id).then(|| Self::new(level, id))
    }

    fn path(&self) -> String {
        format!("/{}/{}", self.level.path(), self.id)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path().trim_start_matches('/'))
    }
}

/// The Orthanc id of a resource: a SHA-1. Takes a quarter of the memory of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ResourceId([u8; 20]);

impl ResourceId {
    /// Reads an id as Orthanc writes it.
    pub(crate) fn parse(id: &str) -> Option<Self> {
        if !is_resource_id(id) {
            return None;
        }
        let mut bytes = [0; 20];
        let mut digits = id.bytes().filter_map(|byte| char::from(byte).to_digit(16));
        for byte in &mut bytes {
            *byte = u8::try_from(digits.next()? << 4 | digits.next()?).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, byte) in self.0.iter().enumerate() {
            let hyphen = if position > 0 && position % 4 == 0 { "-" } else { "" };
            write!(f, "{hyphen}{byte:02x}")?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for ResourceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        Self::parse(text).ok_or_else(|| D::Error::custom("no id of a resource"))
    }
}

/// An attachment in Orthanc's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Indexed {
    pub(crate) resource: Resource,
    pub(crate) name: String,
    pub(crate) attachment: Attachment,
    /// Size of the content that Orthanc passed to the storage area, in bytes.
    pub(crate) size: u64,
    /// The MD5 of that content; `None` if `StoreMD5ForAttachments` was off.
    pub(crate) md5: Option<[u8; 16]>,
}

/// Why Orthanc's index could not be queried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogError {
    #[error(transparent)]
    Orthanc(#[from] OrthancError),
    #[error("unexpected answer from Orthanc to GET {0}")]
    Unexpected(String),
    #[error("Orthanc {0} does not report the UUIDs of attachments: this requires Orthanc 1.10.0 or newer")]
    TooOld(OrthancVersion),
    #[error("Orthanc's database has not kept the id that it was given; see the errors in Orthanc's log")]
    IdNotKept,
    #[error("Orthanc is shutting down")]
    Stopped,
}

impl From<CatalogError> for RestFailure {
    fn from(error: CatalogError) -> Self {
        let status = if matches!(error, CatalogError::Stopped) { 503 } else { 500 };
        Self::Status { status, message: error.to_string() }
    }
}

/// The refusal of a request for a resource that does not exist.
pub(crate) fn unknown_id(id: &str) -> RestFailure {
    let message = format!("there is no patient, study, series or instance with the Orthanc id {id:?}");
    RestFailure::Status { status: 404, message }
}

/// Orthanc's REST API.
pub(crate) trait Rest: fmt::Debug + Send + Sync {
    fn version(&self) -> OrthancVersion;
    /// The body of the answer to a GET request.
    fn get(&self, path: &str) -> Result<Vec<u8>, CatalogError>;
}

/// The REST API until Orthanc stops: later requests fail before they reach Orthanc.
impl Rest for Context {
    fn version(&self) -> OrthancVersion {
        self.orthanc.version()
    }

    fn get(&self, path: &str) -> Result<Vec<u8>, CatalogError> {
        match self.runtime.stop().call(|| self.orthanc.rest_get(path)) {
            None | Some(Err(OrthancError::Finalized)) => Err(CatalogError::Stopped),
            Some(answer) => Ok(answer?),
        }
    }
}

/// Orthanc's index. Callbacks of the storage area must not use it, since Orthanc calls them with its database
/// locked.
#[derive(Debug, Clone)]
pub(crate) struct Catalog(Arc<dyn Rest>);

impl Catalog {
    pub(crate) fn new(rest: impl Rest + 'static) -> Self {
        Self(Arc::new(rest))
    }

    /// The resource with this id; `None` if there is none.
    pub(crate) fn find(&self, id: &str) -> Result<Option<Resource>, CatalogError> {
        self.find_near(id, Level::Patient)
    }

    /// As [`find`](Self::find), for an id that probably is of this level.
    pub(crate) fn find_near(&self, id: &str, first: Level) -> Result<Option<Resource>, CatalogError> {
        if !is_resource_id(id) {
            return Ok(None);
        }
        let others = Level::ALL.into_iter().filter(|level| *level != first);
        for level in std::iter::once(first).chain(others) {
            let resource = Resource::new(level, id);
            if self.get(&resource.path())?.is_some() {
                return Ok(Some(resource));
            }
        }
        Ok(None)
    }

    /// All patients. Orthanc answers with one list: a list in pages would have gaps if patients are deleted meanwhile.
    pub(crate) fn patients(&self) -> Result<Vec<ResourceId>, CatalogError> {
        let path = "/patients";
        let unexpected = |_| CatalogError::Unexpected(path.to_owned());
        serde_json::from_slice(&self.0.get(path)?).map_err(unexpected)
    }

    /// Number of all instances.
    pub(crate) fn instances(&self) -> Result<u64, CatalogError> {
        let path = "/statistics";
        let unexpected = || CatalogError::Unexpected(path.to_owned());
        self.get(path)?.and_then(|answer| answer["CountInstances"].as_u64()).ok_or_else(unexpected)
    }

    /// The resources directly below this one. `None` if the resource no longer exists, which is not looked
    /// up for instances.
    pub(crate) fn children(&self, resource: &Resource) -> Result<Option<Vec<Resource>>, CatalogError> {
        let Some(level) = resource.level.child() else { return Ok(Some(Vec::new())) };
        let path = resource.path();
        let Some(answer) = self.get(&path)? else { return Ok(None) };
        let child = |id: &Value| Some(Resource::new(level, id.as_str()?));
        let children = answer[level.field()].as_array().and_then(|ids| ids.iter().map(child).collect());
        children.map(Some).ok_or(CatalogError::Unexpected(path))
    }

    /// The resource directly above this one. `None` for patients, and if the resource no longer exists.
    pub(crate) fn parent(&self, resource: &Resource) -> Result<Option<Resource>, CatalogError> {
        let Some((level, field)) = resource.level.parent() else { return Ok(None) };
        let path = resource.path();
        let Some(answer) = self.get(&path)? else { return Ok(None) };
        let parent = answer[field].as_str().map(|id| Resource::new(level, id));
        parent.map(Some).ok_or(CatalogError::Unexpected(path))
    }

    /// The attachments of the resource itself. Empty if the resource no longer exists.
    pub(crate) fn attachments(&self, resource: &Resource) -> Result<Vec<Indexed>, CatalogError> {
        if self.0.version() < FIRST_WITH_UUIDS {
            return Err(CatalogError::TooOld(self.0.version()));
        }
        let path = format!("{}/attachments", resource.path());
        let Some(answer) = self.get(&path)? else { return Ok(Vec::new()) };
        let names = answer.as_array().ok_or_else(|| CatalogError::Unexpected(path.clone()))?;
        let mut attachments = Vec::with_capacity(names.len());
        for name in names {
            let name = name.as_str().ok_or_else(|| CatalogError::Unexpected(path.clone()))?;
            attachments.extend(self.attachment(resource, name)?);
        }
        Ok(attachments)
    }

    /// One attachment; `None` if it no longer exists.
    fn attachment(&self, resource: &Resource, name: &str) -> Result<Option<Indexed>, CatalogError> {
        let path = format!("{}/attachments/{name}/info", resource.path());
        let Some(info) = self.get(&path)? else { return Ok(None) };
        let parsed = || {
            let content_type = i32::try_from(info["ContentType"].as_i64()?).ok()?;
            let attachment = Attachment::new(info["Uuid"].as_str()?, ContentType(content_type)).ok()?;
            let size = info["CompressedSize"].as_u64()?;
            let md5 = info["CompressedMD5"].as_str().and_then(md5);
            Some(Indexed { resource: resource.clone(), name: name.to_owned(), attachment, size, md5 })
        };
        parsed().map(Some).ok_or(CatalogError::Unexpected(path))
    }

    /// The size of all attachments of a resource and of everything below it, in bytes. 0 if the resource no longer
    /// exists.
    pub(crate) fn size(&self, resource: &Resource) -> Result<u64, CatalogError> {
        let path = format!("{}/statistics", resource.path());
        let Some(answer) = self.get(&path)? else { return Ok(0) };
        let size = answer["DiskSize"].as_str().and_then(|size| size.parse().ok());
        size.ok_or(CatalogError::Unexpected(path))
    }

    /// Whether the attachment still exists.
    pub(crate) fn is_current(&self, indexed: &Indexed) -> Result<bool, CatalogError> {
        let now = self.attachment(&indexed.resource, &indexed.name)?;
        Ok(now.is_some_and(|now| now.attachment.uuid == indexed.attachment.uuid))
    }

    /// Gets JSON; `None` if there is no such resource. Does not call Orthanc while it stops.
    pub(crate) fn get(&self, path: &str) -> Result<Option<Value>, CatalogError> {
        match self.0.get(path) {
            Ok(body) => {
                let json = serde_json::from_slice(&body);
                json.map(Some).map_err(|_| CatalogError::Unexpected(path.to_owned()))
            }
            Err(CatalogError::Orthanc(OrthancError::Rest {
                code: ErrorCode::UNKNOWN_RESOURCE | ErrorCode::INEXISTENT_ITEM | ErrorCode::INEXISTENT_FILE,
                ..
            })) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Reads an MD5 as Orthanc writes it.
fn md5(text: &str) -> Option<[u8; 16]> {
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)).flatten()
}

/// Whether `id` has the form of Orthanc's ids, five groups of eight hexadecimal digits. Other text must not
/// become part of a path.
fn is_resource_id(id: &str) -> bool {
    id.len() == 44
        && id.bytes().enumerate().all(|(position, byte)| match position % 9 {
            8 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_as_they_were_read() {
        let id = "06d643a1-e154382d-aafc1b39-a940d6df-7b2ccebc";
        assert_eq!(ResourceId::parse(id).unwrap().to_string(), id);
        let ids: Vec<ResourceId> = serde_json::from_str(&format!("[\n  {id:?}\n]")).unwrap();
        assert_eq!(ids[0].to_string(), id);
        assert!(serde_json::from_str::<ResourceId>("\"06d643a1\"").is_err());
    }

    #[test]
    fn only_ids_become_part_of_a_path() {
        assert!(is_resource_id("06d643a1-e154382d-aafc1b39-a940d6df-7b2ccebc"));
        for id in [
            "",
            "..",
            "06d643a1-e154382d-aafc1b39-a940d6df-7b2ccebc/",
            "06d643a1-e154382d-aafc1b39-a940d6df-7b2cceb/",
            "06d643a1/e154382d-aafc1b39-a940d6df-7b2ccebc",
            "06d643a1-e154382d-aafc1b39-a940d6df-7b2ccebg",
            "06d643a1-e154382d-aafc1b39-a940d6df-7b2ccebé",
        ] {
            assert!(!is_resource_id(id), "{id}");
        }
    }
}
