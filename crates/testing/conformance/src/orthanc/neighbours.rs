//! All plugins in one Orthanc, as the official packages load them: the one with a section is the storage area.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use real_orthanc::workspace::{Plugin, Profile, plugin_library};
use real_orthanc::{Builder, Orthanc};

use crate::Cloud;
use crate::orthanc::fixture::{Fixture, slices};

tests![plugins_without_a_section_say_in_one_line_that_they_are_disabled_and_are_in_nobodys_way,];

/// Orthanc's own builder with every plugin that there is.
fn with_all(plugins: impl IntoIterator<Item = Plugin>) -> Result<Builder> {
    let mut builder = Orthanc::builder();
    for plugin in plugins {
        builder = builder.plugin(plugin_library(plugin, Profile::Dev)?);
    }
    Ok(builder)
}

/// The names of plugins that say that they are disabled. Each says it once, and logs nothing else.
fn disabled(log: &str) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for line in log.lines().filter(|line| line.contains("the plugin is disabled")) {
        let (begin, _) = line.split_once(": no section ").with_context(|| line.to_owned())?;
        let name = begin.rsplit([']', ')']).next().unwrap_or_default().trim().to_owned();
        assert!(line.starts_with('W'), "{line}");
        let lines = log.lines().filter(|line| line.contains(&format!("{name}: ")));
        assert_eq!(lines.count(), 1, "{name} logs more:\n{log}");
        assert!(names.insert(name), "{line}");
    }
    Ok(names)
}

fn plugins_without_a_section_say_in_one_line_that_they_are_disabled_and_are_in_nobodys_way<C: Cloud>()
-> Result<()> {
    let mut plugins = Plugin::all();
    assert!(plugins.contains(&Plugin::named(C::PLUGIN)?), "{plugins:?}");
    for _order in 0..2 {
        plugins.reverse();
        let bucket = C::server()?;
        let section = C::section(&bucket.endpoint());
        let orthanc = with_all(plugins.iter().copied())?.section(C::SECTION, section).start()?;
        let mut fixture = Fixture::<C>::new(orthanc, bucket);
        let names = disabled(&fixture.orthanc.log())?;
        assert_eq!(names.len(), plugins.len() - 1, "{names:?} of {plugins:?}");
        assert!(!names.contains(C::NAME), "{names:?}");

        let files = slices(0, 3)?;
        let mut uploaded = Vec::new();
        for file in &files {
            uploaded.push(fixture.rest().upload(file)?);
        }
        assert_eq!(fixture.keys().len(), files.len());
        for (uploaded, file) in uploaded.iter().zip(&files) {
            assert!(fixture.rest().file(&uploaded.id)? == *file, "the bytes differ");
            fixture.rest().delete(&uploaded.path)?.ok()?;
        }
        assert!(fixture.keys().is_empty(), "{:?}", fixture.keys());
        fixture.orthanc.stop()?;
        assert_eq!(fixture.log_lines('E'), [""; 0]);
    }
    Ok(())
}
