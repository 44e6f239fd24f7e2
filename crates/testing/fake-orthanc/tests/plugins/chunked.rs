//! Requests that arrive in chunks.

use std::collections::BTreeMap;

use fake_orthanc::{ChunkedRequest, FakeOrthanc, HttpAnswer, LogLevel};
use serde_json::json;

use crate::fixture::{PLUGIN, assert_clean, assert_panic_line, load};

const BAD_REQUEST: i32 = 8;
const BAD_SEQUENCE_OF_CALLS: i32 = 6;
const UNSUPPORTED_MEDIA_TYPE: i32 = 3000;

fn post<'a>(orthanc: &'a FakeOrthanc, fault: &str) -> Result<ChunkedRequest<'a>, i32> {
    let path = format!("/chunked/{fault}");
    orthanc.chunked_post("/chunked/(.*)", &path, &[fault], &[("x-test", "yes")])
}

/// How many readers the plugin has dropped.
fn dropped(orthanc: &FakeOrthanc) -> usize {
    orthanc.logs_at(LogLevel::Info).iter().filter(|line| line.contains("reader dropped")).count()
}

#[test]
fn body_arrives_in_chunks() {
    let orthanc = load(json!({}));
    let mut first = post(&orthanc, "none").unwrap();
    let mut second = post(&orthanc, "none").unwrap();
    for chunk in [&b"one "[..], b"", b"two"] {
        first.chunk(chunk).unwrap();
    }
    second.chunk(b"other").unwrap();
    let headers = [("Content-Type", "text/x-test"), ("Retry-After", "30")];
    let expected = |body: &str| HttpAnswer {
        status: 202,
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        body: format!("POST /chunked/none none yes: {body}").into_bytes(),
    };
    assert_eq!(first.execute(), Ok(expected("one two")));
    assert_eq!(first.execute(), Err(BAD_SEQUENCE_OF_CALLS), "a second answer");
    assert_eq!(first.chunk(b"late"), Err(BAD_SEQUENCE_OF_CALLS));
    drop(first);
    assert_eq!(second.execute(), Ok(expected("other")));
    drop(second);
    assert_eq!(dropped(&orthanc), 2);
    assert_clean(&orthanc);
}

#[test]
fn answer_with_status_200() {
    let orthanc = load(json!({}));
    let answer = post(&orthanc, "ok").unwrap().execute().unwrap();
    let headers = BTreeMap::from([("Content-Type".to_owned(), "text/plain".to_owned())]);
    assert_eq!(answer, HttpAnswer { status: 200, headers, body: b"fine".to_vec() });
    assert_clean(&orthanc);
}

#[test]
fn refused_and_failed_requests() {
    let orthanc = load(json!({}));
    assert_eq!(post(&orthanc, "refuse").unwrap_err(), UNSUPPORTED_MEDIA_TYPE);
    let mut request = post(&orthanc, "bad-chunk").unwrap();
    assert_eq!(request.chunk(b"x"), Err(BAD_REQUEST));
    assert_eq!(dropped(&orthanc), 1, "the reader is dropped at once");
    assert_eq!((request.chunk(b"x"), request.execute()), (Err(BAD_REQUEST), Err(BAD_REQUEST)));
    assert_eq!(dropped(&orthanc), 1);
    assert_eq!(post(&orthanc, "bad-answer").unwrap().execute(), Err(BAD_REQUEST));
    assert_clean(&orthanc);
}

#[test]
fn panic_in_a_request_is_an_error_and_a_log_line() {
    let orthanc = load(json!({}));
    assert_eq!(post(&orthanc, "panic").unwrap_err(), PLUGIN);
    assert_panic_line(&orthanc, "a chunked REST route", ": literal");
    let mut request = post(&orthanc, "panic-in-chunk").unwrap();
    assert_eq!(request.chunk(b"x"), Err(PLUGIN));
    assert_panic_line(&orthanc, "a chunk of a request", ": literal");
    assert_eq!((request.chunk(b"x"), request.execute()), (Err(PLUGIN), Err(PLUGIN)));
    assert_eq!(post(&orthanc, "panic-in-answer").unwrap().execute(), Err(PLUGIN));
    assert_panic_line(&orthanc, "the answer of a chunked request", ": literal");
    drop(post(&orthanc, "panic-in-drop").unwrap());
    assert_panic_line(&orthanc, "the end of a chunked request", ": literal");
    assert_clean(&orthanc);
}

/// A client that disappears, and a request that outlives the plugin.
#[test]
fn unfinished_requests_are_dropped() {
    let mut orthanc = load(json!({}));
    let mut request = post(&orthanc, "none").unwrap();
    request.chunk(b"x").unwrap();
    drop(request);
    assert_eq!(dropped(&orthanc), 1);
    std::mem::forget(post(&orthanc, "none").unwrap());
    orthanc.finalize();
    assert_eq!(dropped(&orthanc), 2);
    assert_eq!(post(&orthanc, "none").unwrap_err(), BAD_SEQUENCE_OF_CALLS);
    assert_clean(&orthanc);
}
