//! The memory and threads of `docs/sizing.md`. The test prints the figures, and fails if they are far off.

use anyhow::{Context, Result, ensure};
use real_orthanc::dicom::Study;
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::Keys;
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

/// Returns the memory for storing files of `megabytes` at once, and, in another Orthanc, for reading them.
fn peaks<C: Cloud>(changes: Option<&Value>, clients: u64, megabytes: u32) -> Result<[u64; 2]> {
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
    println!("threads: {}", fixture.orthanc.thread_count()?);
    Ok([stored, read])
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
        let mut built_in = [0; 2];
        for (name, changes) in &configurations {
            let measured = peaks::<C>(changes.as_ref(), clients, megabytes)?;
            println!("{clients} × {megabytes} MB, {name}: store {} MB, read {} MB", measured[0], measured[1]);
            if changes.is_none() {
                built_in = measured;
            }
            let total = clients * u64::from(megabytes);
            for (measured, built_in) in measured.iter().zip(built_in) {
                ensure!(
                    *measured < built_in + total + 100,
                    "{measured} MB, and {built_in} MB without the plugin"
                );
            }
        }
    }
    Ok(())
}
