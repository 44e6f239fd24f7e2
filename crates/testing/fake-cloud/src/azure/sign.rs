//! Azure's signatures, made here: Shared Key for requests, account and service SAS for addresses.
//!
//! <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>,
//! <https://learn.microsoft.com/rest/api/storageservices/create-account-sas>

use std::fmt;
use std::fmt::Write as _;
use std::time::SystemTime;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};
use percent_encoding::percent_decode_str;

use crate::azure::options::Sas;

/// The protocol version of our own requests and signatures, which `object_store` uses too.
pub(crate) const VERSION: &str = "2023-11-03";

/// What Azure signs of the standard headers, in this order.
const SIGNED: [header::HeaderName; 11] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::HeaderName::from_static("content-md5"),
    header::CONTENT_TYPE,
    header::DATE,
    header::IF_MODIFIED_SINCE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
];

/// An account with its key.
#[derive(Clone)]
pub(crate) struct Signer {
    account: String,
    key: hmac::Key,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("account", &self.account).finish_non_exhaustive()
    }
}

impl Signer {
    /// With a key that is no base64, signatures are wrong, as a test may want it.
    pub(crate) fn new(account: &str, key: &str) -> Self {
        let key = BASE64.decode(key).unwrap_or_default();
        Self { account: account.to_owned(), key: hmac::Key::new(hmac::HMAC_SHA256, &key) }
    }

    fn mac(&self, text: &str) -> String {
        BASE64.encode(hmac::sign(&self.key, text.as_bytes()))
    }

    /// Adds date, version and authorization to a request that is otherwise complete.
    pub(crate) fn authorize(&self, head: &mut Parts) {
        let date = httpdate::fmt_http_date(SystemTime::now());
        for (name, value) in [("x-ms-date", date.as_str()), ("x-ms-version", VERSION)] {
            insert(&mut head.headers, name, value);
        }
        let value = format!("SharedKey {}:{}", self.account, self.mac(&self.string_to_sign(head)));
        insert(&mut head.headers, "authorization", &value);
    }

    fn string_to_sign(&self, head: &Parts) -> String {
        let mut text = format!("{}\n", head.method);
        for name in SIGNED {
            let value = head.headers.get(&name).and_then(|value| value.to_str().ok());
            // An empty body counts as one without a length.
            text.push_str(
                value.filter(|value| name != header::CONTENT_LENGTH || *value != "0").unwrap_or(""),
            );
            text.push('\n');
        }
        let own = head.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-ms-"));
        let mut own: Vec<_> =
            own.map(|(name, value)| (name.as_str(), value.to_str().unwrap_or(""))).collect();
        own.sort_unstable();
        for (name, value) in own {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name}:{value}");
        }
        let _ = write!(text, "/{}{}", self.account, head.uri.path());
        let mut query: Vec<_> = head.uri.query().map(pairs).unwrap_or_default();
        query.sort_unstable();
        for (name, value) in query {
            let _ = write!(text, "\n{name}:{value}");
        }
        text
    }

    /// For the account's containers and blobs.
    pub(crate) fn account_sas(&self, sas: &Sas) -> String {
        let (start, expiry) = (sas.start.map(iso).unwrap_or_default(), iso(sas.expiry));
        let permissions = &sas.permissions;
        let text = format!("{}\n{permissions}\nb\nsco\n{start}\n{expiry}\n\n\n{VERSION}\n\n", self.account);
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("sv", VERSION).append_pair("ss", "b").append_pair("srt", "sco");
        self.finish(query, sas, &text)
    }

    /// For one container and its blobs.
    pub(crate) fn service_sas(&self, container: &str, sas: &Sas) -> String {
        let (start, expiry) = (sas.start.map(iso).unwrap_or_default(), iso(sas.expiry));
        let resource = format!("/blob/{}/{container}", self.account);
        // Identifier, address and protocol; then snapshot, encryption scope and five headers of the answer.
        let text =
            format!("{}\n{start}\n{expiry}\n{resource}\n\n\n\n{VERSION}\nc\n\n\n\n\n\n\n", sas.permissions);
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("sv", VERSION).append_pair("sr", "c");
        self.finish(query, sas, &text)
    }

    fn finish(
        &self,
        mut query: url::form_urlencoded::Serializer<'_, String>,
        sas: &Sas,
        string_to_sign: &str,
    ) -> String {
        query.append_pair("sp", &sas.permissions);
        if let Some(start) = sas.start {
            query.append_pair("st", &iso(start));
        }
        query.append_pair("se", &iso(sas.expiry)).append_pair("sig", &self.mac(string_to_sign)).finish()
    }
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The pairs of a query, decoded, names in lower case.
fn pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(name, value)| (decode(name).to_ascii_lowercase(), decode(value))).collect()
}

/// A time as ISO 8601 with whole seconds, such as `2026-01-31T23:59:59Z`.
pub(crate) fn iso(time: SystemTime) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // `Sat, 31 Jan 2026 23:59:59 GMT`
    let date = httpdate::fmt_http_date(time);
    let mut words = date.split(' ').skip(1);
    let mut word = || words.next().unwrap_or_default();
    let (day, month, year, clock) = (word(), word(), word(), word());
    let month = MONTHS.iter().position(|name| *name == month).map_or(0, |index| index + 1);
    format!("{year}-{month:02}-{day}T{clock}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_written_as_azure_reads_them() {
        assert_eq!(iso(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00Z");
        assert_eq!(iso(SystemTime::UNIX_EPOCH + Duration::from_secs(1_709_251_199)), "2024-02-29T23:59:59Z");
    }

    #[test]
    fn a_query_is_signed_decoded() {
        let expected = [("comp", "list"), ("prefix", "a b/c"), ("x", "")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(pairs("Comp=list&prefix=a%20b%2Fc&x"), expected);
    }
}
