//! The files of an archive besides the library, which are the same for every platform.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::platform::Platform;
use crate::system::workspace;
use real_orthanc::workspace::Plugin;

/// The documentation for people who run Orthanc. The Debian packages list the same files in the plugins' manifests.
const DOCUMENTATION: [&str; 11] = [
    "docs/install.md",
    "docs/configuration.md",
    "docs/hybrid.md",
    "docs/encryption.md",
    "docs/encryption-format.md",
    "docs/migrating.md",
    "docs/performance.md",
    "docs/rest-api.md",
    "docs/semantics.md",
    "docs/servers.md",
    "docs/troubleshooting.md",
];

/// Fills a folder with the library, the licence, the sample and the documentation of a plugin.
pub(crate) fn collect(plugin: Plugin, platform: Platform, library: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder.join("docs"))?;
    copy(library, &folder.join(platform.library(plugin)))?;
    for path in ["LICENSE"].iter().chain(&DOCUMENTATION) {
        copy(&workspace()?.join(path), &folder.join(path))?;
    }
    fs::write(folder.join(plugin.sample()), sample(plugin, platform)?)?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {}", from.display())).map(drop)
}

/// Returns the commented sample of a plugin's configuration.
pub(crate) fn sample(plugin: Plugin, platform: Platform) -> Result<String> {
    let path = workspace()?.join("plugins").join(plugin.package()).join(plugin.sample());
    let sample = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(if platform == Platform::Windows { sample.replace("/etc/orthanc/", "C:/Orthanc/") } else { sample })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Activates the options of a sample: `//` is followed by configuration, unless exactly one blank follows.
    fn uncommented(plugin: Plugin) -> Value {
        let activate = |line: &str| {
            let Some(text) = line.trim_start().strip_prefix("//") else { return line.to_owned() };
            let prose = text.starts_with(' ') && !text.starts_with("  ");
            if prose { String::new() } else { text.to_owned() }
        };
        let sample = sample(plugin, Platform::LinuxX86).unwrap();
        let text = sample.lines().map(activate).collect::<Vec<_>>().join("\n");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}:\n{text}"))
    }

    fn manifest(plugin: Plugin) -> String {
        let path = workspace().unwrap().join("plugins").join(plugin.package()).join("Cargo.toml");
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn unedited_sample_is_empty() {
        for plugin in Plugin::all() {
            let sample = sample(plugin, Platform::LinuxX86).unwrap();
            let text: String = sample.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), serde_json::json!({}), "{plugin:?}");
        }
    }

    #[test]
    fn sample_has_only_documented_options() {
        let documented = fs::read_to_string(workspace().unwrap().join("docs/configuration.md")).unwrap();
        for plugin in Plugin::all() {
            let value = uncommented(plugin);
            assert_eq!(value.as_object().unwrap().keys().collect::<Vec<_>>(), [plugin.section()]);
            for option in value[plugin.section()].as_object().unwrap().keys() {
                assert!(documented.contains(&format!("`{option}`")), "{option}");
            }
        }
    }

    #[test]
    fn debian_packages_bring_certificate_authorities() {
        for plugin in Plugin::all() {
            let manifest = manifest(plugin);
            let depends = manifest.lines().find_map(|line| line.strip_prefix("depends = "));
            assert!(depends.is_some_and(|packages| packages.contains("ca-certificates")), "{plugin:?}");
        }
    }

    #[test]
    fn links_between_documents_lead_to_packaged_ones() {
        for path in DOCUMENTATION {
            let text = fs::read_to_string(workspace().unwrap().join(path)).unwrap();
            let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
            for link in links.filter(|link| !link.is_empty() && !link.contains("://")) {
                assert!(DOCUMENTATION.contains(&format!("docs/{link}").as_str()), "{path}: {link}");
            }
        }
    }

    #[test]
    fn debian_packages_have_the_same_documentation() {
        for plugin in Plugin::all() {
            let manifest = manifest(plugin);
            let listed: Vec<_> =
                manifest.lines().filter_map(|line| line.trim().strip_prefix("[\"../../docs/")).collect();
            assert_eq!(listed.len(), DOCUMENTATION.len(), "{plugin:?}");
            for path in DOCUMENTATION {
                let target = format!("usr/share/doc/{}/", plugin.distribution());
                let asset = format!("[\"../../{path}\", \"{target}\", \"644\"]");
                assert!(manifest.contains(&asset), "{plugin:?}: {asset}");
            }
        }
    }
}
