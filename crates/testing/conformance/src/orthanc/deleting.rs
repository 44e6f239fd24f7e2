//! The deletion of a large study: few requests, and other clients do not wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use fake_cloud::Operation;
use real_orthanc::Client;
use real_orthanc::dicom::Study;

use crate::Cloud;
use crate::fixture::request;
use crate::orthanc::fixture::{Fixture, at_once};

tests! {
    EveryCloud:
        study_is_deleted_with_few_requests;
    Long:
        large_study_is_deleted_with_20_requests,
}

const LATENCY: Duration = Duration::from_millis(20);

fn study_is_deleted_with_few_requests<C: Cloud>() -> Result<()> {
    delete_study::<C>(120)
}

fn large_study_is_deleted_with_20_requests<C: Cloud>() -> Result<()> {
    delete_study::<C>(1635)
}

fn delete_study<C: Cloud>(instances: u32) -> Result<()> {
    let fixture = Fixture::<C>::start()?;
    let files = Study(0).ct_series(instances, 8, 8).collect::<Result<Vec<_>>>()?;
    let share = files.len().div_ceil(4);
    let uploads = at_once(4, |client| {
        let own = files.chunks(share).nth(usize::try_from(client)?).unwrap_or_default();
        own.iter().map(|file| Ok(fixture.rest().upload(file)?.study)).collect::<Result<Vec<_>>>()
    })?;
    let study = uploads.concat().pop().ok_or_else(|| anyhow!("no study"))?;
    fixture.bucket.latency(LATENCY);
    let others = Others::default();
    thread::scope(|scope| -> Result<()> {
        let asking = scope.spawn(|| others.ask(fixture.rest()));
        let storing = scope.spawn(|| others.store(fixture.rest()));
        thread::sleep(Duration::from_secs(2));
        fixture.bucket.reset_counts();
        let start = Instant::now();
        let deleted = fixture.rest().delete(&format!("/studies/{study}"));
        let time = start.elapsed();
        // The others go on while the worker deletes the objects.
        fixture.settle();
        others.end.store(true, Ordering::Relaxed);
        deleted?.ok()?;
        println!("deletion of {instances} instances: {} ms", time.as_millis());
        for (what, thread) in [("GET /statistics", asking), ("stores", storing)] {
            let times = thread.join().map_err(|_| anyhow!("panicked"))??;
            println!("{what}: {}", describe(&times, start));
        }
        Ok(())
    })?;
    let callback = &fixture.rest().get_json("/object-storage/status")?["Requests"]["Remove"];
    println!(
        "callback: mean {} ms, longest {} ms",
        callback["MeanMilliseconds"], callback["MaxMilliseconds"]
    );
    let requests = fixture.bucket.requests();
    let deletions = requests.of(Operation::DeleteObjects) + requests.of(request::REMOVE);
    println!("requests: {deletions}");
    // One more if the machine was busy for a while.
    let most = u64::from(instances).div_ceil(C::LARGEST_DELETION) + 1;
    ensure!(most <= 20 && deletions <= most, "{requests:?}");
    ensure!(requests.of(request::REMOVE) == 0, "{requests:?}");
    Ok(())
}

/// Other clients, which note when each of their requests began and how long it took.
#[derive(Default)]
struct Others {
    end: AtomicBool,
}

impl Others {
    fn ask(&self, rest: &Client) -> Result<Vec<(Instant, Duration)>> {
        self.repeat(|| rest.get_json("/statistics").map(drop))
    }

    fn store(&self, rest: &Client) -> Result<Vec<(Instant, Duration)>> {
        let mut files = Study(1).ct_series(100_000, 8, 8);
        self.repeat(|| {
            let file = files.next().ok_or_else(|| anyhow!("no more files"))??;
            rest.upload(&file).map(drop)
        })
    }

    fn repeat(&self, mut request: impl FnMut() -> Result<()>) -> Result<Vec<(Instant, Duration)>> {
        let mut times = Vec::new();
        while !self.end.load(Ordering::Relaxed) {
            let start = Instant::now();
            request()?;
            times.push((start, start.elapsed()));
        }
        Ok(times)
    }
}

/// The median and the longest time before and since `start`.
fn describe(times: &[(Instant, Duration)], start: Instant) -> String {
    let of = |during: bool| {
        let chosen = times.iter().filter(|(begun, time)| (*begun + *time > start) == during);
        let mut chosen: Vec<u128> = chosen.map(|(_, time)| time.as_millis()).collect();
        chosen.sort_unstable();
        let median = chosen.get(chosen.len() / 2).copied().unwrap_or_default();
        format!("median {median} ms, longest {} ms", chosen.last().copied().unwrap_or_default())
    };
    format!("{} before; {} during the deletion", of(false), of(true))
}
