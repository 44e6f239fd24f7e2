//! What the plugin says about itself when it starts.

use std::path::Path;

use anyhow::Result;
use fake_orthanc::LogLevel;
use serde_json::json;

use crate::Cloud;
use crate::fixture::{LoadedPlugin, assert_no_secret};

tests! {
    EveryCloud: start_is_summarized;
}

fn start_is_summarized<C: Cloud>() -> Result<()> {
    let options = json!({"RootPath": "archive", "StorageStructure": "legacy"});
    let plugin = LoadedPlugin::<C>::encrypted_with(&options, &json!({"Format": "A2"}))?;
    let prefix = format!("{}: version ", C::NAME);
    let warnings = plugin.orthanc.logs_at(LogLevel::Warning);
    let summaries: Vec<_> = warnings.iter().filter_map(|line| line.strip_prefix(&prefix)).collect();
    let [summary] = summaries[..] else { anyhow::bail!("{warnings:#?}") };
    let facts = [
        ("bucket", C::URL.to_owned()),
        ("endpoint", plugin.server.endpoint()),
        ("root path", "\"archive\"".to_owned()),
        ("structure", "legacy".to_owned()),
        ("HybridMode", "Disabled".to_owned()),
        ("state directory", plugin.orthanc.storage_folder().display().to_string()),
        // Computed with `openssl kdf` from the key file.
        ("encryption", "A2 with key 3 (fingerprints 3 = 489c08f2cacd31a32fad2e8d52e64722)".to_owned()),
        ("proxy", "none".to_owned()),
        ("credentials", String::new()),
    ];
    let infos = plugin.lines(LogLevel::Info);
    for (name, value) in facts {
        assert!(summary.contains(&format!(", {name} {value}")), "{name}: {summary}");
        let line = format!("{name}: {value}");
        assert!(infos.iter().any(|info| info.starts_with(&line)), "{line}: {infos:#?}");
    }
    // An archive of the sources has no commit.
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../.git");
    let commit = summary.split_once("(commit ").map(|(_, commit)| commit.chars().take(12));
    let is_commit = commit.map(|mut commit| commit.all(|digit| digit.is_ascii_hexdigit()));
    assert_eq!(is_commit, repository.exists().then_some(true), "{summary}");
    assert_no_secret::<C>(&format!("{summary}{infos:?}"), None);
    let description = format!("{} ({}, HybridMode Disabled)", C::DESCRIPTION, C::URL);
    assert_eq!(plugin.orthanc.description(), Some(description));
    plugin.check()
}
