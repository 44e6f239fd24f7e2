//! Orthanc is killed or reset, or loses its bucket, while clients store, delete, move and read. Everything
//! that was acknowledged stays true, and nothing else is left.

mod clients;
mod known;

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use fake_cloud::{BucketServer, Fault, FaultRule};
use serde_json::{Value, json};

use self::clients::Clients;
use crate::Cloud;
use crate::fixture::Random;
use crate::orthanc::fixture::Fixture;

tests! {
    OneCloud:
        acknowledged_work_survives_kills,
        acknowledged_work_survives_resets,
        acknowledged_work_survives_an_outage;
    Long:
        acknowledged_work_survives_200_kills,
        acknowledged_work_survives_50_resets,
        acknowledged_work_survives_an_outage_of_two_minutes;
}

/// Rounds between two looks at everything.
const CHECK_EVERY: usize = 10;

/// Options with which a request that stalls costs little time.
fn section(mode: &str) -> Value {
    json!({"HybridMode": mode, "ConnectionTimeout": 1, "RequestTimeout": 20})
}

fn acknowledged_work_survives_kills<C: Cloud>() -> Result<()> {
    kill::<C>(12)
}

fn acknowledged_work_survives_200_kills<C: Cloud>() -> Result<()> {
    kill::<C>(200)
}

/// Kills Orthanc at random moments.
fn kill<C: Cloud>(kills: usize) -> Result<()> {
    let mut random = Random::new();
    let clients = Clients::new(false);
    let mut fixture = Fixture::<C>::with(&section("WriteToObjectStorage"))?;
    let mut hits = 0;
    for kill in 1..=kills {
        // The storage that is written to first changes from time to time.
        let mode = if kill % 3 == 0 { "WriteToFileSystem" } else { "WriteToObjectStorage" };
        fixture.configure(&section(mode));
        let lasting = Duration::from_millis(20 + random.below(400));
        let rest = fixture.rest().clone();
        let (bucket, orthanc) = (&fixture.bucket, &mut fixture.orthanc);
        hits += disturbed(&clients, &rest, bucket, &mut random, || {
            thread::sleep(lasting);
            let in_flight = clients.in_flight();
            orthanc.kill()?;
            Ok(usize::from(in_flight > 0))
        })?;
        fixture.orthanc.start_again()?;
        if kill % CHECK_EVERY == 0 || kill == kills {
            clients.known.check(&fixture).with_context(|| format!("after kill {kill}"))?;
        }
    }
    println!("{hits} of {kills} kills hit a store or a deletion");
    ensure!(hits * 2 >= kills, "only {hits} of {kills} kills hit a store or a deletion");
    clients.expect_all_kinds()
}

fn acknowledged_work_survives_resets<C: Cloud>() -> Result<()> {
    reset::<C>(5)
}

fn acknowledged_work_survives_50_resets<C: Cloud>() -> Result<()> {
    reset::<C>(50)
}

fn reset<C: Cloud>(resets: usize) -> Result<()> {
    let mut random = Random::new();
    // Orthanc begins a reset only after its script engine has been idle for 100 ms, and each change is work
    // for the engine.
    let clients = Clients::new(true);
    let fixture = Fixture::<C>::with(&section("WriteToObjectStorage"))?;
    fixture.bucket.latency(Duration::from_millis(150));
    for reset in 1..=resets {
        // Orthanc does not answer on some connections while it shuts down.
        let rest = real_orthanc::Client::with_timeout(fixture.orthanc.url(), Duration::from_secs(10));
        let lasting = Duration::from_millis(300 + random.below(700));
        disturbed(&clients, &rest, &fixture.bucket, &mut random, || {
            thread::sleep(lasting);
            fixture.reset().with_context(|| format!("reset {reset}"))?;
            thread::sleep(Duration::from_secs(2));
            Ok(())
        })?;
    }
    fixture.bucket.latency(Duration::ZERO);
    clients.known.check(&fixture)?;
    clients.expect_all_kinds()
}

fn acknowledged_work_survives_an_outage<C: Cloud>() -> Result<()> {
    lose_bucket::<C>(Duration::from_secs(5))
}

fn acknowledged_work_survives_an_outage_of_two_minutes<C: Cloud>() -> Result<()> {
    lose_bucket::<C>(Duration::from_secs(120))
}

/// Cuts the connection to the bucket for a while, longer than the plugin tries to store an attachment.
fn lose_bucket<C: Cloud>(outage: Duration) -> Result<()> {
    let mut random = Random::new();
    let clients = Clients::new(false);
    let changes = json!({"HybridMode": "WriteToObjectStorage", "ConnectionTimeout": 1, "RequestTimeout": 2});
    let (fixture, proxy) = Fixture::<C>::behind_proxy(&changes)?;
    disturbed(&clients, fixture.rest(), &fixture.bucket, &mut random, || {
        thread::sleep(Duration::from_secs(2));
        proxy.cut();
        thread::sleep(outage);
        proxy.mend();
        thread::sleep(Duration::from_secs(2));
        Ok(())
    })?;
    clients.known.check(&fixture)?;
    clients.expect_all_kinds()
}

/// Runs `disturb` while the clients work, and the bucket fails one request of ten.
fn disturbed<T>(
    clients: &Clients,
    rest: &real_orthanc::Client,
    bucket: &BucketServer,
    random: &mut Random,
    disturb: impl FnOnce() -> Result<T>,
) -> Result<T> {
    clients.begin();
    let result = thread::scope(|scope| {
        let faults = scope.spawn(|| fail_requests(clients, bucket, random));
        let workers: Vec<_> = clients.work().map(|work| scope.spawn(move || work(rest))).collect();
        let result = disturb();
        clients.end();
        for worker in workers {
            worker.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        faults.join().map_err(|_| anyhow!("the thread of faults panicked"))?;
        result
    });
    bucket.faults().clear();
    result
}

/// Makes one request of ten fail: refused, reset, stalled, or carried out without an answer.
fn fail_requests(clients: &Clients, bucket: &BucketServer, random: &mut Random) {
    while clients.are_working() {
        let fault = match random.below(8) {
            0 => Fault::CloseAfterRequestBytes(random.below(9000)),
            1 => Fault::ResetAfterResponseBytes(random.below(9000)),
            2 | 3 => Fault::CloseBeforeResponse,
            4 => Fault::StallRequestAfter(0),
            5 => Fault::Delay(Duration::from_millis(300)),
            _ => Fault::slow_down(),
        };
        let passing = usize::try_from(random.below(20)).unwrap_or_default();
        bucket.faults().clear();
        let rule = bucket.faults().push(FaultRule::new(fault).skip(passing));
        while clients.are_working() && rule.fired() == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
