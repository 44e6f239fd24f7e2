//! Two Orthancs with one state directory: one is killed, and then the other, while it takes over what was pending.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fake_cloud::BucketServer;
use real_orthanc::Orthanc;
use serde_json::json;

use crate::Cloud;
use crate::fixture::{eventually, is_attachment, request, section};
use crate::hybrid::support::expect_readable_by;
use crate::orthanc::fixture::{builder, slices};
use crate::write_back::support::StateFolder;

tests! {
    OneCloud:
        killed_takeover_is_completed;
    Long:
        many_killed_takeovers_are_completed,
}

const PENDING: u32 = 60;
/// Orthancs look for the work of others once a minute.
const SOON: Duration = Duration::from_secs(90);

/// Starts an Orthanc with an index of its own, a common `StorageDirectory` and a common state directory.
fn orthanc<C: Cloud>(bucket: &BucketServer, folder: &Path) -> Result<Orthanc> {
    let options = json!({
        "HybridMode": "WriteBack",
        "StateDirectory": folder.join("state"),
        "ConnectionTimeout": 1,
        "RequestTimeout": 2,
        "MaxRetries": 0,
    });
    let builder = builder::<C>(&section::<C>(bucket, &options))?;
    Ok(builder.section("StorageDirectory", json!(folder.join("storage"))).start()?)
}

fn killed_takeover_is_completed<C: Cloud>() -> Result<()> {
    kill_takeovers::<C>(1)
}

fn many_killed_takeovers_are_completed<C: Cloud>() -> Result<()> {
    kill_takeovers::<C>(3)
}

fn kill_takeovers<C: Cloud>(rounds: u64) -> Result<()> {
    let bucket = C::server()?;
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let states = [0, 1, 2, 3].map(|number| StateFolder::at(folder.join(format!("state/{number}"))));
    // The second is not always in folder 1, which the first locks while it looks for work there.
    let left = || states[1..].iter().map(|state| state.pending().len()).sum::<usize>();
    let mut first = orthanc::<C>(&bucket, folder)?;
    let mut second = orthanc::<C>(&bucket, folder)?;
    let mut sent = Vec::new();
    let mut interrupted = 0;
    for round in 0..rounds {
        bucket.stop();
        bucket.reset_counts();
        for file in slices(round, PENDING)? {
            sent.push((second.rest().upload(&file)?, file));
        }
        second.kill()?;
        ensure!(left() == PENDING as usize, "{} are pending", left());
        let deadline = Instant::now() + SOON;
        while left() == PENDING as usize && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        first.kill()?;
        interrupted += usize::from((1..PENDING as usize).contains(&left()));
        first.start_again()?;
        bucket.start_again()?;
        let is_uploaded = || states.iter().all(|state| state.pending().is_empty());
        eventually("nothing is pending", SOON, is_uploaded)?;
        ensure!(bucket.requests().of(request::CREATE) <= u64::from(PENDING) + 1, "{:?}", bucket.requests());
        let attachments = || bucket.keys(C::BUCKET).into_iter().filter(|key| is_attachment(key)).count();
        ensure!(attachments() == sent.len(), "{} of {}", attachments(), sent.len());
        second.start_again()?;
        expect_readable_by(second.rest(), &sent)?;
    }
    println!("{interrupted} of {rounds} kills interrupted the takeover");
    ensure!(interrupted > 0, "no kill interrupted the takeover");
    ensure!(states.iter().all(|state| state.quarantined().is_empty()), "files in quarantine");
    Ok(())
}
