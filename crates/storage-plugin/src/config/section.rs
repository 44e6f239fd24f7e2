//! One section of Orthanc's configuration, read option by option.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::spelling::{is_comment, resembles};

/// Names that contain this, in any case, are about keys, and nobody writes them by chance.
const MASTER_KEY: &str = "masterkey";

/// Longer strings are not quoted in messages, because they may be keys: those of all clouds have at least 40
/// letters, and master keys 43.
const LONGEST_QUOTE: usize = 31;

/// A mistake in the configuration, with the option, its value and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{option}` {problem}")]
pub struct ConfigError {
    /// `Section.Option`.
    option: String,
    problem: String,
}

/// A string that `Debug` output and messages never show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Returns the string itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A JSON object of the configuration. It records the options that are read, to report unknown ones.
pub struct Section<'a> {
    /// Includes the names of the enclosing sections: `Section.Subsection`.
    name: String,
    values: &'a Map<String, Value>,
    read: BTreeSet<&'static str>,
}

impl<'a> Section<'a> {
    /// Returns the section `name` of `configuration`, or `None` if it is missing.
    ///
    /// # Errors
    ///
    /// Returns an error if the section is not a JSON object.
    pub fn find(configuration: &'a Map<String, Value>, name: &str) -> Result<Option<Self>, ConfigError> {
        Self::open(configuration.get(name), name.to_owned())
    }

    /// Returns the configuration itself, for Orthanc's own options. Messages name them without a section.
    pub(crate) fn root(configuration: &'a Map<String, Value>) -> Self {
        Self { name: String::new(), values: configuration, read: BTreeSet::new() }
    }

    /// Returns a section with the options of `value`, which is an entry of the option `option` of this section.
    pub(super) fn entry(&self, option: &str, value: &'a Map<String, Value>) -> Self {
        Self { name: format!("{}.{option}", self.name), values: value, read: BTreeSet::new() }
    }

    fn open(value: Option<&'a Value>, name: String) -> Result<Option<Self>, ConfigError> {
        match value {
            None => Ok(None),
            Some(Value::Object(values)) => Ok(Some(Self { name, values, read: BTreeSet::new() })),
            Some(other) => {
                // A string here may be the secret that belongs into the section.
                let got = if other.is_string() { "a string".to_owned() } else { describe(other) };
                Err(ConfigError { option: name, problem: format!("must be an object {{…}}, got {got}") })
            }
        }
    }

    /// Returns the section's name, with those of the enclosing sections.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the section with `read`, then checks the names of its options.
    ///
    /// # Errors
    ///
    /// As `read` and [`check_names`](Self::check_names).
    pub(super) fn read<T, E: From<ConfigError>>(
        mut self,
        read: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let options = read(&mut self)?;
        self.check_names()?;
        Ok(options)
    }

    /// Checks the names of the options that have not been read, which may be typing mistakes. Logs one warning that names
    /// them.
    ///
    /// # Errors
    ///
    /// Returns an error about the first one that resembles an option that has been read, or is about a master key: without
    /// the option that was meant, images could be stored in another place, or unencrypted.
    pub fn check_names(&self) -> Result<(), ConfigError> {
        let mut unknown = Vec::new();
        for name in self.unread() {
            if let Some(known) = self.read.iter().find(|known| resembles(name, known)) {
                return Err(self.misspelled(name, known));
            }
            self.check_master_key(name)?;
            self.check_encryption(name)?;
            unknown.push(name);
        }
        if !unknown.is_empty() {
            tracing::warn!(
                "unknown options in the section {:?}, which have no effect: {}",
                self.name,
                unknown.join(", ")
            );
        }
        Ok(())
    }

    /// Returns an error if an option that has not been read is meant to be `known`.
    pub(super) fn check_spelling_of(&self, known: &str) -> Result<(), ConfigError> {
        match self.unread().find(|name| *name != known && resembles(name, known)) {
            Some(name) => Err(self.misspelled(name, known)),
            None => Ok(()),
        }
    }

    /// Returns an error if the name of an option that is not known is about a master key.
    pub(super) fn check_master_keys(&self) -> Result<(), ConfigError> {
        self.unread().try_for_each(|name| self.check_master_key(name))
    }

    fn check_master_key(&self, name: &str) -> Result<(), ConfigError> {
        if !is_about_master_keys(name) {
            return Ok(());
        }
        Err(self.misspelled(name, "MasterKey or PreviousMasterKeys in StorageEncryption"))
    }

    /// Returns an error if an option that is not known is a section about master keys.
    fn check_encryption(&self, name: &str) -> Result<(), ConfigError> {
        let options = self.values.get(name).and_then(Value::as_object).into_iter().flat_map(Map::keys);
        match options.filter(|option| !is_comment(option)).find(|option| is_about_master_keys(option)) {
            Some(_) => Err(self.misspelled(name, "StorageEncryption")),
            None => Ok(()),
        }
    }

    fn misspelled(&self, name: &str, known: &str) -> ConfigError {
        self.error(name, format!("is not an option; did you mean {known}?"))
    }

    /// Declares options as known that this configuration does not need.
    pub(crate) fn know(&mut self, options: &[&'static str]) {
        self.read.extend(options);
    }

    /// Returns the options that have been read and are also in `other`.
    pub(crate) fn read_options_in(&self, other: &Map<String, Value>) -> Vec<&'static str> {
        self.read.iter().copied().filter(|option| other.contains_key(*option)).collect()
    }

    /// Returns the options of this section that have not been read, without comments.
    fn unread(&self) -> impl Iterator<Item = &'a str> {
        let names = self.values.keys().map(String::as_str);
        names.filter(|name| !self.read.contains(name) && !is_comment(name))
    }

    /// Returns an error about `option`. The message continues with `problem`: "must be …, got …".
    pub fn error(&self, option: &str, problem: impl Into<String>) -> ConfigError {
        let separator = if self.name.is_empty() { "" } else { "." };
        ConfigError { option: format!("{}{separator}{option}", self.name), problem: problem.into() }
    }

    /// Whether the option is present.
    pub fn has(&self, option: &str) -> bool {
        self.values.contains_key(option)
    }

    /// Returns a string, or `None` if the option is missing.
    ///
    /// # Errors
    ///
    /// Returns an error if the value has another type.
    pub fn string(&mut self, option: &'static str) -> Result<Option<String>, ConfigError> {
        match self.value(option) {
            None => Ok(None),
            Some(Value::String(value)) => Ok(Some(value.clone())),
            Some(other) => Err(self.wrong(option, "a string", other)),
        }
    }

    /// Returns a string, or `None` if the option is missing or empty, as templates of configurations leave
    /// it.
    ///
    /// # Errors
    ///
    /// Returns an error if the value has another type.
    pub fn non_empty(&mut self, option: &'static str) -> Result<Option<String>, ConfigError> {
        Ok(self.string(option)?.filter(|value| !value.is_empty()))
    }

    /// Returns a string that must be present.
    ///
    /// # Errors
    ///
    /// Returns an error if the option is missing, empty or has another type.
    pub fn required(&mut self, option: &'static str) -> Result<String, ConfigError> {
        match self.string(option)? {
            Some(value) if !value.is_empty() => Ok(value),
            Some(_) => Err(self.error(option, "must not be empty")),
            None => Err(self.missing(option, "it must be a string")),
        }
    }

    /// Returns the error about a missing option, or about the misspelled one that is meant to be it. The message continues
    /// with `expected`: "it must be …".
    pub fn missing(&self, option: &str, expected: &str) -> ConfigError {
        let misspelled = self.check_spelling_of(option).err();
        misspelled.unwrap_or_else(|| self.error(option, format!("is missing; {expected}")))
    }

    /// Returns a string that messages must not show, without white space around it, or `None` if the option is missing or
    /// empty.
    ///
    /// # Errors
    ///
    /// Returns an error if the value has another type or contains control characters. The message does not quote the
    /// value.
    pub fn secret(&mut self, option: &'static str) -> Result<Option<Secret>, ConfigError> {
        match self.value(option) {
            None => Ok(None),
            Some(Value::String(value)) if value.trim().contains(char::is_control) => {
                Err(self.error(option, "must not contain control characters such as line breaks"))
            }
            Some(Value::String(value)) => {
                let trimmed = value.trim();
                Ok((!trimmed.is_empty()).then(|| Secret(trimmed.to_owned())))
            }
            Some(_) => Err(self.error(option, "must be a string in quotation marks")),
        }
    }

    /// Returns `true` or `false`.
    ///
    /// # Errors
    ///
    /// Returns an error if the value has another type.
    pub fn flag(&mut self, option: &'static str, default: bool) -> Result<bool, ConfigError> {
        Ok(self.optional_flag(option)?.unwrap_or(default))
    }

    /// Returns `true` or `false`, or `None` if the option is missing.
    ///
    /// # Errors
    ///
    /// Returns an error if the value has another type.
    pub fn optional_flag(&mut self, option: &'static str) -> Result<Option<bool>, ConfigError> {
        match self.value(option) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.wrong(option, "true or false", other)),
        }
    }

    /// Returns an integer within `allowed`.
    ///
    /// # Errors
    ///
    /// Returns an error if the value has another type or is out of range.
    pub fn number(
        &mut self,
        option: &'static str,
        default: u64,
        allowed: RangeInclusive<u64>,
    ) -> Result<u64, ConfigError> {
        let Some(value) = self.value(option) else { return Ok(default) };
        value.as_u64().filter(|number| allowed.contains(number)).ok_or_else(|| {
            let expected = format!("an integer from {} to {}", allowed.start(), allowed.end());
            self.wrong(option, &expected, value)
        })
    }

    /// Returns one of the strings in `allowed`, or `None` if the option is missing.
    ///
    /// # Errors
    ///
    /// Returns an error if the value is any other.
    pub fn choice(
        &mut self,
        option: &'static str,
        allowed: &[&'static str],
    ) -> Result<Option<&'static str>, ConfigError> {
        let Some(value) = self.value(option) else { return Ok(None) };
        let chosen = allowed.iter().copied().find(|allowed| value.as_str() == Some(*allowed));
        match chosen {
            None => Err(self.wrong(option, &format!("one of {}", allowed.join(", ")), value)),
            chosen => Ok(chosen),
        }
    }

    /// Returns a JSON object whose values are strings; empty if the option is missing.
    ///
    /// # Errors
    ///
    /// Returns an error if the value, or one in the object, has another type.
    pub fn strings(&mut self, option: &'static str) -> Result<BTreeMap<String, String>, ConfigError> {
        const EXPECTED: &str = "an object of strings such as {\"name\": \"value\"}";
        let Some(value) = self.value(option) else { return Ok(BTreeMap::new()) };
        let Value::Object(entries) = value else { return Err(self.wrong(option, EXPECTED, value)) };
        let string = |(name, value): (&String, &Value)| match value {
            Value::String(value) => Ok((name.clone(), value.clone())),
            other => {
                let problem = format!("must be {EXPECTED}, got {} for {name:?}", describe(other));
                Err(self.error(option, problem))
            }
        };
        entries.iter().map(string).collect()
    }

    /// Returns a value of any type, or `None` if the option is missing.
    pub(super) fn any(&mut self, option: &'static str) -> Option<&'a Value> {
        self.value(option)
    }

    /// Returns a list of values of any type, or `None` if the option is missing.
    ///
    /// # Errors
    ///
    /// Returns an error with `expected` if the value is not a list. The message does not quote the value,
    /// which may be a key instead of its file.
    pub fn list(&mut self, option: &'static str, expected: &str) -> Result<Option<&'a [Value]>, ConfigError> {
        match self.value(option) {
            None => Ok(None),
            Some(Value::Array(values)) => Ok(Some(values)),
            Some(_) => Err(self.error(option, format!("must be {expected}"))),
        }
    }

    /// Whether the section has no options.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Whether both sections have the same options with the same values.
    pub fn has_same_values(&self, other: &Section<'_>) -> bool {
        self.values == other.values
    }

    /// Reads a section of this section with `read`, and checks the names of its options; `None` if it is missing.
    ///
    /// # Errors
    ///
    /// As `read`, or if the value is not a JSON object, or as [`check_names`](Self::check_names).
    pub fn subsection<T>(
        &mut self,
        option: &'static str,
        read: impl FnOnce(&mut Section<'a>) -> Result<T, ConfigError>,
    ) -> Result<Option<T>, ConfigError> {
        self.open_subsection(option)?.map(|section| section.read(read)).transpose()
    }

    /// Returns a section of this section for [`read`](Self::read).
    pub(super) fn open_subsection(
        &mut self,
        option: &'static str,
    ) -> Result<Option<Section<'a>>, ConfigError> {
        let name = format!("{}.{option}", self.name);
        Self::open(self.value(option), name)
    }

    fn value(&mut self, option: &'static str) -> Option<&'a Value> {
        self.read.insert(option);
        self.values.get(option)
    }

    fn wrong(&self, option: &str, expected: &str, value: &Value) -> ConfigError {
        self.error(option, format!("must be {expected}, got {}", describe(value)))
    }
}

impl fmt::Debug for Section<'_> {
    /// Omits the values, since some of them are secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options: Vec<_> = self.values.keys().collect();
        f.debug_struct("Section").field("name", &self.name).field("options", &options).finish_non_exhaustive()
    }
}

fn is_about_master_keys(name: &str) -> bool {
    name.to_lowercase().contains(MASTER_KEY)
}

/// Describes a value for a message: scalars and short strings as they are, others by their type.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(string) if string.chars().count() > LONGEST_QUOTE => "a long string".to_owned(),
        short => short.to_string(),
    }
}

#[cfg(test)]
mod tests;
