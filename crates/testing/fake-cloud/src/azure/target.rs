//! The container, blob and operation of a request in Azure's protocol, where the path starts with the
//! account.

use http::request::Parts;
use http::{Method, header};

use crate::operation::{Operation, Target, decoded_path, query_value};

/// Reads the target of a request.
pub(crate) fn target(head: &Parts) -> Target {
    let path = decoded_path(head);
    let mut segments = path.splitn(3, '/').skip(1).map(str::to_owned);
    let bucket = segments.next().unwrap_or_default();
    let key = segments.next().unwrap_or_default();
    Target { operation: operation(head, key.is_empty()), bucket, key }
}

fn operation(head: &Parts, no_key: bool) -> Operation {
    let component = query_value(head, "comp");
    if no_key {
        let container = query_value(head, "restype") == Some("container");
        return match (&head.method, component) {
            (&Method::PUT, None) if container => Operation::CreateBucket,
            (&Method::GET, Some("list")) if container => Operation::ListObjects,
            (&Method::POST, Some("batch")) => Operation::DeleteObjects,
            _ => Operation::Other,
        };
    }
    let has_range = head.headers.contains_key(header::RANGE) || head.headers.contains_key("x-ms-range");
    match (&head.method, component) {
        (&Method::PUT, Some("block")) => Operation::UploadPart,
        (&Method::PUT, Some("blocklist")) => Operation::CompleteMultipartUpload,
        (&Method::PUT, Some("tier")) => Operation::RestoreObject,
        (&Method::PUT, None) => Operation::PutObject,
        (&Method::GET, None) if has_range => Operation::GetObjectRange,
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
    fn method_query_and_headers_give_the_operation() {
        for (method, uri, headers, expected) in [
            ("PUT", "/a/b/k", &[][..], Operation::PutObject),
            ("PUT", "/a/b/k?sv=1&sig=2", &[], Operation::PutObject),
            ("PUT", "/a/b/k?comp=block&blockid=AA%3D%3D", &[], Operation::UploadPart),
            ("PUT", "/a/b/k?comp=blocklist", &[], Operation::CompleteMultipartUpload),
            ("PUT", "/a/b/k?comp=tier", &[], Operation::RestoreObject),
            ("GET", "/a/b/k", &[], Operation::GetObject),
            ("GET", "/a/b/k", &[("range", "bytes=0-1")], Operation::GetObjectRange),
            ("GET", "/a/b/k", &[("x-ms-range", "bytes=0-1")], Operation::GetObjectRange),
            ("HEAD", "/a/b/k", &[], Operation::HeadObject),
            ("DELETE", "/a/b/k", &[], Operation::DeleteObject),
            ("PUT", "/a/b?restype=container", &[], Operation::CreateBucket),
            ("POST", "/a/b?restype=container&comp=batch", &[], Operation::DeleteObjects),
            ("POST", "/a?comp=batch", &[], Operation::DeleteObjects),
            ("DELETE", "/a/b?restype=container", &[], Operation::Other),
            ("GET", "/a/b?restype=container&comp=list", &[], Operation::ListObjects),
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
    fn path_starts_with_the_account() {
        let request = Request::builder().uri("/account/photos/a%20b/c").body(()).unwrap();
        let target = target(&request.into_parts().0);
        assert_eq!([target.bucket, target.key], ["photos", "a b/c"]);
    }
}
