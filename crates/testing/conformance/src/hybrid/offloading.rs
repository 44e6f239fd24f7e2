//! Offloading: unused studies move from the disk to the bucket.

use std::fs::File;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use real_orthanc::Client;
use real_orthanc::dicom::Study;
use real_orthanc::rest::Uploaded;
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::{Keys, within};
use crate::hybrid::support::{
    JOB, encryption, expect_all_at, expect_no_errors, expect_readable, expect_readable_by, locations,
    path_of, stored_files, upload, uuid_of,
};
use crate::orthanc::fixture::Fixture;

tests! {
    OneCloud:
        unused_studies_move_to_the_bucket,
        read_study_counts_as_used,
        age_moves_studies_only_on_schedule,
        full_disk_moves_the_oldest_studies,
        size_limit_moves_no_more_than_necessary,
        studies_return_when_they_are_read,
        unreachable_bucket_is_a_warning,
        resets_stop_the_worker,
}

/// The instances of a study, each with Orthanc's answer to its upload.
type SentStudy = Vec<(Uploaded, Vec<u8>)>;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn section(offload: &Value) -> Value {
    json!({"HybridMode": "WriteToFileSystem", "Offload": offload})
}

/// Sets the last use of an instance to a time before now.
fn age<C: Cloud>(fixture: &Fixture<C>, uploaded: &Uploaded, days: u32) -> Result<()> {
    let path = path_of(&fixture.orthanc, &uuid_of(fixture, &uploaded.id)?);
    Ok(File::options().write(true).open(path)?.set_modified(SystemTime::now() - DAY * days)?)
}

/// Returns an Orthanc with one unused study for each number of days, restarted with these options.
fn aged<C: Cloud>(offload: &Value, days: &[u32]) -> Result<(Fixture<C>, Vec<SentStudy>)> {
    let hybrid = json!({"HybridMode": "WriteToFileSystem"});
    let mut fixture = Fixture::<C>::configured(&hybrid, |builder| builder.environment("TZ", "UTC"))?;
    let mut studies = Vec::new();
    for (number, days) in (1..).zip(days) {
        let sent = upload(&fixture, number, 3)?;
        sent.iter().try_for_each(|(uploaded, _)| age(&fixture, uploaded, *days))?;
        studies.push(sent);
    }
    fixture.start_again_with(&section(offload))?;
    Ok((fixture, studies))
}

/// Waits until a study is at `location`.
fn expect_arrival<C: Cloud>(fixture: &Fixture<C>, study: &str, location: &str) -> Result<()> {
    let has_arrived = within(JOB, || expect_all_at(fixture, study, location).is_ok());
    ensure!(has_arrived, "not at {location}: {}", offload_state(fixture.rest())?);
    Ok(())
}

fn offload_state(rest: &Client) -> Result<Value> {
    Ok(rest.get_json("/object-storage/status")?["Offload"].clone())
}

/// Waits until the worker has nothing to do.
fn expect_waiting(rest: &Client) -> Result<()> {
    let is_waiting = || offload_state(rest).is_ok_and(|state| state["State"] == "waiting");
    ensure!(within(JOB, is_waiting), "{:?}", offload_state(rest));
    Ok(())
}

/// Returns the time of day after this number of hours.
fn in_hours(hours: u64) -> Result<String> {
    let minutes = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / 60 + hours * 60;
    Ok(format!("{:02}:{:02}", minutes / 60 % 24, minutes % 60))
}

fn unused_studies_move_to_the_bucket<C: Cloud>() -> Result<()> {
    let keys = Keys::new()?;
    let (mut fixture, studies) = aged::<C>(&json!({"AfterDays": 30}), &[31, 29, 400])?;
    for moved in [0, 2] {
        expect_arrival(&fixture, &studies[moved][0].0.study, "object-storage")?;
    }
    expect_waiting(fixture.rest())?;
    expect_all_at(&fixture, &studies[1][0].0.study, "file-system")?;
    let state = offload_state(fixture.rest())?;
    let size: usize = studies[1].iter().map(|(_, file)| file.len()).sum();
    ensure!(state["MovedStudies"] == 2 && state["MovedAttachments"] == 6, "{state}");
    ensure!(state["StudiesOnFileSystem"] == 1 && state["BytesOnFileSystem"] == size, "{state}");
    ensure!(state["Failures"] == 0, "{state}");
    studies.iter().try_for_each(|sent| expect_readable(&fixture, sent))?;
    // Other options and a restart do not affect existing attachments.
    let mut changed = section(&json!({"AfterDays": 28}));
    changed["StorageEncryption"] = encryption(&keys, "A2");
    fixture.start_again_with(&changed)?;
    thread::sleep(Duration::from_secs(1));
    studies.iter().try_for_each(|sent| expect_readable(&fixture, sent))?;
    expect_no_errors(&fixture)
}

fn read_study_counts_as_used<C: Cloud>() -> Result<()> {
    let (mut fixture, studies) = aged::<C>(&json!({"AfterDays": 1000}), &[40, 40])?;
    // One instance is enough.
    expect_readable(&fixture, &studies[0][..1])?;
    fixture.start_again_with(&section(&json!({"AfterDays": 30})))?;
    expect_arrival(&fixture, &studies[1][0].0.study, "object-storage")?;
    expect_waiting(fixture.rest())?;
    expect_all_at(&fixture, &studies[0][0].0.study, "file-system")
}

fn age_moves_studies_only_on_schedule<C: Cloud>() -> Result<()> {
    let later = format!("{}-{}", in_hours(2)?, in_hours(3)?);
    let (mut fixture, studies) = aged::<C>(&json!({"AfterDays": 30, "Schedule": later}), &[40])?;
    thread::sleep(Duration::from_secs(2));
    ensure!(fixture.keys().is_empty());
    let now = format!("{}-{}", in_hours(23)?, in_hours(1)?);
    fixture.start_again_with(&section(&json!({"AfterDays": 30, "Schedule": now})))?;
    expect_arrival(&fixture, &studies[0][0].0.study, "object-storage")
}

fn full_disk_moves_the_oldest_studies<C: Cloud>() -> Result<()> {
    // A study has three slices of about 9 kB. All studies are within 1 MB, and none is within the second
    // limit.
    let (mut fixture, studies) = aged::<C>(&json!({"MaxFileSystemMB": 1}), &[1, 3, 2])?;
    thread::sleep(Duration::from_secs(1));
    ensure!(fixture.keys().is_empty());
    // A full disk does not wait for the schedule.
    let schedule = format!("{}-{}", in_hours(2)?, in_hours(3)?);
    let unreachable = json!({"AfterDays": 30, "KeepFreeMB": 1_000_000_000, "Schedule": schedule});
    fixture.bucket.latency(Duration::from_millis(100));
    fixture.start_again_with(&section(&unreachable))?;
    ensure!(within(JOB, || fixture.keys().len() >= 3));
    let oldest = locations(&fixture, &studies[1][0].0.study)?;
    ensure!(oldest.iter().all(|place| place == "object-storage" || place == "both"), "{oldest:?}");
    fixture.bucket.latency(Duration::ZERO);
    ensure!(within(JOB, || stored_files(&fixture.orthanc).is_empty()));
    Ok(())
}

fn size_limit_moves_no_more_than_necessary<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteToFileSystem"}))?;
    let mut studies = Vec::new();
    for (number, days) in [(1, 2), (2, 1), (3, 3)] {
        let uploaded = fixture.rest().upload(&Study(number).multi_frame(1)?)?;
        age(&fixture, &uploaded, days)?;
        studies.push(uploaded.study);
    }
    // Each study is a little larger than 1 MB, so that only one fits.
    fixture.start_again_with(&section(&json!({"MaxFileSystemMB": 2})))?;
    for moved in [0, 2] {
        expect_arrival(&fixture, &studies[moved], "object-storage")?;
    }
    expect_waiting(fixture.rest())?;
    expect_all_at(&fixture, &studies[1], "file-system")
}

fn studies_return_when_they_are_read<C: Cloud>() -> Result<()> {
    let (fixture, studies) = aged::<C>(&json!({"AfterDays": 30, "BringBack": true}), &[40, 40])?;
    for sent in &studies {
        expect_arrival(&fixture, &sent[0].0.study, "object-storage")?;
    }
    expect_readable(&fixture, &studies[0])?;
    expect_arrival(&fixture, &studies[0][0].0.study, "file-system")?;
    let has_returned =
        || offload_state(fixture.rest()).is_ok_and(|state| state["BroughtBackAttachments"] == 3);
    ensure!(within(JOB, has_returned), "{:?}", offload_state(fixture.rest()));
    expect_all_at(&fixture, &studies[1][0].0.study, "object-storage")?;
    expect_readable(&fixture, &studies[0])
}

fn unreachable_bucket_is_a_warning<C: Cloud>() -> Result<()> {
    let (mut fixture, studies) = aged::<C>(&json!({"AfterDays": 1000}), &[40])?;
    fixture.bucket.stop();
    let mut changed = section(&json!({"AfterDays": 30}));
    changed["MaxRetries"] = json!(1);
    fixture.start_again_with(&changed)?;
    let is_about_move = |line: &str| line.contains("ffload") && line.contains("instances/");
    let has_failed = within(JOB, || fixture.log_lines('W').iter().any(|line| is_about_move(line)));
    ensure!(has_failed, "{:?}", fixture.log_lines('W'));
    let log = fixture.orthanc.log();
    let line = log.lines().find(|line| is_about_move(line)).unwrap_or_default();
    ensure!(line.contains(" OFFLOAD ") == (fixture.orthanc.version()? >= [1, 12, 2]), "{line}");
    expect_readable(&fixture, &studies[0])?;
    ensure!(offload_state(fixture.rest())?["LastError"].is_string());
    fixture.bucket.start_again()?;
    fixture.rest().post("/tools/reset", b"")?.ok()?;
    // The reset has closed the connections of the other client.
    let rest = Client::new(fixture.orthanc.url());
    expect_waiting(&rest)?;
    expect_readable_by(&rest, &studies[0])
}

fn resets_stop_the_worker<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&section(&json!({"AfterDays": 30, "BringBack": true})))?;
    let reset = || -> Result<u64> {
        Client::new(fixture.orthanc.url()).post("/tools/reset", b"")?.ok()?;
        let rest = Client::new(fixture.orthanc.url());
        ensure!(within(JOB, || rest.get_json("/object-storage/status").is_ok()));
        fixture.orthanc.thread_count()
    };
    let first = reset()?;
    for _ in 0..4 {
        reset()?;
    }
    ensure!(within(JOB, || fixture.orthanc.thread_count().is_ok_and(|threads| threads <= first)));
    expect_no_errors(&fixture)
}
