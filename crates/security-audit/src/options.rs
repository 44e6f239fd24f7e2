//! Options of Orthanc, with its defaults.

use serde_json::{Map, Value};

use crate::finding::{Check, Finding, Severity};

/// Longest string that is shown.
const LONGEST_QUOTE: usize = 80;

/// Orthanc's configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options<'a>(&'a Map<String, Value>);

/// The value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    /// The value, and whether it is Orthanc's default.
    pub(crate) shown: String,
}

/// An option has a value of another type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrongType {
    shown: String,
    expected: &'static str,
}

impl WrongType {
    pub(crate) fn new(value: &Value, expected: &'static str) -> Self {
        Self { shown: describe(value), expected }
    }

    /// The finding for a check that could not be made.
    pub(crate) fn finding(self, check: Check<'_>) -> Finding {
        let advice = format!("{} must be {}, so this could not be checked", check.option, self.expected);
        check.warning(self.shown, advice)
    }
}

impl<'a> Options<'a> {
    pub(crate) fn new(configuration: &'a Map<String, Value>) -> Self {
        Self(configuration)
    }

    pub(crate) fn get(self, option: &str) -> Option<&'a Value> {
        self.0.get(option)
    }

    pub(crate) fn flag(self, option: &str, default: bool) -> Result<Setting<bool>, WrongType> {
        match self.get(option) {
            None => Ok(Setting { value: default, shown: format!("{default} (default)") }),
            Some(Value::Bool(value)) => Ok(Setting { value: *value, shown: value.to_string() }),
            Some(other) => Err(WrongType::new(other, "true or false")),
        }
    }

    /// The flag, or `default` if its type is wrong, which its own check reports.
    pub(crate) fn flag_or(self, option: &str, default: bool) -> bool {
        self.flag(option, default).map_or(default, |setting| setting.value)
    }

    pub(crate) fn number(self, option: &str, default: u64) -> Result<Setting<u64>, WrongType> {
        let Some(value) = self.get(option) else {
            return Ok(Setting { value: default, shown: format!("{default} (default)") });
        };
        let number = value.as_u64().ok_or_else(|| WrongType::new(value, "a number that is not negative"))?;
        Ok(Setting { value: number, shown: number.to_string() })
    }

    /// A list of strings; `None` if the option is absent.
    pub(crate) fn strings(self, option: &str) -> Result<Option<Vec<&'a str>>, WrongType> {
        let Some(value) = self.get(option) else { return Ok(None) };
        let strings = value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        strings.map(Some).ok_or_else(|| WrongType::new(value, "a list of strings"))
    }

    /// An object; `None` if the option is absent.
    pub(crate) fn object(self, option: &str) -> Result<Option<&'a Map<String, Value>>, WrongType> {
        let Some(value) = self.get(option) else { return Ok(None) };
        value.as_object().map(Some).ok_or_else(|| WrongType::new(value, "an object"))
    }

    /// Checks a flag that should have the value `safe`.
    pub(crate) fn check_flag(
        self,
        check: Check<'_>,
        default: bool,
        unsafe_value: (bool, Severity),
        advice: &str,
    ) -> Finding {
        let (bad, severity) = unsafe_value;
        match self.flag(check.option, default) {
            Err(wrong) => wrong.finding(check),
            Ok(setting) if setting.value == bad => check.finding(severity, setting.shown, advice),
            Ok(setting) => check.ok(setting.shown),
        }
    }
}

/// Describes a value of a wrong type. Strings are not quoted, since they may be secrets in the wrong place.
fn describe(value: &Value) -> String {
    match value {
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => other.to_string(),
    }
}

/// Quotes a name from the configuration.
pub(crate) fn quoted(name: &str) -> String {
    let short: String = name.chars().take(LONGEST_QUOTE).collect();
    let end = if short.len() < name.len() { "…" } else { "" };
    format!("{:?}", format!("{short}{end}"))
}

/// Joins the first names of a list, quoted.
pub(crate) fn listed<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    const SHOWN: usize = 10;
    let names: Vec<_> = names.into_iter().collect();
    let mut text: Vec<_> = names.iter().take(SHOWN).map(|name| quoted(name)).collect();
    if names.len() > SHOWN {
        text.push(format!("and {} more", names.len() - SHOWN));
    }
    text.join(", ")
}
