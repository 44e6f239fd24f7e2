//! A cloud played by a server on this machine, and an Orthanc whose plugin uses it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Result;
use crypto_envelope::new_key_file;
use fake_cloud::{BucketServer, SharedAzurite};
use real_orthanc::workspace::{Plugin, Profile, plugin_library};
use real_orthanc::{Builder, Orthanc};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::vault::Vault;

/// A server with one bucket, and the plugin that stores there.
pub(crate) struct Cloud<S = BucketServer> {
    pub(crate) server: S,
    plugin: Plugin,
    /// The plugin's library, unless it is that of this source tree.
    library: Option<PathBuf>,
    /// The plugin's section.
    section: Value,
    /// Orthanc's option `HttpsCACertificates`.
    authority: Option<PathBuf>,
    /// Holds the files that the section names.
    folder: TempDir,
}

impl Cloud {
    /// Starts a server for a plugin.
    pub(crate) fn start(package: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (server, section) = fake_cloud::serve(package, folder.path(), |path| path.display().to_string())?;
        Self::with(package, server, section, folder)
    }
}

impl Cloud<Rc<SharedAzurite>> {
    /// A container in an Azurite that others use too.
    pub(crate) fn on_azurite(package: &str, azurite: &Rc<SharedAzurite>) -> Result<Self> {
        Self::with(package, Rc::clone(azurite), azurite.section(), tempfile::tempdir()?)
    }
}

impl<S> Cloud<S> {
    fn with(package: &str, server: S, section: Value, folder: TempDir) -> Result<Self> {
        let plugin = Plugin::named(package)?;
        Ok(Self { server, plugin, library: None, section, authority: None, folder })
    }

    /// Uses another build of the plugin than that of this source tree.
    pub(crate) fn use_library(&mut self, file: &Path) {
        self.library = Some(file.to_owned());
    }

    /// Sets an option of the plugin.
    pub(crate) fn set(&mut self, option: &str, value: impl Into<Value>) {
        self.section[option] = value.into();
    }

    /// A text among the options of the plugin.
    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        self.section[name].as_str()
    }

    /// Lets the plugin keep its master key in a vault, and read blobs of the earlier plugin for vaults.
    pub(crate) fn use_vault(&mut self, vault: &Vault, decay: usize) {
        self.set("Proxy", vault.proxy());
        self.set("OutageTimeout", 5);
        self.set("EnableStorage", true);
        let master_key = json!({"AzureKeyVault": vault.options()});
        self.set("StorageEncryption", json!({"MasterKey": master_key, "KeyDecayCount": decay}));
        self.authority = Some(vault.authority());
    }

    /// Starts an Orthanc that stores in the bucket, with client-side encryption if a format is given.
    pub(crate) fn orthanc(&self, encryption: Option<&str>) -> Result<Orthanc> {
        Ok(self.builder(encryption)?.start()?)
    }

    /// The configuration of that Orthanc.
    pub(crate) fn builder(&self, encryption: Option<&str>) -> Result<Builder> {
        self.builder_with(encryption, |_| {})
    }

    /// The same with changes of the options for encryption.
    pub(crate) fn builder_with(
        &self,
        encryption: Option<&str>,
        change: impl FnOnce(&mut Value),
    ) -> Result<Builder> {
        let mut section = self.section.clone();
        if let Some(format) = encryption {
            let key = self.key_file();
            fs::write(&key, new_key_file()?.as_bytes())?;
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
            let mut options = json!({"MasterKey": [1, key], "Format": format});
            change(&mut options);
            section["StorageEncryption"] = options;
        }
        let library = match &self.library {
            Some(file) => file.clone(),
            None => plugin_library(self.plugin, Profile::Release)?,
        };
        let builder = Orthanc::builder().plugin(library).section(self.plugin.section(), section);
        Ok(match &self.authority {
            Some(file) => builder.section("HttpsCACertificates", json!(file)),
            None => builder,
        })
    }

    /// The master key, whose id is 1.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.folder.path().join("master.key")
    }
}
