//! What a request asks for in the S3 protocol, read from its method, address and headers alone.

use http::request::Parts;
use http::{HeaderMap, Method, header};
use percent_encoding::percent_decode_str;

use crate::operation::{Operation, Target};

impl Target {
    /// Reads the target; `domain` is the one below which buckets are host names, as in `bucket.domain`.
    pub(crate) fn of(head: &Parts, domain: Option<&str>) -> Self {
        let path = percent_decode_str(head.uri.path()).decode_utf8_lossy();
        let path = path.strip_prefix('/').unwrap_or(&path);
        let host = host(&head.headers);
        let (bucket, key) = match host.and_then(|host| bucket_of_host(host, domain)) {
            Some(bucket) => (bucket, path),
            None => path.split_once('/').unwrap_or((path, "")),
        };
        let operation = operation(head, key.is_empty());
        Self { bucket: bucket.to_owned(), key: key.to_owned(), operation }
    }
}

/// The value of the `Host` header.
fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST)?.to_str().ok()
}

/// The bucket in a host name such as `bucket.localhost:9000`; a port counts for nothing.
pub(crate) fn bucket_of_host<'a>(host: &'a str, domain: Option<&str>) -> Option<&'a str> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bucket = name.strip_suffix(domain?)?.strip_suffix('.')?;
    (!bucket.is_empty()).then_some(bucket)
}

fn operation(head: &Parts, no_key: bool) -> Operation {
    let query = head.uri.query().unwrap_or("");
    let asks = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    if no_key {
        return match head.method {
            Method::HEAD => Operation::HeadBucket,
            Method::PUT if query.is_empty() => Operation::CreateBucket,
            Method::GET if asks("list-type") => Operation::ListObjectsV2,
            Method::POST if asks("delete") => Operation::DeleteObjects,
            _ => Operation::Other,
        };
    }
    match head.method {
        Method::PUT if asks("uploadId") => Operation::UploadPart,
        Method::DELETE if asks("uploadId") => Operation::AbortMultipartUpload,
        Method::POST if asks("uploadId") => Operation::CompleteMultipartUpload,
        Method::POST if asks("uploads") => Operation::CreateMultipartUpload,
        _ if asks("tagging") || asks("uploadId") || asks("acl") => Operation::Other,
        Method::PUT if head.headers.contains_key("x-amz-copy-source") => Operation::Other,
        Method::PUT => Operation::PutObject,
        Method::GET if head.headers.contains_key(header::RANGE) => Operation::GetObjectRange,
        Method::GET => Operation::GetObject,
        Method::HEAD => Operation::HeadObject,
        Method::DELETE => Operation::DeleteObject,
        _ => Operation::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn target(method: &str, uri: &str, headers: &[(&str, &str)]) -> Target {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Target::of(&request.body(()).unwrap().into_parts().0, Some("localhost"))
    }

    #[test]
    fn the_path_holds_the_bucket_unless_the_host_does() {
        let path = target("GET", "/photos/a%20b/c", &[("host", "127.0.0.1:9000")]);
        assert_eq!((path.bucket.as_str(), path.key.as_str()), ("photos", "a b/c"));
        let host = target("GET", "/photos/c", &[("host", "bucket.localhost:9000")]);
        assert_eq!((host.bucket.as_str(), host.key.as_str()), ("bucket", "photos/c"));
        let bare = target("GET", "/photos/c", &[("host", "localhost:9000")]);
        assert_eq!((bare.bucket.as_str(), bare.key.as_str()), ("photos", "c"));
    }

    #[test]
    fn operations_are_told_apart_by_method_query_and_headers() {
        for (method, uri, headers, expected) in [
            ("PUT", "/b/k", &[][..], Operation::PutObject),
            ("PUT", "/b/k?partNumber=1&uploadId=u", &[], Operation::UploadPart),
            ("PUT", "/b/k", &[("x-amz-copy-source", "b/other")], Operation::Other),
            ("GET", "/b/k", &[], Operation::GetObject),
            ("GET", "/b/k", &[("range", "bytes=0-1")], Operation::GetObjectRange),
            ("GET", "/b/k?tagging", &[], Operation::Other),
            ("HEAD", "/b/k", &[], Operation::HeadObject),
            ("DELETE", "/b/k", &[], Operation::DeleteObject),
            ("DELETE", "/b/k?uploadId=u", &[], Operation::AbortMultipartUpload),
            ("POST", "/b/k?uploads", &[], Operation::CreateMultipartUpload),
            ("POST", "/b/k?uploads=", &[], Operation::CreateMultipartUpload),
            ("POST", "/b/k?uploadId=u", &[], Operation::CompleteMultipartUpload),
            ("POST", "/b?delete", &[], Operation::DeleteObjects),
            ("GET", "/b?list-type=2&prefix=a", &[], Operation::ListObjectsV2),
            ("GET", "/b?location", &[], Operation::Other),
            ("PUT", "/b", &[], Operation::CreateBucket),
            ("PUT", "/b?acl", &[], Operation::Other),
            ("HEAD", "/b", &[], Operation::HeadBucket),
            ("HEAD", "/b/", &[], Operation::HeadBucket),
        ] {
            assert_eq!(target(method, uri, headers).operation, expected, "{method} {uri}");
        }
    }
}
