//! The requests and answers of Google Cloud KMS, with a checksum of each value in both directions.
//!
//! <https://cloud.google.com/kms/docs/data-integrity-guidelines>

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crc_fast::CrcAlgorithm;
use serde_json::Value;
use zeroize::Zeroizing;

pub(super) const PLAINTEXT: &str = "plaintext";
pub(super) const CIPHERTEXT: &str = "ciphertext";
pub(super) const ADDITIONAL_DATA: &str = "additionalAuthenticatedData";

/// Why an answer with status 200 cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It is not an answer of the service.
    Malformed,
    /// The request or the answer changed on its way.
    Corrupted,
}

/// Returns the JSON of a request with these values and their checksums.
pub(super) fn request(values: &[(&str, &[u8])]) -> Zeroizing<String> {
    let length = |(name, value): &(&str, &[u8])| 2 * name.len() + value.len().div_ceil(3) * 4 + 64;
    // Never grows, which would leave a copy of the file key behind.
    let mut json = Zeroizing::new(String::with_capacity(values.iter().map(length).sum()));
    for (name, value) in values {
        let separator = if json.is_empty() { '{' } else { ',' };
        json.push(separator);
        let text = Zeroizing::new(BASE64.encode(value));
        // Writing to a string never fails.
        let _ = write!(json, r#""{name}":"{}","{name}Crc32c":"{}""#, *text, crc32c(value));
    }
    json.push('}');
    json
}

/// Returns the CRC-32C of `bytes`, which is in the lower half.
fn crc32c(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes)
}

/// An answer of the service.
pub(super) struct Answer(Value);

impl Answer {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Unusable> {
        serde_json::from_slice(body).map(Self).map_err(|_| Unusable::Malformed)
    }

    /// Checks that a version of `key` encrypted. The answer may have the project's id in place of its number, or the number
    /// in place of the id.
    pub(super) fn expect_version_of(&self, key: &str) -> Result<(), Unusable> {
        let name = self.0.get("name").and_then(Value::as_str);
        let version = name.and_then(|name| {
            in_project(name)?.strip_prefix(in_project(key)?)?.strip_prefix("/cryptoKeyVersions/")
        });
        version.map(drop).ok_or(Unusable::Malformed)
    }

    /// Whether the primary version of the key decrypted.
    pub(super) fn used_primary(&self) -> bool {
        // The field is left out if it is false.
        self.0.get("usedPrimary").and_then(Value::as_bool).unwrap_or_default()
    }

    /// Checks that the service received the checksum of the value `name` with the request, and that it matched.
    pub(super) fn expect_verified(&self, name: &str) -> Result<(), Unusable> {
        let field = format!("verified{}{}Crc32c", name[..1].to_uppercase(), &name[1..]);
        // The field is left out if it is false.
        let verified = self.0.get(&field).and_then(Value::as_bool).unwrap_or_default();
        if verified { Ok(()) } else { Err(Unusable::Corrupted) }
    }

    /// Returns the value `name`, which must not be empty, after a comparison with its checksum.
    pub(super) fn bytes(&mut self, name: &str) -> Result<Zeroizing<Vec<u8>>, Unusable> {
        let Some(Value::String(text)) = self.0.get_mut(name).map(Value::take) else {
            return Err(Unusable::Malformed);
        };
        let text = Zeroizing::new(text);
        let bytes = BASE64.decode(text.as_bytes()).map(Zeroizing::new).map_err(|_| Unusable::Malformed)?;
        if bytes.is_empty() {
            return Err(Unusable::Malformed);
        }
        // A number of 64 bits is a string in the JSON of Google.
        let checksum = self.0.get(format!("{name}Crc32c"));
        let checksum = checksum.and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
        if checksum == Some(crc32c(&bytes)) { Ok(bytes) } else { Err(Unusable::Corrupted) }
    }
}

/// What follows the project in a name `projects/PROJECT/…`.
fn in_project(name: &str) -> Option<&str> {
    name.strip_prefix("projects/")?.split_once('/').map(|(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The check value of CRC-32C is E3069283.
    const CHECK: (&[u8], &str, u64) = (b"123456789", "MTIzNDU2Nzg5", 0xE306_9283);

    #[test]
    fn request_has_checksums_and_never_grows() {
        let long = vec![7; 70_000];
        for value in [CHECK.0, &long] {
            let json = request(&[(PLAINTEXT, value), (ADDITIONAL_DATA, CHECK.0)]);
            assert!(json.len() <= json.capacity());
            let capacity: usize = [(PLAINTEXT, value), (ADDITIONAL_DATA, CHECK.0)]
                .iter()
                .map(|(name, value)| 2 * name.len() + value.len().div_ceil(3) * 4 + 64)
                .sum();
            assert_eq!(json.capacity(), capacity);
            let parsed: Value = serde_json::from_str(&json).unwrap();
            assert_eq!(parsed[ADDITIONAL_DATA], CHECK.1);
            assert_eq!(parsed["additionalAuthenticatedDataCrc32c"], CHECK.2.to_string());
        }
    }

    #[test]
    fn values_are_compared_with_their_checksums() {
        let read = |value: Value, checksum: Value| {
            let answer = json!({"plaintext": value, "plaintextCrc32c": checksum}).to_string();
            Answer::parse(answer.as_bytes()).and_then(|mut answer| answer.bytes(PLAINTEXT))
        };
        let right = Ok(Zeroizing::new(CHECK.0.to_vec()));
        for checksum in [json!("3808858755"), json!(3_808_858_755_u64)] {
            assert_eq!(read(json!(CHECK.1), checksum), right);
        }
        for checksum in [json!("3808858754"), json!(null), json!("-1"), json!(""), json!("E3069283")] {
            assert_eq!(read(json!(CHECK.1), checksum), Err(Unusable::Corrupted));
        }
        for value in [json!(""), json!("no base64"), json!(7), json!(null)] {
            assert_eq!(read(value, json!("0")), Err(Unusable::Malformed));
        }
    }

    #[test]
    fn other_documents_are_not_answers() {
        for text in ["", "garbage", "{", "[]", "7", "{}", "[{\"plaintext\": \"AAAA\"}]"] {
            let read = Answer::parse(text.as_bytes()).and_then(|mut answer| answer.bytes(PLAINTEXT));
            assert_eq!(read, Err(Unusable::Malformed), "{text}");
        }
    }

    #[test]
    fn service_must_name_the_key_and_confirm_the_checksums() {
        let key = "projects/p/locations/l/keyRings/r/cryptoKeys/k";
        for (name, expected) in [
            (format!("{key}/cryptoKeyVersions/1"), Ok(())),
            (format!("{key}2/cryptoKeyVersions/1"), Err(Unusable::Malformed)),
            (key.to_owned(), Err(Unusable::Malformed)),
            (key.replace("/p/", "/1234/") + "/cryptoKeyVersions/1", Ok(())),
            (key.replace("/l/", "/1234/") + "/cryptoKeyVersions/1", Err(Unusable::Malformed)),
        ] {
            let answer = Answer(json!({ "name": name }));
            assert_eq!(answer.expect_version_of(key), expected, "{name}");
        }
        let field = "verifiedAdditionalAuthenticatedDataCrc32c";
        for (answer, expected) in [
            (json!({ field: true }), Ok(())),
            (json!({ field: false }), Err(Unusable::Corrupted)),
            (json!({}), Err(Unusable::Corrupted)),
        ] {
            assert_eq!(Answer(answer).expect_verified(ADDITIONAL_DATA), expected);
        }
    }
}
