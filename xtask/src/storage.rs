//! An Orthanc together with the storage that is shown or measured: its own, or a bucket behind our plugin.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use crypto_envelope::new_key_file;
use fake_cloud::{AzureOptions, BucketServer, GoogleOptions, Options};
use real_orthanc::Orthanc;
use real_orthanc::workspace::{Plugin, Profile, plugin_library};
use serde_json::{Value, json};
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
    /// A plugin, and a bucket on this machine.
    Cloud(Cloud),
}

/// A cloud, played by a server on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cloud {
    S3,
    Azure,
    Google,
}

impl Storage {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BuiltIn => "Orthanc's files",
            Self::Cloud(Cloud::S3) => "S3 plugin",
            Self::Cloud(Cloud::Azure) => "Azure plugin",
            Self::Cloud(Cloud::Google) => "Google plugin",
        }
    }
}

impl FromStr for Storage {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "builtin" => Ok(Self::BuiltIn),
            "s3" => Ok(Self::Cloud(Cloud::S3)),
            "azure" => Ok(Self::Cloud(Cloud::Azure)),
            "google" => Ok(Self::Cloud(Cloud::Google)),
            other => bail!("{other} is none of builtin, s3, azure and google"),
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
        (Storage::Cloud(cloud), encryption) => launch_plugin(cloud, encryption),
    }
}

fn launch_built_in() -> Result<Launched> {
    let orthanc = Orthanc::builder().start()?;
    let folder = orthanc.storage_folder();
    Ok(Launched { orthanc, bucket: Box::new(Folder { folder }) })
}

/// A bucket on this machine, and an Orthanc with the release build of the cloud's plugin.
fn launch_plugin(cloud: Cloud, encryption: Option<Encryption>) -> Result<Launched> {
    let keys = tempfile::tempdir()?;
    let Served { server, section: name, mut options } =
        cloud.serve(keys.path(), |path| path.display().to_string())?;
    if let Some(format) = encryption {
        options["StorageEncryption"] = encryption_section(format, keys.path())?;
    }
    let library = plugin_library(cloud.plugin()?, Profile::Release)?;
    let orthanc = Orthanc::builder().plugin(library).section(name, options).start()?;
    Ok(Launched { orthanc, bucket: Box::new(ServedBucket(server)) })
}

/// A server that plays a cloud, and the configuration for it.
pub(crate) struct Served {
    pub(crate) server: BucketServer,
    /// The name of the plugin's section.
    pub(crate) section: &'static str,
    /// What is in it.
    pub(crate) options: Value,
}

impl Cloud {
    pub(crate) const ALL: [Self; 3] = [Self::S3, Self::Azure, Self::Google];

    pub(crate) fn plugin(self) -> Result<Plugin> {
        let package = match self {
            Self::S3 => "aws-s3",
            Self::Azure => "azure-blob",
            Self::Google => "google-cloud",
        };
        Ok(Plugin::named(package)?)
    }

    /// Starts a server with an empty bucket. What the plugin needs in a file goes into `folder`, and `path` tells how the
    /// plugin sees it.
    pub(crate) fn serve(self, folder: &Path, path: impl Fn(&Path) -> String) -> Result<Served> {
        match self {
            Self::S3 => {
                let options = Options::default();
                let server = BucketServer::start(options.clone())?;
                let options = json!({
                    "BucketName": BUCKET,
                    "Region": options.region,
                    "AccessKey": options.access_key,
                    "SecretKey": options.secret_key,
                    "Endpoint": server.endpoint(),
                    "VirtualAddressing": false,
                });
                Ok(Served { server, section: "AwsS3Storage", options })
            }
            Self::Azure => {
                let options = AzureOptions::default();
                let server = BucketServer::start_azure(&options)?;
                let options = json!({
                    "ConnectionString": options.connection_string(&server.endpoint()),
                    "ContainerName": BUCKET,
                });
                Ok(Served { server, section: "AzureBlobStorage", options })
            }
            Self::Google => {
                let options = GoogleOptions::new().context("generating the key of a service account")?;
                let server = BucketServer::start_google(options.clone())?;
                let file = folder.join("service-account.json");
                fs::write(&file, options.service_accounts[0].json(&server.endpoint()).to_string())?;
                let options = json!({
                    "ServiceAccountFile": path(&file),
                    "BucketName": BUCKET,
                    "Endpoint": server.endpoint(),
                });
                Ok(Served { server, section: "GoogleCloudStorage", options })
            }
        }
    }
}

/// The plugin's `StorageEncryption`, with a key of its own. The plugin reads the file once, at its start.
fn encryption_section(format: Encryption, folder: &Path) -> Result<Value> {
    let file = folder.join("master.key");
    fs::write(&file, new_key_file()?.as_bytes())?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    Ok(json!({ "MasterKey": [1, file], "Format": format!("{format:?}") }))
}

/// The bucket that a [`BucketServer`] has by default.
pub(crate) const BUCKET: &str = "bucket";

/// A bucket of a server in this process.
struct ServedBucket(BucketServer);

impl Bucket for ServedBucket {
    fn endpoint(&self) -> String {
        format!("{}/{BUCKET}", self.0.endpoint())
    }

    fn list(&self) -> Vec<(String, u64)> {
        self.0.objects(BUCKET).into_iter().map(|(name, object)| (name, object.bytes.len() as u64)).collect()
    }

    fn request_count(&self) -> u64 {
        self.0.requests().total
    }
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
