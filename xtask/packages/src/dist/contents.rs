//! The files of an archive besides the library, which are the same for every platform.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::platform::Platform;
use crate::system::workspace;
use real_orthanc::workspace::Plugin;

/// Pages for developers. All others are packaged.
const FOR_DEVELOPERS: [&str; 3] = ["architecture.md", "dependencies.md", "releasing.md"];

/// The lines that surround what only a reader with the source tree can use.
const SOURCE_TREE: (&str, &str) = ("<!-- source tree -->", "<!-- end of source tree -->");

/// Returns the documentation for people who run Orthanc: the names of the pages and their texts.
pub(crate) fn documents() -> Result<Vec<(String, String)>> {
    let folder = workspace()?.join("docs");
    let mut documents = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".md") && !FOR_DEVELOPERS.contains(&name.as_str()) {
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            documents.push((name, without_source_tree(&text)));
        }
    }
    documents.sort();
    Ok(documents)
}

/// Removes what only a reader with the source tree can use.
fn without_source_tree(text: &str) -> String {
    let (begin, end) = SOURCE_TREE;
    let mut kept = String::new();
    let mut is_kept = true;
    for line in text.lines() {
        match line.trim() {
            marker if marker == begin => is_kept = false,
            marker if marker == end => is_kept = true,
            _ if is_kept => {
                kept += line;
                kept.push('\n');
            }
            _ => {}
        }
    }
    kept
}

/// Fills a folder with the library, the program `orthanc-envelope`, the licences, the sample and the documentation of a
/// plugin.
pub(crate) fn collect(
    plugin: Plugin,
    platform: Platform,
    library: &Path,
    tool: &Path,
    licenses: &[&Path],
    folder: &Path,
) -> Result<()> {
    for name in ["docs", "licenses"] {
        fs::create_dir_all(folder.join(name))?;
    }
    copy(library, &folder.join(platform.library(plugin)))?;
    copy(tool, &folder.join(platform.tool()))?;
    if platform != Platform::Windows {
        collect_tool_files(folder)?;
    }
    copy(&workspace()?.join("LICENSE"), &folder.join("LICENSE"))?;
    for from in licenses {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &folder.join("licenses").join(entry.file_name()))?;
        }
    }
    for (name, text) in documents()? {
        fs::write(folder.join("docs").join(name), text)?;
    }
    fs::create_dir(folder.join("docs/monitoring"))?;
    for (file, name) in MONITORING {
        copy(&workspace()?.join("ci/docker").join(file), &folder.join("docs").join(name))?;
    }
    fs::write(folder.join(plugin.sample()), sample(plugin, platform)?)?;
    Ok(())
}

/// The alert rules and the dashboard, below `ci/docker`, and their names next to the documentation.
pub(crate) const MONITORING: [(&str, &str); 2] = [
    ("prometheus/alerts.yml", "monitoring/alerts.yml"),
    ("grafana/dashboards/orthanc-object-storage.json", "monitoring/dashboard.json"),
];

/// The files that accompany `orthanc-envelope`, below `crates/envelope-cli`, and where Debian has them.
pub(crate) const TOOL_FILES: [(&str, &str); 4] = [
    ("man/orthanc-envelope.1", "usr/share/man/man1/orthanc-envelope.1"),
    ("completions/orthanc-envelope.bash", "usr/share/bash-completion/completions/orthanc-envelope"),
    ("completions/_orthanc-envelope", "usr/share/zsh/vendor-completions/_orthanc-envelope"),
    ("completions/orthanc-envelope.fish", "usr/share/fish/vendor_completions.d/orthanc-envelope.fish"),
];

/// Copies the manual page and the completions for shells.
fn collect_tool_files(folder: &Path) -> Result<()> {
    for (file, _) in TOOL_FILES {
        let target = folder.join(file);
        fs::create_dir_all(target.parent().context("the file must be in a folder")?)?;
        copy(&workspace()?.join("crates/envelope-cli").join(file), &target)?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {}", from.display())).map(drop)
}

/// How a key is created, in the samples and in those for Windows.
const KEY_COMMANDS: (&str, &str) = (
    "The commands that create the key are in install.md.",
    "Create the key with: orthanc-envelope keygen C:\\Orthanc\\master-1.key",
);

/// Returns the commented sample of a plugin's configuration.
pub(crate) fn sample(plugin: Plugin, platform: Platform) -> Result<String> {
    let path = workspace()?.join("plugins").join(plugin.package()).join(plugin.sample());
    let sample = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(if platform == Platform::Windows {
        // The commands in install.md are Linux's.
        let (linux, windows) = KEY_COMMANDS;
        sample.replace("/etc/orthanc/", "C:/Orthanc/").replace(linux, windows)
    } else {
        sample
    })
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

    #[test]
    fn unedited_sample_is_empty() {
        for plugin in Plugin::all() {
            let sample = sample(plugin, Platform::LinuxX86).unwrap();
            let text: String = sample.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), serde_json::json!({}), "{plugin:?}");
        }
    }

    #[test]
    fn sample_for_windows_names_its_own_command() {
        for plugin in Plugin::all() {
            let sample = sample(plugin, Platform::Windows).unwrap();
            assert!(sample.contains("orthanc-envelope keygen") && !sample.contains("install.md"), "{sample}");
            assert!(!sample.contains("/etc/"), "{sample}");
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
    fn json_in_packaged_pages_is_valid() {
        for (name, text) in documents().unwrap() {
            for block in text.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()) {
                let json = serde_json::from_str::<Value>(block);
                assert!(json.is_ok(), "{name}: {json:?}\n{block}");
            }
        }
    }

    #[test]
    fn every_link_leads_to_a_packaged_page() {
        let documents = documents().unwrap();
        for (name, text) in &documents {
            let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
            for link in links.filter(|link| !link.is_empty() && !link.contains("://")) {
                assert!(documents.iter().any(|(page, _)| page == link), "{name}: {link}");
            }
        }
    }

    #[test]
    fn packaged_pages_do_not_mention_the_source_tree() {
        for (name, text) in documents().unwrap() {
            for line in text.lines() {
                let mentions = ["cargo ", "crates/", "`ci/", " ci/", "xtask", "](../", "source tree -->"]
                    .iter()
                    .any(|word| line.contains(word));
                assert!(!mentions, "{name}: put this between the lines {SOURCE_TREE:?}: {line}");
            }
        }
    }

    #[test]
    fn monitoring_page_names_the_packaged_files() {
        let documents = documents().unwrap();
        let (_, page) = documents.iter().find(|(name, _)| name == "monitoring.md").unwrap();
        for (file, name) in MONITORING {
            assert!(workspace().unwrap().join("ci/docker").join(file).is_file(), "{file}");
            let name = name.rsplit('/').next().unwrap();
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn text_for_the_source_tree_is_removed() {
        let text = "one\n<!-- source tree -->\ntwo\n<!-- end of source tree -->\nthree\n";
        assert_eq!(without_source_tree(text), "one\nthree\n");
    }
}
