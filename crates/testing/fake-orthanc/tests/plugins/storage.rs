//! Attachments, and the faults of storage callbacks.

use std::time::{Duration, Instant};

use fake_orthanc::{LogLevel, StorageAreaVersion};
use serde_json::json;

use crate::fixture::{
    INEXISTENT_FILE, PARAMETER_OUT_OF_RANGE, PLUGIN, STORAGE_AREA_PLUGIN, assert_clean, assert_panic_line,
    load,
};

const BAD_RANGE: i32 = 41;

#[test]
fn either_storage_area_reads_attachments() {
    for (ranges, version) in [(true, StorageAreaVersion::Two), (false, StorageAreaVersion::One)] {
        let orthanc = load(json!({"Ranges": ranges}));
        assert_eq!(orthanc.registered(), version);
        let content: Vec<u8> = (0..1_000_000_u32).map(|at| at.to_le_bytes()[0] ^ 0x5A).collect();
        orthanc.create("uuid", 1, &content).unwrap();
        orthanc.create("uuid", 1024, b"user").unwrap();
        orthanc.create("empty", 3, b"").unwrap();
        assert_eq!(orthanc.read_whole("uuid", 1).unwrap(), content);
        assert_eq!(orthanc.read_whole("uuid", 1024).unwrap(), b"user");
        assert_eq!(orthanc.read_whole("empty", 3).unwrap(), b"");
        assert_eq!(orthanc.read_whole("missing", 1), Err(INEXISTENT_FILE));
        if ranges {
            assert_eq!(orthanc.read_range("uuid", 1, 5, 100).unwrap(), content[5..105]);
            assert_eq!(orthanc.read_range("uuid", 1, 7, 0).unwrap(), b"");
            assert_eq!(orthanc.read_range("uuid", 1, 999_999, 2), Err(BAD_RANGE));
            assert_eq!(orthanc.read_range("uuid", 1, u64::MAX, 2), Err(BAD_RANGE));
        }
        orthanc.remove("uuid", 1).unwrap();
        assert_eq!(orthanc.remove("uuid", 1), Err(INEXISTENT_FILE));
        assert_clean(&orthanc);
    }
}

#[test]
fn invalid_uuids_and_sizes_are_refused() {
    let orthanc = load(json!({}));
    assert_eq!(orthanc.create_raw(None, 0), Err(PARAMETER_OUT_OF_RANGE));
    assert_eq!(orthanc.create_raw(Some(b"\xFF\xFE"), 0), Err(PARAMETER_OUT_OF_RANGE));
    assert_eq!(orthanc.create_raw(Some(b"uuid"), -1), Err(PARAMETER_OUT_OF_RANGE));
    assert_eq!(orthanc.create_raw(Some(b"uuid"), 10), Err(35), "null content with a size");
    assert_eq!(orthanc.create_raw(Some(b"uuid"), 0), Ok(()));
}

#[test]
fn create_waits_for_clones_of_its_content() {
    for (uuid, expected) in [("keep", Ok(())), ("keep-and-panic", Err(PLUGIN))] {
        let orthanc = load(json!({}));
        let since = Instant::now();
        assert_eq!(orthanc.create(uuid, 1, &[1; 1000]), expected);
        assert!(since.elapsed() >= Duration::from_millis(300), "{:?}", since.elapsed());
        // The thread read the buffer while the callback waited.
        assert_eq!(orthanc.logs_at(LogLevel::Info), ["Test: kept sum=999"]);
        if expected.is_err() {
            assert_panic_line(&orthanc, "storage create", "panics while a clone is kept");
        }
    }
}

#[test]
fn callback_panic_is_logged() {
    for ranges in [true, false] {
        let orthanc = load(json!({"Ranges": ranges}));
        assert_eq!(orthanc.create("panic", 1, b"content"), Err(PLUGIN));
        assert_panic_line(&orthanc, "storage create", "literal");
        assert_eq!(orthanc.create("resumed-panic", 1, b"content"), Err(PLUGIN));
        assert_panic_line(&orthanc, "a thread of the plugin", "literal");
        // The payload holds a clone of the content.
        assert_eq!(orthanc.create("panic-with-content", 1, b"content"), Err(PLUGIN));
        assert_panic_line(&orthanc, "storage create", "(message withheld)");
        assert_eq!(orthanc.read_whole("panic", 1), Err(PLUGIN));
        assert_panic_line(&orthanc, "storage read", "literal");
        assert_eq!(orthanc.read_whole("panic-after-allocate", 1), Err(PLUGIN));
        assert_eq!(orthanc.remove("panic", 1), Err(PLUGIN));
        assert_panic_line(&orthanc, "storage remove", "literal");
        if ranges {
            assert_eq!(orthanc.read_range("panic", 1, 0, 5), Err(PLUGIN));
            assert_panic_line(&orthanc, "storage range", "literal");
        }
        assert_eq!(orthanc.logs_at(LogLevel::Error).len(), if ranges { 7 } else { 6 });
        assert_eq!(orthanc.create("fine", 1, b"content"), Ok(()));
        assert_clean(&orthanc);
    }
}

#[test]
fn error_codes_are_passed_on_except_success() {
    let orthanc = load(json!({}));
    assert_eq!(orthanc.create("success-as-error", 1, b"content"), Err(PLUGIN));
    assert_eq!(orthanc.create("error", 1, b"content"), Err(19));
}

#[test]
fn whole_read_delivers_everything_or_fails() {
    for ranges in [true, false] {
        let orthanc = load(json!({"Ranges": ranges}));
        assert_eq!(orthanc.read_whole("never-allocate", 1), Err(STORAGE_AREA_PLUGIN));
        assert_eq!(orthanc.read_whole("short", 1), Err(STORAGE_AREA_PLUGIN));
        let incomplete = [
            "Test: the read of attachment never-allocate is incomplete: no buffer was allocated",
            "Test: the read of attachment short is incomplete: only 2 of 3 bytes were filled",
        ];
        assert_eq!(orthanc.logs_at(LogLevel::Error), incomplete);
        assert_eq!(orthanc.read_whole("twice-short", 1), Err(STORAGE_AREA_PLUGIN));
        assert_eq!(orthanc.read_whole("error-after-allocate", 1), Err(20));
        assert_eq!(orthanc.read_whole("too-long", 1), Err(PLUGIN));
        assert_eq!(orthanc.read_whole("huge", 1), Err(4));
        assert_eq!(orthanc.read_whole("twice", 1).unwrap(), b"right");
        assert_eq!(orthanc.read_whole("empty-after-full", 1).unwrap(), b"");
        assert_clean(&orthanc);
    }
}

#[test]
fn range_read_delivers_everything_or_fails() {
    let orthanc = load(json!({}));
    for uuid in ["short", "nothing", "too-long"] {
        orthanc.create(uuid, 1, b"0123456789").unwrap();
    }
    assert_eq!(orthanc.read_range("short", 1, 0, 10), Err(STORAGE_AREA_PLUGIN));
    assert_eq!(orthanc.read_range("nothing", 1, 0, 10), Err(STORAGE_AREA_PLUGIN));
    assert_eq!(orthanc.read_range("nothing", 1, 0, 0), Ok(vec![]));
    assert_eq!(orthanc.read_range("too-long", 1, 0, 10), Err(BAD_RANGE));
    assert_clean(&orthanc);
}
