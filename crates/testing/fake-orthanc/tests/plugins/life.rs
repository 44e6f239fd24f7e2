//! From the loading of a library to its end.

use std::sync::Arc;
use std::time::Duration;

use fake_orthanc::{FakeOrthanc, FakeOrthancOptions, LoadError, LogLevel, StorageAreaVersion};
use serde_json::json;

use crate::fixture::{
    BAD_SEQUENCE_OF_CALLS, INEXISTENT_FILE, assert_clean, assert_panic_line, example, faulty, memory,
};

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
    let host = FakeOrthanc::load(example("memory_plugin"), FakeOrthancOptions::default()).unwrap();
    assert_eq!(host.registered(), StorageAreaVersion::None);
    assert_eq!(host.rest("GET", "/memory/status", b"").code, 17);
    assert_eq!(host.logs_at(LogLevel::Warning).len(), 1);
}

#[test]
fn events_become_log_lines_of_the_right_level() {
    for version in ["1.10.1", "1.12.4", "mainline"] {
        let options = FakeOrthancOptions { version: version.to_owned(), ..FakeOrthancOptions::default() };
        let host = FakeOrthanc::load(example("faulty_plugin"), options).unwrap();
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
        let options = FakeOrthancOptions::with_configuration(json!({"Initialize": fault}));
        let error = FakeOrthanc::load(example("faulty_plugin"), options).unwrap_err();
        let LoadError::Initialize { code, logs } = error else { panic!("{error}") };
        assert_eq!((code, logs.len(), logs[0].0), (-1, 1, LogLevel::Error));
        assert!(logs[0].1.starts_with(line), "{}", logs[0].1);
    }
    let options = FakeOrthancOptions::with_configuration(json!({"MemoryPlugin": {"Ranges": 3}}));
    let error = FakeOrthanc::load(example("memory_plugin"), options).unwrap_err();
    assert!(error.to_string().contains("MemoryPlugin.Ranges is 3; use true or false"), "{error}");
}

#[test]
fn hosts_that_are_too_old_are_refused() {
    for version in ["1.8.2", "0.9.9", "nonsense", ""] {
        let options = FakeOrthancOptions { version: version.to_owned(), ..FakeOrthancOptions::default() };
        let error = FakeOrthanc::load(example("memory_plugin"), options).unwrap_err();
        let LoadError::Initialize { code, logs } = error else { panic!("{error}") };
        let line = format!("Memory: Orthanc 1.9.0 or newer is needed, this is version '{version}'");
        assert_eq!((code, logs), (-1, vec![(LogLevel::Error, line)]));
    }
    for version in ["1.9.0", "1.10.1", "1.13.0", "2.0.0", "mainline"] {
        let options = FakeOrthancOptions { version: version.to_owned(), ..FakeOrthancOptions::default() };
        FakeOrthanc::load(example("memory_plugin"), options).unwrap();
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
        host.reset(FakeOrthancOptions::with_configuration(json!({"MemoryPlugin": {"Ranges": ranges}})))
            .unwrap();
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
    host.reset(FakeOrthancOptions::with_configuration(json!({"MemoryPlugin": {"Ranges": "?"}}))).unwrap_err();
    assert_eq!(host.registered(), StorageAreaVersion::None);
    host.reset(FakeOrthancOptions::with_configuration(json!({"MemoryPlugin": {}}))).unwrap();
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
    host.reset(FakeOrthancOptions::default()).unwrap();
    assert_clean(&host);
}

#[test]
fn a_thread_that_outlives_finalise_does_not_reach_the_host() {
    let mut host = faulty(json!({"Initialize": "keep"}));
    std::thread::sleep(Duration::from_millis(20));
    for _ in 0..20 {
        host.reset(FakeOrthancOptions::with_configuration(json!({"Initialize": "keep"}))).unwrap();
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
