//! Refusals, kills, and a line that breaks.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use real_orthanc::StartError;
use real_orthanc::dicom::Study;
use serde_json::json;

use crate::Cloud;
use crate::fixture::{eventually, with};
use crate::orthanc::fixture::{at_once, log_lines};
use crate::servers::Server;
use crate::servers::fixture::{Fixture, Stored, builder, section};

tests! {
    EveryCloud:
        wrong_credentials_are_one_error_line,
        missing_bucket_is_one_error_line,
        killed_orthanc_has_lost_nothing,
        broken_line_loses_nothing,
}

/// Checks that Orthanc does not start with these changes of the section, and that the one error line contains `fragment`.
fn expect_refused<C: Cloud>(changes: &serde_json::Value, fragment: &str) -> Result<()> {
    let log = match builder::<C>(with(section::<C>()?, changes))?.start() {
        Err(StartError::Exited { log, .. }) => log,
        Err(other) => return Err(other.into()),
        Ok(_) => bail!("Orthanc started with {changes}"),
    };
    let errors = log_lines::<C>(&log, 'E');
    let [error] = &errors[..] else { bail!("{errors:#?}") };
    println!("{error}");
    ensure!(error.contains(fragment), "{fragment:?} is not in {error:?}");
    for secret in ["SecretKey", "ConnectionString"] {
        let secret = changes[secret].as_str();
        ensure!(secret.is_none_or(|secret| !log.contains(secret)), "a secret is in the log");
    }
    Ok(())
}

fn wrong_credentials_are_one_error_line<C: Cloud>() -> Result<()> {
    match Server::of_this_process()?.refusal() {
        Some((changes, fragment)) => expect_refused::<C>(changes, fragment),
        // Such a server is for tests only.
        None => Fixture::<C>::with(&json!({})).map(drop),
    }
}

fn missing_bucket_is_one_error_line<C: Cloud>() -> Result<()> {
    let mut changes = json!({ C::BUCKET_OPTION: "no-such-bucket" });
    if C::options().iter().any(|(name, _)| *name == "CreateContainerIfNotExists") {
        changes["CreateContainerIfNotExists"] = json!(false);
    }
    expect_refused::<C>(&changes, C::NO_SUCH_BUCKET)
}

/// Number of stores that Orthanc has not answered.
#[derive(Debug, Default)]
struct InFlight(AtomicUsize);

impl InFlight {
    fn wait(&self) -> Result<()> {
        eventually("a store is in flight", Duration::from_secs(10), || self.0.load(Ordering::SeqCst) > 0)
    }
}

/// Stores files with four clients, ignoring failures, while `disturb` runs, which can wait until stores are in flight.
/// Returns the files that were acknowledged.
fn store_during<C: Cloud>(
    fixture: &Fixture<C>,
    disturb: impl Fn(&InFlight) -> Result<()> + Sync,
) -> Result<Vec<Stored>> {
    let is_done = AtomicBool::new(false);
    let in_flight = InFlight::default();
    let stored = at_once(5, |client| {
        let mut stored = Vec::new();
        if client == 0 {
            let result = disturb(&in_flight);
            is_done.store(true, Ordering::SeqCst);
            return result.map(|()| stored);
        }
        for file in Study(client).ct_series(100_000, 64, 64) {
            if is_done.load(Ordering::SeqCst) {
                break;
            }
            let file = file?;
            in_flight.0.fetch_add(1, Ordering::SeqCst);
            // Without an answer, the file may be stored or not.
            stored.extend(fixture.store_file(file));
            in_flight.0.fetch_sub(1, Ordering::SeqCst);
        }
        Ok(stored)
    })?;
    Ok(stored.into_iter().flatten().collect())
}

fn killed_orthanc_has_lost_nothing<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&json!({}))?;
    let pid = fixture.orthanc.pid().unwrap_or_default();
    let stored = store_during(&fixture, |in_flight| {
        thread::sleep(Duration::from_secs(2));
        in_flight.wait()?;
        let kill = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status()?;
        ensure!(kill.success(), "Orthanc cannot be killed");
        Ok(())
    })?;
    ensure!(!stored.is_empty(), "nothing was stored");
    // Only waits for what is dead already.
    fixture.orthanc.kill()?;
    fixture.orthanc.start_again()?;
    fixture.expect_readable(&stored)?;
    fixture.expect_no_errors()
}

fn broken_line_loses_nothing<C: Cloud>() -> Result<()> {
    let (fixture, proxy) = Fixture::<C>::behind_proxy(&json!({}))?;
    let stored = store_during(&fixture, |in_flight| {
        for pause in [100, 400, 700, 300, 900] {
            thread::sleep(Duration::from_millis(pause));
            in_flight.wait()?;
            proxy.cut();
            thread::sleep(Duration::from_millis(300));
            proxy.mend();
        }
        thread::sleep(Duration::from_millis(500));
        Ok(())
    })?;
    ensure!(!stored.is_empty(), "nothing was stored");
    fixture.expect_readable(&stored)?;
    // The breaks are shorter than the plugin repeats its requests.
    fixture.expect_no_errors()
}
