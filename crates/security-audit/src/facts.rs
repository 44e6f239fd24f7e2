//! What callers measure.

use serde_json::Value;

/// What is known besides the configuration. The default is that nothing is known.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Orthanc's version.
    pub version: Version,
    /// Whether Orthanc runs as root; `None` if that could not be determined.
    pub is_root: Option<bool>,
    /// The configuration files; `None` if their paths could not be determined.
    pub configuration_files: Option<Vec<FileFact>>,
    /// Other files that the configuration names, whose content is secret: keys and credentials.
    pub secret_files: Vec<FileFact>,
    /// The files in `LuaScripts`.
    pub lua_scripts: Vec<LuaScript>,
    /// The plugins that Orthanc has loaded, by the names that they have given themselves.
    pub plugins: Vec<String>,
    /// The modalities in Orthanc's database, as `GET /modalities?expand` returns them.
    pub modalities_in_database: Option<Value>,
    /// The bucket, and what the plugin keeps on the disk.
    pub storage: StorageFacts,
}

/// A version of Orthanc.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Default for Version {
    /// Newer than any release.
    fn default() -> Self {
        Self(u32::MAX, u32::MAX, u32::MAX)
    }
}

/// A file or folder, and who may access it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFact {
    /// Its path.
    pub path: String,
    /// Who may access it; `None` if that could not be determined.
    pub access: Option<Access>,
}

/// Who may access a file, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Whether every user of the machine can read it: its permissions, and those of all folders on the way.
    pub others_read: bool,
    /// Whether every user of the machine can change it, or replace it in a folder on the way.
    pub others_write: bool,
    /// The number of its file system.
    pub device: u64,
}

/// A file in `LuaScripts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LuaScript {
    /// Its path in the configuration.
    pub path: String,
    /// Who may access it; `None` if that could not be determined.
    pub access: Option<Access>,
    /// Whether it [defines a filter](crate::defines_filter); `None` if it could not be read.
    pub defines_filter: Option<bool>,
}

/// The bucket, and what the plugin keeps on the disk.
#[derive(Debug, Clone, Default)]
pub struct StorageFacts {
    /// The plugin's section.
    pub section: String,
    /// The server's address, without credentials.
    pub endpoint: String,
    /// Whether others can read or change what is sent to it.
    pub is_endpoint_exposed: bool,
    /// `None` if new attachments are not encrypted.
    pub encryption: Option<Encryption>,
    /// The files with master keys.
    pub key_files: Vec<FileFact>,
    /// `IndexDirectory`.
    pub index: Option<FileFact>,
    /// `StateDirectory`; `None` if it is not used.
    pub state: Option<FileFact>,
    /// What the server says.
    pub bucket: BucketFacts,
}

/// How new attachments are encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// `A1` or `A2`.
    pub format: String,
    /// Whether attachments in format A1 are accepted when they are read.
    pub reads_a1: bool,
    /// Whether attachments that are not encrypted are accepted when they are read.
    pub reads_unencrypted: bool,
    /// Whether blobs of the earlier plugin for Azure Key Vault are accepted when they are read.
    pub reads_key_vault: bool,
}

/// The answer of the server to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    /// The server has answered it.
    Known(T),
    /// The credentials may not ask. Contains the permission to grant.
    Denied(&'static str),
    /// The server does not have the feature.
    NotSupported,
    /// It could not be found out, for this reason.
    Unknown(String),
}

impl<T> Answer<T> {
    /// Converts a known answer.
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Answer<U> {
        match self {
            Self::Known(known) => Answer::Known(convert(known)),
            Self::Denied(permission) => Answer::Denied(permission),
            Self::NotSupported => Answer::NotSupported,
            Self::Unknown(reason) => Answer::Unknown(reason),
        }
    }
}

impl<T> Default for Answer<T> {
    fn default() -> Self {
        Self::Unknown("not checked".to_owned())
    }
}

/// How the server treats a request without credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anonymous {
    /// It refuses it, with this answer: `HTTP 403 AccessDenied`.
    Refused(String),
    /// It answers it.
    Allowed,
}

/// Whether the bucket can be made public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicAccess {
    /// Whether public access is blocked.
    pub is_blocked: bool,
    /// The setting, for people.
    pub shown: String,
    /// How to block it.
    pub advice: &'static str,
}

/// What remains of objects that are deleted or overwritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Versions {
    /// Nothing.
    Off,
    /// Their content, for this number of days if it is limited.
    Kept {
        /// The setting, for people.
        shown: String,
        /// Days until the content is deleted; `None` if it remains forever, as far as is known.
        days: Option<u64>,
        /// How to limit it.
        advice: &'static str,
    },
}

/// What the server says of the bucket.
#[derive(Debug, Clone, Default)]
pub struct BucketFacts {
    /// A list of objects without credentials.
    pub anonymous_list: Answer<Anonymous>,
    /// A read of an existing object without credentials.
    pub anonymous_read: Answer<Anonymous>,
    /// Public access block (S3), container access (Azure), public access prevention (Google).
    pub public_access: Answer<PublicAccess>,
    /// Versioning, soft delete.
    pub versions: Answer<Versions>,
    /// Days until the parts of an unfinished upload are deleted; `None` if they remain.
    pub unfinished_uploads: Answer<Option<u64>>,
}
