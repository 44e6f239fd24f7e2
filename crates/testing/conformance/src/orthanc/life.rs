//! Resets of Orthanc under load.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use real_orthanc::Client;
use real_orthanc::dicom::Study;
use serde_json::json;

use crate::Cloud;
use crate::fixture::{Keys, within};
use crate::orthanc::fixture::{Fixture, at_once};

tests! { OneCloud: resets_under_load_lose_and_leak_nothing }

/// Files of acknowledged uploads, by instance.
type Stored = Mutex<BTreeMap<String, Vec<u8>>>;

/// Resources that must not grow.
#[derive(Clone, Copy, Debug)]
struct Size {
    threads: u64,
    sockets: usize,
    bucket_connections: u64,
    memory: u64,
}

impl Size {
    fn of<C: Cloud>(fixture: &Fixture<C>) -> Result<Self> {
        let orthanc = &fixture.orthanc;
        Ok(Self {
            threads: orthanc.thread_count()?,
            sockets: orthanc.open_sockets()?,
            bucket_connections: fixture.bucket.connections_open(),
            memory: orthanc.memory_bytes()?,
        })
    }
}

/// The interval in which all clients begin an upload at the same time. Orthanc begins a reset only after its
/// script engine has been idle for 100 ms, and each new instance is work for the engine.
const BEAT: Duration = Duration::from_millis(500);
/// Latency of requests to the bucket, so that a reset interrupts some.
const LATENCY: Duration = Duration::from_millis(250);

/// Resets Orthanc while four clients upload and read. Adds the files of acknowledged uploads to `stored`.
fn reset_under_load<C: Cloud>(
    fixture: &Fixture<C>,
    studies: u64,
    resets: u32,
    stored: &Stored,
) -> Result<()> {
    // Orthanc does not answer on some connections while it shuts down.
    let rest = Client::with_timeout(fixture.orthanc.url(), Duration::from_secs(3));
    let is_done = AtomicBool::new(false);
    let start = Instant::now();
    let reset = || -> Result<()> {
        for reset in 1..=resets {
            fixture.reset().with_context(|| format!("reset {reset}"))?;
            let before = stored.lock().len();
            let has_stored = within(Duration::from_secs(10), || stored.lock().len() >= before + 8);
            ensure!(has_stored, "nothing is stored after reset {reset}");
        }
        Ok(())
    };
    fixture.bucket.latency(LATENCY);
    at_once(5, |client| {
        if client == 0 {
            let result = reset();
            is_done.store(true, Ordering::Relaxed);
            return result;
        }
        let mut files = Study(studies + client).ct_series(100_000, 64, 64);
        let mut file = files.next().context("no more files")??;
        while !is_done.load(Ordering::Relaxed) {
            let beats = start.elapsed().div_duration_f64(BEAT).ceil();
            thread::sleep((start + BEAT.mul_f64(beats)).saturating_duration_since(Instant::now()));
            // An upload fails while Orthanc is down. If only its answer was lost, the next one is
            // `AlreadyStored`.
            let Ok(uploaded) = rest.upload(&file) else { continue };
            if let Ok(read) = rest.file(&uploaded.id) {
                ensure!(read == file, "the bytes differ");
            }
            stored.lock().insert(uploaded.id, file);
            file = files.next().context("no more files")??;
        }
        Ok(())
    })?;
    fixture.bucket.latency(Duration::ZERO);
    Ok(())
}

fn resets_under_load_lose_and_leak_nothing<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let encryption = json!({ "StorageEncryption": keys.section(&json!({ "Format": "A2" })) });
    let fixture = Fixture::<C>::with(&encryption)?;
    let stored = Stored::default();
    reset_under_load(&fixture, 0, 2, &stored)?;
    let early = Size::of(&fixture)?;
    reset_under_load(&fixture, 10, 6, &stored)?;
    let late = Size::of(&fixture)?;
    for (id, file) in stored.lock().iter() {
        assert!(fixture.rest().file(id)? == *file, "the bytes of {id} differ");
    }
    assert!(fixture.keys().iter().all(|key| key.ends_with(".enc")), "encrypted after each reset");
    // A leak would be two threads, several connections and some megabytes for each of six resets. The slack
    // is for Orthanc's own threads and allocator.
    assert!(late.threads < early.threads + 6, "{early:?} {late:?}");
    assert!(late.sockets < early.sockets + 6, "{early:?} {late:?}");
    assert!(late.bucket_connections < early.bucket_connections + 6, "{early:?} {late:?}");
    assert!(late.memory < early.memory + 24_000_000, "{early:?} {late:?}");
    Ok(())
}
