//! The bucket, key and operation of a request in the S3 protocol.

use http::request::Parts;
use http::{Method, header};

use crate::operation::{Operation, Target, decoded_path, query_value};

impl Target {
    /// Reads the target of a request. With a `domain`, the bucket is in the host name, as in `bucket.domain`.
    pub(crate) fn of(head: &Parts, domain: Option<&str>) -> Self {
        let path = decoded_path(head);
        let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let bucket_of = |host: &str| Some(host.strip_suffix(domain?)?.strip_suffix('.')?.to_owned());
        let (bucket, key) = match host.and_then(bucket_of) {
            Some(bucket) => (bucket, path),
            None => {
                let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
                (bucket.to_owned(), key.to_owned())
            }
        };
        let operation = if key.is_empty() { bucket_operation(head) } else { operation(head) };
        Self { bucket, key, operation }
    }
}

fn bucket_operation(head: &Parts) -> Operation {
    match head.method {
        Method::POST if query_value(head, "delete").is_some() => Operation::DeleteObjects,
        Method::GET if query_value(head, "list-type") == Some("2") => Operation::ListObjects,
        _ => Operation::Other,
    }
}

fn operation(head: &Parts) -> Operation {
    let has_upload_id = query_value(head, "uploadId").is_some();
    match head.method {
        Method::PUT if has_upload_id => Operation::UploadPart,
        Method::DELETE if has_upload_id => Operation::AbortMultipartUpload,
        Method::POST if has_upload_id => Operation::CompleteMultipartUpload,
        Method::POST if query_value(head, "uploads").is_some() => Operation::CreateMultipartUpload,
        Method::POST if query_value(head, "restore").is_some() => Operation::RestoreObject,
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
        Target::of(&request.body(()).unwrap().into_parts().0, Some("s3.test"))
    }

    #[test]
    fn bucket_is_in_the_path_or_the_host_name() {
        let path = target("GET", "/photos/a%20b/c", &[("host", "127.0.0.1:9000")]);
        assert_eq!([path.bucket, path.key], ["photos", "a b/c"]);
        let host = target("GET", "/photos/c", &[("host", "bucket.s3.test")]);
        assert_eq!([host.bucket, host.key], ["bucket", "photos/c"]);
    }

    #[test]
    fn method_query_and_headers_give_the_operation() {
        for (method, uri, headers, expected) in [
            ("PUT", "/b/k", &[][..], Operation::PutObject),
            ("PUT", "/b/k?partNumber=1&uploadId=u", &[], Operation::UploadPart),
            ("GET", "/b/k", &[], Operation::GetObject),
            ("GET", "/b/k", &[("range", "bytes=0-1")], Operation::GetObjectRange),
            ("HEAD", "/b/k", &[], Operation::HeadObject),
            ("DELETE", "/b/k", &[], Operation::DeleteObject),
            ("DELETE", "/b/k?uploadId=u", &[], Operation::AbortMultipartUpload),
            ("POST", "/b/k?uploads", &[], Operation::CreateMultipartUpload),
            ("POST", "/b/k?restore", &[], Operation::RestoreObject),
            ("POST", "/b/k?uploadId=u", &[], Operation::CompleteMultipartUpload),
            ("POST", "/b?delete", &[], Operation::DeleteObjects),
            ("POST", "/b/k?delete", &[], Operation::Other),
            ("GET", "/b?list-type=2", &[], Operation::ListObjects),
            ("GET", "/b", &[], Operation::Other),
        ] {
            assert_eq!(target(method, uri, headers).operation, expected, "{method} {uri}");
        }
    }
}
