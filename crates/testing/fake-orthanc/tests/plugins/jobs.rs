//! Jobs of a plugin.

use std::time::{Duration, Instant};

use fake_orthanc::{JobOutcome, LogLevel};
use orthanc_ffi::abi::job_stop;
use serde_json::json;

use crate::fixture::{PARAMETER_OUT_OF_RANGE, PLUGIN, assert_clean, assert_panic_line, faulty, memory};

#[test]
fn a_job_runs_and_is_remade_from_its_serialisation() {
    let host = memory(json!({}));
    let id = host.rest("POST", "/memory/count", b"3").json()["ID"].clone();
    let job = host.submitted_jobs()[0];
    assert_eq!((job.id(), job.job_type()), (id.as_str().unwrap().to_owned(), "Count".to_owned()));
    assert_eq!(job.step(), JobOutcome::Continue);
    assert_eq!(job.content(), json!({"At": 1, "To": 3}));
    assert!((job.progress() - 1.0 / 3.0).abs() < 1e-6);
    let saved = job.serialized().unwrap();
    assert_eq!(job.run_to_end(10), JobOutcome::Success);
    assert_eq!(host.logs_at(LogLevel::Info).last().unwrap(), "Memory: the job stops reason=Success at=3");
    job.reset().unwrap();
    assert_eq!(job.content(), json!({"At": 0, "To": 3}));

    let remade = host.unserialize("Count", &saved).unwrap();
    assert_eq!(remade.content(), json!({"At": 1, "To": 3}));
    assert!(host.unserialize("Other", &saved).is_none());
    assert!(host.unserialize("Count", &json!({})).is_none());
    job.finish();
    assert_eq!(host.submitted_jobs().len(), 1);
    assert_clean(&host);
}

#[test]
fn a_panic_in_a_job_is_a_failure_and_a_log_line() {
    let host = faulty(json!({}));
    let submit = |fault: &str| {
        assert_eq!(host.rest("POST", &format!("/faulty/job/{fault}"), b"").status, 200);
        *host.submitted_jobs().last().unwrap()
    };
    let job = submit("step");
    assert_eq!((job.step(), job.priority()), (JobOutcome::Failure, 7));
    assert_panic_line(&host, "job step", "(message withheld)");

    let job = submit("stop");
    job.step();
    assert_eq!(job.stop(job_stop::PAUSED), Err(PLUGIN));
    assert_eq!(job.stop(99), Err(PARAMETER_OUT_OF_RANGE));
    let job = submit("reset");
    job.step();
    assert_eq!(job.reset(), Err(PLUGIN));

    // What was known before the panic is shown.
    let job = submit("progress");
    assert_eq!((job.progress(), job.step()), (0.0, JobOutcome::Continue));
    assert_eq!(job.progress(), 0.0);
    let job = submit("content");
    job.step();
    assert_eq!(job.content(), json!({"Steps": 0}));
    let job = submit("serialized");
    job.step();
    assert_eq!(job.serialized(), Some(json!({"Fault": "serialized"})));
    assert_eq!(host.logs_at(LogLevel::Error).len(), 6);
    assert!(host.unserialize("Panic", &json!({})).is_none());
    assert_panic_line(&host, "job unserializer", "literal");
}

#[test]
fn a_job_cannot_give_orthanc_what_it_would_refuse() {
    let host = faulty(json!({}));
    let submit = |fault: &str| {
        host.rest("POST", &format!("/faulty/job/{fault}"), b"");
        *host.submitted_jobs().last().unwrap()
    };
    assert_eq!(submit("array").content(), json!({}));
    assert_eq!(submit("none").serialized(), None);
    assert_eq!(submit("x").serialized(), Some(json!({"Fault": "x"})), "`Type` is Orthanc's");
    let job = submit("nan");
    job.step();
    assert_eq!(job.progress(), 0.0);
    let job = submit("x");
    job.step();
    job.step();
    assert_eq!(job.progress(), 1.0);
}

#[test]
fn questions_on_a_job_do_not_wait_for_its_step() {
    let host = faulty(json!({}));
    host.rest("POST", "/faulty/job/slow", b"");
    let job = host.submitted_jobs()[0];
    std::thread::scope(|scope| {
        scope.spawn(|| job.step());
        std::thread::sleep(Duration::from_millis(100));
        let since = Instant::now();
        assert_eq!(job.content(), json!({"Steps": 0}));
        assert!(job.serialized().is_some());
        assert_eq!(job.progress(), 0.0);
        assert!(since.elapsed() < Duration::from_millis(100));
    });
    assert_eq!(job.content(), json!({"Steps": 1}));
}
