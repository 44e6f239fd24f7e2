//! Translates Google's headers to S3's and back.

use http::{HeaderMap, HeaderValue, header};

use crate::checksum;
use crate::s3::store::Object;

/// Translates the headers of a request to those that `s3s` understands.
pub(crate) fn to_s3(headers: &mut HeaderMap) {
    headers.remove(header::AUTHORIZATION);
    if let Some(class) = headers.remove("x-goog-storage-class") {
        headers.insert("x-amz-storage-class", class);
    }
    // Of generations, there is only the condition that the object must not exist.
    if headers.remove("x-goog-if-generation-match").is_some_and(|generation| generation == "0") {
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("*"));
    }
    let hash = headers.remove("x-goog-hash");
    let crc = hash.as_ref().and_then(|hash| hash.to_str().ok()?.strip_prefix("crc32c="));
    if let Some(crc) = crc.and_then(|crc| HeaderValue::from_str(crc).ok()) {
        headers.insert("x-amz-checksum-crc32c", crc);
    }
}

/// Removes the headers of an answer that only S3 sends.
pub(crate) fn to_google(headers: &mut HeaderMap) {
    let foreign: Vec<_> =
        headers.keys().filter(|name| name.as_str().starts_with("x-amz-")).cloned().collect();
    for name in foreign {
        headers.remove(name);
    }
}

/// Returns the `x-goog-hash` headers of an object. As in Google, only objects uploaded in one request have an
/// MD5.
pub(crate) fn hashes(object: &Object) -> HeaderMap {
    let hashes = object.google_hashes.get_or_init(|| {
        let bytes = &object.stored.bytes;
        let crc = format!("crc32c={}", checksum::crc32c_header(bytes));
        let md5 = (!object.is_in_parts()).then(|| format!("md5={}", checksum::md5_header(bytes)));
        [crc].into_iter().chain(md5).collect()
    });
    let mut headers = HeaderMap::new();
    for value in hashes.iter().filter_map(|hash| HeaderValue::from_str(hash).ok()) {
        headers.append("x-goog-hash", value);
    }
    headers
}
