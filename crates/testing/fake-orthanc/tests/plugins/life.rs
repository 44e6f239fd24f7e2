//! A library from loading to finalise, and again.

use std::sync::Arc;
use std::time::Duration;

use fake_orthanc::{FakeOrthancOptions, LoadError, LogLevel, StorageAreaVersion};
use orthanc_ffi::abi::change_type;
use serde_json::json;

use crate::fixture::{
    BAD_SEQUENCE_OF_CALLS, INEXISTENT_FILE, assert_clean, assert_panic_line, load, try_load,
};

#[test]
fn events_become_log_lines() {
    for version in ["1.10.1", "1.12.4", "mainline"] {
        let options = FakeOrthancOptions { version: version.to_owned(), ..FakeOrthancOptions::default() };
        let orthanc = try_load(options).unwrap();
        assert_eq!(orthanc.rest("GET", "/test/log/x", b"").status, 200);
        let expected = [
            (LogLevel::Warning, "two lines and a  "),
            (LogLevel::Info, "Test: own info size=3 name=x y"),
            (LogLevel::Info, "Test: sibling info"),
            (LogLevel::Info, "Test: third-party debug"),
        ];
        assert_eq!(orthanc.logs(), expected.map(|(level, text)| (level, text.to_owned())), "{version}");
    }
}

#[test]
fn failed_initialize_is_logged() {
    for (fault, line) in
        [("fail", "Test: `Initialize` must not be `fail`"), ("panic", "Test: panic in Orthanc")]
    {
        let error =
            try_load(FakeOrthancOptions::with_configuration(json!({"Initialize": fault}))).unwrap_err();
        let LoadError::Initialize { code, logs } = error else { panic!("{error}") };
        assert_eq!((code, logs.len(), logs[0].0), (-1, 1, LogLevel::Error));
        assert!(logs[0].1.starts_with(line), "{}", logs[0].1);
    }
    let mut orthanc = load(json!({}));
    orthanc.reset(FakeOrthancOptions::with_configuration(json!({"Initialize": "fail"}))).unwrap_err();
    orthanc.reset(FakeOrthancOptions::default()).unwrap();
    orthanc.create("uuid", 1, b"content").unwrap();
    assert_clean(&orthanc);
}

#[test]
fn panic_in_a_change_callback_is_a_log_line() {
    let orthanc = load(json!({}));
    orthanc.signal(change_type::ORTHANC_STARTED);
    orthanc.signal(1);
    assert_eq!(orthanc.logs(), [(LogLevel::Info, "Test: started".to_owned())]);
    orthanc.signal(change_type::ORTHANC_STOPPED);
    assert_panic_line(&orthanc, "a change", "literal");
}

#[test]
fn callbacks_fail_after_finalize() {
    let mut orthanc = load(json!({}));
    orthanc.create("uuid", 1, b"content").unwrap();
    orthanc.finalize();
    assert_eq!(orthanc.create("uuid", 1, b"content"), Err(BAD_SEQUENCE_OF_CALLS));
    assert_eq!(orthanc.read_whole("uuid", 1), Err(BAD_SEQUENCE_OF_CALLS));
    assert_eq!(orthanc.read_range("uuid", 1, 0, 2), Err(BAD_SEQUENCE_OF_CALLS));
    assert_eq!(orthanc.remove("uuid", 1), Err(BAD_SEQUENCE_OF_CALLS));
    assert_eq!(orthanc.rest("GET", "/test/a/b", b"").code, BAD_SEQUENCE_OF_CALLS);
    assert!(orthanc.unserialize("Faults", &json!({"Fault": "x", "Steps": 0})).is_none());
    orthanc.finalize();
    assert_clean(&orthanc);
}

#[test]
fn loaded_library_can_be_initialized_again() {
    let mut orthanc = load(json!({}));
    for round in 0..20 {
        orthanc.create("uuid", 1, b"content").unwrap();
        orthanc.rest("POST", "/test/job/x", b"");
        let ranges = round % 2 == 1;
        orthanc.reset(FakeOrthancOptions::with_configuration(json!({"Ranges": ranges}))).unwrap();
        let expected = if ranges { StorageAreaVersion::Two } else { StorageAreaVersion::One };
        assert_eq!(orthanc.registered(), expected);
        assert_eq!(orthanc.read_whole("uuid", 1), Err(INEXISTENT_FILE), "the new plugin is empty");
        assert!(orthanc.logs().is_empty() && orthanc.submitted_jobs().is_empty());
    }
    assert_clean(&orthanc);
}

#[test]
fn plugin_can_log_while_it_is_dropped() {
    let mut orthanc = load(json!({}));
    orthanc.finalize();
    assert_eq!(orthanc.logs(), [(LogLevel::Info, "dropped".to_owned())]);
    let mut orthanc = load(json!({"PanicOnDrop": true}));
    orthanc.finalize();
    assert_panic_line(&orthanc, "OrthancPluginFinalize", "the drop panics");
    orthanc.reset(FakeOrthancOptions::default()).unwrap();
    assert_clean(&orthanc);
}

#[test]
fn leaked_thread_cannot_call_orthanc_after_finalize() {
    let mut orthanc = load(json!({"Initialize": "keep"}));
    std::thread::sleep(Duration::from_millis(20));
    for _ in 0..20 {
        orthanc.reset(FakeOrthancOptions::with_configuration(json!({"Initialize": "keep"}))).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    orthanc.finalize();
    assert!(!orthanc.logs().is_empty());
    // The threads must end before the library is closed.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(orthanc.violations(), Vec::<String>::new());
}

#[test]
fn calling_thread_can_end_after_the_library_is_closed() {
    let (closed, wait) = std::sync::mpsc::channel::<()>();
    let orthanc = Arc::new(load(json!({})));
    let caller_orthanc = Arc::clone(&orthanc);
    let caller = std::thread::spawn(move || {
        // A job's getters create Rust's handle of the current thread, which is freed when the thread ends.
        caller_orthanc.rest("POST", "/test/job/x", b"");
        assert_eq!(caller_orthanc.submitted_jobs()[0].content(), Some(json!({"Steps": 0})));
        drop(caller_orthanc);
        wait.recv().unwrap_err();
    });
    while Arc::strong_count(&orthanc) > 1 {
        std::thread::yield_now();
    }
    drop(orthanc);
    drop(closed);
    caller.join().unwrap();
}
