//! Jobs that are interrupted at random moments, while users store and delete.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{Random, within};
use crate::hybrid::support::{upload, uuid_of};
use crate::operating::support::{Finding, JOB, expect_findings, report};
use crate::orthanc::fixture::Fixture;

tests! {
    Newest:
        interrupted_verification_is_complete;
    Long:
        often_interrupted_verifications_are_complete,
}

/// Instances of the study that is verified.
const MEMBERS: u32 = 160;

fn interrupted_verification_is_complete<C: Cloud>() -> Result<()> {
    interrupt_verifications::<C>(1)
}

fn often_interrupted_verifications_are_complete<C: Cloud>() -> Result<()> {
    interrupt_verifications::<C>(15)
}

#[derive(Debug, Clone, Copy)]
enum Interruption {
    Kill,
    Stop,
    Pause,
    Cancel,
    Outage,
}

const ALL: [Interruption; 5] =
    [Interruption::Kill, Interruption::Stop, Interruption::Pause, Interruption::Cancel, Interruption::Outage];

/// Verifies a damaged archive, and interrupts that in each way at a random moment.
fn interrupt_verifications<C: Cloud>(rounds: usize) -> Result<()> {
    let mut random = Random::new();
    let mut fixture = Fixture::<C>::start()?;
    let sent = upload(&fixture, 1, MEMBERS)?;
    let mut expected = BTreeSet::<Finding>::new();
    for (uploaded, _) in sent.iter().step_by(40) {
        let uuid = uuid_of(&fixture, &uploaded.id)?;
        fixture.bucket.remove(C::BUCKET, &format!("{uuid}.dcm"));
        expected.insert((uuid, "missing".to_owned()));
    }
    let healthy: Vec<&str> = sent
        .iter()
        .enumerate()
        .filter(|(number, _)| number % 40 != 0)
        .map(|(_, (uploaded, _))| uploaded.id.as_str())
        .collect();
    for round in 0..rounds {
        fixture.bucket.latency(Duration::from_millis(300));
        let mut id = start(&fixture)?;
        let mut interrupted = 0;
        for interruption in ALL {
            let job = |fixture: &Fixture<C>| fixture.rest().get(&format!("/jobs/{id}"))?.ok()?.json();
            let before = job(&fixture)?["Progress"].as_u64().unwrap_or_default();
            let advances = || job(&fixture).is_ok_and(|job| job["Progress"].as_u64() > Some(before));
            ensure!(within(JOB, advances), "round {round}: no progress before {interruption:?}");
            thread::sleep(Duration::from_micros(random.below(100_000)));
            interrupted += usize::from(job(&fixture)?["State"] == "Running");
            // A user deletes something that is verified, and sends something new.
            if round == 0 {
                let deleted = healthy[usize::try_from(random.below(healthy.len() as u64))?];
                fixture.rest().delete(&format!("/instances/{deleted}"))?;
            }
            upload(&fixture, 100 + random.below(1000), 1)?;
            interrupt(&mut fixture, interruption, &id)?;
            id = go_on(&fixture, id)?;
        }
        fixture.bucket.latency(Duration::ZERO);
        let job = fixture.rest().wait_job(&id, JOB)?;
        ensure!(job["State"] == "Success", "round {round}: {job:#}");
        expect_findings(&report(&fixture, &id)?, &expected).with_context(|| format!("{job:#}"))?;
        ensure!(job["Content"]["Failures"] == expected.len(), "{job:#}");
        ensure!(interrupted >= 3, "hardly anything was interrupted: {interrupted}");
    }
    Ok(())
}

fn start<C: Cloud>(fixture: &Fixture<C>) -> Result<String> {
    crate::operating::support::start(fixture, "verify", &json!({"Depth": "exists"}))
}

fn interrupt<C: Cloud>(fixture: &mut Fixture<C>, interruption: Interruption, id: &str) -> Result<()> {
    match interruption {
        Interruption::Kill => {
            fixture.orthanc.kill()?;
            fixture.orthanc.start_again()?;
        }
        Interruption::Stop => fixture.restart()?,
        Interruption::Pause => {
            fixture.rest().post(&format!("/jobs/{id}/pause"), b"")?;
        }
        Interruption::Cancel => {
            fixture.rest().post(&format!("/jobs/{id}/cancel"), b"")?;
        }
        Interruption::Outage => {
            fixture.bucket.stop();
            thread::sleep(Duration::from_millis(500));
            fixture.bucket.start_again()?;
        }
    }
    Ok(())
}

/// Makes an interrupted job go on, and returns its id. Orthanc may not have saved it before it was killed.
fn go_on<C: Cloud>(fixture: &Fixture<C>, id: String) -> Result<String> {
    let state = || -> Result<Option<Value>> {
        let answer = fixture.rest().get(&format!("/jobs/{id}"))?;
        if answer.status == 404 {
            return Ok(None);
        }
        Ok(Some(answer.ok()?.json()?["State"].take()))
    };
    let Some(known) = state()? else { return start(fixture) };
    let action = match known.as_str() {
        Some("Paused") => "resume",
        Some("Failure") => "resubmit",
        _ => return Ok(id),
    };
    fixture.rest().post(&format!("/jobs/{id}/{action}"), b"")?.ok()?;
    Ok(id)
}
