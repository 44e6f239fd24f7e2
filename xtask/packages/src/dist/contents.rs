//! What a package holds beside the library: the same for every platform.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use real_orthanc::workspace::Plugin;

use super::platform::Platform;

/// What a plugin is called where people see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    /// The plugin's folder in the workspace.
    pub(crate) folder: &'static str,
    /// The sample's file, as it lies in Orthanc's folder of configurations.
    pub(crate) sample: &'static str,
    /// The section of Orthanc's configuration.
    pub(crate) section: &'static str,
    /// For people.
    pub(crate) cloud: &'static str,
}

/// The names of a plugin.
pub(crate) fn names(plugin: Plugin) -> Result<Names> {
    match plugin {
        Plugin::AwsS3 => Ok(Names {
            folder: "aws-s3",
            sample: "aws-s3-storage.json",
            section: "AwsS3Storage",
            cloud: "AWS S3",
        }),
        Plugin::AzureBlob => Ok(Names {
            folder: "azure-blob",
            sample: "azure-blob-storage.json",
            section: "AzureBlobStorage",
            cloud: "Azure Blob Storage",
        }),
        Plugin::GoogleCloud => Ok(Names {
            folder: "google-cloud",
            sample: "google-cloud-storage.json",
            section: "GoogleCloudStorage",
            cloud: "Google Cloud Storage",
        }),
        other => anyhow::bail!("{other:?} has no packages: name it in xtask/src/dist/contents.rs"),
    }
}

/// Documentation for those who run Orthanc, not for those who change the plugins.
pub(crate) const DOCUMENTATION: [&str; 6] = [
    "docs/install.md",
    "docs/configuration.md",
    "docs/hybrid.md",
    "docs/encryption.md",
    "docs/encryption-format.md",
    "docs/migrating.md",
];

/// A file of a package.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its path in the package, without a slash at the beginning.
    pub(crate) path: String,
    pub(crate) bytes: Vec<u8>,
    /// Unix permissions.
    pub(crate) mode: u32,
}

impl Entry {
    /// A file that everybody may read.
    pub(crate) fn new(path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), bytes: bytes.into(), mode: 0o644 }
    }
}

/// The workspace's folder.
pub(crate) fn workspace() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(own.ancestors().nth(2).context("xtask lies in no workspace")?.to_owned())
}

/// A file of the workspace.
pub(crate) fn read(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let path = workspace()?.join(path);
    fs::read(&path).with_context(|| format!("reading {}", path.display()))
}

/// The commented sample of a plugin's configuration.
pub(crate) fn sample(plugin: Plugin, platform: Platform) -> Result<Vec<u8>> {
    let names = names(plugin)?;
    let sample = read(Path::new("plugins").join(names.folder).join(names.sample))?;
    if platform != Platform::Windows {
        return Ok(sample);
    }
    let text = String::from_utf8(sample).context("the sample is no text")?;
    Ok(text.replace("/etc/orthanc/", "C:/Orthanc/").into_bytes())
}

/// The sample's file.
pub(crate) fn sample_name(plugin: Plugin) -> Result<&'static str> {
    Ok(names(plugin)?.sample)
}

/// The section of Orthanc's configuration that a plugin reads.
pub(crate) fn section_name(plugin: Plugin) -> Result<&'static str> {
    Ok(names(plugin)?.section)
}

/// What an archive for people holds, sorted: library, licence, sample and documentation.
pub(crate) fn archive(plugin: Plugin, platform: Platform, library: Vec<u8>) -> Result<Vec<Entry>> {
    let mut entries = vec![
        Entry::new(platform.library(plugin), library),
        Entry::new("LICENSE", read("LICENSE")?),
        Entry::new(sample_name(plugin)?, sample(plugin, platform)?),
    ];
    for path in DOCUMENTATION {
        entries.push(Entry::new(path, read(path)?));
    }
    entries.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Lines whose text begins right after `//`, or after more than one blank, are configuration; those after one
    /// blank are for people.
    fn uncommented(sample: &str) -> String {
        let activate = |line: &str| {
            let Some(text) = line.trim_start().strip_prefix("//") else { return line.to_owned() };
            let prose = text.starts_with(' ') && !text.starts_with("  ");
            if prose { String::new() } else { text.to_owned() }
        };
        sample.lines().map(activate).collect::<Vec<_>>().join("\n")
    }

    fn inert(sample: &str) -> String {
        sample.lines().filter(|line| !line.trim_start().starts_with("//")).collect()
    }

    #[test]
    fn a_sample_does_nothing_before_it_is_edited() {
        for plugin in Plugin::ALL {
            let text = String::from_utf8(sample(plugin, Platform::LinuxX86).unwrap()).unwrap();
            let value: Value = serde_json::from_str(&inert(&text)).unwrap();
            assert_eq!(value, serde_json::json!({}), "{plugin:?}");
        }
    }

    #[test]
    fn a_sample_without_its_comment_signs_is_the_plugins_section() {
        for plugin in Plugin::ALL {
            let text = uncommented(&String::from_utf8(sample(plugin, Platform::LinuxX86).unwrap()).unwrap());
            let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
            assert_eq!(
                value.as_object().unwrap().keys().collect::<Vec<_>>(),
                [names(plugin).unwrap().section]
            );
        }
    }

    #[test]
    fn every_option_of_a_sample_is_documented() {
        let documented = String::from_utf8(read("docs/configuration.md").unwrap()).unwrap();
        for plugin in Plugin::ALL {
            let text = uncommented(&String::from_utf8(sample(plugin, Platform::LinuxX86).unwrap()).unwrap());
            let value: Value = serde_json::from_str(&text).unwrap();
            for option in value[names(plugin).unwrap().section].as_object().unwrap().keys() {
                assert!(documented.contains(&format!("`{option}`")), "{option}");
            }
        }
    }
}
