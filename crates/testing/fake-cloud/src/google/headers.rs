//! Google's headers in terms of S3's, and back.

use std::time::UNIX_EPOCH;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::s3::object::Object;

const META: (&str, &str) = ("x-goog-meta-", "x-amz-meta-");

/// Makes the headers of a request those that `s3s` understands.
pub(crate) fn to_s3(headers: &mut HeaderMap) {
    headers.remove(http::header::AUTHORIZATION);
    for (google, s3) in
        [("x-goog-storage-class", "x-amz-storage-class"), ("x-goog-copy-source", "x-amz-copy-source")]
    {
        if let Some(value) = headers.remove(google) {
            headers.insert(s3, value);
        }
    }
    rename(headers, META.0, META.1);
    let claims: Vec<_> = headers.get_all("x-goog-hash").iter().cloned().collect();
    headers.remove("x-goog-hash");
    for claim in claims.iter().filter_map(|claim| claim.to_str().ok()).flat_map(|claim| claim.split(',')) {
        let (name, value) = match claim.trim().split_once('=') {
            Some(("crc32c", value)) => ("x-amz-checksum-crc32c", value),
            Some(("md5", value)) => ("content-md5", value),
            _ => continue,
        };
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
}

/// Makes the headers of an answer Google's.
pub(crate) fn to_google(headers: &mut HeaderMap) {
    rename(headers, META.1, META.0);
    let foreign = headers.keys().filter(|name| name.as_str().starts_with("x-amz-")).cloned();
    for name in foreign.collect::<Vec<_>>() {
        headers.remove(name);
    }
}

fn rename(headers: &mut HeaderMap, from: &str, to: &str) {
    let names: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with(from)).cloned().collect();
    for name in names {
        let new = HeaderName::try_from(name.as_str().replacen(from, to, 1));
        if let (Some(value), Ok(new)) = (headers.remove(&name), new) {
            headers.insert(new, value);
        }
    }
}

/// When the object was put, in microseconds, as Google counts them.
pub(crate) fn generation(object: &Object) -> u128 {
    object.last_modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()
}

/// What Google says about an object, whole or in part.
pub(crate) fn of_object(object: &Object) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let hashes = object.hashes();
    let md5 = hashes.md5.as_ref().map(|md5| format!("md5={md5}"));
    let class = object.attributes.storage_class.clone();
    for (name, value) in [
        ("x-goog-hash", Some(format!("crc32c={}", hashes.crc32c))),
        ("x-goog-hash", md5),
        ("x-goog-generation", Some(generation(object).to_string())),
        ("x-goog-metageneration", Some("1".to_owned())),
        ("x-goog-stored-content-encoding", Some("identity".to_owned())),
        ("x-goog-stored-content-length", Some(object.content.length().to_string())),
        ("x-goog-storage-class", Some(class.unwrap_or_else(|| "STANDARD".to_owned()))),
    ] {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.append(name, value);
        }
    }
    headers
}
