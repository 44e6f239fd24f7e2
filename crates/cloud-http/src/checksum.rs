//! Checksums of objects, as reported by the clouds.
//!
//! | cloud | header | checksum |
//! | --- | --- | --- |
//! | S3 | `x-amz-checksum-crc64nvme`, if requested with `x-amz-checksum-mode` | CRC-64/NVME, big-endian |
//! | Google | `x-goog-hash: crc32c=…` | CRC-32C (Castagnoli), big-endian |
//! | Azure | `Content-MD5` | MD5, only of blobs that were stored with one request |
//!
//! All are in base64 and cover the whole object. Google sends its checksum with ranges too, where it is
//! useless.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crc_fast::{CrcAlgorithm, Digest};
use http::{HeaderMap, HeaderName, HeaderValue};
use md5::{Digest as _, Md5};

const AMAZON: HeaderName = HeaderName::from_static("x-amz-checksum-crc64nvme");
const AZURE: HeaderName = HeaderName::from_static("content-md5");
/// Google's header for checksums in requests and responses.
pub(crate) const GOOGLE: HeaderName = HeaderName::from_static("x-goog-hash");

/// The checksum of a whole object, as reported by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// CRC-64/NVME.
    Crc64Nvme(u64),
    /// CRC-32C.
    Crc32c(u32),
    /// MD5 (RFC 1321), which detects faults but not attacks.
    Md5([u8; 16]),
}

impl Checksum {
    /// Returns the checksum in the headers of a response that is cheapest to verify.
    pub(crate) fn of_answer(headers: &HeaderMap) -> Option<Self> {
        let value = |name| decode::<8>(headers.get(name)?.to_str().ok()?);
        if let Some(bytes) = value(AMAZON) {
            return Some(Self::Crc64Nvme(u64::from_be_bytes(bytes)));
        }
        let google = headers.get_all(GOOGLE).iter().filter_map(|value| value.to_str().ok());
        let hashes = google.flat_map(|value| value.split(','));
        if let Some(bytes) =
            hashes.filter_map(|hash| hash.trim().strip_prefix("crc32c=")).find_map(decode::<4>)
        {
            return Some(Self::Crc32c(u32::from_be_bytes(bytes)));
        }
        decode::<16>(headers.get(AZURE)?.to_str().ok()?).map(Self::Md5)
    }

    /// Returns a verifier for the bytes of the object.
    pub fn verifier(self) -> Verifier {
        let running = match self {
            Self::Crc64Nvme(_) => Running::Crc(Digest::new(CrcAlgorithm::Crc64Nvme)),
            Self::Crc32c(_) => Running::Crc(Digest::new(CrcAlgorithm::Crc32Iscsi)),
            Self::Md5(_) => Running::Md5(Md5::new()),
        };
        Verifier { expected: self, running }
    }
}

impl fmt::Display for Checksum {
    /// Writes the name of the algorithm.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crc64Nvme(_) => "CRC-64/NVME",
            Self::Crc32c(_) => "CRC-32C",
            Self::Md5(_) => "MD5",
        })
    }
}

fn decode<const LENGTH: usize>(text: &str) -> Option<[u8; LENGTH]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

/// Compares bytes with a [`Checksum`].
pub struct Verifier {
    expected: Checksum,
    running: Running,
}

#[expect(
    clippy::large_enum_variant,
    reason = "the large variant is the common one, and each read has only one value"
)]
enum Running {
    Crc(Digest),
    Md5(Md5),
}

impl Verifier {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.running {
            Running::Crc(digest) => digest.update(bytes),
            Running::Md5(digest) => digest.update(bytes),
        }
    }

    /// Returns the expected checksum.
    pub fn expected(&self) -> Checksum {
        self.expected
    }

    /// Whether the bytes so far have the expected checksum.
    pub fn is_right(&self) -> bool {
        match (&self.running, self.expected) {
            (Running::Crc(digest), Checksum::Crc64Nvme(expected)) => digest.finalize() == expected,
            (Running::Crc(digest), Checksum::Crc32c(expected)) => digest.finalize() == u64::from(expected),
            (Running::Md5(digest), Checksum::Md5(expected)) => digest.clone().finalize()[..] == expected,
            _ => false,
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("expected", &self.expected).finish_non_exhaustive()
    }
}

/// Returns the value of Google's header for an upload of `chunks`.
pub(crate) fn google_hash<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Option<HeaderValue> {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    chunks.for_each(|chunk| digest.update(chunk));
    // CRC-32C has 32 bits.
    let crc = u32::try_from(digest.finalize()).ok()?;
    HeaderValue::from_str(&format!("crc32c={}", BASE64.encode(crc.to_be_bytes()))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The input of the check values in the catalogue of CRC algorithms.
    const CHECK: &[u8] = b"123456789";
    const CRC64_NVME: u64 = 0xAE8B_1486_0A79_9888;
    const CRC32C: u32 = 0xE306_9283;

    fn answer(headers: &[(HeaderName, String)]) -> HeaderMap {
        headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn is_right(checksum: Checksum, bytes: &[u8]) -> bool {
        let mut verifier = checksum.verifier();
        let (start, end) = bytes.split_at(bytes.len() / 2);
        verifier.update(start);
        verifier.update(end);
        verifier.is_right()
    }

    #[test]
    fn checksum_of_each_cloud_is_verified() {
        let md5 = "JfnnlDI7RTiF9RgfG2JNCw==";
        let answers = [
            answer(&[(AMAZON, BASE64.encode(CRC64_NVME.to_be_bytes()))]),
            answer(&[(GOOGLE, format!("crc32c={},md5={md5}", BASE64.encode(CRC32C.to_be_bytes())))]),
            answer(&[(AZURE, md5.to_owned())]),
        ];
        let names = answers.map(|headers| {
            let checksum = Checksum::of_answer(&headers).unwrap();
            assert!(is_right(checksum, CHECK), "{checksum}");
            assert!(!is_right(checksum, b"123456780"), "{checksum}");
            assert!(!is_right(checksum, b""), "{checksum}");
            checksum.to_string()
        });
        assert_eq!(names, ["CRC-64/NVME", "CRC-32C", "MD5"]);
    }

    #[test]
    fn google_may_use_two_headers() {
        let mut headers = answer(&[(GOOGLE, "md5=JfnnlDI7RTiF9RgfG2JNCw==".to_owned())]);
        headers.append(GOOGLE, "crc32c=4waSgw==".parse().unwrap());
        assert_eq!(Checksum::of_answer(&headers), Some(Checksum::Crc32c(CRC32C)));
        assert_eq!(google_hash([&CHECK[..4], &CHECK[4..]].into_iter()).unwrap(), "crc32c=4waSgw==");
    }

    #[test]
    fn invalid_checksums_are_ignored() {
        for headers in [
            answer(&[]),
            answer(&[(AMAZON, "%".to_owned())]),
            answer(&[(GOOGLE, "crc32c=AAA=".to_owned())]),
            answer(&[(AZURE, "AAAA".to_owned())]),
        ] {
            assert_eq!(Checksum::of_answer(&headers), None, "{headers:?}");
        }
    }
}
