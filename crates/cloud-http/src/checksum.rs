//! Checksums of objects, as reported by the clouds.
//!
//! | cloud | header | checksum |
//! | --- | --- | --- |
//! | S3 | `x-amz-checksum-crc64nvme`, if requested with `x-amz-checksum-mode` | CRC-64/NVME, big-endian |
//! | Google | `x-goog-hash: crc32c=…` | CRC-32C (Castagnoli), big-endian |
//! | Azure | `x-ms-blob-content-md5` with ranges, otherwise `Content-MD5` | MD5, only of blobs that were stored with one request |
//! | Azure, when it has stored a blob | `x-ms-content-crc64` | CRC-64/NVME, little-endian |
//!
//! All are in base64 and cover the whole object. Google and Azure send them with ranges too, where they are useless
//! unless the range is the whole object. S3 does not; see [`Hasher`].
//!
//! All three clouds also send them when they have stored an object with one request. The answers to the requests of an
//! upload in parts have checksums of something else: in Azure's last one, for example, of the list of parts.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crc_fast::{CrcAlgorithm, Digest};
use http::{HeaderMap, HeaderName, HeaderValue};
use md5::{Digest as _, Md5};

const AMAZON: HeaderName = HeaderName::from_static("x-amz-checksum-crc64nvme");
const AZURE: HeaderName = HeaderName::from_static("content-md5");
const AZURE_STORED: HeaderName = HeaderName::from_static("x-ms-content-crc64");
const AZURE_RANGE: HeaderName = HeaderName::from_static("x-ms-blob-content-md5");
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
        if let Some(bytes) = value(AZURE_STORED) {
            return Some(Self::Crc64Nvme(u64::from_le_bytes(bytes)));
        }
        let google = headers.get_all(GOOGLE).iter().filter_map(|value| value.to_str().ok());
        let hashes = google.flat_map(|value| value.split(','));
        if let Some(bytes) =
            hashes.filter_map(|hash| hash.trim().strip_prefix("crc32c=")).find_map(decode::<4>)
        {
            return Some(Self::Crc32c(u32::from_be_bytes(bytes)));
        }
        let azure = headers.get(AZURE_RANGE).or_else(|| headers.get(AZURE))?;
        decode::<16>(azure.to_str().ok()?).map(Self::Md5)
    }

    /// Returns the MD5 that an `ETag` may be. S3's is one if the object was stored in one request and not encrypted by
    /// the server with a key of KMS. If it is something else, the object has a different MD5.
    pub fn of_e_tag(e_tag: &str) -> Option<Self> {
        hexadecimal(e_tag).map(Self::Md5)
    }

    /// Returns the name of the algorithm.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc64Nvme(_) => "CRC-64/NVME",
            Self::Crc32c(_) => "CRC-32C",
            Self::Md5(_) => "MD5",
        }
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

/// Whether the ETag of an object on S3 cannot be its MD5: with SSE-KMS, DSSE-KMS and SSE-C (S3's "Common response headers").
pub(crate) fn has_other_e_tag(headers: &HeaderMap) -> bool {
    let algorithm = headers.get("x-amz-server-side-encryption");
    algorithm.is_some_and(|algorithm| algorithm.as_bytes().starts_with(b"aws:kms"))
        || headers.contains_key("x-amz-server-side-encryption-customer-algorithm")
}

/// Returns the MD5 in the headers of a response: Google sends it together with a CRC-32C.
pub(crate) fn md5_of_answer(headers: &HeaderMap) -> Option<[u8; 16]> {
    if let Some(Checksum::Md5(md5)) = Checksum::of_answer(headers) {
        return Some(md5);
    }
    let google = headers.get_all(GOOGLE).iter().filter_map(|value| value.to_str().ok());
    let mut hashes = google.flat_map(|value| value.split(','));
    hashes.find_map(|hash| decode(hash.trim().strip_prefix("md5=")?))
}

impl fmt::Display for Checksum {
    /// Writes the name of the algorithm.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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

/// Computes checksums of an object before it is known which one the server has.
#[derive(Clone)]
pub struct Hasher {
    crc64: Digest,
    /// The MD5 that the object has according to its `ETag`, and that of the bytes so far.
    md5: Option<([u8; 16], Md5)>,
}

impl Hasher {
    /// Begins with the object of this `ETag`, which may be an MD5 (see [`Checksum::of_e_tag`]). MD5 is slow, so that
    /// `with_md5` should be false for large objects.
    pub fn new(e_tag: Option<&str>, with_md5: bool) -> Self {
        let expected = e_tag.and_then(hexadecimal).filter(|_| with_md5);
        Self {
            crc64: Digest::new(CrcAlgorithm::Crc64Nvme),
            md5: expected.map(|expected| (expected, Md5::new())),
        }
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.crc64.update(bytes);
        if let Some((_, digest)) = &mut self.md5 {
            digest.update(bytes);
        }
    }

    /// Returns the MD5 of the bytes so far; `None` if the `ETag` cannot be compared with it.
    pub fn md5(&self) -> Option<[u8; 16]> {
        self.md5.as_ref().map(|(_, digest)| digest.clone().finalize().into())
    }

    /// Returns the CRC-64/NVME of the bytes so far.
    pub fn checksum(&self) -> Checksum {
        Checksum::Crc64Nvme(self.crc64.finalize())
    }

    /// Whether the `ETag` is the MD5 of the bytes. If not, it may be something else.
    pub fn fits_e_tag(&self) -> bool {
        self.md5.as_ref().is_some_and(|(expected, digest)| digest.clone().finalize()[..] == *expected)
    }

    /// Whether the bytes have this checksum; `None` if it is not one that was computed.
    pub fn fits(&self, checksum: Checksum) -> Option<bool> {
        match checksum {
            Checksum::Crc64Nvme(expected) => Some(self.crc64.finalize() == expected),
            _ => None,
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").finish_non_exhaustive()
    }
}

/// Parses an `ETag` of 32 hexadecimal digits.
fn hexadecimal(e_tag: &str) -> Option<[u8; 16]> {
    let digits = e_tag.trim_start_matches("W/").trim_matches('"');
    if digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(digits, 16).ok().map(u128::to_be_bytes)
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
            answer(&[(AZURE, md5.to_owned()), (AZURE_STORED, "iJh5CoYUi64=".to_owned())]),
        ];
        let names = answers.each_ref().map(|headers| {
            let checksum = Checksum::of_answer(headers).unwrap();
            assert!(is_right(checksum, CHECK), "{checksum}");
            assert!(!is_right(checksum, b"123456780"), "{checksum}");
            assert!(!is_right(checksum, b""), "{checksum}");
            checksum.to_string()
        });
        assert_eq!(names, ["CRC-64/NVME", "CRC-32C", "MD5", "CRC-64/NVME"]);
        let md5s = answers
            .map(|headers| md5_of_answer(&headers).is_some_and(|md5| is_right(Checksum::Md5(md5), CHECK)));
        assert_eq!(md5s, [false, true, true, false]);
    }

    #[test]
    fn checksum_of_the_object_counts_with_a_range() {
        let md5 = |name, value: &str| (name, value.to_owned());
        let headers =
            answer(&[md5(AZURE, "AAAAAAAAAAAAAAAAAAAAAA=="), md5(AZURE_RANGE, "JfnnlDI7RTiF9RgfG2JNCw==")]);
        assert!(is_right(Checksum::of_answer(&headers).unwrap(), CHECK));
    }

    #[test]
    fn e_tag_may_be_an_md5() {
        let md5 = "25f9e794323b453885f5181f1b624d0b";
        for (e_tag, with_md5, expected) in [
            (Some(format!("\"{md5}\"")), true, true),
            (Some(md5.to_uppercase()), true, true),
            (Some(format!("W/\"{md5}\"")), true, true),
            (Some(format!("\"{md5}\"")), false, false),
            (Some(format!("\"{}\"", md5.replace('2', "3"))), true, false),
            (Some(format!("\"{md5}-1\"")), true, false),
            (Some("\"+5f9e794323b453885f5181f1b624d0b\"".to_owned()), true, false),
            (None, true, false),
        ] {
            let is_md5 =
                e_tag.as_deref().and_then(Checksum::of_e_tag).is_some_and(|md5| is_right(md5, CHECK));
            assert_eq!(is_md5 && with_md5, expected, "{e_tag:?}");
            let mut hasher = Hasher::new(e_tag.as_deref(), with_md5);
            CHECK.chunks(4).for_each(|chunk| hasher.update(chunk));
            assert_eq!(hasher.fits_e_tag(), expected, "{e_tag:?}");
            assert_eq!(hasher.fits(Checksum::Crc64Nvme(CRC64_NVME)), Some(true));
            assert_eq!(hasher.fits(Checksum::Crc64Nvme(CRC64_NVME + 1)), Some(false));
            assert_eq!(hasher.fits(Checksum::Crc32c(CRC32C)), None);
        }
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
