//! A library from loading to finalize, and again.

use std::sync::Arc;
use std::time::Duration;

use fake_orthanc::{FakeOrthancOptions, LoadError, LogLevel};
use serde_json::json;

use crate::fixture::{assert_clean, assert_panic_line, load, try_load};

#[test]
fn events_become_log_lines() {
    for version in ["1.10.1", "1.12.4", "mainline"] {
        let configuration = json!({"Initialize": "log"});
        let orthanc = try_load(FakeOrthancOptions { version: version.to_owned(), configuration }).unwrap();
        let expected = [
            (LogLevel::Warning, "Test: two lines and a  "),
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
}

#[test]
fn plugin_can_log_while_it_is_dropped() {
    let mut orthanc = load(json!({}));
    orthanc.finalize();
    assert_eq!(orthanc.logs(), [(LogLevel::Info, "Test: dropped".to_owned())]);
    let mut orthanc = load(json!({"PanicOnDrop": true}));
    orthanc.finalize();
    assert_panic_line(&orthanc, "OrthancPluginFinalize", "the drop panics");
    orthanc.reset(FakeOrthancOptions::default()).unwrap();
    assert_clean(&orthanc);
}

#[test]
fn leaked_thread_cannot_call_after_finalize() {
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
fn thread_can_end_after_library_is_closed() {
    let (closed, wait) = std::sync::mpsc::channel::<()>();
    let orthanc = Arc::new(load(json!({})));
    let caller_orthanc = Arc::clone(&orthanc);
    let caller = std::thread::spawn(move || {
        caller_orthanc.create("thread", 1, b"content").unwrap();
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
