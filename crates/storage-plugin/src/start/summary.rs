//! What the plugin says about itself: in the log at start, on Orthanc's page of plugins, and in
//! `GET /object-storage/status`.

use std::path::{Path, PathBuf};

use crypto_envelope::Format;
use hybrid::Side;
use serde_json::{Map, Value, json};
use storage_layout::Structure;

use crate::config::{CommonOptions, EncryptionOptions};
use crate::operations::Facts;
use crate::provider::{Connection, Provider};

/// What follows from the configuration. `absolute` resolves the paths of folders.
pub(crate) fn facts<P: Provider>(
    connection: &Connection,
    common: &CommonOptions,
    absolute: impl Fn(&Path) -> PathBuf,
) -> Facts {
    let mode = match common.hybrid.as_ref().map(|options| options.first) {
        None => "Disabled",
        Some(Side::FileSystem) => "WriteToFileSystem",
        Some(Side::ObjectStorage) => "WriteToObjectStorage",
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
        proxy: connection.proxy.clone(),
        credentials: connection.credentials.clone(),
        encryption: common.encryption.as_ref().map_or(Value::Null, encryption),
    }
}

fn encryption(options: &EncryptionOptions) -> Value {
    let fingerprint = |id: u32| {
        let key = options.ring.get(id).ok()?;
        Some((id.to_string(), Value::String(key.fingerprint().to_string())))
    };
    json!({
        "Format": options.format.to_string(),
        "MasterKeyId": options.ring.current_id(),
        "KeyIds": options.ring.ids().collect::<Vec<_>>(),
        "Fingerprints": options.ring.ids().filter_map(fingerprint).collect::<Map<_, _>>(),
        "ReadFormats": options.read_formats.iter().map(Format::to_string).collect::<Vec<_>>(),
        "ReadUnencrypted": options.read_unencrypted,
    })
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
            ("encryption", self.encryption_line()),
            ("proxy", or_none(&self.proxy)),
            ("credentials", self.credentials.clone()),
        ]);
        lines
    }

    fn encryption_line(&self) -> String {
        let Value::Object(fields) = &self.encryption else { return "off".to_owned() };
        let keys = fields["Fingerprints"].as_object().into_iter().flatten();
        let keys =
            keys.map(|(id, fingerprint)| format!("{id} = {}", fingerprint.as_str().unwrap_or_default()));
        let keys: Vec<_> = keys.collect();
        let format = fields["Format"].as_str().unwrap_or_default();
        format!("{format} with key {} (fingerprints {})", fields["MasterKeyId"], keys.join(", "))
    }

    /// The plugin's description in Orthanc.
    pub(crate) fn description<P: Provider>(&self) -> String {
        format!("{} ({}, HybridMode {})", P::DESCRIPTION, self.bucket, self.mode)
    }
}

/// The plugin's description in Orthanc if it is disabled.
pub(crate) fn disabled<P: Provider>() -> String {
    format!("{} (disabled: the configuration has no section {:?})", P::DESCRIPTION, P::SECTION)
}
