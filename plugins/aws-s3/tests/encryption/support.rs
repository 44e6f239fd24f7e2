//! The built plugin with keys, in a host that plays Orthanc, on a bucket of its own.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use crypto_envelope::{Format, KeyRing, parse_key_file};
use end_to_end::workspace::{Plugin, Profile, plugin_library};
use serde_json::{Value, json};
use tempfile::TempDir;
use test_bucket::{BucketServer, Options};
use test_host::{HostOptions, LoadError, LogLevel, TestHost};

/// Orthanc's error codes.
pub(crate) const INEXISTENT_FILE: i32 = 13;
pub(crate) const CORRUPTED_FILE: i32 = 20;
pub(crate) const STORAGE_AREA_PLUGIN: i32 = 32;
pub(crate) const BAD_RANGE: i32 = 41;

/// Orthanc's content type of DICOM files.
pub(crate) const DICOM: i32 = 1;

pub(crate) const UUID: &str = "3d6c5f0e-6a51-4a0c-9c58-0a1b2c3d4e5f";

/// The ids of the keys that the C++ plugin's files need.
pub(crate) const KEY_IDS: [u32; 3] = [3, 7, u32::MAX];

/// Files that the C++ plugin wrote.
pub(crate) fn vectors() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/crypto-envelope/testdata/a1"))
}

/// Key files that only their owner can read.
#[derive(Debug)]
pub(crate) struct Keys(TempDir);

impl Keys {
    pub(crate) fn new() -> Result<Self> {
        let keys = Self(tempfile::tempdir()?);
        for id in KEY_IDS {
            keys.write(&format!("key-{id}.b64"), fs::read(vectors().join(format!("key-{id}.b64")))?)?;
        }
        Ok(keys)
    }

    /// Writes a key file with any content.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<String> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.0.path().join(name);
        fs::write(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// The path of a file in the folder, there or not.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }

    /// `[id, path]`.
    pub(crate) fn entry(&self, id: u32) -> Value {
        json!([id, self.path(&format!("key-{id}.b64"))])
    }

    /// The section `StorageEncryption` with master key 3 and `options`.
    pub(crate) fn section(&self, options: &Value) -> Value {
        with(json!({ "MasterKey": self.entry(3) }), options)
    }

    /// All keys, with `current` for what is encrypted.
    pub(crate) fn ring(&self, current: u32) -> Result<KeyRing> {
        let key =
            |id: u32| -> Result<_> { Ok(parse_key_file(&fs::read(self.path(&format!("key-{id}.b64")))?)?) };
        let others = KEY_IDS.into_iter().filter(|id| *id != current);
        let previous = others.map(|id| Ok((id, key(id)?))).collect::<Result<Vec<_>>>()?;
        Ok(KeyRing::new(current, key(current)?, previous)?)
    }

    /// An envelope under master key 3.
    pub(crate) fn seal(&self, format: Format, uuid: &str, content: &[u8]) -> Result<Vec<u8>> {
        Ok(crypto_envelope::encrypt(&self.ring(3)?, format, uuid, content)?)
    }

    /// How each key could show in a text: hexadecimal, base64 and Rust's lists.
    pub(crate) fn spellings(&self) -> Result<Vec<String>> {
        let mut spellings = Vec::new();
        for id in KEY_IDS {
            let text = fs::read_to_string(self.path(&format!("key-{id}.b64")))?;
            let key = BASE64.decode(text.trim())?;
            let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            let list = key[..8].iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
            spellings.extend([text.trim().trim_end_matches('=').to_owned(), hex.to_uppercase(), hex, list]);
        }
        Ok(spellings)
    }
}

/// An object with the members of `options` added or replaced.
pub(crate) fn with(mut object: Value, options: &Value) -> Value {
    for (option, value) in options.as_object().into_iter().flatten() {
        object[option] = value.clone();
    }
    object
}

/// The section of the plugin, without encryption.
pub(crate) fn section(server: &BucketServer) -> Value {
    json!({
        "BucketName": "bucket",
        "Region": "us-east-1",
        "AccessKey": "test-access-key",
        "SecretKey": "test-secret-key",
        "Endpoint": server.endpoint(),
        "VirtualAddressing": false,
        // A busy machine makes connections slow, and requests are counted: transfers in parts have tests of their own.
        "TransferPoolSize": 1,
    })
}

pub(crate) fn load(configuration: Value) -> Result<Result<TestHost, LoadError>> {
    let library = plugin_library(Plugin::AwsS3, Profile::Dev)?;
    Ok(TestHost::load(library, HostOptions::with_configuration(configuration)))
}

/// A plugin at work. It is dropped before its server.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) host: TestHost,
    pub(crate) server: BucketServer,
    pub(crate) keys: Keys,
}

impl Setup {
    /// Encrypts with master key 3 in the format given.
    pub(crate) fn new(format: &str) -> Result<Self> {
        Self::with(&json!({}), &json!({ "Format": format }))
    }

    /// With options of the plugin and of `StorageEncryption`.
    pub(crate) fn with(options: &Value, encryption: &Value) -> Result<Self> {
        let (server, keys) = (BucketServer::start(Options::default())?, Keys::new()?);
        let host = load(configuration(&server, &keys, options, encryption))??;
        server.reset_counts();
        Ok(Self { host, server, keys })
    }

    /// Ends the plugin and starts it with other options, on the same bucket.
    pub(crate) fn restart(&mut self, options: &Value, encryption: &Value) -> Result<()> {
        let configuration = configuration(&self.server, &self.keys, options, encryption);
        self.host.reset(HostOptions::with_configuration(configuration))?;
        self.server.reset_counts();
        Ok(())
    }

    pub(crate) fn create(&self, uuid: &str, content: &[u8]) -> Result<()> {
        done(self.host.create(uuid, DICOM, content))
    }

    pub(crate) fn read(&self, uuid: &str) -> Result<Vec<u8>> {
        done(self.host.read_whole(uuid, DICOM))
    }

    pub(crate) fn range(&self, uuid: &str, start: u64, len: usize) -> Result<Vec<u8>> {
        done(self.host.read_range(uuid, DICOM, start, len))
    }

    /// The content of an object.
    pub(crate) fn object(&self, key: &str) -> Result<Bytes> {
        Ok(self.server.object("bucket", key).with_context(|| format!("no object {key}"))?.bytes)
    }

    /// Puts an object beside the plugin.
    pub(crate) fn insert(&self, key: &str, content: impl Into<Bytes>) {
        self.server.insert("bucket", key, content);
    }

    /// Requests, and bytes of answers, since the last call.
    pub(crate) fn cost(&self) -> (u64, u64) {
        let counts = self.server.requests();
        self.server.reset_counts();
        (counts.total, counts.body_bytes_sent)
    }

    /// The last line at error level.
    pub(crate) fn last_error(&self) -> String {
        lines(&self.host.logs(), LogLevel::Error).pop().unwrap_or_default()
    }

    /// Nothing was done that a host would suffer from.
    pub(crate) fn check(&self) {
        assert_eq!(self.host.violations(), Vec::<String>::new());
        assert_eq!(self.host.outstanding_buffers(), 0);
    }
}

fn configuration(server: &BucketServer, keys: &Keys, options: &Value, encryption: &Value) -> Value {
    let encryption = json!({ "StorageEncryption": keys.section(encryption) });
    json!({ "AwsS3Storage": with(with(section(server), &encryption), options) })
}

/// The lines of one level, without the plugin's name, with which each begins.
pub(crate) fn lines(logs: &[(LogLevel, String)], wanted: LogLevel) -> Vec<String> {
    let wanted = logs.iter().filter(|(level, _)| *level == wanted);
    wanted.map(|(_, text)| text.replacen("AWS S3 Storage: ", "", 1)).collect()
}

/// An outcome of a callback that must be a success.
pub(crate) fn done<T>(outcome: Result<T, i32>) -> Result<T> {
    outcome.map_err(|code| anyhow!("the callback returned {code}"))
}

/// An identifier for each number.
pub(crate) fn uuid(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

/// Where the DICOM file `uuid` is in the flat structure, without `.enc`.
pub(crate) fn flat(uuid: &str) -> String {
    format!("{uuid}.dcm")
}

/// Where `uuid` is in the legacy structure.
pub(crate) fn legacy(uuid: &str) -> String {
    format!("{}/{}/{uuid}", &uuid[..2], &uuid[2..4])
}

/// Bytes in which no two stretches are the same, so that misplaced ones show.
pub(crate) fn content(length: usize) -> Vec<u8> {
    let words = (0..length.div_ceil(8) as u64).map(|word| word.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ word);
    let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    bytes.truncate(length);
    bytes
}
