//! Studies that nobody uses leave the file system by themselves.

use std::fs::File;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use real_orthanc::dicom::Study;
use serde_json::{Value, json};

use crate::Cloud;
use crate::fixture::within;
use crate::hybrid::support::{
    JOB, Keys, expect_readable, expect_readable_by, locations, path_of, stored_files, upload, uuid_of,
};
use crate::orthanc::fixture::{Fixture, log_of_refused_start};

tests![
    studies_that_nobody_used_for_so_long_move_to_the_bucket_and_are_served_from_there,
    a_study_that_was_read_counts_as_used_also_after_a_restart,
    age_moves_nothing_outside_of_the_schedule,
    a_disk_that_gets_full_moves_the_longest_unused_studies_at_any_time,
    studies_that_take_too_much_of_the_disk_move_until_there_is_room_and_no_more,
    what_is_read_again_comes_back_if_that_is_wanted,
    a_bucket_that_is_away_is_a_warning_and_reads_go_on_and_a_reset_ends_the_worker,
    a_mistake_in_offload_stops_orthanc_and_names_the_option,
    resets_leave_no_thread_behind,
];

/// The instances of a study, each with what Orthanc said of it.
type SentStudy = Vec<(real_orthanc::rest::Uploaded, Vec<u8>)>;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn section(offload: &Value) -> Value {
    json!({"HybridMode": "WriteToFileSystem", "Offload": offload})
}

/// An Orthanc that has stored some studies, whose files then get older by so many days each, and is restarted with
/// these options.
fn aged<C: Cloud>(offload: &Value, days: &[u32]) -> Result<(Fixture<C>, Vec<SentStudy>)> {
    let mut fixture = Fixture::<C>::configured(&json!({"HybridMode": "WriteToFileSystem"}), |builder| {
        builder.environment("TZ", "UTC")
    })?;
    let mut studies = Vec::new();
    for (number, days) in (1..).zip(days) {
        let sent = upload(&fixture, number, 3)?;
        for (uploaded, _) in &sent {
            let path = path_of(&fixture.orthanc, &uuid_of(&fixture, &uploaded.id)?);
            File::options().write(true).open(path)?.set_modified(SystemTime::now() - DAY * *days)?;
        }
        studies.push(sent);
    }
    fixture.start_again_with(&section(offload))?;
    Ok((fixture, studies))
}

/// Waits until a study is where it is to be.
fn arrives<C: Cloud>(fixture: &Fixture<C>, study: &str, place: &str) -> bool {
    within(JOB, || locations(fixture, study).is_ok_and(|places| places.iter().all(|found| found == place)))
}

fn offload_state<C: Cloud>(fixture: &Fixture<C>) -> Result<Value> {
    Ok(fixture.rest().get_json("/object-storage/status")?["Offload"].clone())
}

/// So much later than now, as a time of day.
fn in_hours(hours: u64) -> Result<String> {
    let minutes = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() / 60 + hours * 60;
    Ok(format!("{:02}:{:02}", minutes / 60 % 24, minutes % 60))
}

fn studies_that_nobody_used_for_so_long_move_to_the_bucket_and_are_served_from_there<C: Cloud>() -> Result<()>
{
    let keys = Keys::new()?;
    let (mut fixture, studies) = aged::<C>(&json!({"AfterDays": 30}), &[31, 29, 400])?;
    for moved in [0, 2] {
        ensure!(
            arrives(&fixture, &studies[moved][0].0.study, "object-storage"),
            "{:?}",
            fixture.orthanc.log()
        );
    }
    ensure!(locations(&fixture, &studies[1][0].0.study)?.iter().all(|place| place == "file-system"));
    let done = || {
        offload_state(&fixture).is_ok_and(|state| state["MovedStudies"] == 2 && state["State"] == "waiting")
    };
    ensure!(within(JOB, done), "{}", offload_state(&fixture)?);
    let state = offload_state(&fixture)?;
    let size: usize = studies[1].iter().map(|(_, file)| file.len()).sum();
    ensure!(state["MovedAttachments"] == 6 && state["StudiesOnFileSystem"] == 1, "{state}");
    ensure!(state["BytesOnFileSystem"] == size && state["Failures"] == 0, "{state}");
    for sent in &studies {
        expect_readable(&fixture, sent)?;
    }
    // What is switched on later does not change what is there, and nothing is forgotten over restarts.
    let mut changed = section(&json!({"AfterDays": 28}));
    changed["StorageEncryption"] = keys.section("A2");
    fixture.start_again_with(&changed)?;
    std::thread::sleep(Duration::from_secs(1));
    for sent in &studies {
        expect_readable(&fixture, sent)?;
    }
    ensure!(fixture.log_lines('E').is_empty(), "{:?}", fixture.log_lines('E'));
    Ok(())
}

fn a_study_that_was_read_counts_as_used_also_after_a_restart<C: Cloud>() -> Result<()> {
    let (mut fixture, studies) = aged::<C>(&json!({"AfterDays": 1000}), &[40, 40])?;
    // One instance is enough.
    expect_readable(&fixture, &studies[0][..1])?;
    fixture.start_again_with(&section(&json!({"AfterDays": 30})))?;
    ensure!(arrives(&fixture, &studies[1][0].0.study, "object-storage"));
    within(JOB, || offload_state(&fixture).is_ok_and(|state| state["State"] == "waiting"));
    ensure!(locations(&fixture, &studies[0][0].0.study)?.iter().all(|place| place == "file-system"));
    Ok(())
}

fn age_moves_nothing_outside_of_the_schedule<C: Cloud>() -> Result<()> {
    let schedule = format!("{}-{}", in_hours(2)?, in_hours(3)?);
    let (mut fixture, studies) = aged::<C>(&json!({"AfterDays": 30, "Schedule": schedule}), &[40])?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(fixture.keys().is_empty());
    let schedule = format!("{}-{}", in_hours(23)?, in_hours(1)?);
    fixture.start_again_with(&section(&json!({"AfterDays": 30, "Schedule": schedule})))?;
    ensure!(arrives(&fixture, &studies[0][0].0.study, "object-storage"));
    Ok(())
}

fn a_disk_that_gets_full_moves_the_longest_unused_studies_at_any_time<C: Cloud>() -> Result<()> {
    // Three slices of about 9 kB each are a study; a limit of 1 MB holds them all, and one that is never met none.
    let (mut fixture, studies) = aged::<C>(&json!({"MaxFileSystemMB": 1}), &[1, 3, 2])?;
    std::thread::sleep(Duration::from_secs(1));
    ensure!(fixture.keys().is_empty());
    let schedule = format!("{}-{}", in_hours(2)?, in_hours(3)?);
    let never_met = json!({"AfterDays": 30, "KeepFreeMB": 1_000_000_000, "Schedule": schedule});
    fixture.bucket.latency(Duration::from_millis(100));
    fixture.start_again_with(&section(&never_met))?;
    ensure!(within(JOB, || fixture.keys().len() >= 3));
    let oldest = locations(&fixture, &studies[1][0].0.study)?;
    ensure!(oldest.iter().all(|place| place == "object-storage" || place == "both"), "{oldest:?}");
    fixture.bucket.latency(Duration::ZERO);
    ensure!(within(JOB, || stored_files(&fixture.orthanc).is_empty()));
    Ok(())
}

fn studies_that_take_too_much_of_the_disk_move_until_there_is_room_and_no_more<C: Cloud>() -> Result<()> {
    let mut fixture = Fixture::<C>::with(&json!({"HybridMode": "WriteToFileSystem"}))?;
    let mut studies = Vec::new();
    for (number, days) in [(1, 2), (2, 1), (3, 3)] {
        let uploaded = fixture.rest().upload(&Study(number).multi_frame(1)?)?;
        let path = path_of(&fixture.orthanc, &uuid_of(&fixture, &uploaded.id)?);
        File::options().write(true).open(path)?.set_modified(SystemTime::now() - DAY * days)?;
        studies.push(uploaded.study);
    }
    // Each is a little larger than a MB: two do not fit into two.
    fixture.start_again_with(&section(&json!({"MaxFileSystemMB": 2})))?;
    for moved in [0, 2] {
        ensure!(arrives(&fixture, &studies[moved], "object-storage"), "{}", offload_state(&fixture)?);
    }
    ensure!(within(JOB, || offload_state(&fixture).is_ok_and(|state| state["State"] == "waiting")));
    ensure!(locations(&fixture, &studies[1])? == ["file-system"]);
    Ok(())
}

fn what_is_read_again_comes_back_if_that_is_wanted<C: Cloud>() -> Result<()> {
    let (fixture, studies) = aged::<C>(&json!({"AfterDays": 30, "BringBack": true}), &[40, 40])?;
    for sent in &studies {
        ensure!(arrives(&fixture, &sent[0].0.study, "object-storage"));
    }
    expect_readable(&fixture, &studies[0])?;
    ensure!(arrives(&fixture, &studies[0][0].0.study, "file-system"), "{}", offload_state(&fixture)?);
    let done = || offload_state(&fixture).is_ok_and(|state| state["BroughtBackAttachments"] == 3);
    ensure!(within(JOB, done), "{}", offload_state(&fixture)?);
    ensure!(locations(&fixture, &studies[1][0].0.study)?.iter().all(|place| place == "object-storage"));
    expect_readable(&fixture, &studies[0])
}

fn a_bucket_that_is_away_is_a_warning_and_reads_go_on_and_a_reset_ends_the_worker<C: Cloud>() -> Result<()> {
    let (fixture, studies) =
        aged::<C>(&json!({"AfterDays": 1000, "KeepFreeMB": 0, "MaxFileSystemMB": 0}), &[40])?;
    let mut fixture = fixture;
    fixture.bucket.stop();
    let mut changed = section(&json!({"AfterDays": 30}));
    changed["MaxRetries"] = json!(1);
    fixture.start_again_with(&changed)?;
    let failed = || fixture.log_lines('W').iter().any(|line| line.starts_with("offloading: attachment "));
    ensure!(within(JOB, failed), "{:?}", fixture.log_lines('W'));
    expect_readable(&fixture, &studies[0])?;
    ensure!(offload_state(&fixture)?["LastError"].is_string());
    fixture.bucket.start_again()?;
    fixture.rest().post("/tools/reset", b"")?.ok()?;
    let rest = real_orthanc::Client::new(fixture.orthanc.url());
    ensure!(within(JOB, || rest
        .get_json("/object-storage/status")
        .is_ok_and(|status| status["Offload"]["State"] == "waiting")));
    expect_readable_by(&rest, &studies[0])
}

fn a_mistake_in_offload_stops_orthanc_and_names_the_option<C: Cloud>() -> Result<()> {
    let cases = [
        (json!({"AfterDays": 30, "Schedule": "2-6"}), "Offload.Schedule is \"2-6\""),
        (json!({"BringBack": true}), "Offload would never move a study"),
        (json!({"AfterDays": "30"}), "Offload.AfterDays is \"30\""),
    ];
    for (offload, expected) in cases {
        let log = log_of_refused_start::<C>(&crate::fixture::with(
            C::section("http://127.0.0.1:1"),
            &section(&offload),
        ))?;
        ensure!(log.contains(expected), "{log}");
    }
    let elsewhere = json!({"HybridMode": "WriteToObjectStorage", "Offload": {"AfterDays": 3}});
    let log = log_of_refused_start::<C>(&crate::fixture::with(C::section("http://127.0.0.1:1"), &elsewhere))?;
    ensure!(log.contains("Offload works with \"HybridMode\": \"WriteToFileSystem\" alone"), "{log}");
    Ok(())
}

fn resets_leave_no_thread_behind<C: Cloud>() -> Result<()> {
    let fixture = Fixture::<C>::with(&section(&json!({"AfterDays": 30, "BringBack": true})))?;
    let reset = || -> Result<u64> {
        let rest = real_orthanc::Client::new(fixture.orthanc.url());
        rest.post("/tools/reset", b"")?.ok()?;
        let rest = real_orthanc::Client::new(fixture.orthanc.url());
        ensure!(within(JOB, || rest.get_json("/object-storage/status").is_ok()));
        Ok(fixture.orthanc.thread_count()?)
    };
    let first = reset()?;
    for _ in 0..4 {
        reset()?;
    }
    ensure!(within(JOB, || fixture.orthanc.thread_count().is_ok_and(|threads| threads <= first)));
    ensure!(fixture.log_lines('E').is_empty(), "{:?}", fixture.log_lines('E'));
    Ok(())
}
