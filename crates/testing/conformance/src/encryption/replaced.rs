//! Reads of objects that a re-encryption replaces meanwhile.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use bytes::Bytes;
use crypto_envelope::{Format, encrypt};
use fake_orthanc::LogLevel;
use serde_json::json;

use crate::Cloud;
use crate::fixture::{DICOM, LoadedPlugin, Random, content, flat, flat_encrypted, own_lines, uuid, within};

tests! {
    OneCloud:
        reads_of_replaced_objects_return_no_mix,
}

const SIZE: usize = 300_000;
const READERS: u64 = 2;
/// Number of times the object is replaced.
const REPLACEMENTS: usize = 60;

fn reads_of_replaced_objects_return_no_mix<C: Cloud>() -> Result<()> {
    let encryption = json!({"Format": "A2", "ReadUnencrypted": true});
    let plugin = LoadedPlugin::<C>::encrypted_with(&json!({}), &encryption)?;
    let plugin = {
        let mut plugin = plugin;
        let previous = json!({"PreviousMasterKeys": [plugin.keys.entry(7)]});
        plugin.restart_encrypted(&json!({}), &crate::fixture::with(encryption, &previous))?;
        plugin
    };
    let id = uuid(1);
    let whole = content(SIZE);
    // Two of the forms have the same size.
    let forms = [(7, Format::A2), (3, Format::A2), (3, Format::A1)].map(|(key, format)| -> Result<Bytes> {
        Ok(encrypt(&plugin.keys.ring(key)?, format, &id, &whole)?.into())
    });
    let [old, new, a1] = forms;
    let (old, new, a1) = (old?, new?, a1?);
    plugin.insert(&flat(&id), whole.clone());
    plugin.server.latency(Duration::from_millis(1));
    let reads = AtomicUsize::new(0);
    let is_done = AtomicBool::new(false);
    let read = |reader: u64| -> Result<()> {
        let mut random = Random::new().fork(reader);
        while !is_done.load(Ordering::Relaxed) {
            let start = usize::try_from(random.below(SIZE as u64))?;
            let len = 1 + usize::try_from(random.below((SIZE - start) as u64))?;
            let range = plugin.orthanc.read_range(&id, DICOM, start as u64, len);
            ensure!(
                range.as_deref() == Ok(&whole[start..start + len]),
                "{start} {len}: {:#?}",
                plugin.errors()
            );
            let read = plugin.orthanc.read_whole(&id, DICOM);
            ensure!(read.as_deref() == Ok(&whole), "{:#?}", plugin.errors());
            reads.fetch_add(2, Ordering::Relaxed);
        }
        Ok(())
    };
    // As the re-encryption does: the new object is there before the old one goes.
    let replace = || -> Result<()> {
        for number in 0..REPLACEMENTS {
            let before = reads.load(Ordering::Relaxed);
            match number % 4 {
                0 => {
                    plugin.insert(&flat_encrypted(&id), old.clone());
                    plugin.server.remove(C::BUCKET, &flat(&id));
                }
                1 => plugin.insert(&flat_encrypted(&id), new.clone()),
                2 => plugin.insert(&flat_encrypted(&id), a1.clone()),
                _ => {
                    // Back to the beginning: in clear.
                    plugin.insert(&flat(&id), whole.clone());
                    plugin.server.remove(C::BUCKET, &flat_encrypted(&id));
                }
            }
            let wanted = before + 2;
            let goes_on = within(Duration::from_secs(20), || reads.load(Ordering::Relaxed) >= wanted);
            ensure!(goes_on, "the reads have failed");
        }
        Ok(())
    };
    thread::scope(|scope| -> Result<()> {
        let readers: Vec<_> = (0..READERS).map(|reader| scope.spawn(move || read(reader))).collect();
        let replaced = replace();
        is_done.store(true, Ordering::Relaxed);
        readers.into_iter().try_for_each(|reader| reader.join().map_err(|_| anyhow!("panicked"))?)?;
        replaced
    })?;
    let infos = own_lines::<C>(&plugin.orthanc.logs(), LogLevel::Info);
    let restarts = infos.iter().filter(|line| line.contains("retrying the read")).count();
    println!("{restarts} restarts, {} reads", reads.load(Ordering::Relaxed));
    ensure!(plugin.errors().is_empty(), "{:#?}", plugin.errors());
    plugin.check()
}
