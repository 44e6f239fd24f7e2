//! A cloud played by a server on this machine, and an Orthanc whose plugin uses it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use crypto_envelope::new_key_file;
use fake_cloud::{AzureOptions, BucketServer, GoogleOptions, Options};
use real_orthanc::Orthanc;
use real_orthanc::workspace::{Plugin, Profile, plugin_library};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The bucket that a [`BucketServer`] has from its start.
pub(crate) const BUCKET: &str = "bucket";

/// A server with one bucket, and the plugin that stores there.
pub(crate) struct Cloud {
    pub(crate) server: BucketServer,
    plugin: Plugin,
    /// The plugin's section.
    section: Value,
    /// Holds the files that the section names.
    folder: TempDir,
}

impl Cloud {
    /// Starts a server for a plugin.
    pub(crate) fn start(package: &str) -> Result<Self> {
        let plugin = Plugin::named(package)?;
        let folder = tempfile::tempdir()?;
        let (server, section) = match package {
            "aws-s3" => {
                let options = Options::default();
                let server = BucketServer::start(options.clone())?;
                let section = json!({
                    "BucketName": BUCKET,
                    "Region": options.region,
                    "AccessKey": options.access_key,
                    "SecretKey": options.secret_key,
                    "Endpoint": server.endpoint(),
                    "VirtualAddressing": false,
                });
                (server, section)
            }
            "azure-blob" => {
                let options = AzureOptions::default();
                let server = BucketServer::start_azure(&options)?;
                let connection = options.connection_string(&server.endpoint());
                let section = json!({"ConnectionString": connection, "ContainerName": BUCKET});
                (server, section)
            }
            "google-cloud" => {
                let options = GoogleOptions::new().context("generating the key of a service account")?;
                let server = BucketServer::start_google(options.clone())?;
                let file = folder.path().join("service-account.json");
                fs::write(&file, options.service_accounts[0].json(&server.endpoint()).to_string())?;
                let section =
                    json!({"ServiceAccountFile": file, "BucketName": BUCKET, "Endpoint": server.endpoint()});
                (server, section)
            }
            other => bail!("there is no server for {other}"),
        };
        Ok(Self { server, plugin, section, folder })
    }

    /// Starts an Orthanc that stores in the bucket, with client-side encryption if a format is given.
    pub(crate) fn orthanc(&self, encryption: Option<&str>) -> Result<Orthanc> {
        let mut section = self.section.clone();
        if let Some(format) = encryption {
            let key = self.key_file();
            fs::write(&key, new_key_file()?.as_bytes())?;
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
            section["StorageEncryption"] = json!({"MasterKey": [1, key], "Format": format});
        }
        let library = plugin_library(self.plugin, Profile::Release)?;
        Ok(Orthanc::builder().plugin(library).section(self.plugin.section(), section).start()?)
    }

    /// The master key, whose id is 1.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.folder.path().join("master.key")
    }
}
