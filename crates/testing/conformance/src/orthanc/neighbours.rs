//! All plugins in one Orthanc, as the official packages load them: the one with a section is the storage
//! area.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use real_orthanc::Orthanc;
use real_orthanc::workspace::{Plugin, Profile, plugin_library};

use crate::Cloud;
use crate::orthanc::fixture::{Fixture, slice};

tests! { OneCloud: plugins_without_a_section_are_disabled }

/// Returns the names of plugins that say that they are disabled. Each must say so once and log nothing else.
fn disabled(log: &str) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for line in log.lines().filter(|line| line.contains("section") && line.contains("disabled")) {
        let (_, text) = line.split_once("] ").with_context(|| line.to_owned())?;
        let name = text.split(": ").next().unwrap_or_default().to_owned();
        assert!(line.starts_with('W'), "{line}");
        let lines = log.lines().filter(|line| line.contains(&format!("{name}: ")));
        assert_eq!(lines.count(), 1, "{name} logs more:\n{log}");
        assert!(names.insert(name), "{line}");
    }
    Ok(names)
}

fn plugins_without_a_section_are_disabled<C: Cloud>() -> Result<()> {
    let mut plugins = Plugin::all();
    assert!(plugins.contains(&Plugin::named(C::PLUGIN)?), "{plugins:?}");
    for _order in 0..2 {
        plugins.reverse();
        let bucket = C::server()?;
        let mut builder = Orthanc::builder().section(C::SECTION, C::section(&bucket.endpoint()));
        for plugin in &plugins {
            builder = builder.plugin(plugin_library(*plugin, Profile::Dev)?);
        }
        let fixture = Fixture::<C>::new(builder.start()?, bucket);
        let names = disabled(&fixture.orthanc.log())?;
        assert_eq!(names.len(), plugins.len() - 1, "{names:?} of {plugins:?}");
        assert!(!names.contains(C::NAME), "{names:?}");

        let uploaded = fixture.rest().upload(&slice()?)?;
        assert_eq!(fixture.keys().len(), 1);
        assert!(fixture.rest().file(&uploaded.id)? == slice()?, "the bytes differ");
        fixture.rest().delete(&uploaded.path)?.ok()?;
        assert!(fixture.keys().is_empty(), "{:?}", fixture.keys());
        assert_eq!(fixture.log_lines('E'), [""; 0]);
    }
    Ok(())
}
