//! The conformance suite as a table: a column of tests for each plugin.

use std::collections::{BTreeMap, BTreeSet};

/// The test binary of the suite in each plugin's package.
pub(crate) const BINARY: &str = "conformance";

/// Groups of tests about what only some clouds have, with the plugins of these clouds.
const OF_SOME_CLOUDS: [(&str, &[&str]); 2] = [
    ("key_service::earlier_blobs::", &["azure-blob"]),
    ("key_service::rotating::", &["azure-blob", "google-cloud"]),
];

/// Names of tests for each plugin.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Columns(BTreeMap<String, BTreeSet<String>>);

impl Columns {
    /// Reads what `cargo nextest list --message-format oneline` prints: `aws-s3::conformance client::…` lines.
    pub(crate) fn listed(lines: &str) -> Self {
        let mut columns = Self::default();
        for line in lines.lines() {
            columns.add(line.split_ascii_whitespace());
        }
        columns
    }

    /// Adds the test of a line with which nextest reports that it passed; ignores other lines.
    pub(crate) fn add_passed(&mut self, line: &str) {
        let line = without_colours(line);
        let mut words = line.split_ascii_whitespace();
        // LEAK: passed, but something that it started outlived it for a moment.
        if matches!(words.next(), Some("PASS" | "LEAK")) {
            self.add(words.skip_while(|word| !word.contains("::")));
        }
    }

    /// Adds a test from the id of its binary and its name.
    fn add<'a>(&mut self, mut words: impl Iterator<Item = &'a str>) {
        let (Some(binary), Some(test)) = (words.next(), words.next()) else { return };
        if let Some((plugin, BINARY)) = binary.rsplit_once("::") {
            self.0.entry(plugin.to_owned()).or_default().insert(test.to_owned());
        }
    }

    /// Missing tests in the long run: every plugin must have every test.
    pub(crate) fn holes(&self, plugins: &[&str]) -> Vec<String> {
        let all: BTreeSet<&String> =
            plugins.iter().filter_map(|plugin| self.0.get(*plugin)).flatten().collect();
        plugins.iter().flat_map(|plugin| self.missing(plugin, &all)).collect()
    }

    /// Missing tests in the normal run: `whole` must have every test, the `others` the same ones as each other.
    pub(crate) fn holes_below(&self, whole: &str, others: &[&str]) -> Vec<String> {
        let all = self.0.values().flatten().collect();
        self.missing(whole, &all).into_iter().chain(self.holes(others)).collect()
    }

    fn missing(&self, plugin: &str, wanted: &BTreeSet<&String>) -> Vec<String> {
        let Some(tests) = self.0.get(plugin) else {
            return vec![format!("{plugin} has no conformance tests")];
        };
        let missing = wanted.iter().filter(|test| is_for(plugin, test) && !tests.contains(**test));
        missing.map(|test| format!("{plugin} lacks the conformance test {test}")).collect()
    }

    /// A table with a line for each plugin: how many of its tests at each level are among `passed`.
    pub(crate) fn table(&self, passed: &Self) -> Vec<String> {
        let levels: BTreeSet<&str> = self.0.values().flatten().map(|test| level(test)).collect();
        let width = self.0.keys().map(String::len).chain([BINARY.len()]).max().unwrap_or_default();
        let mut head = format!("{BINARY:width$}");
        for level in levels.iter().chain([&"all"]) {
            head += &format!("  {level:>10}");
        }
        let mut lines = vec![head];
        let none = BTreeSet::new();
        for (plugin, tests) in &self.0 {
            let passed = passed.0.get(plugin).unwrap_or(&none);
            let count = |tests: &BTreeSet<&String>| {
                let passed = tests.iter().filter(|test| passed.contains(**test)).count();
                format!("  {:>10}", format!("{passed}/{}", tests.len()))
            };
            let at = |wanted: &str| tests.iter().filter(|test| level(test) == wanted).collect();
            let cells: String = levels.iter().map(|wanted| count(&at(wanted))).collect();
            lines.push(format!("{plugin:width$}{cells}{}", count(&tests.iter().collect())));
        }
        lines
    }
}

/// Whether the plugin must have the test.
fn is_for(plugin: &str, test: &str) -> bool {
    let group = OF_SOME_CLOUDS.iter().find(|(group, _)| test.contains(group));
    group.is_none_or(|(_, plugins)| plugins.contains(&plugin))
}

/// `orthanc` of `orthanc::storing::…`.
fn level(test: &str) -> &str {
    test.split("::").next().unwrap_or_default()
}

/// A line without the escape sequences that colour text on a terminal.
fn without_colours(line: &str) -> String {
    let mut pieces = line.split("\u{1b}[");
    let begin = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(begin, |line, piece| line + piece.split_once('m').map_or(piece, |(_, text)| text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "\
aws-s3::conformance a::x::one
aws-s3::conformance b::y::two
azure-blob::conformance a::x::one
azure-blob::requests other
";

    #[test]
    fn long_run_misses_no_test_of_any_plugin() {
        let columns = Columns::listed(LISTED);
        assert_eq!(columns.holes(&["aws-s3"]), [""; 0]);
        assert_eq!(
            columns.holes(&["aws-s3", "azure-blob", "google-cloud"]),
            ["azure-blob lacks the conformance test b::y::two", "google-cloud has no conformance tests"]
        );
    }

    #[test]
    fn normal_run_misses_no_test_of_one_plugin() {
        let columns = Columns::listed(LISTED);
        assert_eq!(columns.holes_below("aws-s3", &["azure-blob"]), [""; 0]);
        let lacks = "azure-blob lacks the conformance test b::y::two";
        assert_eq!(columns.holes_below("azure-blob", &["aws-s3"]), [lacks]);
        let none = "google-cloud has no conformance tests";
        assert_eq!(columns.holes_below("aws-s3", &["google-cloud"]), [none]);
    }

    #[test]
    fn some_tests_are_for_some_clouds() {
        let plugins = ["aws-s3", "azure-blob", "google-cloud"];
        let listed = "aws-s3::conformance a\nazure-blob::conformance a\ngoogle-cloud::conformance a\n";
        let with = |line: &str| Columns::listed(&[listed, line].concat()).holes(&plugins);
        assert_eq!(with("azure-blob::conformance sid::orthanc::key_service::earlier_blobs::x"), [""; 0]);
        let lacks = "google-cloud lacks the conformance test orthanc::key_service::rotating::x";
        assert_eq!(with("azure-blob::conformance orthanc::key_service::rotating::x"), [lacks]);
    }

    #[test]
    fn passed_tests_are_counted() {
        let mut passed = Columns::default();
        passed.add_passed("        PASS [   0.010s] (1/3) azure-blob::conformance a::x::one");
        passed.add_passed("\u{1b}[32;1m        LEAK\u{1b}[0m [   0.010s] \u{1b}[35;1maws-s3::conformance\u{1b}[0m a::x::one");
        passed.add_passed("        FAIL [   0.010s] aws-s3::conformance b::y::two");
        passed.add_passed("        PASS [   0.010s] aws-s3::requests b::y::two");
        passed.add_passed("     Summary [   2.010s] 3 tests run: 2 passed, 1 failed, 0 skipped");
        assert_eq!(
            Columns::listed(LISTED).table(&passed),
            [
                "conformance           a           b         all",
                "aws-s3              1/1         0/1         1/2",
                "azure-blob          1/1         0/0         1/1",
            ]
        );
    }
}
