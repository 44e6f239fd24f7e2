//! An Orthanc together with the storage that is shown or measured: its own, or a bucket behind our plugin.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, bail};
use end_to_end::Orthanc;
use serde_json::Value;
use walkdir::WalkDir;

/// What is looked at from outside: the objects that a plugin left in a bucket, and what it took to get them there.
pub(crate) trait Bucket {
    /// Where it is, for people to read.
    fn endpoint(&self) -> String;
    /// Names and sizes in bytes of all objects.
    fn list(&self) -> Vec<(String, u64)>;
    /// Requests answered so far.
    fn request_count(&self) -> u64;
}

/// Where Orthanc puts its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// Orthanc's own files.
    BuiltIn,
    /// The S3 plugin and a bucket in this process.
    S3,
}

impl Storage {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BuiltIn => "Orthanc's files",
            Self::S3 => "S3 plugin",
        }
    }
}

impl FromStr for Storage {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "builtin" => Ok(Self::BuiltIn),
            "s3" => Ok(Self::S3),
            other => bail!("{other} is neither builtin nor s3"),
        }
    }
}

/// Client-side encryption formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encryption {
    A1,
    A2,
}

impl FromStr for Encryption {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "A1" => Ok(Self::A1),
            "A2" => Ok(Self::A2),
            other => bail!("{other} is neither A1 nor A2"),
        }
    }
}

/// A running Orthanc and its storage.
pub(crate) struct Launched {
    // Declared first: Orthanc ends before the bucket that it uses.
    pub(crate) orthanc: Orthanc,
    pub(crate) bucket: Box<dyn Bucket>,
}

/// Starts an Orthanc, and what it stores its files in, in this process and a temporary folder.
pub(crate) fn launch(storage: Storage, encryption: Option<Encryption>) -> Result<Launched> {
    match (storage, encryption) {
        (Storage::BuiltIn, None) => launch_built_in(),
        (Storage::BuiltIn, Some(_)) => bail!("--encryption: Orthanc's own storage has none"),
        (Storage::S3, encryption) => launch_s3(encryption),
    }
}

fn launch_built_in() -> Result<Launched> {
    let orthanc = Orthanc::builder().start()?;
    let folder = orthanc.storage_folder();
    Ok(Launched { orthanc, bucket: Box::new(Folder { folder }) })
}

/// The one place to wire the S3 server and the plugin.
fn launch_s3(encryption: Option<Encryption>) -> Result<Launched> {
    let _section = encryption.map(encryption_section).transpose()?;
    bail!("the S3 plugin is not wired into this command yet")
}

/// The plugin's `StorageEncryption`, with a key of its own.
fn encryption_section(format: Encryption) -> Result<Value> {
    bail!("--encryption {format:?}: the plugin has no client-side encryption yet")
}

/// Orthanc's own storage folder.
struct Folder {
    folder: PathBuf,
}

impl Bucket for Folder {
    fn endpoint(&self) -> String {
        self.folder.display().to_string()
    }

    fn list(&self) -> Vec<(String, u64)> {
        let files =
            WalkDir::new(&self.folder).into_iter().flatten().filter(|entry| entry.file_type().is_file());
        let size = |entry: &walkdir::DirEntry| entry.metadata().map_or(0, |data| data.len());
        files.map(|entry| (entry.file_name().to_string_lossy().into_owned(), size(&entry))).collect()
    }

    fn request_count(&self) -> u64 {
        0
    }
}
