//! Starts, ends and resets of Orthanc, and many clients at once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use parking_lot::{Mutex, RwLock};
use real_orthanc::dicom::Study;
use real_orthanc::{Client, Uploaded};
use serde_json::Value;

use crate::Cloud;
use crate::fixture::{request, within};
use crate::orthanc::fixture::{Fixture, at_once, slices};

tests![
    eight_clients_at_once_upload_read_and_delete,
    nothing_acknowledged_is_lost_by_a_kill_while_eight_clients_upload,
    ten_resets_under_load_lose_nothing_and_leak_nothing,
    orthanc_ends_in_order_and_leaves_no_process,
];

const CLIENTS: u64 = 8;

fn eight_clients_at_once_upload_read_and_delete<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::start()?;
    let kept = at_once(CLIENTS, |client| {
        let mut kept = Vec::new();
        for (index, file) in slices(client, 20)?.into_iter().enumerate() {
            let uploaded = fixture.rest().upload(&file)?;
            ensure!(fixture.rest().file(&uploaded.id)? == file, "the bytes differ");
            if index % 2 == 0 {
                fixture.rest().delete(&uploaded.path)?.ok()?;
            } else {
                kept.push((uploaded.id, file));
            }
        }
        Ok(kept)
    })?;
    let kept: Vec<_> = kept.into_iter().flatten().collect();
    assert_eq!(fixture.keys().len(), kept.len());
    for (id, file) in &kept {
        assert!(fixture.rest().file(id)? == *file, "the bytes differ");
    }
    let requests = fixture.bucket.requests();
    assert_eq!((requests.of(request::CREATE), requests.of(request::REMOVE)), (160, 80));
    assert_eq!(fixture.log_lines('E'), [""; 0]);
    Ok(())
}

fn nothing_acknowledged_is_lost_by_a_kill_while_eight_clients_upload<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::start()?;
    let acknowledged = Mutex::new(BTreeMap::new());
    let rest = fixture.rest().clone();
    let upload = &|client| -> Result<()> {
        for file in Study(client).ct_series(10_000, 64, 64) {
            let file = file?;
            let Ok(uploaded) = rest.upload(&file) else { return Ok(()) };
            acknowledged.lock().insert(uploaded.id, file);
        }
        anyhow::bail!("Orthanc lives on")
    };
    thread::scope(|scope| -> Result<()> {
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || upload(client))).collect();
        let busy = within(Duration::from_secs(15), || acknowledged.lock().len() >= 200);
        fixture.orthanc.kill()?;
        ensure!(busy, "only {} uploads", acknowledged.lock().len());
        for client in clients {
            client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(())
    })?;
    fixture.orthanc.start_again()?;
    let acknowledged = acknowledged.into_inner();
    for (id, file) in &acknowledged {
        let read = fixture.rest().file(id).with_context(|| format!("{id} of {}", acknowledged.len()))?;
        assert!(read == *file, "the bytes of {id} differ");
    }
    Ok(())
}

/// What must not grow.
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

/// Uploads begin so often, all clients at once. Stock Orthanc begins a reset only when its script engine has had nothing
/// to do for 100 ms, and each new instance is work for that.
const BEAT: Duration = Duration::from_millis(500);
/// What a request to the bucket takes, so that a reset finds some on their way.
const LATENCY: Duration = Duration::from_millis(250);

/// Clients that upload and read all the time, but for the moments when the load is paused.
struct Load {
    begin: Instant,
    stored: Mutex<Vec<(Uploaded, Vec<u8>)>>,
    /// Held for reading by a client at work.
    pause: RwLock<()>,
    ended: AtomicBool,
    reads: AtomicU64,
}

impl Load {
    fn upload(&self, rest: &Client, study: u64) -> Result<()> {
        let mut files = Study(study).ct_series(100_000, 64, 64);
        let mut file = files.next().context("no more files")??;
        while !self.ended.load(Ordering::Relaxed) {
            let beats = self.begin.elapsed().div_duration_f64(BEAT).ceil();
            thread::sleep((self.begin + BEAT.mul_f64(beats)).saturating_duration_since(Instant::now()));
            let _working = self.pause.read();
            // Fails while Orthanc is down. The same file again is then `AlreadyStored` if only the answer was lost.
            if let Ok(uploaded) = rest.upload(&file) {
                self.stored.lock().push((uploaded, file));
                file = files.next().context("no more files")??;
            }
        }
        Ok(())
    }

    fn read(&self, rest: &Client) -> Result<()> {
        for turn in 0_usize.. {
            if self.ended.load(Ordering::Relaxed) {
                break;
            }
            let _working = self.pause.read();
            let wanted = {
                let stored = self.stored.lock();
                stored
                    .get(turn * 7 % stored.len().max(1))
                    .map(|(uploaded, file)| (uploaded.id.clone(), file.clone()))
            };
            match wanted.map(|(id, file)| (rest.file(&id), file)) {
                Some((Ok(read), file)) => {
                    ensure!(read == file, "the bytes differ");
                    self.reads.fetch_add(1, Ordering::Relaxed);
                }
                _ => thread::sleep(Duration::from_millis(20)),
            }
        }
        Ok(())
    }
}

fn ten_resets_under_load_lose_nothing_and_leak_nothing<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::start()?;
    // Stock Orthanc leaves some connections open without an answer while it ends.
    let rest = Client::with_timeout(fixture.orthanc.url(), Duration::from_secs(3));
    fixture.bucket.latency(LATENCY);
    let load = Load {
        begin: Instant::now(),
        stored: Mutex::default(),
        pause: RwLock::default(),
        ended: AtomicBool::new(false),
        reads: AtomicU64::new(0),
    };
    let sizes = at_once(7, |client| match client {
        0 => {
            let sizes = reset_ten_times(&fixture, &load);
            load.ended.store(true, Ordering::Relaxed);
            sizes
        }
        1..=4 => load.upload(&rest, client).map(|()| Vec::new()),
        _ => load.read(&rest).map(|()| Vec::new()),
    })?;
    fixture.bucket.latency(Duration::ZERO);
    let stored = load.stored.into_inner();
    for (uploaded, file) in &stored {
        assert!(fixture.rest().file(&uploaded.id)? == *file, "the bytes of {} differ", uploaded.id);
    }
    assert!(stored.len() > 50 && load.reads.load(Ordering::Relaxed) > 50, "{} stored", stored.len());

    let [early, late] = sizes[0][..] else { anyhow::bail!("{sizes:?}") };
    println!("{} stored; after two resets {early:?}, after ten {late:?}", stored.len());
    // One generation of the plugin left behind would be two threads, several connections and some megabytes, eight
    // times. The slack is for Orthanc's own threads and allocator.
    assert!(late.threads < early.threads + 8, "{early:?} {late:?}");
    assert!(late.sockets < early.sockets + 8, "{early:?} {late:?}");
    assert!(late.bucket_connections < early.bucket_connections + 8, "{early:?} {late:?}");
    assert!(late.memory < early.memory + 24_000_000, "{early:?} {late:?}");
    Ok(())
}

/// The sizes after the second reset and after the tenth.
fn reset_ten_times<C: Cloud>(fixture: &Fixture<C>, load: &Load) -> Result<Vec<Size>> {
    let mut sizes = Vec::new();
    for reset in 1..=10 {
        fixture.reset().with_context(|| format!("reset {reset}"))?;
        // Some work for this generation.
        let stored = load.stored.lock().len();
        ensure!(
            within(Duration::from_secs(10), || load.stored.lock().len() >= stored + 8),
            "nothing is stored after reset {reset}"
        );
        if reset == 2 || reset == 10 {
            let _paused = load.pause.write();
            sizes.push(Size::of(fixture)?);
        }
    }
    Ok(sizes)
}

fn orthanc_ends_in_order_and_leaves_no_process<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::start()?;
    let uploaded = fixture.rest().upload(&slices(0, 1)?[0])?;
    let process = format!("/proc/{}", fixture.orthanc.pid().context("not running")?);
    fixture.orthanc.stop()?;
    assert!(!std::path::Path::new(&process).exists());
    assert!(within(Duration::from_secs(2), || fixture.bucket.connections_open() == 0));
    assert_eq!(fixture.log_lines('E'), [""; 0]);

    fixture.orthanc.start_again()?;
    assert!(fixture.rest().file(&uploaded.id)? == slices(0, 1)?[0], "the bytes differ");
    assert_eq!(fixture.bucket.objects(C::BUCKET).len(), 1);
    assert_ne!(fixture.rest().get_json("/plugins")?, Value::Null);
    Ok(())
}
