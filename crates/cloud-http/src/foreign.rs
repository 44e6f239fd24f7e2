//! Recognizes answers that do not come from the storage service: from a proxy, an ingress, a login page, or another
//! program at the address.
//!
//! Such answers say nothing about objects. Services answer 404 with a code of their own, and do not send web
//! pages without one of their headers. A `HEAD` has no body, so that for S3 only the type of a text is
//! suspicious.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::response::Parts;
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use crate::exchange::note;
use crate::redact::one_line;

/// Azure's header with the error code, which answers to `HEAD` have as well.
const AZURE_CODE: &str = "x-ms-error-code";
/// Beginnings of the names of headers that only storage services send.
const SERVICE_HEADERS: [&str; 4] = ["x-amz", "x-ms-", "x-goog-", "x-guploader-"];
/// Codes of a service's 404: of S3 and of Google's XML, of Azure and its key vaults, of Google's JSON.
const NOT_FOUND: [&str; 8] = [
    "NoSuchKey",
    "NoSuchVersion",
    "NoSuchUpload",
    "NoSuchBucket",
    "BlobNotFound",
    "ContainerNotFound",
    "KeyNotFound",
    "notFound",
];

/// Whether a successful answer is a web page. Some servers give this type to answers without content.
pub(crate) fn is_web_page(status: StatusCode, headers: &HeaderMap) -> bool {
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT) {
        return false;
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let is_html =
        ["text/html", "application/xhtml+xml"].iter().any(|html| media_type.eq_ignore_ascii_case(html));
    // An object may be a web page, but then the service says more about it.
    let is_empty = headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0");
    is_html && !is_empty && !is_of_service(headers)
}

/// Adds to the observed exchange whether a refusal does not come from the service, and the code in its headers.
pub(crate) fn note_refusal(method: &Method, head: &Parts, body: &[u8]) {
    let code = head.headers.get(AZURE_CODE).and_then(|value| value.to_str().ok()).map(one_line);
    note(|exchange| {
        exchange.code = code.or(exchange.code.take());
        let code = exchange.code.as_deref();
        exchange.foreign = is_refusal_of_other(method, head.status, &head.headers, code, body);
    });
}

/// Whether a refusal with this `code` and `body` does not come from the service. Only 404 is ambiguous.
fn is_refusal_of_other(
    method: &Method,
    status: StatusCode,
    headers: &HeaderMap,
    code: Option<&str>,
    body: &[u8],
) -> bool {
    match code {
        _ if status != StatusCode::NOT_FOUND => false,
        Some(code) if NOT_FOUND.contains(&code) => false,
        None if *method == Method::HEAD => is_text(headers) && !is_of_service(headers),
        _ => !is_json_of_google(body),
    }
}

fn is_text(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/"))
}

fn is_of_service(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| SERVICE_HEADERS.iter().any(|start| name.as_str().starts_with(start)))
}

/// Whether `body` is an error of Google's JSON interface without a reason, as Google's own test server sends it.
fn is_json_of_google(body: &[u8]) -> bool {
    let Ok(json) = serde_json::from_slice::<Value>(body) else { return false };
    let error = json.get("error").unwrap_or(&json);
    error.get("code").and_then(Value::as_u64) == Some(404) && error.get("message").is_some()
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn web_pages_are_not_objects() {
        for (fields, expected) in [
            (&[][..], false),
            (&[("content-type", "application/octet-stream")], false),
            (&[("content-type", "text/html; charset=utf-8"), ("etag", "\"1\"")], true),
            (&[("content-type", "Application/XHTML+xml")], true),
            (&[("content-type", "text/html"), ("x-amz-request-id", "1")], false),
            (&[("content-type", "text/html"), ("x-ms-version", "1")], false),
            (&[("content-type", "text/html"), ("content-length", "0")], false),
            (&[("content-type", "text/html"), ("content-length", "1")], true),
            // moto.
            (&[("content-type", "text/html"), ("x-amzn-requestid", "1")], false),
            (&[("content-type", "text/html"), ("x-goog-generation", "1")], false),
            (&[("content-type", "text/html-like")], false),
        ] {
            assert_eq!(is_web_page(StatusCode::OK, &headers(fields)), expected, "{fields:?}");
            assert!(!is_web_page(StatusCode::NO_CONTENT, &headers(fields)));
        }
    }

    #[test]
    fn only_services_know_what_does_not_exist() {
        let html = headers(&[("content-type", "text/html")]);
        let is_foreign = |method, status: u16, headers: &HeaderMap, code, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            is_refusal_of_other(&method, status, headers, code, body.as_bytes())
        };
        let none = HeaderMap::new();
        for code in NOT_FOUND {
            assert!(!is_foreign(Method::GET, 404, &none, Some(code), ""), "{code}");
        }
        for (code, body) in [
            (None, ""),
            (None, "<html><title>404 Not Found</title></html>"),
            (Some("NotFound"), "<Error><Code>NotFound</Code></Error>"),
            (Some("not found"), r#"{"error": "not found"}"#),
            (None, r#"{"code": 404}"#),
            (None, r#"{"code": 400, "message": "x"}"#),
        ] {
            assert!(is_foreign(Method::GET, 404, &none, code, body), "{body}");
        }
        for body in [r#"{"error": {"code": 404, "message": "x"}}"#, r#"{"code": 404, "message": "x"}"#] {
            assert!(!is_foreign(Method::GET, 404, &none, None, body), "{body}");
        }
        assert!(!is_foreign(Method::HEAD, 404, &none, None, ""));
        assert!(is_foreign(Method::HEAD, 404, &html, None, ""));
        assert!(is_foreign(Method::HEAD, 404, &headers(&[("content-type", "text/plain")]), None, ""));
        let rclone = headers(&[("content-type", "text/plain"), ("x-amz-request-id", "1")]);
        assert!(!is_foreign(Method::HEAD, 404, &rclone, None, ""));
        assert!(!is_foreign(Method::GET, 403, &html, None, "<html>"));
    }
}
