//! What orthanc-ffi promises, seen from Orthanc's side: its two example plugins, loaded as Orthanc loads them.

#![allow(clippy::panic, clippy::unwrap_used, clippy::needless_pass_by_value)]

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use orthanc_ffi::abi::job_stop;
use serde_json::{Value, json};
use test_host::{HostOptions, JobOutcome, LoadError, LogLevel, StorageAreaVersion, TestHost};

const PLUGIN: i32 = 1;
const PARAMETER_OUT_OF_RANGE: i32 = 3;
const BAD_SEQUENCE_OF_CALLS: i32 = 6;
const INEXISTENT_FILE: i32 = 13;
const STORAGE_AREA_PLUGIN: i32 = 32;

/// The library of an example, built once for this run.
fn example(name: &'static str) -> PathBuf {
    static BUILT: OnceLock<Vec<Value>> = OnceLock::new();
    let messages = BUILT.get_or_init(|| {
        let output = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "orthanc-ffi", "--examples", "--message-format=json"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output
            .stdout
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect()
    });
    let artifact = messages.iter().find(|message| message["target"]["name"] == name);
    PathBuf::from(artifact.unwrap()["filenames"][0].as_str().unwrap())
}

fn memory(configuration: Value) -> TestHost {
    let options = HostOptions::with_configuration(json!({"MemoryPlugin": configuration}));
    TestHost::load(example("memory_plugin"), options).unwrap()
}

fn faulty(configuration: Value) -> TestHost {
    TestHost::load(example("faulty_plugin"), HostOptions::with_configuration(configuration)).unwrap()
}

#[track_caller]
fn assert_clean(host: &TestHost) {
    assert_eq!(host.violations(), Vec::<String>::new());
    assert_eq!(host.outstanding_buffers(), 0);
}

/// One error line, made of this callback and this message.
#[track_caller]
fn assert_panic_line(host: &TestHost, callback: &str, message: &str) {
    let lines = host.logs_at(LogLevel::Error);
    let last = lines.last().unwrap();
    assert!(last.starts_with(&format!("Faulty: panic in {callback} at ")), "{last}");
    assert!(last.contains("faulty_plugin.rs:") && last.ends_with(message), "{last}");
}

#[test]
fn a_plugin_is_loaded_with_its_name_version_and_description() {
    let host = memory(json!({}));
    assert_eq!((host.name().as_str(), host.version().as_str()), ("Memory", "0.1"));
    assert_eq!(host.description().as_deref(), Some("Keeps the Orthanc storage area in memory"));
    assert_eq!(host.registered(), StorageAreaVersion::Two);
    let line = (LogLevel::Info, "Memory: attachments are kept in memory ranges=Served".to_owned());
    assert_eq!(host.logs(), [line]);
    assert_clean(&host);
}

#[test]
fn a_disabled_plugin_registers_nothing() {
    let host = TestHost::load(example("memory_plugin"), HostOptions::default()).unwrap();
    assert_eq!(host.registered(), StorageAreaVersion::None);
    assert_eq!(host.rest("GET", "/memory/status", b"").code, 17);
    assert_eq!(host.logs_at(LogLevel::Warning).len(), 1);
}

#[test]
fn attachments_come_back_through_either_storage_area() {
    for (ranges, version) in [(true, StorageAreaVersion::Two), (false, StorageAreaVersion::One)] {
        let host = memory(json!({"Ranges": ranges}));
        assert_eq!(host.registered(), version);
        let content: Vec<u8> = (0..1_000_000_u32).map(|at| at.to_le_bytes()[0] ^ 0x5A).collect();
        host.create("uuid", 1, &content).unwrap();
        host.create("uuid", 1024, b"user").unwrap();
        host.create("empty", 3, b"").unwrap();
        assert_eq!(host.read_whole("uuid", 1).unwrap(), content);
        assert_eq!(host.read_whole("uuid", 1024).unwrap(), b"user");
        assert_eq!(host.read_whole("empty", 3).unwrap(), b"");
        assert_eq!(host.read_whole("missing", 1), Err(INEXISTENT_FILE));
        if ranges {
            assert_eq!(host.read_range("uuid", 1, 5, 100).unwrap(), content[5..105]);
            assert_eq!(host.read_range("uuid", 1, 7, 0).unwrap(), b"");
            assert_eq!(host.read_range("uuid", 1, 999_999, 2), Err(41));
            assert_eq!(host.read_range("uuid", 1, u64::MAX, 2), Err(41));
        }
        host.remove("uuid", 1).unwrap();
        assert_eq!(host.remove("uuid", 1), Err(INEXISTENT_FILE));
        assert_clean(&host);
    }
}

#[test]
fn many_threads_call_at_once() {
    let host = memory(json!({}));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let host = &host;
            scope.spawn(move || {
                for at in 0..100 {
                    let uuid = format!("{thread}-{at}");
                    host.create(&uuid, 1, uuid.as_bytes()).unwrap();
                    assert_eq!(host.read_whole(&uuid, 1).unwrap(), uuid.as_bytes());
                    assert_eq!(host.read_range(&uuid, 1, 1, 2).unwrap(), uuid.as_bytes()[1..3]);
                    assert_eq!(host.rest("GET", &format!("/memory/attachments/{uuid}"), b"").status, 200);
                    host.remove(&uuid, 1).unwrap();
                }
            });
        }
    });
    assert_clean(&host);
}

#[test]
fn uuids_and_sizes_that_cannot_be_are_refused() {
    let host = memory(json!({}));
    assert_eq!(host.create_raw(None, 0), Err(PARAMETER_OUT_OF_RANGE));
    assert_eq!(host.create_raw(Some(b"\xFF\xFE"), 0), Err(PARAMETER_OUT_OF_RANGE));
    assert_eq!(host.create_raw(Some(b"uuid"), -1), Err(PARAMETER_OUT_OF_RANGE));
    assert_eq!(host.create_raw(Some(b"uuid"), 10), Err(35), "null content with a size");
    assert_eq!(host.create_raw(Some(b"uuid"), 0), Ok(()));
}

#[test]
fn a_create_returns_only_when_every_clone_of_its_content_is_gone() {
    let host = faulty(json!({}));
    let content = vec![1_u8; 1000];
    let since = Instant::now();
    host.create("keep", 1, &content).unwrap();
    assert!(since.elapsed() >= Duration::from_millis(300), "{:?}", since.elapsed());
    // The thread read the buffer while the callback waited.
    assert_eq!(host.logs_at(LogLevel::Info), ["Faulty: kept sum=999"]);
}

#[test]
fn a_create_that_panics_waits_for_clones_of_its_content_too() {
    let host = faulty(json!({}));
    let since = Instant::now();
    assert_eq!(host.create("keep-and-panic", 1, &[1; 1000]), Err(PLUGIN));
    assert!(since.elapsed() >= Duration::from_millis(300), "{:?}", since.elapsed());
    assert_eq!(host.logs_at(LogLevel::Info), ["Faulty: kept sum=999"]);
    assert_panic_line(&host, "storage create", "panics while a clone is kept");
}

#[test]
fn a_panic_that_carries_the_content_away_does_not_hold_up_a_create() {
    let host = faulty(json!({}));
    assert_eq!(host.create("panic-with-content", 1, b"content"), Err(PLUGIN));
    assert_panic_line(&host, "storage create", "(message withheld)");
}

#[test]
fn a_panic_in_a_storage_callback_is_an_error_code_and_a_log_line() {
    for ranges in [true, false] {
        let host = faulty(json!({"Ranges": ranges}));
        assert_eq!(host.create("panic", 1, b"content"), Err(PLUGIN));
        assert_panic_line(&host, "storage create", "literal");
        assert_eq!(host.read_whole("panic", 1), Err(PLUGIN));
        assert_panic_line(&host, "storage read", "literal");
        assert_eq!(host.read_whole("panic-after-allocate", 1), Err(PLUGIN));
        assert_eq!(host.remove("panic", 1), Err(PLUGIN));
        assert_panic_line(&host, "storage remove", "literal");
        if ranges {
            assert_eq!(host.read_range("panic", 1, 0, 5), Err(PLUGIN));
            assert_panic_line(&host, "storage range", "literal");
        }
        assert_eq!(host.logs_at(LogLevel::Error).len(), if ranges { 5 } else { 4 });
        assert_eq!(host.create("fine", 1, b"content"), Ok(()));
        assert_clean(&host);
    }
}

#[test]
fn success_as_an_error_is_an_error() {
    let host = faulty(json!({}));
    assert_eq!(host.create("success-as-error", 1, b"content"), Err(PLUGIN));
    assert_eq!(host.create("error", 1, b"content"), Err(19));
}

#[test]
fn a_whole_read_delivers_all_or_an_error() {
    for ranges in [true, false] {
        let host = faulty(json!({"Ranges": ranges}));
        assert_eq!(host.read_whole("never-allocate", 1), Err(STORAGE_AREA_PLUGIN));
        let incomplete =
            "Faulty: the read of attachment never-allocate is incomplete: no buffer was allocated";
        assert_eq!(host.logs_at(LogLevel::Error), [incomplete]);
        assert_eq!(host.read_whole("short", 1), Err(STORAGE_AREA_PLUGIN));
        let incomplete = "Faulty: the read of attachment short is incomplete: only 2 of 3 bytes were filled";
        assert_eq!(host.logs_at(LogLevel::Error)[1], incomplete);
        assert_eq!(host.read_whole("twice-short", 1), Err(STORAGE_AREA_PLUGIN));
        assert_eq!(host.read_whole("error-after-allocate", 1), Err(20));
        assert_eq!(host.read_whole("too-long", 1), Err(PLUGIN));
        assert_eq!(host.read_whole("huge", 1), Err(4));
        assert_eq!(host.read_whole("twice", 1).unwrap(), b"right");
        assert_eq!(host.read_whole("in-place", 1).unwrap(), b"good");
        assert_eq!(host.read_whole("empty", 1).unwrap(), b"");
        assert_eq!(host.read_whole("empty-after-full", 1).unwrap(), b"");
        assert_clean(&host);
    }
}

#[test]
fn a_range_delivers_all_or_an_error() {
    let host = faulty(json!({}));
    assert_eq!(host.read_range("fine", 1, 250, 10).unwrap(), [250, 251, 252, 253, 254, 255, 0, 1, 2, 3]);
    assert_eq!(host.read_range("short", 1, 0, 10), Err(STORAGE_AREA_PLUGIN));
    assert_eq!(host.read_range("nothing", 1, 0, 10), Err(STORAGE_AREA_PLUGIN));
    assert_eq!(host.read_range("nothing", 1, 0, 0), Ok(vec![]));
    assert_eq!(host.read_range("too-long", 1, 0, 10), Err(41));
    assert_clean(&host);
}

#[test]
fn a_route_sees_the_request_and_answers() {
    let host = faulty(json!({}));
    let reply = host.rest_with_headers("GET", "/faulty/a/b?x=1&y=2", &[("x-test", "yes")], b"");
    assert_eq!((reply.code, reply.status, reply.mime.as_str()), (0, 200, "application/json"));
    let seen = json!({
        "Method": "Get", "Path": "/faulty/a/b", "Groups": ["a", "b"], "Query": ["x=1", "y=2"], "Header": "yes",
        "Body": "",
    });
    assert_eq!(reply.json(), seen);
    assert_eq!(host.rest("PUT", "/faulty/a/b", b"body").json()["Body"], "body");
    assert_eq!(host.rest("OPTIONS", "/faulty/a/b", b"").code, PARAMETER_OUT_OF_RANGE);
}

#[test]
fn a_route_fails_in_each_way() {
    let host = faulty(json!({}));
    let teapot = host.rest("GET", "/faulty/status/x", b"");
    assert_eq!((teapot.code, teapot.status, teapot.body.as_slice()), (0, 418, &b"teapot"[..]));
    assert_eq!(host.rest("GET", "/faulty/bad-status/x", b"").code, 2005);
    assert_eq!(host.rest("GET", "/faulty/panic/x", b"").code, PLUGIN);
    assert_panic_line(&host, "a REST route", ": literal");
    assert_eq!(host.rest("GET", "/faulty/panic-with-data/PATIENT", b"").code, PLUGIN);
    assert_panic_line(&host, "a REST route", "(message withheld)");

    let memory = memory(json!({}));
    let not_allowed = memory.rest("POST", "/memory/status", b"");
    assert_eq!((not_allowed.status, not_allowed.allow.as_str()), (405, "GET"));
    let not_found = memory.rest("GET", "/memory/attachments/nope", b"");
    assert_eq!((not_found.code, not_found.details.as_str()), (17, "no attachment nope"));
    assert_eq!(memory.rest("POST", "/memory/count", b"\"x\"").code, 8);
    assert_eq!(memory.rest("GET", "/memory/status", b"").json(), json!({"Attachments": 0, "Bytes": 0}));
    assert_eq!(memory.metrics()["memory_plugin_attachments"], 0.0);
}

#[test]
fn the_plugin_calls_the_rest_api_of_its_host() {
    let mut options = HostOptions::with_configuration(json!({}));
    options.rest_api = Arc::new(|method, path, body, after_plugins| match path {
        "/missing" => Err(17),
        "/empty" => Ok(vec![]),
        _ => Ok(format!("{method} {path} {after_plugins} {}", String::from_utf8_lossy(body)).into_bytes()),
    });
    let host = TestHost::load(example("faulty_plugin"), options).unwrap();
    assert_eq!(host.rest("POST", "/faulty/call/path", b"hello").body, b"POST /path true hello");
    assert_eq!(host.rest("POST", "/faulty/call/empty", b"").body, b"");
    let missing = host.rest("POST", "/faulty/call/missing", b"");
    assert_eq!(
        (missing.code, missing.details.as_str()),
        (17, "POST /missing failed in Orthanc: UnknownResource (17)")
    );
    assert_clean(&host);
}

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

#[test]
fn events_become_log_lines_of_the_right_level() {
    for version in ["1.10.1", "1.12.4", "mainline"] {
        let options = HostOptions { version: version.to_owned(), ..HostOptions::default() };
        let host = TestHost::load(example("faulty_plugin"), options).unwrap();
        assert_eq!(host.rest("GET", "/faulty/log/x", b"").body, b"logged");
        let expected = [
            (LogLevel::Warning, "two lines and a  "),
            (LogLevel::Info, "Faulty: own info size=3 name=x y"),
            (LogLevel::Info, "Faulty: sibling info"),
            (LogLevel::Info, "Faulty: third-party debug"),
        ];
        assert_eq!(host.logs(), expected.map(|(level, text)| (level, text.to_owned())), "{version}");
    }
}

#[test]
fn a_plugin_that_cannot_be_initialised_says_why_and_leaves_nothing() {
    for (fault, line) in
        [("fail", "Faulty: Faulty.Initialize is 'fail'"), ("panic", "Faulty: panic in Orthanc")]
    {
        let options = HostOptions::with_configuration(json!({"Initialize": fault}));
        let error = TestHost::load(example("faulty_plugin"), options).unwrap_err();
        let LoadError::Initialize { code, logs } = error else { panic!("{error}") };
        assert_eq!((code, logs.len(), logs[0].0), (-1, 1, LogLevel::Error));
        assert!(logs[0].1.starts_with(line), "{}", logs[0].1);
    }
    let options = HostOptions::with_configuration(json!({"MemoryPlugin": {"Ranges": 3}}));
    let error = TestHost::load(example("memory_plugin"), options).unwrap_err();
    assert!(error.to_string().contains("MemoryPlugin.Ranges is 3; use true or false"), "{error}");
}

#[test]
fn hosts_that_are_too_old_are_refused() {
    for version in ["1.8.2", "0.9.9", "nonsense", ""] {
        let options = HostOptions { version: version.to_owned(), ..HostOptions::default() };
        let error = TestHost::load(example("memory_plugin"), options).unwrap_err();
        let LoadError::Initialize { code, logs } = error else { panic!("{error}") };
        let line = format!("Memory: Orthanc 1.9.0 or newer is needed, this is version '{version}'");
        assert_eq!((code, logs), (-1, vec![(LogLevel::Error, line)]));
    }
    for version in ["1.9.0", "1.10.1", "1.13.0", "2.0.0", "mainline"] {
        let options = HostOptions { version: version.to_owned(), ..HostOptions::default() };
        TestHost::load(example("memory_plugin"), options).unwrap();
    }
}

#[test]
fn after_finalise_callbacks_fail_and_the_host_is_left_alone() {
    let mut host = memory(json!({}));
    host.create("uuid", 1, b"content").unwrap();
    host.finalize();
    assert_eq!(host.create("uuid", 1, b"content"), Err(BAD_SEQUENCE_OF_CALLS));
    assert_eq!(host.read_whole("uuid", 1), Err(BAD_SEQUENCE_OF_CALLS));
    assert_eq!(host.read_range("uuid", 1, 0, 2), Err(BAD_SEQUENCE_OF_CALLS));
    assert_eq!(host.remove("uuid", 1), Err(BAD_SEQUENCE_OF_CALLS));
    assert_eq!(host.rest("GET", "/memory/status", b"").code, BAD_SEQUENCE_OF_CALLS);
    assert!(host.unserialize("Count", &json!({"At": 0, "To": 1})).is_none());
    host.finalize();
    assert_clean(&host);
}

#[test]
fn a_library_that_stays_loaded_is_initialised_again() {
    let mut host = memory(json!({}));
    for round in 0..20 {
        host.create("uuid", 1, b"content").unwrap();
        host.rest("POST", "/memory/count", b"3");
        let ranges = round % 2 == 1;
        host.reset(HostOptions::with_configuration(json!({"MemoryPlugin": {"Ranges": ranges}}))).unwrap();
        assert_eq!(host.registered(), if ranges { StorageAreaVersion::Two } else { StorageAreaVersion::One });
        assert_eq!(host.read_whole("uuid", 1), Err(INEXISTENT_FILE), "a new plugin with nothing in memory");
        assert_eq!(host.logs_at(LogLevel::Info).len(), 1, "logs go to the new host");
        assert!(host.submitted_jobs().is_empty());
    }
    assert_clean(&host);
}

#[test]
fn a_failed_initialise_can_be_followed_by_a_good_one() {
    let mut host = memory(json!({}));
    host.reset(HostOptions::with_configuration(json!({"MemoryPlugin": {"Ranges": "?"}}))).unwrap_err();
    assert_eq!(host.registered(), StorageAreaVersion::None);
    host.reset(HostOptions::with_configuration(json!({"MemoryPlugin": {}}))).unwrap();
    host.create("uuid", 1, b"content").unwrap();
    assert_clean(&host);
}

#[test]
fn a_plugin_is_dropped_in_finalise_with_a_host_that_still_logs() {
    let mut host = faulty(json!({}));
    host.finalize();
    assert_eq!(host.logs(), [(LogLevel::Info, "dropped".to_owned())]);
    let mut host = faulty(json!({"PanicOnDrop": true}));
    host.finalize();
    assert_panic_line(&host, "OrthancPluginFinalize", "the drop panics");
    host.reset(HostOptions::default()).unwrap();
    assert_clean(&host);
}

#[test]
fn a_thread_that_outlives_finalise_does_not_reach_the_host() {
    let mut host = faulty(json!({"Initialize": "keep"}));
    std::thread::sleep(Duration::from_millis(20));
    for _ in 0..20 {
        host.reset(HostOptions::with_configuration(json!({"Initialize": "keep"}))).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    host.finalize();
    assert!(!host.logs().is_empty());
    // The threads end before the library goes.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(host.violations(), Vec::<String>::new());
}

#[test]
fn a_thread_that_called_the_plugin_may_end_after_it_was_closed() {
    let host = memory(json!({}));
    let (closed, wait) = std::sync::mpsc::channel::<()>();
    let host = Arc::new(host);
    let thread = std::thread::spawn({
        let host = Arc::clone(&host);
        move || {
            // Jobs leave Rust's handle on the current thread behind, which is freed when the thread ends.
            host.rest("POST", "/memory/count", b"3");
            assert_eq!(host.submitted_jobs()[0].content(), json!({"At": 0, "To": 3}));
            drop(host);
            wait.recv().unwrap_err();
        }
    });
    while Arc::strong_count(&host) > 1 {
        std::thread::yield_now();
    }
    drop(host);
    drop(closed);
    thread.join().unwrap();
}

#[test]
fn several_plugins_live_in_one_process() {
    let (first, second, third) = (memory(json!({})), memory(json!({"Ranges": false})), faulty(json!({})));
    first.create("uuid", 1, b"first").unwrap();
    second.create("uuid", 1, b"second").unwrap();
    assert_eq!(first.read_whole("uuid", 1).unwrap(), b"first");
    assert_eq!(second.read_whole("uuid", 1).unwrap(), b"second");
    assert_eq!(third.read_whole("uuid", 1), Err(INEXISTENT_FILE));
    assert_eq!(second.logs_at(LogLevel::Info).len(), 3);
    assert_eq!(third.logs_at(LogLevel::Info).len(), 0);
}
