//! What a request asks for in Azure's protocol, with the account as the first part of the path.

use http::request::Parts;
use http::{Method, header};
use percent_encoding::percent_decode_str;

use crate::operation::{Operation, Target};

/// Reads the target of a request.
pub(crate) fn target(head: &Parts) -> Target {
    let path = percent_decode_str(head.uri.path()).decode_utf8_lossy();
    let mut parts = path.trim_start_matches('/').splitn(3, '/').skip(1).map(str::to_owned);
    let (bucket, key) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    Target { operation: operation(head, key.is_empty()), bucket, key }
}

fn operation(head: &Parts, no_key: bool) -> Operation {
    let query = head.uri.query().unwrap_or("");
    let value = |name: &str| {
        let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let component = value("comp");
    if no_key {
        let container = value("restype") == Some("container");
        return match (&head.method, component) {
            (&Method::GET, Some("list")) if container => Operation::ListObjectsV2,
            (&Method::POST, Some("batch")) => Operation::DeleteObjects,
            (&Method::GET | &Method::HEAD, None) if container => Operation::HeadBucket,
            (&Method::PUT, None) if container => Operation::CreateBucket,
            _ => Operation::Other,
        };
    }
    let has = |name: &str| head.headers.contains_key(name);
    match (&head.method, component) {
        (&Method::PUT, Some("block")) => Operation::UploadPart,
        (&Method::PUT, Some("blocklist")) => Operation::CompleteMultipartUpload,
        (&Method::PUT, None) if !has("x-ms-copy-source") => Operation::PutObject,
        (&Method::GET, None) if has(header::RANGE.as_str()) || has("x-ms-range") => Operation::GetObjectRange,
        (&Method::GET, None) => Operation::GetObject,
        (&Method::HEAD, None) => Operation::HeadObject,
        (&Method::DELETE, None) => Operation::DeleteObject,
        _ => Operation::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn operations_are_told_apart_by_method_query_and_headers() {
        for (method, uri, headers, expected) in [
            ("PUT", "/a/b/k", &[][..], Operation::PutObject),
            ("PUT", "/a/b/k?sv=1&sig=2", &[], Operation::PutObject),
            ("PUT", "/a/b/k?comp=block&blockid=AA%3D%3D", &[], Operation::UploadPart),
            ("PUT", "/a/b/k?comp=blocklist", &[], Operation::CompleteMultipartUpload),
            ("PUT", "/a/b/k", &[("x-ms-copy-source", "x")], Operation::Other),
            ("PUT", "/a/b/k?comp=tier", &[], Operation::Other),
            ("GET", "/a/b/k", &[], Operation::GetObject),
            ("GET", "/a/b/k", &[("range", "bytes=0-1")], Operation::GetObjectRange),
            ("GET", "/a/b/k", &[("x-ms-range", "bytes=0-1")], Operation::GetObjectRange),
            ("GET", "/a/b/k?comp=tags", &[], Operation::Other),
            ("HEAD", "/a/b/k", &[], Operation::HeadObject),
            ("DELETE", "/a/b/k", &[], Operation::DeleteObject),
            ("POST", "/a/b?restype=container&comp=batch", &[], Operation::DeleteObjects),
            ("GET", "/a/b?restype=container&comp=list", &[], Operation::ListObjectsV2),
            ("GET", "/a/b?restype=container", &[], Operation::HeadBucket),
            ("PUT", "/a/b?restype=container", &[], Operation::CreateBucket),
            ("DELETE", "/a/b?restype=container", &[], Operation::Other),
            ("GET", "/a?comp=list", &[], Operation::Other),
        ] {
            let mut request = Request::builder().method(method).uri(uri);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let target = target(&request.body(()).unwrap().into_parts().0);
            assert_eq!(target.operation, expected, "{method} {uri}");
        }
    }

    #[test]
    fn the_path_begins_with_the_account() {
        let request = Request::builder().uri("/account/photos/a%20b/c").body(()).unwrap();
        let target = target(&request.into_parts().0);
        assert_eq!((target.bucket.as_str(), target.key.as_str()), ("photos", "a b/c"));
    }
}
