//! Resets of Orthanc (`POST /tools/reset`), which finalize and initialize the plugin in one process.
//!
//! The test counts threads and descriptors of its process, which runs no other test.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use fake_orthanc::FakeOrthancOptions;
use serde_json::json;

use crate::Cloud;
use crate::fixture::{LoadedPlugin, configuration, content, eventually, section, uuid};

tests! { EveryCloud: resets_leak_nothing }

/// Returns threads, file descriptors and resident memory in MiB of this process.
fn used() -> Result<(u64, usize, u64)> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let number = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    let descriptors = std::fs::read_dir("/proc/self/fd")?.count();
    let threads = number("Threads:").context("no Threads")?;
    Ok((threads, descriptors, number("VmRSS:").context("no VmRSS")? / 1024))
}

fn resets_leak_nothing<C: Cloud>() -> Result<()> {
    let limit = Duration::from_secs(30);
    let mut plugin = LoadedPlugin::<C>::start()?;
    let bytes = content(8_000_000);
    // Orthanc never uses a UUID again, and a deletion may be done only after the reset.
    let mut cycles = 1000;
    let mut cycle = |plugin: &mut LoadedPlugin<C>| -> Result<()> {
        cycles += 1;
        let own = uuid(cycles);
        thread::scope(|scope| {
            let store = |number: usize| plugin.create(&uuid(number), b"x");
            let others = [1, 2, 3].map(|number| scope.spawn(move || store(number)));
            plugin.create(&own, &bytes)?;
            assert!(plugin.read(&own)? == bytes);
            plugin.range(&own, 100, 5000)?;
            plugin.remove(&own)?;
            others.into_iter().try_for_each(|other| other.join().map_err(|_| anyhow!("panicked"))?)
        })?;
        let configuration = configuration::<C>(section::<C>(&plugin.server, &json!({})));
        Ok(plugin.orthanc.reset(FakeOrthancOptions::with_configuration(configuration))?)
    };
    // The first cycles may allocate what the process keeps.
    for _ in 0..3 {
        cycle(&mut plugin)?;
    }
    eventually("old connections are closed", limit, || plugin.server.connections_open() <= 1)?;
    let before = used()?;
    for _ in 0..20 {
        cycle(&mut plugin)?;
    }
    let is_as_before = || used().is_ok_and(|now| now.0 <= before.0 && now.1 <= before.1);
    eventually("threads and descriptors are as before", limit, is_as_before)
        .with_context(|| format!("before {before:?}, after {:?}", used()))?;
    // Leaking one attachment per cycle would add 160 MB.
    let (_, _, memory) = used()?;
    assert!(memory < before.2 + 80, "{} MiB before, {memory} MiB after", before.2);

    plugin.orthanc.finalize();
    eventually("all connections are closed", limit, || plugin.server.connections_open() == 0)?;
    assert_eq!(plugin.errors(), [""; 0]);
    plugin.check()
}
