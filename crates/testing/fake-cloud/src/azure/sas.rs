//! Shared access signatures.
//!
//! <https://learn.microsoft.com/rest/api/storageservices/create-account-sas>,
//! <https://learn.microsoft.com/rest/api/storageservices/create-service-sas>

use std::time::SystemTime;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::azure::options::Sas;

/// The protocol version of signatures and of this crate's own requests, the one that `object_store` uses.
pub(crate) const VERSION: &str = "2023-11-03";

/// Signs for all containers and blobs of an account.
pub(crate) fn of_account(account: &str, key: &str, sas: &Sas) -> String {
    let expiry = iso(sas.expiry);
    let text = format!("{account}\n{}\nb\nsco\n\n{expiry}\n\n\n{VERSION}\n\n", sas.permissions);
    query(&[("ss", "b"), ("srt", "sco")], sas, &mac(key, &text))
}

/// Signs for one container and its blobs.
pub(crate) fn of_container(account: &str, key: &str, container: &str, sas: &Sas) -> String {
    let expiry = iso(sas.expiry);
    let resource = format!("/blob/{account}/{container}");
    // Empty lines: identifier, address and protocol; then snapshot, encryption scope and five headers of the
    // answer.
    let text = format!("{}\n\n{expiry}\n{resource}\n\n\n\n{VERSION}\nc\n\n\n\n\n\n\n", sas.permissions);
    query(&[("sr", "c")], sas, &mac(key, &text))
}

/// A key that is not base64 gives a wrong signature, which tests may want.
fn mac(key: &str, text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64.decode(key).unwrap_or_default());
    BASE64.encode(hmac::sign(&key, text.as_bytes()))
}

fn query(kind: &[(&str, &str)], sas: &Sas, signature: &str) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("sv", VERSION).extend_pairs(kind).append_pair("sp", &sas.permissions);
    query.append_pair("se", &iso(sas.expiry)).append_pair("sig", signature).finish()
}

/// Returns a time as ISO 8601 with whole seconds, such as `2026-01-31T23:59:59Z`.
pub(crate) fn iso(time: SystemTime) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // `Sat, 31 Jan 2026 23:59:59 GMT`
    let date = httpdate::fmt_http_date(time);
    let words: Vec<_> = date.split(' ').collect();
    let [_, day, month, year, clock, _] = words.as_slice() else { return String::new() };
    let month = MONTHS.iter().position(|name| name == month).map_or(0, |index| index + 1);
    format!("{year}-{month:02}-{day}T{clock}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_iso_8601() {
        assert_eq!(iso(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00Z");
        assert_eq!(iso(SystemTime::UNIX_EPOCH + Duration::from_secs(1_709_251_199)), "2024-02-29T23:59:59Z");
    }
}
