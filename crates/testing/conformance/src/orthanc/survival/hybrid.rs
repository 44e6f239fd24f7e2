//! Storage in the bucket or in files first, from one round to the next.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::clients::Clients;
use super::{CHECK_EVERY, disturbed};
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

/// Options with which a request that stalls costs little time.
pub(super) fn section(mode: &str) -> Value {
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
            clients.known.check(&fixture, None).with_context(|| format!("after kill {kill}"))?;
        }
    }
    println!("{hits} of {kills} kills hit a store or a deletion");
    ensure!(hits * 2 >= kills, "only {hits} of {kills} kills hit a store or a deletion");
    clients.expect_all_kinds()
}

fn acknowledged_work_survives_resets<C: Cloud>() -> Result<()> {
    survive_resets::<C>(5)
}

fn acknowledged_work_survives_50_resets<C: Cloud>() -> Result<()> {
    survive_resets::<C>(50)
}

fn survive_resets<C: Cloud>(resets: usize) -> Result<()> {
    let (fixture, clients) = reset::<C>(&section("WriteToObjectStorage"), resets)?;
    clients.known.check(&fixture, None)?;
    clients.expect_all_kinds()
}

/// Resets Orthanc while the clients work.
pub(super) fn reset<C: Cloud>(section: &Value, resets: usize) -> Result<(Fixture<C>, Clients)> {
    let mut random = Random::new();
    // Orthanc begins a reset only after its script engine has been idle for 100 ms, and each change is work
    // for the engine.
    let clients = Clients::new(true);
    let fixture = Fixture::<C>::with(section)?;
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
    Ok((fixture, clients))
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
    clients.known.check(&fixture, None)?;
    clients.expect_all_kinds()
}
