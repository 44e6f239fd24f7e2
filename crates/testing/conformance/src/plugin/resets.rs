//! `POST /tools/reset`: the plugin is ended and begun again in one process.
//!
//! It counts the threads and descriptors of the whole process, of which a test has its own.

use std::time::Duration;

use anyhow::{Context, Result};
use fake_orthanc::FakeOrthancOptions;
use serde_json::json;

use crate::Cloud;
use crate::fixture::{DICOM, Setup, UUID, configuration, content, done, eventually, section, uuid};

tests![resets_leave_no_thread_descriptor_or_memory_behind,];

/// What the process has: threads, file descriptors, resident memory in MiB.
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

fn resets_leave_no_thread_descriptor_or_memory_behind<C: Cloud>() -> Result<()> {
    let mut setup = Setup::<C>::start()?;
    let bytes = content(8_000_000);
    let cycle = |setup: &mut Setup<C>| -> Result<()> {
        std::thread::scope(|scope| {
            let host = &setup.host;
            let others = [1, 2, 3].map(|other| scope.spawn(move || host.create(&uuid(other), DICOM, b"x")));
            done(host.create(UUID, DICOM, &bytes))?;
            assert!(done(host.read_whole(UUID, DICOM))? == bytes);
            done(host.read_range(UUID, DICOM, 100, 5000))?;
            done(host.remove(UUID, DICOM))?;
            for other in others {
                done(other.join().unwrap_or(Err(-1)))?;
            }
            anyhow::Ok(())
        })?;
        let configuration = configuration::<C>(section::<C>(&setup.server, &json!({})));
        setup.host.reset(FakeOrthancOptions::with_configuration(configuration))?;
        Ok(())
    };
    // The first ones may load and cache what stays for good.
    for _ in 0..3 {
        cycle(&mut setup)?;
    }
    let closed = |setup: &Setup<C>| setup.server.connections_open() <= 1;
    eventually("the connections of former plugins are closed", Duration::from_secs(30), || closed(&setup))?;
    let before = used()?;
    for _ in 0..20 {
        cycle(&mut setup)?;
    }
    eventually("threads and descriptors are as before", Duration::from_secs(30), || {
        used().is_ok_and(|now| now.0 <= before.0 && now.1 <= before.1)
    })
    .with_context(|| format!("before {before:?}, after {:?}", used()))?;
    // One leaked attachment for each cycle would be 160 MB.
    let (_, _, memory) = used()?;
    assert!(memory < before.2 + 80, "{} MiB before, {memory} MiB after", before.2);

    setup.host.finalize();
    eventually("all connections are closed", Duration::from_secs(30), || {
        setup.server.connections_open() == 0
    })?;
    assert_eq!(setup.errors(), [""; 0]);
    setup.check()
}
