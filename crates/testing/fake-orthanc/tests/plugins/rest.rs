//! Routes of a plugin, and its calls to the REST API of its host.

use std::sync::Arc;

use fake_orthanc::{FakeOrthanc, FakeOrthancOptions};
use serde_json::json;

use crate::fixture::{
    PARAMETER_OUT_OF_RANGE, PLUGIN, assert_clean, assert_panic_line, example, faulty, memory,
};

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
    let mut options = FakeOrthancOptions::with_configuration(json!({}));
    options.rest_api = Arc::new(|method, path, body, after_plugins| match path {
        "/missing" => Err(17),
        "/empty" => Ok(vec![]),
        _ => Ok(format!("{method} {path} {after_plugins} {}", String::from_utf8_lossy(body)).into_bytes()),
    });
    let host = FakeOrthanc::load(example("faulty_plugin"), options).unwrap();
    assert_eq!(host.rest("POST", "/faulty/call/path", b"hello").body, b"POST /path true hello");
    assert_eq!(host.rest("POST", "/faulty/call/empty", b"").body, b"");
    let missing = host.rest("POST", "/faulty/call/missing", b"");
    assert_eq!(
        (missing.code, missing.details.as_str()),
        (17, "POST /missing failed in Orthanc: UnknownResource (17)")
    );
    assert_clean(&host);
}
