//! Stops and resets while requests to the key service hang.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use real_orthanc::{Answer, Client};
use serde_json::json;

use super::fixture::KeyService;
use crate::Cloud;
use crate::fixture::eventually;
use crate::hybrid::support::{expect_readable, upload};
use crate::orthanc::fixture::{Fixture, slices};
use crate::orthanc::stopping::stop_in_time;

tests! { Newest: silent_service_delays_neither_stop_nor_reset }

/// What a reset may take: the grace of requests, and Orthanc's own pauses on a busy machine.
const RESET: Duration = Duration::from_secs(15);

fn silent_service_delays_neither_stop_nor_reset<C: Cloud>() -> Result<()> {
    let service = KeyService::start::<C>()?;
    let mut fixture = service.orthanc::<C>(&json!({"HybridMode": "WriteToFileSystem"}))?;
    // A move encrypts them.
    let clear = upload(&fixture, 1, 2)?;
    let study = clear[0].0.study.clone();
    // The service would be waited for longer than a stop may take.
    let others = json!({"HybridMode": "WriteToObjectStorage", "CheckWrite": false, "OutageTimeout": 120});
    let options = service.options(&json!({"ReadUnencrypted": true}), &others);
    fixture.start_again_with(&options)?;
    let sent = upload(&fixture, 2, 6)?;
    fixture.start_again_with(&options)?;
    service.line.freeze();

    // Those after the first reset, which may start some that the process keeps.
    let mut threads = 0;
    for round in 0..4 {
        // The last round ends Orthanc.
        let stops = round == 3;
        let moves = json!({"Resources": [study.as_str()], "TargetStorage": "object-storage"});
        let rest = Client::with_timeout(fixture.orthanc.url(), Duration::from_secs(120));
        let unsent = slices(3 + round, 1)?.remove(0);
        thread::scope(|scope| -> Result<()> {
            let mut requests = vec![
                scope.spawn(|| rest.post("/instances", &unsent)),
                scope.spawn(|| rest.post_json("/move-storage", &moves)),
            ];
            for (uploaded, _) in &sent {
                requests.push(scope.spawn(|| rest.get(&format!("{}/file", uploaded.path))));
            }
            thread::sleep(Duration::from_secs(1));
            ensure!(!requests.iter().any(|request| request.is_finished()), "a request does not wait");
            if stops {
                stop_in_time(&mut fixture)?;
            } else {
                reset_in_time(&fixture)?;
            }
            for request in requests {
                let answer = request.join().map_err(|_| anyhow!("panicked"))?;
                ensure!(has_failed(answer), "an interrupted request is reported as done");
            }
            Ok(())
        })?;
        if round == 0 {
            threads = fixture.orthanc.thread_count()?;
        } else if round == 2 {
            let is_as_before = || fixture.orthanc.thread_count().is_ok_and(|now| now <= threads);
            eventually("the threads of requests end", Duration::from_secs(30), is_as_before)?;
        }
    }

    service.line.mend();
    fixture.orthanc.start_again()?;
    expect_readable(&fixture, &sent)?;
    expect_readable(&fixture, &clear)?;
    let count =
        || fixture.rest().get_json("/instances").is_ok_and(|all| all.as_array().map(Vec::len) == Some(8));
    eventually("only what was stored is there", Duration::from_secs(30), count)
}

fn reset_in_time<C: Cloud>(fixture: &Fixture<C>) -> Result<()> {
    let start = Instant::now();
    fixture.reset()?;
    ensure!(start.elapsed() < RESET, "the reset takes {:?}", start.elapsed());
    Ok(())
}

fn has_failed(answer: Result<Answer>) -> bool {
    answer.is_err() || answer.is_ok_and(|answer| answer.status >= 500)
}
