//! Routes of a plugin, and its calls to Orthanc's REST API.

use std::sync::Arc;

use fake_orthanc::{FakeOrthancOptions, LogLevel, RestApi};
use serde_json::json;

use crate::fixture::{PARAMETER_OUT_OF_RANGE, PLUGIN, assert_clean, assert_panic_line, load, try_load};

#[test]
fn route_gets_the_request_and_answers() {
    let orthanc = load(json!({}));
    let reply = orthanc.rest("GET", "/test/a/b?x=1&y=2", b"");
    assert_eq!((reply.code, reply.status, reply.mime.as_str()), (0, 200, "application/json"));
    let seen = json!({
        "Method": "Get", "Path": "/test/a/b", "Groups": ["a", "b"], "Query": ["x=1", "y=2"], "Header": "yes",
        "Body": "",
    });
    assert_eq!(reply.json(), seen);
    assert_eq!(orthanc.rest("PUT", "/test/a/b", b"body").json()["Body"], "body");
    assert_eq!(orthanc.rest("OPTIONS", "/test/a/b", b"").code, PARAMETER_OUT_OF_RANGE);
    orthanc.rest("POST", "/test/metric/x", b"");
    assert_eq!(orthanc.metrics()["test_metric"], 1.5);
}

#[test]
fn route_can_fail_in_each_way() {
    let orthanc = load(json!({}));
    let teapot = orthanc.rest("GET", "/test/status/x", b"");
    assert_eq!((teapot.code, teapot.status, teapot.body.as_slice()), (0, 418, &b"teapot"[..]));
    let not_allowed = orthanc.rest("POST", "/test/not-allowed/x", b"");
    assert_eq!((not_allowed.status, not_allowed.allow.as_str()), (405, "GET"));
    let not_found = orthanc.rest("GET", "/test/not-found/x", b"");
    assert_eq!((not_found.code, not_found.details.as_str()), (17, "nothing here"));
    assert_eq!(orthanc.rest("GET", "/test/bad-status/x", b"").code, 2005);

    assert_eq!(orthanc.rest("GET", "/test/panic/x", b"").code, PLUGIN);
    assert_panic_line(&orthanc, "a REST route", ": literal");
    assert_eq!(orthanc.rest("GET", "/test/panic-with-data/PATIENT", b"").code, PLUGIN);
    assert_panic_line(&orthanc, "a REST route", "(message withheld)");
    assert_eq!(orthanc.rest("GET", "/test/resumed-panic/x", b"").code, PLUGIN);
    assert_panic_line(&orthanc, "a thread of the plugin", "literal");
    assert_eq!(orthanc.logs_at(LogLevel::Error).len(), 4);
}

#[test]
fn plugin_can_call_the_rest_api() {
    let rest_api: Arc<RestApi> = Arc::new(|path| match path {
        "/missing" => Err(17),
        "/empty" => Ok(vec![]),
        _ => Ok(format!("GET {path}").into_bytes()),
    });
    let options = FakeOrthancOptions { rest_api, ..FakeOrthancOptions::default() };
    let orthanc = try_load(options).unwrap();
    assert_eq!(orthanc.rest("GET", "/test/get/path", b"").body, b"GET /path");
    assert_eq!(orthanc.rest("GET", "/test/get/empty", b"").body, b"");
    let missing = orthanc.rest("GET", "/test/get/missing", b"");
    let details = "GET /missing failed in Orthanc: UnknownResource (17)";
    assert_eq!((missing.code, missing.details.as_str()), (17, details));
    assert_clean(&orthanc);
}
