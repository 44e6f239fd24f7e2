//! Orthanc's options for reading files at once, as docs/performance.md recommends them for each version.

use anyhow::{Context, Result};
use real_orthanc::{Builder, Orthanc};
use serde_json::{Map, Value};

use super::reading::parts;

/// The first version with these options, which also apply to the versions up to the next one.
const RECOMMENDED: [([u32; 3], &str); 5] = [
    ([0; 3], "{}"),
    ([1, 12, 0], r#"{"DicomWeb": {"MetadataWorkerThreadsCount": 20}}"#),
    (
        [1, 12, 10],
        r#"{
            "ZipLoaderThreads": 20,
            "DicomWeb": {"MetadataWorkerThreadsCount": 20, "WadoRsLoaderThreadsCount": 20}
        }"#,
    ),
    (
        [1, 12, 11],
        r#"{
            "LoaderThreads": 20,
            "DicomWeb": {"MetadataWorkerThreadsCount": 20, "WadoRsLoaderThreadsCount": 20}
        }"#,
    ),
    (
        [1, 13, 0],
        r#"{
            "StorageLoaderThreadsCount": 20,
            "SequentialDicomReaderWindowSize": 20,
            "DicomParserThreadsCount": 20,
            "DicomWeb": {"MetadataWorkerThreadsCount": 20, "WadoRsLoaderThreadsCount": 20}
        }"#,
    ),
];

/// A version of Orthanc and the options for it.
#[derive(Clone, Debug, Default)]
pub(super) struct OrthancOptions {
    pub(super) version: String,
    options: Map<String, Value>,
}

impl OrthancOptions {
    /// Those for the Orthanc that is measured.
    pub(super) fn ask() -> Result<Self> {
        let system = Orthanc::builder().start()?.rest().get_json("/system")?;
        Self::recommended(system["Version"].as_str().context("Orthanc does not say its version")?)
    }

    pub(super) fn recommended(version: &str) -> Result<Self> {
        let numbers = parts(version);
        let text = RECOMMENDED.iter().rfind(|(since, _)| *since <= numbers).map_or("{}", |(_, text)| *text);
        Ok(Self { version: version.to_owned(), options: serde_json::from_str(text).context(text)? })
    }

    pub(super) fn add_to(&self, builder: Builder) -> Builder {
        self.options.iter().fold(builder, |builder, (name, value)| builder.section(name, value.clone()))
    }

    /// For the report.
    pub(super) fn text(&self) -> String {
        if self.options.is_empty() {
            "defaults".to_owned()
        } else {
            Value::from(self.options.clone()).to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTATION: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/performance.md"));

    /// The options below a heading of the documentation, as a JSON object.
    fn documented(heading: &str) -> Option<Value> {
        let section = DOCUMENTATION.split("\n### ").find(|section| section.starts_with(heading)).unwrap();
        let block = section.split("```json\n").nth(1)?.split("```").next().unwrap();
        Some(serde_json::from_str(block).unwrap())
    }

    fn recommended(version: &str) -> Value {
        OrthancOptions::recommended(version).unwrap().options.into()
    }

    #[test]
    fn documentation_recommends_the_same() {
        assert_eq!(documented("Orthanc 1.13\n"), Some(recommended("1.13.0")));
        assert_eq!(documented("Orthanc 1.12.10 and 1.12.11\n"), Some(recommended("1.12.10")));
        assert_eq!(documented("Orthanc 1.12.0 to 1.12.9\n"), Some(recommended("1.12.7")));
        assert_eq!(documented("Orthanc 1.10 and 1.11\n"), None);
    }

    #[test]
    fn versions_without_options_of_their_own_have_those_of_the_version_before() {
        assert_eq!(recommended("1.10.1"), Value::Object(Map::new()));
        assert_eq!(recommended("1.12.9"), recommended("1.12.0"));
        assert_eq!(recommended("1.12.11")["LoaderThreads"], 20);
        assert_eq!(recommended("1.14.0"), recommended("1.13.0"));
    }
}
