//! What the plugin says about itself: in the log at start, on Orthanc's page of plugins, and in
//! `GET /object-storage/status`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crypto_envelope::{Fingerprint, Format, Service};
use hybrid::{Side, WriteBackOptions};
use security_audit::Encryption;
use serde_json::{Value, json};
use storage_layout::Structure;

use crate::config::{CommonOptions, EncryptionOptions};
use crate::provider::{Connection, Provider};

/// What follows from the configuration.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) version: &'static str,
    pub(crate) commit: Option<&'static str>,
    pub(crate) provider: &'static str,
    pub(crate) bucket: String,
    pub(crate) endpoint: String,
    pub(crate) region: Option<String>,
    /// `RootPath`, without a slash at its end.
    pub(crate) root: String,
    /// `StorageStructure`, as spelled in the configuration.
    pub(crate) structure: &'static str,
    /// `HybridMode`, as spelled in the configuration.
    pub(crate) mode: &'static str,
    /// `StorageDirectory` in the hybrid modes.
    pub(crate) files: Option<PathBuf>,
    pub(crate) state: PathBuf,
    /// The section `WriteBack`, in that mode.
    write_back: Option<WriteBackOptions>,
    /// Without its password.
    pub(crate) proxy: Option<String>,
    /// Where the credentials come from.
    pub(crate) credentials: String,
    /// `None` if encrypted attachments are neither written nor read.
    pub(crate) encryption: Option<EncryptionFacts>,
}

/// How attachments are encrypted.
#[derive(Debug)]
pub(crate) struct EncryptionFacts {
    /// Whether new objects are encrypted. Otherwise, encrypted ones are only read (`ReadEncrypted`).
    is_enabled: bool,
    format: Format,
    /// The id of the key for new objects.
    /// `None` if it is in a key service.
    current: Option<u32>,
    service: Option<Service>,
    /// Those of all keys, by id.
    fingerprints: BTreeMap<u32, Fingerprint>,
    read_formats: Vec<Format>,
    read_unencrypted: bool,
}

/// Collects the facts. `absolute` resolves the paths of folders.
pub(crate) fn facts<P: Provider>(
    connection: &Connection,
    common: &CommonOptions,
    absolute: impl Fn(&Path) -> PathBuf,
) -> Facts {
    let mode = match common.hybrid.as_ref().map(|options| options.first) {
        None => "Disabled",
        Some(Side::FileSystem) => "WriteToFileSystem",
        Some(Side::ObjectStorage) => "WriteToObjectStorage",
        Some(Side::Pending | Side::Cache) => "WriteBack",
    };
    let structure = match common.structure {
        Structure::Flat => "flat",
        Structure::Legacy => "legacy",
    };
    Facts {
        version: env!("CARGO_PKG_VERSION"),
        commit: P::COMMIT,
        provider: P::SECTION,
        bucket: connection.bucket.url.clone(),
        endpoint: connection.endpoint.clone(),
        region: connection.region.clone(),
        root: common.root.join("").trim_end_matches('/').to_owned(),
        structure,
        mode,
        files: common.hybrid.as_ref().map(|options| absolute(&options.directory)),
        state: absolute(&common.state.directory),
        write_back: common.hybrid.as_ref().and_then(|options| options.write_back.clone()),
        proxy: connection.proxy.clone(),
        credentials: connection.credentials.clone(),
        encryption: match (&common.encryption, &common.decryption) {
            (Some(options), _) => Some(EncryptionFacts::of(options, true)),
            (None, options) => options.as_ref().map(|options| EncryptionFacts::of(options, false)),
        },
    }
}

impl EncryptionFacts {
    fn of(options: &EncryptionOptions, is_enabled: bool) -> Self {
        let fingerprint = |id: u32| Some((id, options.ring.get(id).ok()?.fingerprint()));
        Self {
            is_enabled,
            format: options.format,
            current: options.ring.current_id(),
            service: options.ring.file_keys().and_then(|keys| keys.writer()),
            fingerprints: options.ring.ids().filter_map(fingerprint).collect(),
            read_formats: options.read_formats.clone(),
            read_unencrypted: options.read_unencrypted,
        }
    }

    /// How new attachments are encrypted, for the audit; `None` if they are not.
    pub(crate) fn audited(&self, reads_key_vault: bool) -> Option<Encryption> {
        self.is_enabled.then(|| Encryption {
            format: self.format.to_string(),
            reads_a1: self.read_formats.contains(&Format::A1) && !self.fingerprints.is_empty(),
            reads_unencrypted: self.read_unencrypted,
            reads_key_vault,
        })
    }

    /// The field `Encryption` of `GET /object-storage/status`.
    pub(crate) fn to_json(&self) -> Value {
        let fingerprints: BTreeMap<_, _> = self
            .fingerprints
            .iter()
            .map(|(id, fingerprint)| (id.to_string(), fingerprint.to_string()))
            .collect();
        let mut facts = json!({
            "Enabled": self.is_enabled,
            "Format": self.is_enabled.then(|| self.format.to_string()),
            "MasterKeyId": self.current.filter(|_| self.is_enabled),
            "KeyIds": self.fingerprints.keys().collect::<Vec<_>>(),
            "Fingerprints": fingerprints,
            "ReadFormats": self.read_formats.iter().map(Format::to_string).collect::<Vec<_>>(),
            "ReadUnencrypted": self.read_unencrypted,
        });
        if let Some(service) = self.service {
            facts["KeyService"] = service.to_string().into();
        }
        facts
    }

    fn line(&self) -> String {
        let keys = self.fingerprints.iter().map(|(id, fingerprint)| format!("{id} = {fingerprint}"));
        let keys: Vec<_> = keys.collect();
        if !self.is_enabled {
            let keys =
                if keys.is_empty() { String::new() } else { format!(" with keys {}", keys.join(", ")) };
            return format!("off, existing encrypted attachments are read{keys}");
        }
        let current = match (self.current, self.service) {
            (None, Some(service)) => format!("a key in {service}"),
            (id, _) => format!("key {}", id.unwrap_or_default()),
        };
        let fingerprints =
            if keys.is_empty() { String::new() } else { format!(" (fingerprints {})", keys.join(", ")) };
        format!("{} with {current}{fingerprints}", self.format)
    }
}

impl Facts {
    /// Logs the facts: each as an info line, and all in one warning, which Orthanc shows at any log level.
    pub(crate) fn log(&self) {
        let lines = self.lines();
        for (name, value) in &lines {
            tracing::info!("{name}: {value}");
        }
        let facts: Vec<_> = lines.iter().map(|(name, value)| format!("{name} {value}")).collect();
        tracing::warn!("{}", facts.join(", "));
    }

    fn lines(&self) -> Vec<(&'static str, String)> {
        let commit = self.commit.map(|commit| format!(" (commit {commit})")).unwrap_or_default();
        let or_none = |value: &Option<String>| value.as_deref().unwrap_or("none").to_owned();
        let mode = match &self.files {
            Some(files) => format!("{}, files in {}", self.mode, files.display()),
            None => self.mode.to_owned(),
        };
        let mut lines =
            vec![("version", format!("{}{commit}", self.version)), ("bucket", self.bucket.clone())];
        lines.extend(self.region.iter().map(|region| ("region", region.clone())));
        lines.extend([
            ("endpoint", self.endpoint.clone()),
            ("root path", format!("{:?}", self.root)),
            ("structure", self.structure.to_owned()),
            ("HybridMode", mode),
            ("state directory", self.state.display().to_string()),
        ]);
        lines.extend(self.write_back.as_ref().map(|options| ("WriteBack", write_back_line(options))));
        lines.extend([
            ("encryption", self.encryption.as_ref().map_or_else(|| "off".to_owned(), EncryptionFacts::line)),
            ("proxy", or_none(&self.proxy)),
            ("credentials", self.credentials.clone()),
        ]);
        lines
    }

    /// The plugin's description in Orthanc.
    pub(crate) fn description<P: Provider>(&self) -> String {
        format!("{} ({}, HybridMode {})", P::DESCRIPTION, self.bucket, self.mode)
    }
}

/// The options of the section, with their names.
fn write_back_line(options: &WriteBackOptions) -> String {
    let WriteBackOptions { max_cache, keep_free, max_pending, upload_delay, uploads, cache_reads } = options;
    format!(
        "MaxCacheMB {}, KeepFreeMB {}, MaxPendingMB {}, UploadDelay {}, Uploads {uploads}, CacheReads {cache_reads}",
        max_cache >> 20,
        keep_free >> 20,
        max_pending >> 20,
        upload_delay.as_secs(),
    )
}

/// The plugin's description in Orthanc if it is disabled.
pub(crate) fn disabled<P: Provider>(reason: &str) -> String {
    format!("{} (disabled: {reason})", P::DESCRIPTION)
}
