//! Jobs of a plugin.

use std::time::{Duration, Instant};

use fake_orthanc::{FakeOrthanc, JobOutcome, LogLevel, TestJob};
use orthanc_ffi::abi::job_stop;
use serde_json::json;

use crate::fixture::{PARAMETER_OUT_OF_RANGE, PLUGIN, assert_clean, assert_panic_line, load};

fn submit<'a>(orthanc: &'a FakeOrthanc, fault: &str) -> TestJob<'a> {
    assert_eq!(orthanc.rest("POST", &format!("/test/job/{fault}"), b"").status, 200);
    *orthanc.submitted_jobs().last().unwrap()
}

#[test]
fn job_runs_and_is_recreated() {
    let orthanc = load(json!({}));
    let job = submit(&orthanc, "x");
    assert_eq!(job.priority(), Some(7));
    assert_eq!(job.step(), JobOutcome::Continue);
    let saved = job.serialized().unwrap();
    assert_eq!(saved, json!({"Fault": "x", "Steps": 1}), "`Type` is Orthanc's");
    assert_eq!((job.step(), job.step()), (JobOutcome::Continue, JobOutcome::Success));
    assert_eq!(job.progress(), 1.0, "progress is at most 1");
    job.stop(job_stop::SUCCESS).unwrap();
    assert_eq!(orthanc.logs_at(LogLevel::Info), ["Test: stopped reason=Success"]);
    job.reset().unwrap();
    assert_eq!(job.content(), Some(json!({"Steps": 0})));

    let recreated = orthanc.unserialize("Faults", &saved).unwrap();
    assert_eq!(recreated.content(), Some(json!({"Steps": 1})));
    assert!(orthanc.unserialize("Other", &saved).is_none());
    assert!(orthanc.unserialize("Faults", &json!({})).is_none());
    assert_clean(&orthanc);
}

#[test]
fn panic_in_a_job_is_a_failure_and_a_log_line() {
    let mut orthanc = load(json!({}));
    assert_eq!(submit(&orthanc, "step").step(), JobOutcome::Failure);
    assert_panic_line(&orthanc, "job step", "(message withheld)");
    assert_eq!(submit(&orthanc, "resumed-panic").step(), JobOutcome::Failure);
    assert_panic_line(&orthanc, "a thread of the plugin", "literal");

    let job = submit(&orthanc, "stop");
    job.step();
    assert_eq!(job.stop(job_stop::PAUSED), Err(PLUGIN));
    assert_eq!(job.stop(99), Err(PARAMETER_OUT_OF_RANGE));
    let job = submit(&orthanc, "reset");
    job.step();
    assert_eq!(job.reset(), Err(PLUGIN));

    // Getters that panic return the last known value.
    let job = submit(&orthanc, "progress");
    assert_eq!((job.progress(), job.step()), (0.0, JobOutcome::Continue));
    assert_eq!(job.progress(), 0.0);
    let job = submit(&orthanc, "content");
    job.step();
    assert_eq!(job.content(), Some(json!({"Steps": 0})));
    let job = submit(&orthanc, "serialized");
    job.step();
    assert_eq!(job.serialized(), Some(json!({"Fault": "serialized", "Steps": 0})));
    assert_eq!(orthanc.logs_at(LogLevel::Error).len(), 7);
    assert!(orthanc.unserialize("Panic", &json!({})).is_none());
    assert_panic_line(&orthanc, "job unserializer", "literal");
    submit(&orthanc, "drop").step();
    orthanc.finalize();
    assert_panic_line(&orthanc, "job finalize", "(message withheld)");
    assert_eq!(orthanc.logs_at(LogLevel::Error).len(), 9);
}

#[test]
fn invalid_values_of_a_job_are_replaced() {
    let orthanc = load(json!({}));
    assert_eq!(submit(&orthanc, "array").content(), Some(json!({})));
    assert_eq!(submit(&orthanc, "none").serialized(), None);
    let job = submit(&orthanc, "nan");
    job.step();
    assert_eq!(job.progress(), 0.0);
}

#[test]
fn getters_do_not_wait_for_a_step() {
    let orthanc = load(json!({}));
    let job = submit(&orthanc, "slow");
    std::thread::scope(|scope| {
        scope.spawn(|| job.step());
        std::thread::sleep(Duration::from_millis(100));
        let since = Instant::now();
        assert_eq!(job.content(), Some(json!({"Steps": 0})));
        assert!(job.serialized().is_some());
        assert_eq!(job.progress(), 0.0);
        assert!(since.elapsed() < Duration::from_millis(100));
    });
    assert_eq!(job.content(), Some(json!({"Steps": 1})));
}
