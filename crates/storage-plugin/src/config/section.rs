//! One section of the configuration, read option by option.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

/// A mistake in the configuration: which option, what it is, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("option {option} {problem}")]
pub struct ConfigError {
    /// `Section.Option`.
    option: String,
    problem: String,
}

/// A text that never shows in `Debug` output or messages.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A JSON object of the configuration. Remembers which of its options were asked for, so that those that nobody knows
/// can be named.
pub struct Section<'a> {
    /// With the names of the sections around it: `Section.Subsection`.
    name: String,
    values: &'a Map<String, Value>,
    asked: BTreeSet<&'static str>,
}

impl<'a> Section<'a> {
    /// The section `name` of `configuration`; `None` where it is missing.
    ///
    /// # Errors
    ///
    /// When it is there and no JSON object.
    pub fn find(configuration: &'a Map<String, Value>, name: &str) -> Result<Option<Self>, ConfigError> {
        Self::open(configuration.get(name), name.to_owned())
    }

    /// The configuration itself, for Orthanc's own options. Messages name them without a section.
    pub(crate) fn root(configuration: &'a Map<String, Value>) -> Self {
        Self { name: String::new(), values: configuration, asked: BTreeSet::new() }
    }

    fn open(value: Option<&'a Value>, name: String) -> Result<Option<Self>, ConfigError> {
        match value {
            None => Ok(None),
            Some(Value::Object(values)) => Ok(Some(Self { name, values, asked: BTreeSet::new() })),
            Some(other) => {
                let problem = format!("is {}: an object {{…}} is needed", describe(other));
                Err(ConfigError { option: name, problem })
            }
        }
    }

    /// Its name, with those of the sections around it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The options of this section that nobody asked for.
    pub fn unknown(&self) -> Vec<&'a str> {
        self.values.keys().map(String::as_str).filter(|option| !self.asked.contains(option)).collect()
    }

    /// One warning about the options that nobody asked for: a typing mistake is the commonest error in these files.
    pub fn warn_of_unknown(&self) {
        let unknown = self.unknown();
        if !unknown.is_empty() {
            tracing::warn!(
                "unknown options in the section {:?}, which have no effect: {}",
                self.name,
                unknown.join(", ")
            );
        }
    }

    /// An error about `option`, whose text goes on with `problem`: `is …: … is needed`.
    pub fn error(&self, option: &str, problem: impl Into<String>) -> ConfigError {
        let separator = if self.name.is_empty() { "" } else { "." };
        ConfigError { option: format!("{}{separator}{option}", self.name), problem: problem.into() }
    }

    /// Whether the option is there.
    pub fn has(&self, option: &str) -> bool {
        self.values.contains_key(option)
    }

    /// A text.
    ///
    /// # Errors
    ///
    /// When it is of another type.
    pub fn text(&mut self, option: &'static str) -> Result<Option<String>, ConfigError> {
        match self.value(option) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(self.wrong(option, other, "a text")),
        }
    }

    /// A text that must be there and not be empty.
    ///
    /// # Errors
    ///
    /// When it is missing, empty or of another type.
    pub fn required_text(&mut self, option: &'static str) -> Result<String, ConfigError> {
        match self.text(option)? {
            Some(text) if !text.is_empty() => Ok(text),
            Some(_) => Err(self.error(option, "is empty: a text is needed")),
            None => Err(self.error(option, "is missing: a text is needed")),
        }
    }

    /// A text that must not show anywhere.
    ///
    /// # Errors
    ///
    /// When it is of another type; the message does not tell the value.
    pub fn secret(&mut self, option: &'static str) -> Result<Option<Secret>, ConfigError> {
        match self.value(option) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(Secret(text.clone()))),
            Some(_) => Err(self.error(option, "is not a text: a text in quotation marks is needed")),
        }
    }

    /// `true` or `false`.
    ///
    /// # Errors
    ///
    /// When it is of another type.
    pub fn flag(&mut self, option: &'static str, default: bool) -> Result<bool, ConfigError> {
        match self.value(option) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong(option, other, "true or false")),
        }
    }

    /// A whole number within `allowed`.
    ///
    /// # Errors
    ///
    /// When it is of another type or outside of `allowed`.
    pub fn number(
        &mut self,
        option: &'static str,
        default: u64,
        allowed: RangeInclusive<u64>,
    ) -> Result<u64, ConfigError> {
        let Some(value) = self.value(option) else { return Ok(default) };
        match value.as_u64() {
            Some(number) if allowed.contains(&number) => Ok(number),
            _ => {
                let needed = format!("a whole number from {} to {}", allowed.start(), allowed.end());
                Err(self.wrong(option, value, &needed))
            }
        }
    }

    /// One of the texts in `allowed`.
    ///
    /// # Errors
    ///
    /// When it is another one, or of another type.
    pub fn choice(
        &mut self,
        option: &'static str,
        allowed: &[&'static str],
    ) -> Result<Option<&'static str>, ConfigError> {
        let Some(value) = self.value(option) else { return Ok(None) };
        let chosen = value.as_str().and_then(|text| allowed.iter().find(|allowed| **allowed == text));
        match chosen {
            Some(chosen) => Ok(Some(chosen)),
            None => Err(self.wrong(option, value, &format!("one of {}", allowed.join(", ")))),
        }
    }

    /// A JSON object whose values are texts; empty where it is missing.
    ///
    /// # Errors
    ///
    /// When it, or one of its values, is of another type.
    pub fn texts(&mut self, option: &'static str) -> Result<BTreeMap<String, String>, ConfigError> {
        let Some(value) = self.value(option) else { return Ok(BTreeMap::new()) };
        let needed = "an object of texts, as {\"name\": \"value\"},";
        let Value::Object(entries) = value else { return Err(self.wrong(option, value, needed)) };
        entries
            .iter()
            .map(|(name, value)| match value {
                Value::String(text) => Ok((name.clone(), text.clone())),
                other => {
                    Err(self.error(option, format!("has {} for {name}: {needed} is needed", describe(other))))
                }
            })
            .collect()
    }

    /// A list of values of any type; `None` where it is missing.
    ///
    /// # Errors
    ///
    /// When it is no list; the message does not tell the value, which may be a key in place of its file.
    pub fn list(&mut self, option: &'static str, needed: &str) -> Result<Option<&'a [Value]>, ConfigError> {
        match self.value(option) {
            None => Ok(None),
            Some(Value::Array(values)) => Ok(Some(values)),
            Some(_) => Err(self.error(option, format!("is no list: {needed} is needed"))),
        }
    }

    /// Whether there is no option in it.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Whether it says the same as `other`.
    pub fn says_the_same_as(&self, other: &Section<'_>) -> bool {
        self.values == other.values
    }

    /// A section in this section.
    ///
    /// # Errors
    ///
    /// When it is there and no JSON object.
    pub fn subsection(&mut self, option: &'static str) -> Result<Option<Section<'a>>, ConfigError> {
        let name = format!("{}.{option}", self.name);
        Self::open(self.value(option), name)
    }

    fn value(&mut self, option: &'static str) -> Option<&'a Value> {
        self.asked.insert(option);
        self.values.get(option)
    }

    fn wrong(&self, option: &str, value: &Value, needed: &str) -> ConfigError {
        self.error(option, format!("is {}: {needed} is needed", describe(value)))
    }
}

impl fmt::Debug for Section<'_> {
    /// Without the values: there are secrets among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options: Vec<_> = self.values.keys().collect();
        f.debug_struct("Section").field("name", &self.name).field("options", &options).finish_non_exhaustive()
    }
}

/// A value in a message: short ones as they are, long ones by their type.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) if text.chars().count() > 80 => "a long text".to_owned(),
        short => short.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn configuration() -> Map<String, Value> {
        let Value::Object(map) = json!({
            "S": {
                "Text": "a", "Empty": "", "Number": 7, "Flag": true, "Choice": "b", "Texts": {"k": "v"},
                "Sub": {"X": 1}, "Null": null, "Negative": -1, "Fraction": 1.5, "Typo": 1
            },
            "NoSection": 5
        }) else {
            unreachable!()
        };
        map
    }

    #[test]
    fn options_have_their_values_or_defaults() {
        let configuration = configuration();
        let mut section = Section::find(&configuration, "S").unwrap().unwrap();
        assert_eq!(section.text("Text").unwrap().as_deref(), Some("a"));
        assert_eq!(section.text("Missing").unwrap(), None);
        assert_eq!(section.number("Number", 1, 0..=9), Ok(7));
        assert_eq!(section.number("Missing", 1, 0..=9), Ok(1));
        assert_eq!(section.flag("Flag", false), Ok(true));
        assert_eq!(section.choice("Choice", &["a", "b"]), Ok(Some("b")));
        assert_eq!(section.texts("Texts").unwrap(), BTreeMap::from([("k".to_owned(), "v".to_owned())]));
        assert!(section.subsection("Sub").unwrap().unwrap().has("X"));
        assert_eq!(section.unknown(), ["Empty", "Fraction", "Negative", "Null", "Typo"]);
    }

    #[test]
    fn mistakes_name_the_option_the_value_and_what_is_allowed() {
        let configuration = configuration();
        let mut section = Section::find(&configuration, "S").unwrap().unwrap();
        let messages = [
            section.text("Number").unwrap_err(),
            section.text("Null").unwrap_err(),
            section.required_text("Missing").unwrap_err(),
            section.required_text("Empty").unwrap_err(),
            section.secret("Number").unwrap_err(),
            section.flag("Text", true).unwrap_err(),
            section.number("Number", 1, 8..=9).unwrap_err(),
            section.number("Negative", 1, 0..=9).unwrap_err(),
            section.number("Fraction", 1, 0..=9).unwrap_err(),
            section.choice("Choice", &["x", "y"]).unwrap_err(),
            section.texts("Text").unwrap_err(),
            section.texts("Sub").unwrap_err(),
            section.subsection("Number").unwrap_err(),
        ];
        let messages = messages.map(|message| message.to_string());
        assert_eq!(
            messages,
            [
                "option S.Number is 7: a text is needed",
                "option S.Null is null: a text is needed",
                "option S.Missing is missing: a text is needed",
                "option S.Empty is empty: a text is needed",
                "option S.Number is not a text: a text in quotation marks is needed",
                "option S.Text is \"a\": true or false is needed",
                "option S.Number is 7: a whole number from 8 to 9 is needed",
                "option S.Negative is -1: a whole number from 0 to 9 is needed",
                "option S.Fraction is 1.5: a whole number from 0 to 9 is needed",
                "option S.Choice is \"b\": one of x, y is needed",
                "option S.Text is \"a\": an object of texts, as {\"name\": \"value\"}, is needed",
                "option S.Sub has 1 for X: an object of texts, as {\"name\": \"value\"}, is needed",
                "option S.Number is 7: an object {…} is needed",
            ]
        );
    }

    #[test]
    fn a_missing_section_is_none_and_one_of_another_type_a_mistake() {
        let configuration = configuration();
        assert!(Section::find(&configuration, "Absent").unwrap().is_none());
        let error = Section::find(&configuration, "NoSection").unwrap_err();
        assert_eq!(error.to_string(), "option NoSection is 5: an object {…} is needed");
    }

    #[test]
    fn a_secret_does_not_show() {
        assert_eq!(format!("{:?}", Secret("hunter2".to_owned())), "Secret(…)");
        let Value::Object(configuration) = json!({"S": {"Password": "hunter2"}}) else { unreachable!() };
        let section = Section::find(&configuration, "S").unwrap().unwrap();
        assert_eq!(format!("{section:?}"), "Section { name: \"S\", options: [\"Password\"], .. }");
    }
}
