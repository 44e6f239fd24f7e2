//! The memory and threads of `docs/sizing.md`. The test prints the figures, and fails if they are far off.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use real_orthanc::dicom::Study;
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{Keys, within};
use crate::hybrid::support::encryption;
use crate::orthanc::fixture::{Fixture, at_once};

tests! {
    Long:
        memory_and_threads_are_as_documented,
}

/// Files stored and read at once.
const CLIENTS: u64 = 20;

/// Returns the memory that `work` needs at most, above what Orthanc had before, in MB.
fn peak<C: Cloud>(fixture: &Fixture<C>, work: impl FnOnce() -> Result<()>) -> Result<u64> {
    let before = fixture.orthanc.memory_bytes()?;
    fixture.orthanc.reset_peak_memory()?;
    work()?;
    Ok(fixture.orthanc.peak_memory_bytes()?.saturating_sub(before) / 1_000_000)
}

/// The plugin's threads.
const THREADS: u64 = 3;
/// Threads that hash or decrypt end when they are idle for ten seconds.
const IDLE: Duration = Duration::from_secs(20);

/// What an Orthanc needs.
#[derive(Debug, Default)]
struct Needs {
    /// Memory in MB: for storing files, and, in another Orthanc, for reading them.
    memory: [u64; 2],
    /// Threads afterwards.
    threads: u64,
}

/// Measures an Orthanc that stores and reads files of `megabytes` at once, until it has at most `threads`.
fn measure<C: Cloud>(changes: Option<&Value>, clients: u64, megabytes: u32, threads: u64) -> Result<Needs> {
    let mut fixture = Fixture::<C>::configured(changes.unwrap_or(&Value::Null), |builder| match changes {
        Some(_) => builder,
        None => builder.without_section(C::SECTION),
    })?;
    let files =
        (0..clients).map(|client| Study(client + 1).multi_frame(megabytes)).collect::<Result<Vec<_>>>()?;
    let file = |client: u64| files.get(usize::try_from(client)?).context("no file");
    let mut ids = Vec::new();
    let stored = peak(&fixture, || {
        let rest = fixture.rest();
        ids = at_once(clients, |client| Ok(rest.upload(file(client)?)?.id))?;
        Ok(())
    })?;
    fixture.restart()?;
    let read = peak(&fixture, || {
        let rest = fixture.rest();
        at_once(clients, |client| {
            let id = ids.get(usize::try_from(client)?).context("no instance")?;
            ensure!(rest.file(id)?.len() == file(client)?.len());
            Ok(())
        })?;
        Ok(())
    })?;
    within(IDLE, || fixture.orthanc.thread_count().is_ok_and(|count| count <= threads));
    Ok(Needs { memory: [stored, read], threads: fixture.orthanc.thread_count()? })
}

fn memory_and_threads_are_as_documented<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let section = |format: &str| json!({"StorageEncryption": encryption(&keys, format)});
    let configurations = [
        ("built-in", None),
        ("none", Some(json!({}))),
        ("A1", Some(section("A1"))),
        ("A2", Some(section("A2"))),
    ];
    for (clients, megabytes) in [(1, 200), (CLIENTS, 10)] {
        let mut built_in = Needs::default();
        for (name, changes) in &configurations {
            let threads = changes.as_ref().map_or(u64::MAX, |_| built_in.threads + THREADS);
            let measured = measure::<C>(changes.as_ref(), clients, megabytes, threads)?;
            println!("{clients} × {megabytes} MB, {name}: {measured:?}");
            ensure!(measured.threads <= threads, "{measured:?}, and {built_in:?} without the plugin");
            if changes.is_none() {
                built_in = measured;
                continue;
            }
            let total = clients * u64::from(megabytes);
            for (measured, built_in) in measured.memory.iter().zip(built_in.memory) {
                ensure!(
                    *measured < built_in + total + 100,
                    "{measured} MB, and {built_in} MB without the plugin"
                );
            }
        }
    }
    Ok(())
}
