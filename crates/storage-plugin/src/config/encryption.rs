//! `StorageEncryption`: the master keys and the format of new objects.
//!
//! A mistake here stops Orthanc, so that images are never stored unencrypted when encryption is configured.
//! The C++ plugins log a warning and continue without encryption.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use crypto_envelope::{Format, KeyRing, MasterKey, can_be_shown, parse_key_file};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::files::{explain_unreadable, warn_if_shared};
use super::section::describe;
use super::{ConfigError, Section};

const SECTION: &str = "StorageEncryption";
const MASTER_KEY: &str = "MasterKey";
const PREVIOUS_KEYS: &str = "PreviousMasterKeys";
const FORMAT: &str = "Format";
const READ_FORMATS: &str = "ReadFormats";
/// All options, which are also known where encryption is off.
const OPTIONS: &[&str] =
    &["Enable", MASTER_KEY, PREVIOUS_KEYS, FORMAT, READ_FORMATS, "ReadUnencrypted", "MaxConcurrentInputSize"];
/// Bytes to read of a key file, which has about 45. More are refused as a wrong length.
const LONGEST_KEY_FILE: usize = 4096;
const KEY_ENTRY: &str = "[id, \"path of the key file\"]";

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

impl EncryptionOptions {
    /// Reads the options and the key files.
    pub(crate) fn read<'a>(
        section: &mut Section<'a>,
        configuration: &'a Map<String, Value>,
    ) -> Result<Option<Self>, ConfigError> {
        match find(section, configuration)? {
            Some(encryption) => encryption.read(Self::read_options),
            None => Ok(None),
        }
    }

    /// Returns `None` if encryption is off.
    fn read_options(section: &mut Section<'_>) -> Result<Option<Self>, ConfigError> {
        section.know(OPTIONS);
        if section.is_empty() || !section.flag("Enable", true)? {
            return Ok(None);
        }
        let ring = key_ring(section)?;
        let megabytes = section.number("MaxConcurrentInputSize", 1024, 1..=1_048_576)?;
        let format = match section.choice(FORMAT, &["A1", "A2"])? {
            Some("A2") => Format::A2,
            _ => Format::A1,
        };
        let read_formats = read_formats(section, format)?;
        let read_unencrypted = section.flag("ReadUnencrypted", false)?;
        Ok(Some(Self { ring, format, read_formats, memory: megabytes * 1024 * 1024, read_unencrypted }))
    }

    /// Warns of weaknesses that other options avoid.
    pub(crate) fn warn(&self) {
        if self.format == Format::A1 {
            tracing::warn!(
                "new objects are encrypted in format A1, like those of the C++ plugins; if no such plugin uses this \
                 bucket, \"Format\": \"A2\" is stronger and faster"
            );
        } else if self.read_formats.contains(&Format::A1) {
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

fn key_ring(section: &mut Section<'_>) -> Result<KeyRing, ConfigError> {
    let Some(current) = section.list(MASTER_KEY, KEY_ENTRY)? else {
        return Err(section.missing(MASTER_KEY, &format!("it must be {KEY_ENTRY}")));
    };
    let (id, key) = master_key(section, MASTER_KEY, current)?;
    let list = section.list(PREVIOUS_KEYS, &format!("a list of {KEY_ENTRY}"))?.unwrap_or_default();
    let mut previous = Vec::with_capacity(list.len());
    for entry in list {
        let Value::Array(entry) = entry else {
            return Err(section.error(PREVIOUS_KEYS, format!("must be a list of {KEY_ENTRY}")));
        };
        previous.push(master_key(section, PREVIOUS_KEYS, entry)?);
    }
    KeyRing::new(id, key, previous)
        .map_err(|error| section.error(PREVIOUS_KEYS, format!("is not valid: {error}")))
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
