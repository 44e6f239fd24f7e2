//! `WriteBack`: what was acknowledged may be on the disk only.

use std::fs;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use crypto_envelope::KeyRing;
use real_orthanc::Client;
use serde_json::{Value, json};

use super::clients::Clients;
use super::known::State;
use super::{CHECK_EVERY, disturbed};
use crate::Cloud;
use crate::fixture::{Keys, Random, eventually, request, with};
use crate::hybrid::support::{encryption, expect_readable, files, upload};
use crate::orthanc::fixture::{Fixture, at_once};
use crate::orthanc::stopping::stop_in_time;
use crate::write_back::support::StateFolder;

tests! {
    Newest:
        pending_work_survives_50_kills;
    OneCloud:
        pending_work_survives_resets,
        stores_and_reads_go_on_in_an_outage,
        stop_does_not_wait_for_uploads;
    Long:
        pending_work_survives_1000_kills,
        stores_and_reads_go_on_in_an_outage_of_two_minutes,
}

/// The bucket's latency, so that something is pending at most moments.
const LATENCY: Duration = Duration::from_millis(30);
/// How many flushes go on at once.
const FLUSHES: u32 = 10;
/// The pause between two flushes.
const PAUSE: Duration = Duration::from_millis(20);
/// How long to wait for anything.
const SOON: Duration = Duration::from_secs(60);
/// Each of this many kills happens while the bucket is unreachable.
const OUTAGE_EVERY: usize = 8;

/// Options of the mode, with which a request that stalls costs little time.
fn section(write_back: &Value) -> Value {
    json!({"HybridMode": "WriteBack", "WriteBack": write_back, "ConnectionTimeout": 1, "RequestTimeout": 20})
}

fn state<C: Cloud>(fixture: &Fixture<C>) -> StateFolder {
    StateFolder::of(&fixture.orthanc.storage_folder())
}

/// Waits until everything is in the bucket.
fn flush<C: Cloud>(fixture: &Fixture<C>) -> Result<()> {
    // It fails if a request that met a fault is still waiting for its answer.
    let flushed =
        || fixture.rest().post("/object-storage/flush", b"").is_ok_and(|answer| answer.status == 200);
    eventually("everything is flushed", SOON, flushed)?;
    let pending = state(fixture).pending();
    ensure!(pending.is_empty(), "pending after the flush: {pending:?}");
    Ok(())
}

/// Checks at the end that the bucket alone has everything.
fn check_without_cache<C: Cloud>(
    fixture: &mut Fixture<C>,
    clients: &Clients,
    ring: Option<&KeyRing>,
) -> Result<()> {
    fixture.bucket.latency(Duration::ZERO);
    flush(fixture)?;
    clients.known.check(fixture, ring).context("with the cache")?;
    fixture.orthanc.stop()?;
    let folder = fixture.orthanc.storage_folder().join(".orthanc-object-storage/0");
    fs::remove_dir_all(folder.join("cache"))?;
    fixture.orthanc.start_again()?;
    clients.known.check(fixture, ring).context("without the cache")?;
    clients.known.check(fixture, ring).context("with what the reads have cached")?;
    let state = state(fixture);
    ensure!(state.pending().is_empty() && state.quarantined().is_empty(), "{:?}", state.quarantined());
    // The last copies for the cache may still be written.
    eventually("no unfinished file is left", SOON, || files(&folder.join("tmp")).is_empty())?;
    clients.expect_all_kinds()
}

fn pending_work_survives_50_kills<C: Cloud>() -> Result<()> {
    kill::<C>(&mut Random::new(), 50)
}

fn pending_work_survives_1000_kills<C: Cloud>() -> Result<()> {
    let random = Random::new();
    at_once(2, |client| kill::<C>(&mut random.fork(client), 500)).map(drop)
}

/// Options of one round: the mode and the format change from time to time, and encryption is switched on after a third
/// of all rounds.
fn round(round: usize, rounds: usize, keys: &Keys) -> Value {
    let delay = round % 2;
    let options = match round % 10 {
        4 => super::hybrid::section("WriteToObjectStorage"),
        9 => super::hybrid::section("WriteToFileSystem"),
        _ => section(&json!({"MaxCacheMB": 1, "KeepFreeMB": 0, "UploadDelay": delay})),
    };
    if round < rounds / 3 {
        return options;
    }
    let format = if round % 4 < 2 { "A2" } else { "A1" };
    let encryption = with(encryption(keys, format), &json!({"ReadFormats": ["A1", "A2"]}));
    with(options, &json!({"StorageEncryption": encryption}))
}

/// Whether the cache has made room for files since Orthanc was started.
fn has_evicted(rest: &Client) -> bool {
    rest.get_json("/object-storage/status").is_ok_and(|status| {
        status["HybridMode"] == "WriteBack" && status["WriteBack"]["Cache"]["Evicted"].as_u64() > Some(0)
    })
}

/// Asks for everything to be uploaded at once, again and again: each flush takes about as long as all pauses.
fn flush_until_killed(rest: Client, number: u32) -> JoinHandle<()> {
    thread::spawn(move || {
        thread::sleep(PAUSE * number);
        while rest.post("/object-storage/flush", b"").is_ok() {
            thread::sleep(PAUSE);
        }
    })
}

/// Kills Orthanc at random moments.
fn kill<C: Cloud>(random: &mut Random, kills: usize) -> Result<()> {
    let clients = Clients::new(false).that_fill_a_cache();
    let keys = Keys::new()?;
    let ring = keys.ring(3)?;
    let mut fixture = Fixture::<C>::with(&round(0, kills, &keys))?;
    fixture.bucket.latency(LATENCY);
    let (mut with_pending, mut without_bucket, mut evicting) = (0, 0, 0);
    for kill in 1..=kills {
        fixture.configure(&round(kill, kills, &keys));
        let lasting = Duration::from_millis(20 + random.below(400));
        let outage = Duration::from_millis(random.below(300));
        let starts_alone = random.below(2) == 0;
        let is_outage = kill % OUTAGE_EVERY == 0;
        let rest = fixture.rest().clone();
        let (bucket, orthanc) = (&fixture.bucket, &mut fixture.orthanc);
        let (evicts, is_unreachable) = disturbed(&clients, &rest, bucket, random, || {
            // Otherwise uploads would wait for the stores, which do not pause before the kill.
            let flushes = if kill % 8 == 0 { 0 } else { FLUSHES };
            let flushes: Vec<_> =
                (0..flushes).map(|number| flush_until_killed(rest.clone(), number)).collect();
            thread::sleep(lasting);
            if is_outage {
                bucket.stop();
                thread::sleep(outage);
            }
            let evicts = has_evicted(&rest);
            orthanc.kill()?;
            flushes.into_iter().try_for_each(|flush| flush.join().map_err(|_| anyhow!("panicked")))?;
            Ok((evicts, TcpStream::connect(("127.0.0.1", bucket.port())).is_err()))
        })?;
        with_pending += usize::from(!state(&fixture).pending().is_empty());
        without_bucket += usize::from(is_unreachable);
        evicting += usize::from(evicts);
        if !starts_alone {
            fixture.bucket.start_again()?;
        }
        fixture.orthanc.start_again()?;
        fixture.bucket.start_again()?;
        if kill % CHECK_EVERY == 0 {
            fixture.bucket.latency(Duration::ZERO);
            clients.known.check(&fixture, Some(&ring)).with_context(|| format!("after kill {kill}"))?;
            fixture.bucket.latency(LATENCY);
        }
    }
    println!(
        "{kills} kills: {with_pending} found pending files, {without_bucket} without a bucket, {evicting} after evictions"
    );
    ensure!(with_pending * 2 >= kills, "only {with_pending} of {kills} kills found pending files");
    ensure!(without_bucket * 50 >= kills, "only {without_bucket} kills while the bucket was unreachable");
    ensure!(evicting * 8 >= kills, "only {evicting} of {kills} kills after evictions");
    check_without_cache(&mut fixture, &clients, Some(&ring))
}

fn pending_work_survives_resets<C: Cloud>() -> Result<()> {
    let (mut fixture, clients) = super::hybrid::reset::<C>(&section(&json!({})), 5)?;
    check_without_cache(&mut fixture, &clients, None)
}

fn stores_and_reads_go_on_in_an_outage<C: Cloud>() -> Result<()> {
    lose_bucket::<C>(Duration::from_secs(5))
}

fn stores_and_reads_go_on_in_an_outage_of_two_minutes<C: Cloud>() -> Result<()> {
    lose_bucket::<C>(Duration::from_secs(120))
}

/// Cuts the connection to the bucket for a while. No store fails, and no read of what is on the disk.
fn lose_bucket<C: Cloud>(outage: Duration) -> Result<()> {
    let mut random = Random::new();
    let clients = Clients::new(false);
    let (mut fixture, proxy) = Fixture::<C>::behind_proxy(&section(&json!({})))?;
    let during = AtomicUsize::default();
    disturbed(&clients, fixture.rest(), &fixture.bucket, &mut random, || {
        thread::sleep(Duration::from_secs(2));
        proxy.cut();
        let before = clients.known.acknowledged();
        thread::sleep(outage);
        during.store(clients.known.acknowledged() - before, Ordering::Relaxed);
        proxy.mend();
        thread::sleep(Duration::from_secs(2));
        Ok(())
    })?;
    let during = during.into_inner();
    println!("{during} stores during the outage");
    ensure!(during >= 20, "only {during} stores during the outage");
    for state in [State::Sent, State::Refused] {
        ensure!(clients.known.count(state) == 0, "{}", clients.known.summary());
    }
    ensure!(clients.failed_reads() == 0, "{} reads failed", clients.failed_reads());
    check_without_cache(&mut fixture, &clients, None)
}

fn stop_does_not_wait_for_uploads<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&section(&json!({"Uploads": 4})))?;
    let held = fixture.bucket.hold(request::CREATE);
    let sent = upload(&fixture, 1, 20)?;
    ensure!(held.wait_until(4, SOON), "{} uploads", held.waiting());
    stop_in_time(&mut fixture)?;
    ensure!(state(&fixture).pending().len() == 20, "{:?}", state(&fixture).pending());
    ensure!(fixture.objects().is_empty(), "{:?}", fixture.keys());
    held.release();
    fixture.orthanc.start_again()?;
    flush(&fixture)?;
    ensure!(fixture.keys().len() == 20, "{:?}", fixture.keys());
    expect_readable(&fixture, &sent)
}
