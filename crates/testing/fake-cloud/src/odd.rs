//! Answers that other makes of servers and proxies give.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::checksum::{
    CONTENT_CRC64, azure_crc64_header, crc32c_header, crc64nvme, crc64nvme_header, md5_etag, md5_header,
};
use crate::dialect::{AnswerBody, Dialect, full};
use crate::operation::Target;

/// An unusual answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Odd {
    /// A proxy answers with a web page and this status; the server does not see the request.
    WebPage(u16),
    /// The answer has neither `ETag` nor `Last-Modified`.
    NoVersion,
    /// The `ETag` is weak, as behind proxies that may change the representation.
    WeakEtag,
    /// The body is chunked, and its length is not announced.
    Chunked,
    /// A range is answered with status 200 and a right `Content-Range`, as by `rclone serve s3`.
    RangeWithOk,
    /// A range is ignored: the answer is the whole object with status 200. In S3 and Google only.
    WholeForRange,
    /// The answer has only half of the bytes, and says so consistently. In S3 and Google only.
    Shortened,
    /// The checksums in the answer are not those of the object.
    WrongChecksum,
    /// The answer has no checksums except the `ETag`.
    NoChecksum,
    /// The answer has no checksums, and its `ETag` is not an MD5, as of objects that S3 encrypts with a key of KMS.
    OpaqueEtag,
}

/// The headers with checksums of objects.
const CHECKSUMS: [&str; 5] =
    ["x-amz-checksum-crc64nvme", "x-goog-hash", "content-md5", "x-ms-blob-content-md5", CONTENT_CRC64];

impl Odd {
    /// Returns the answer of a proxy, which does not pass the request on.
    pub(crate) fn instead(self) -> Option<Response<AnswerBody>> {
        let Self::WebPage(status) = self else { return None };
        let mut answer =
            Response::new(full("<!DOCTYPE html><html><title>Sign in</title>Please sign in</html>"));
        *answer.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        answer.headers_mut().insert(ETAG, HeaderValue::from_static("\"page\""));
        answer.headers_mut().insert(LAST_MODIFIED, HeaderValue::from_static("Wed, 01 Jan 2020 00:00:00 GMT"));
        Some(answer)
    }

    /// Changes a successful answer of the server.
    pub(crate) fn change(
        self,
        dialect: &dyn Dialect,
        target: &Target,
        mut answer: Response<AnswerBody>,
    ) -> Response<AnswerBody> {
        if !answer.status().is_success() {
            return answer;
        }
        let headers = answer.headers_mut();
        match self {
            Self::WebPage(_) => {}
            Self::NoVersion => {
                headers.remove(ETAG);
                headers.remove(LAST_MODIFIED);
            }
            Self::WeakEtag => {
                let tag = headers.get(ETAG).and_then(|tag| tag.to_str().ok()).map(|tag| format!("W/{tag}"));
                if let Some(tag) = tag.and_then(|tag| HeaderValue::from_str(&tag).ok()) {
                    headers.insert(ETAG, tag);
                }
            }
            Self::Chunked => drop(headers.remove(CONTENT_LENGTH)),
            Self::RangeWithOk => *answer.status_mut() = StatusCode::OK,
            Self::WrongChecksum => CHECKSUMS.iter().for_each(|name| falsify(headers, name)),
            Self::NoChecksum => CHECKSUMS.iter().for_each(|name| drop(headers.remove(*name))),
            Self::OpaqueEtag => {
                CHECKSUMS.iter().for_each(|name| drop(headers.remove(*name)));
                headers.insert(ETAG, HeaderValue::from_static("\"0123456789abcdef0123456789abcdef\""));
            }
            Self::Shortened => shorten(dialect, target, &mut answer),
            Self::WholeForRange => {
                headers.remove(CONTENT_RANGE);
                headers.remove(CONTENT_LENGTH);
                let whole = dialect.buckets().object(&target.bucket, &target.key);
                *answer.body_mut() = full(whole.map_or_else(Bytes::new, |object| object.bytes));
                *answer.status_mut() = StatusCode::OK;
            }
        }
        answer
    }
}

/// Replaces the checksums in the answer to an upload by those of `content`.
pub(crate) fn describe(headers: &mut HeaderMap, content: &[u8]) {
    let values = [
        ("x-amz-checksum-crc64nvme", crc64nvme_header(crc64nvme(content))),
        ("x-goog-hash", format!("crc32c={}", crc32c_header(content))),
        ("content-md5", md5_header(content)),
        (CONTENT_CRC64, azure_crc64_header(content)),
    ];
    for (name, value) in values {
        if let Ok(value) = HeaderValue::from_str(&value)
            && headers.contains_key(name)
        {
            headers.insert(name, value);
        }
    }
    let etag = HeaderValue::from_str(&format!("\"{}\"", md5_etag(content))).ok();
    // Azure's is not an MD5.
    let is_md5 = |etag: &HeaderValue| headers.get(ETAG).is_some_and(|old| old.len() == etag.len());
    if let Some(etag) = etag.filter(is_md5) {
        headers.insert(ETAG, etag);
    }
}

/// Removes the second half of an object or a range from the answer.
fn shorten(dialect: &dyn Dialect, target: &Target, answer: &mut Response<AnswerBody>) {
    let Some(object) = dialect.buckets().object(&target.bucket, &target.key) else { return };
    let size = object.bytes.len();
    let range = answer.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let bounds = range.and_then(|text| text.strip_prefix("bytes ")?.split_once('/')?.0.split_once('-'));
    let bounds =
        bounds.and_then(|(first, last)| Some((first.parse().ok()?, last.parse::<usize>().ok()? + 1)));
    let (start, end) = bounds.unwrap_or((0, size));
    let half = start + (end - start) / 2;
    let headers = answer.headers_mut();
    if headers.contains_key(CONTENT_RANGE) {
        let shortened = HeaderValue::from_str(&format!("bytes {start}-{}/{size}", half.saturating_sub(1)));
        shortened.into_iter().for_each(|value| drop(headers.insert(CONTENT_RANGE, value)));
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(half - start));
    *answer.body_mut() = full(object.bytes.slice(start..half));
}

/// Replaces a checksum by another one of the same length.
fn falsify(headers: &mut HeaderMap, name: &'static str) {
    let values: Vec<_> =
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(wrong).collect();
    headers.remove(name);
    for value in values {
        headers.extend(
            HeaderValue::from_str(&value).ok().map(|value| (http::HeaderName::from_static(name), value)),
        );
    }
}

/// Exchanges the first letter of a checksum in base64.
fn wrong(value: &str) -> String {
    let (name, hash) = value.split_once('=').filter(|(name, _)| ["crc32c", "md5"].contains(name)).unzip();
    let hash = hash.unwrap_or(value);
    let first = if hash.starts_with('A') { 'B' } else { 'A' };
    let wrong = format!("{first}{}", hash.get(1..).unwrap_or_default());
    name.map_or(wrong.clone(), |name| format!("{name}={wrong}"))
}
