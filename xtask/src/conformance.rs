//! The tests that every provider's plugin must pass: a column of them for each provider, and no hole in any.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

/// The test binary that has them in each plugin's package.
pub(crate) const BINARY: &str = "conformance";

/// Names of tests for each provider, which is the package of its plugin.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Columns(BTreeMap<String, BTreeSet<String>>);

impl Columns {
    /// From what `cargo nextest list --message-format json` prints.
    pub(crate) fn listed(json: &str) -> Result<Self> {
        let list: Value = serde_json::from_str(json)?;
        let suites = list["rust-suites"].as_object().context("nextest has listed no suites")?;
        let mut columns = Self::default();
        for suite in suites.values().filter(|suite| suite["binary-name"] == BINARY) {
            let provider = suite["package-name"].as_str().context("a suite without a package")?;
            let tests = suite["testcases"].as_object().context("a suite without tests")?;
            columns.0.insert(provider.to_owned(), tests.keys().cloned().collect());
        }
        Ok(columns)
    }

    /// Adds the test that one of nextest's lines tells to have passed, if it is such a line.
    pub(crate) fn add_passed(&mut self, line: &str) {
        let line = without_colours(line);
        let mut words = line.split_ascii_whitespace();
        // Leaky ones have passed: a connection of theirs lived a moment longer.
        if !matches!(words.next(), Some("PASS" | "LEAK")) {
            return;
        }
        let mut words = words.skip_while(|word| !word.contains("::"));
        let (Some(binary), Some(test)) = (words.next(), words.next()) else { return };
        if let Some((provider, BINARY)) = binary.rsplit_once("::") {
            self.0.entry(provider.to_owned()).or_default().insert(test.to_owned());
        }
    }

    /// What is missing where: every one of `providers` must have every test.
    pub(crate) fn holes(&self, providers: &[&str]) -> Vec<String> {
        let all: BTreeSet<&String> = self.0.values().flatten().collect();
        let missing = |provider: &&str| match self.0.get(*provider) {
            None => vec![format!("{provider} has no conformance tests")],
            Some(tests) => {
                let missing = all.iter().filter(|test| !tests.contains(**test));
                missing.map(|test| format!("{provider} lacks the conformance test {test}")).collect()
            }
        };
        providers.iter().flat_map(missing).collect()
    }

    /// A table with a line for each provider: how many of its tests at each level are among `passed`.
    pub(crate) fn table(&self, passed: &Self) -> Vec<String> {
        let all: BTreeSet<&str> = self.0.values().flatten().map(|test| level(test)).collect();
        let width = self.0.keys().map(String::len).chain([BINARY.len()]).max().unwrap_or_default();
        let mut head = format!("{BINARY:width$}");
        for level in all.iter().chain([&"all"]) {
            head += &format!("  {level:>10}");
        }
        let mut lines = vec![head];
        let none = BTreeSet::new();
        for (provider, tests) in &self.0 {
            let passed = passed.0.get(provider).unwrap_or(&none);
            let count = |at: &dyn Fn(&str) -> bool| {
                let tests: Vec<_> = tests.iter().filter(|test| at(test)).collect();
                let passed = tests.iter().filter(|test| passed.contains(**test)).count();
                format!("  {:>10}", format!("{passed}/{}", tests.len()))
            };
            let levels: String = all.iter().map(|wanted| count(&|test| level(test) == *wanted)).collect();
            lines.push(format!("{provider:width$}{levels}{}", count(&|_| true)));
        }
        lines
    }
}

/// `orthanc` of `orthanc::storing::…`.
fn level(test: &str) -> &str {
    test.split("::").next().unwrap_or_default()
}

/// A line without the codes that give a terminal's text a colour.
fn without_colours(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let begin = parts.next().unwrap_or_default().to_owned();
    parts.fold(begin, |text, part| text + part.split_once('m').map_or("", |(_code, rest)| rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = r#"{"rust-suites": {
        "s3::conformance": {"package-name": "s3", "binary-name": "conformance", "testcases": {"a::x": {}, "b::y": {}}},
        "azure::conformance": {"package-name": "azure", "binary-name": "conformance", "testcases": {"a::x": {}}},
        "s3::other": {"package-name": "s3", "binary-name": "other", "testcases": {"z": {}}}
    }}"#;

    #[test]
    fn a_provider_without_a_test_or_without_any_is_a_hole() {
        let columns = Columns::listed(LISTED).unwrap();
        assert_eq!(columns.holes(&["s3"]), [""; 0]);
        assert_eq!(
            columns.holes(&["s3", "azure", "google"]),
            ["azure lacks the conformance test b::y", "google has no conformance tests"]
        );
    }

    #[test]
    fn the_table_tells_passed_and_all_tests_of_each_level() {
        let mut passed = Columns::default();
        for line in [
            "        PASS [   0.5s] (1/9) s3::conformance a::x",
            "\u{1b}[32;1m        PASS\u{1b}[0m [   0.5s] (2/9) \u{1b}[35;1mazure::conformance\u{1b}[0m \u{1b}[36ma::\u{1b}[0mx",
            "        FAIL [   0.5s] (3/9) s3::conformance b::y",
            "        PASS [   0.5s] (4/9) s3::other z",
            "   Compiling conformance v0.1.0",
        ] {
            passed.add_passed(line);
        }
        let table = Columns::listed(LISTED).unwrap().table(&passed);
        assert_eq!(
            table,
            [
                "conformance           a           b         all",
                "azure               1/1         0/0         1/1",
                "s3                  1/1         0/1         1/2",
            ]
        );
    }
}
