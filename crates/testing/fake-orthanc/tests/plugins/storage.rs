//! Attachments, and what a storage callback may do wrong.

use std::time::{Duration, Instant};

use fake_orthanc::{LogLevel, StorageAreaVersion};
use serde_json::json;

use crate::fixture::{
    INEXISTENT_FILE, PARAMETER_OUT_OF_RANGE, PLUGIN, STORAGE_AREA_PLUGIN, assert_clean, assert_panic_line,
    faulty, memory,
};

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
