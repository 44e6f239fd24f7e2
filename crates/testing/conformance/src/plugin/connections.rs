//! Connections to the server: opened once, and kept.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Result, anyhow, ensure};
use fake_cloud::BucketServer;
use fake_orthanc::{FakeOrthanc, LogLevel};
use serde_json::json;

use super::tls::{Authority, TlsFront};
use crate::Cloud;
use crate::fixture::{DICOM, configuration, content, done, load, own_lines, uuid, with};

tests! {
    OneCloud:
        connections_are_kept,
        connections_closed_by_the_server_are_replaced,
}

const OPERATIONS: usize = 1000;
const CLIENTS: usize = 8;
const SIZE: usize = 2000;

/// A plugin that reaches its server through TLS.
struct Secured {
    // Dropped in this order.
    orthanc: FakeOrthanc,
    front: TlsFront,
    server: BucketServer,
}

impl Secured {
    fn start<C: Cloud>() -> Result<Self> {
        let authority = Authority::new("Hospital")?;
        let server = C::server()?;
        let front = TlsFront::start(authority.server(&["127.0.0.1"], 2099)?, server.port())?;
        let section = C::section(&format!("https://127.0.0.1:{}", front.port));
        let trusted = json!({"HttpsCACertificates": authority.file.path()});
        let orthanc = load::<C>(with(configuration::<C>(section), &trusted))??;
        Ok(Self { orthanc, front, server })
    }

    /// Stores, reads and reads a range, until this many operations are done.
    fn work(&self, operations: usize, done_before: &AtomicUsize) -> Result<()> {
        let bytes = content(SIZE);
        for _ in 0..operations / 3 {
            let id = uuid(done_before.fetch_add(1, Ordering::Relaxed));
            done(self.orthanc.create(&id, DICOM, &bytes))?;
            ensure!(done(self.orthanc.read_whole(&id, DICOM))? == bytes, "the bytes differ");
            ensure!(done(self.orthanc.read_range(&id, DICOM, 10, 90))? == bytes[10..100], "the bytes differ");
        }
        Ok(())
    }

    fn work_in_parallel(&self, operations: usize, done_before: &AtomicUsize) -> Result<()> {
        thread::scope(|scope| {
            let work = || self.work(operations / CLIENTS, done_before);
            let threads: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("panicked"))?)
        })
    }
}

fn connections_are_kept<C: Cloud>() -> Result<()> {
    let secured = Secured::start::<C>()?;
    let done_before = AtomicUsize::new(0);
    secured.work(OPERATIONS / 5, &done_before)?;
    let of_one_client = secured.front.accepted();
    assert!(of_one_client <= 2, "{of_one_client} connections");
    secured.work_in_parallel(OPERATIONS / 10, &done_before)?;
    let at_first = secured.front.accepted();
    // A request that waits for a new connection takes one that becomes free before, and both are kept.
    assert!(at_first <= of_one_client + 2 * CLIENTS as u64, "{at_first} connections");
    secured.work_in_parallel(OPERATIONS, &done_before)?;
    let later = secured.front.accepted();
    println!("connections: {of_one_client} of one client, {at_first} and {later} of {CLIENTS} clients");
    assert_eq!(later, at_first, "connections are opened although there are free ones");
    Ok(())
}

fn connections_closed_by_the_server_are_replaced<C: Cloud>() -> Result<()> {
    let secured = Secured::start::<C>()?;
    let done_before = AtomicUsize::new(0);
    for round in 0..10 {
        secured.work(3, &done_before)?;
        let before = secured.front.accepted();
        secured.server.stop();
        secured.server.start_again()?;
        secured.server.reset_counts();
        secured.work(3, &done_before)?;
        assert_eq!(secured.front.accepted(), before + 1, "round {round}");
        assert_eq!(secured.server.requests().total, 3, "no request is sent twice");
    }
    assert_eq!(own_lines::<C>(&secured.orthanc.logs(), LogLevel::Error), [""; 0]);
    Ok(())
}
