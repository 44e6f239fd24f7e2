//! `StorageEncryption`: the master keys and the format of new objects.
//!
//! A mistake here stops Orthanc, so that images are never stored unencrypted when encryption is configured.
//! The C++ plugins log a warning and continue without encryption.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use crypto_envelope::{
    FileKeyOptions, FileKeys, Format, KeyRing, KeyService, MasterKey, can_be_shown, parse_key_file,
};
use orthanc_ffi::InitializeError;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::files::{explain_unreadable, warn_if_shared};
use super::section::describe;
use super::{ConfigError, Section};

const SECTION: &str = "StorageEncryption";
const ENABLE: &str = "Enable";
const MASTER_KEY: &str = "MasterKey";
const PREVIOUS_KEYS: &str = "PreviousMasterKeys";
const FORMAT: &str = "Format";
const READ_FORMATS: &str = "ReadFormats";
const READ_ENCRYPTED: &str = "ReadEncrypted";
const KEY_DECAY: &str = "KeyDecayCount";
const KEY_POOL: &str = "KeyPoolSize";
/// All options, which are also known where encryption is off.
const OPTIONS: &[&str] = &[
    ENABLE,
    MASTER_KEY,
    PREVIOUS_KEYS,
    FORMAT,
    READ_FORMATS,
    READ_ENCRYPTED,
    "ReadUnencrypted",
    "MaxConcurrentInputSize",
    KEY_DECAY,
    KEY_POOL,
];
/// Bytes to read of a key file, which has about 45. More are refused as a wrong length.
const LONGEST_KEY_FILE: usize = 4096;
/// The default of `MaxConcurrentInputSize`.
const DEFAULT_MEGABYTES: u64 = 1024;
const KEY_ENTRY: &str = "[id, \"path of the key file\"]";
/// The key services of all clouds, as they are named in the options.
const KEY_SERVICES: [&str; 3] = ["AwsKms", "AzureKeyVault", "GoogleKms"];

/// Returns a client of a key service with the options of a section.
pub(crate) type OpenKeyService<'f> =
    dyn FnMut(&mut Section<'_>) -> Result<Arc<dyn KeyService>, InitializeError> + 'f;

/// Makes clients of the cloud's key service.
pub(crate) struct KeyServices<'f> {
    /// The service's name in `MasterKey`.
    pub(crate) name: Option<&'static str>,
    /// Whether the options of the earlier plugin for Azure Key Vault are read.
    pub(crate) has_earlier: bool,
    pub(crate) open: &'f mut OpenKeyService<'f>,
}

/// Where a master key is.
enum Key {
    File(u32, MasterKey),
    Service(Arc<dyn KeyService>),
}

/// How attachments are encrypted.
#[derive(Debug)]
pub(crate) struct EncryptionOptions {
    /// `MasterKey` and `PreviousMasterKeys`.
    pub(crate) ring: KeyRing,
    /// `Format` of new objects.
    pub(crate) format: Format,
    /// `ReadFormats`, which contains `format`.
    pub(crate) read_formats: Vec<Format>,
    /// `MaxConcurrentInputSize`, in bytes.
    pub(crate) memory: u64,
    /// `ReadUnencrypted`.
    pub(crate) read_unencrypted: bool,
}

/// `StorageEncryption`.
#[derive(Debug)]
pub(crate) enum StorageEncryption {
    /// Attachments are stored unencrypted, and no others are read.
    Off,
    /// Attachments are stored unencrypted, and those are read that were encrypted before encryption was switched off
    /// (`ReadEncrypted`).
    OnlyRead(EncryptionOptions),
    /// Attachments are encrypted.
    On(EncryptionOptions),
}

impl EncryptionOptions {
    /// Reads the options and the key files.
    pub(crate) fn read<'a>(
        section: &mut Section<'a>,
        configuration: &'a Map<String, Value>,
        services: &mut KeyServices<'_>,
    ) -> Result<StorageEncryption, InitializeError> {
        let earlier = Earlier::read(section, services)?;
        let own = match find(section, configuration)? {
            Some(encryption) => {
                encryption.read(|options| Self::read_options(options, services, earlier.as_ref()))?
            }
            None => StorageEncryption::Off,
        };
        Ok(match (own, earlier.and_then(Earlier::into_options)) {
            (StorageEncryption::Off, Some(earlier)) => StorageEncryption::On(earlier),
            (own, _) => own,
        })
    }

    fn read_options(
        section: &mut Section<'_>,
        services: &mut KeyServices<'_>,
        earlier: Option<&Earlier>,
    ) -> Result<StorageEncryption, InitializeError> {
        section.know(OPTIONS);
        if section.is_empty() {
            return Ok(StorageEncryption::Off);
        }
        let is_enabled = section.flag(ENABLE, true)?;
        let reads_encrypted = section.flag(READ_ENCRYPTED, false)?;
        if !is_enabled {
            match earlier {
                Some(earlier) if earlier.is_enabled => {
                    let problem = "is false, but EncryptionEnabled is true; remove one of them";
                    return Err(section.error(ENABLE, problem).into());
                }
                _ if !reads_encrypted => return Ok(StorageEncryption::Off),
                _ => {}
            }
        }
        let ring = key_ring(section, services, earlier.map(|earlier| Arc::clone(&earlier.service)))?;
        let megabytes = section.number("MaxConcurrentInputSize", DEFAULT_MEGABYTES, 1..=1_048_576)?;
        let format = match section.choice(FORMAT, &["A1", "A2"])? {
            Some("A1") if ring.current_id().is_none() => {
                let problem = "must be A2, since the master key is in a key service; remove this option";
                return Err(section.error(FORMAT, problem).into());
            }
            Some("A1") => Format::A1,
            None if ring.current_id().is_some() => Format::A1,
            _ => Format::A2,
        };
        let read_formats = read_formats(section, format)?;
        let read_unencrypted = section.flag("ReadUnencrypted", false)?;
        let options = Self { ring, format, read_formats, memory: megabytes * 1024 * 1024, read_unencrypted };
        let kind = if is_enabled { StorageEncryption::On } else { StorageEncryption::OnlyRead };
        Ok(kind(options))
    }

    /// Warns of weaknesses that other options avoid.
    pub(crate) fn warn(&self) {
        if self.format == Format::A1 {
            tracing::warn!(
                "new objects are encrypted in format A1, like those of the C++ plugins; if no such plugin uses this \
                 bucket, \"Format\": \"A2\" is stronger and faster"
            );
        } else if self.read_formats.contains(&Format::A1) && self.ring.ids().next().is_some() {
            tracing::warn!(
                "objects in format A1 are accepted, so anyone who can write to the bucket can replace an A2 object with \
                 an A1 object of another patient; if the bucket contains no A1 objects, set \"{READ_FORMATS}\": [\"A2\"]"
            );
        }
    }
}

/// Finds the section in the plugin's section or, as for C++ plugins before 1.0, at the root.
fn find<'a>(
    section: &mut Section<'a>,
    configuration: &'a Map<String, Value>,
) -> Result<Option<Section<'a>>, ConfigError> {
    let own = section.open_subsection(SECTION)?;
    // Without the option that was meant, images would be stored unencrypted.
    let outside = Section::root(configuration);
    outside.check_spelling_of(SECTION)?;
    outside.check_master_keys()?;
    let root = Section::find(configuration, SECTION)?.filter(|root| !root.is_empty());
    match (own, root) {
        (Some(own), Some(root)) if !own.has_same_values(&root) => {
            let problem = "differs from the section at the root of the configuration; remove one of them";
            Err(section.error(SECTION, problem))
        }
        (Some(own), _) => Ok(Some(own)),
        (None, Some(root)) => {
            tracing::warn!(
                "{SECTION} at the root of the configuration is deprecated; move it into {}",
                section.name()
            );
            Ok(Some(root))
        }
        (None, None) => Ok(None),
    }
}

fn read_formats(section: &mut Section<'_>, format: Format) -> Result<Vec<Format>, ConfigError> {
    const ALL: [Format; 2] = [Format::A1, Format::A2];
    const EXPECTED: &str = "a list of formats: [\"A1\", \"A2\"], [\"A1\"] or [\"A2\"]";
    let Some(list) = section.list(READ_FORMATS, EXPECTED)? else { return Ok(ALL.to_vec()) };
    let mut formats = Vec::with_capacity(list.len());
    for value in list {
        let named = ALL.into_iter().find(|format| value.as_str() == Some(&format.to_string()));
        formats.push(named.ok_or_else(|| {
            section.error(READ_FORMATS, format!("must be {EXPECTED}, got {} in the list", describe(value)))
        })?);
    }
    if !formats.contains(&format) {
        let problem = format!("must contain {format}, the {FORMAT} of new objects");
        return Err(section.error(READ_FORMATS, problem));
    }
    Ok(formats)
}

/// The options of the earlier plugin for Azure Key Vault, which are in the plugin's section.
struct Earlier {
    service: Arc<dyn KeyService>,
    options: FileKeyOptions,
    /// `EncryptionEnabled`.
    is_enabled: bool,
}

impl Earlier {
    fn read(
        section: &mut Section<'_>,
        services: &mut KeyServices<'_>,
    ) -> Result<Option<Self>, InitializeError> {
        if !services.has_earlier {
            return Ok(None);
        }
        let options = file_key_options(section, 1)?;
        let is_enabled = section.flag("EncryptionEnabled", false)?;
        let key_vault = section.open_subsection("AzureKeyVault")?;
        match key_vault.map(|options| options.read(|options| (services.open)(options))).transpose()? {
            Some(service) => Ok(Some(Self { service, options, is_enabled })),
            None if is_enabled => {
                Err(section.error("EncryptionEnabled", "requires the section AzureKeyVault").into())
            }
            None => Ok(None),
        }
    }

    /// Encryption as in `StorageEncryption`; `None` if it is off.
    fn into_options(self) -> Option<EncryptionOptions> {
        let Self { service, options, is_enabled } = self;
        let ring = KeyRing::of_service(FileKeys::new(Some(service), [], options), []).ok()?;
        let memory = DEFAULT_MEGABYTES * 1024 * 1024;
        // That plugin stored no envelopes.
        let (format, read_formats) = (Format::A2, vec![Format::A2]);
        let options = EncryptionOptions { ring, format, read_formats, memory, read_unencrypted: false };
        is_enabled.then_some(options)
    }
}

fn file_key_options(section: &mut Section<'_>, decay: u64) -> Result<FileKeyOptions, ConfigError> {
    Ok(FileKeyOptions {
        decay: section.number(KEY_DECAY, decay, 1..=1_000_000_000)?,
        pool: usize::try_from(section.number(KEY_POOL, 10, 0..=100_000)?).unwrap_or(usize::MAX),
    })
}

/// `earlier` unwraps the keys of the earlier plugin for Azure Key Vault.
fn key_ring(
    section: &mut Section<'_>,
    services: &mut KeyServices<'_>,
    earlier: Option<Arc<dyn KeyService>>,
) -> Result<KeyRing, InitializeError> {
    let expected = services.expected();
    let Some(current) = section.any(MASTER_KEY) else {
        return Err(section.missing(MASTER_KEY, &format!("it must be {expected}")).into());
    };
    let current = key(section, MASTER_KEY, current, services)?;
    let list = section.list(PREVIOUS_KEYS, &format!("a list of {expected}"))?.unwrap_or_default();
    let mut files = Vec::new();
    let mut previous: Vec<_> = earlier.into_iter().collect();
    for entry in list {
        // A single key without the list around it.
        if !entry.is_array() && !entry.is_object() {
            return Err(section.error(PREVIOUS_KEYS, format!("must be a list of {expected}")).into());
        }
        match key(section, PREVIOUS_KEYS, entry, services)? {
            Key::File(id, key) => files.push((id, key)),
            Key::Service(service) => previous.push(service),
        }
    }
    let options = file_key_options(section, 1000)?;
    let invalid = |error| section.error(PREVIOUS_KEYS, format!("is not valid: {error}"));
    Ok(match current {
        Key::File(id, key) => {
            let ring = KeyRing::new(id, key, files).map_err(invalid)?;
            if previous.is_empty() {
                return Ok(ring);
            }
            ring.with_previous_services(FileKeys::new(None, previous, options))
        }
        Key::Service(service) => {
            let file_keys = FileKeys::new(Some(service), previous, options);
            KeyRing::of_service(file_keys, files).map_err(invalid)?
        }
    })
}

impl KeyServices<'_> {
    fn expected(&self) -> String {
        match self.name {
            Some(name) => format!("{KEY_ENTRY} or {{\"{name}\": {{…}}}}"),
            None => KEY_ENTRY.to_owned(),
        }
    }
}

/// Reads `[id, "path"]`, or `{"service": {…}}`.
fn key(
    section: &Section<'_>,
    option: &str,
    value: &Value,
    services: &mut KeyServices<'_>,
) -> Result<Key, InitializeError> {
    let expected = services.expected();
    let entry = match value {
        Value::Array(entry) => {
            let (id, key) = master_key(section, option, entry)?;
            return Ok(Key::File(id, key));
        }
        Value::Object(entry) => entry,
        // The value may be a key instead of its file.
        _ => return Err(section.error(option, format!("must be {expected}")).into()),
    };
    let mut others = KEY_SERVICES.iter().filter(|name| Some(**name) != services.name);
    if let Some(other) = others.find(|name| entry.contains_key(**name)) {
        let problem =
            format!("must be {expected}, got {other}, which only the plugin of its own cloud can use");
        return Err(section.error(option, problem).into());
    }
    section.entry(option, entry).read(|entry| {
        let opened = services.name.map(|name| entry.open_subsection(name)).transpose()?.flatten();
        let service = opened.map(|options| options.read(|options| (services.open)(options))).transpose()?;
        service.map(Key::Service).ok_or_else(|| section.error(option, format!("must be {expected}")).into())
    })
}

/// Reads a key file, but no device or pipe, whose content may never end or never come.
fn read_key_file(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let is_file = fs::metadata(path)?.is_file();
    if !is_file {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut content = Zeroizing::new(Vec::with_capacity(LONGEST_KEY_FILE));
    File::open(path)?.take(LONGEST_KEY_FILE as u64).read_to_end(&mut content)?;
    Ok(content)
}

/// Reads `[id, "path"]`.
fn master_key(section: &Section<'_>, option: &str, entry: &[Value]) -> Result<(u32, MasterKey), ConfigError> {
    let malformed =
        || section.error(option, format!("must be {KEY_ENTRY} with an id from 0 to {}", u32::MAX));
    let [id, Value::String(path)] = entry else { return Err(malformed()) };
    let id = id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(malformed)?;
    let content = read_key_file(Path::new(path)).map_err(|error| {
        // Writing the key itself here is an obvious mistake, and the log must not show it.
        if parse_key_file(path.as_bytes()).is_ok() {
            return section
                .error(option, "must be the path of a key file, got a key; move the key into a file");
        }
        let (name, reason) = if can_be_shown(path, Path::is_dir) {
            (format!("{path:?}"), explain_unreadable(Path::new(path), &error))
        } else {
            ("a name that is not shown because it may be a key".to_owned(), error.to_string())
        };
        section.error(option, format!("must name a readable key file, got {name}: {reason}"))
    })?;
    warn_if_shared(Path::new(path));
    let key = parse_key_file(&content).map_err(|error| {
        section.error(option, format!("must name a valid key file, got {path:?}: {error}"))
    })?;
    Ok((id, key))
}
