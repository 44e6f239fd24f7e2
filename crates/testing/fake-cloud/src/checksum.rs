//! Checksums of bodies while they arrive: the one that every object gets, and those that the client sent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use http::HeaderMap;
use s3s::crypto::{Checksum as _, Md5, Sha1, Sha256};

/// A checksum that the client sent and that the body does not have.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Mismatch {
    #[error("the {0} of the body is not the one in the request")]
    Differs(&'static str),
    #[error("the {0} in the request is not base64 of the right length")]
    Malformed(&'static str),
}

/// The checksums a client sent with a body, in base64.
#[derive(Debug, Default)]
pub(crate) struct Claimed {
    pub(crate) crc64nvme: Option<String>,
    pub(crate) crc32: Option<String>,
    pub(crate) crc32c: Option<String>,
    pub(crate) sha1: Option<String>,
    pub(crate) sha256: Option<String>,
    pub(crate) md5: Option<String>,
}

impl Claimed {
    /// Takes what came in the trailer of an `aws-chunked` body.
    pub(crate) fn add_trailer(&mut self, trailer: &HeaderMap) {
        let value = |name: &str| trailer.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        for (field, name) in [
            (&mut self.crc64nvme, "x-amz-checksum-crc64nvme"),
            (&mut self.crc32, "x-amz-checksum-crc32"),
            (&mut self.crc32c, "x-amz-checksum-crc32c"),
            (&mut self.sha1, "x-amz-checksum-sha1"),
            (&mut self.sha256, "x-amz-checksum-sha256"),
        ] {
            if let Some(value) = value(name) {
                *field = Some(value);
            }
        }
    }

    /// Holds every claim against the whole body. CRC64NVME is known already, the rest is computed only where claimed.
    pub(crate) fn check(&self, body: &[u8], crc64nvme: u64) -> Result<(), Mismatch> {
        let crc32 = |algorithm| {
            // A 32-bit CRC in the low half.
            crc_fast::checksum(algorithm, body).to_be_bytes()[4..].to_vec()
        };
        check("CRC64NVME", self.crc64nvme.as_deref(), || crc64nvme.to_be_bytes().to_vec())?;
        check("CRC32", self.crc32.as_deref(), || crc32(CrcAlgorithm::Crc32IsoHdlc))?;
        check("CRC32C", self.crc32c.as_deref(), || crc32(CrcAlgorithm::Crc32Iscsi))?;
        check("SHA1", self.sha1.as_deref(), || Sha1::checksum(body).to_vec())?;
        check("SHA256", self.sha256.as_deref(), || Sha256::checksum(body).to_vec())?;
        check("MD5", self.md5.as_deref(), || Md5::checksum(body).to_vec())
    }
}

fn check(name: &'static str, claim: Option<&str>, actual: impl FnOnce() -> Vec<u8>) -> Result<(), Mismatch> {
    let Some(claim) = claim else { return Ok(()) };
    let claim = BASE64.decode(claim).map_err(|_| Mismatch::Malformed(name))?;
    let actual = actual();
    if claim.len() != actual.len() {
        return Err(Mismatch::Malformed(name));
    }
    if claim == actual { Ok(()) } else { Err(Mismatch::Differs(name)) }
}

/// A CRC64NVME in the making.
#[derive(Debug)]
pub(crate) struct Crc64Nvme(Digest);

impl Crc64Nvme {
    pub(crate) fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc64Nvme))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(&self) -> u64 {
        self.0.finalize()
    }
}

/// The CRC64NVME of `bytes`.
pub(crate) fn crc64nvme(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

/// The CRC64NVME of two runs of bytes one after the other.
pub(crate) fn combine(first: u64, second: u64, second_length: u64) -> u64 {
    crc_fast::checksum_combine(CrcAlgorithm::Crc64Nvme, first, second, second_length)
}

/// A CRC64NVME as S3 writes it in headers: base64 of the big-endian bytes.
pub(crate) fn to_header(crc64nvme: u64) -> String {
    BASE64.encode(crc64nvme.to_be_bytes())
}

/// The CRC32C of some bytes one after the other, as Google writes it: base64 of the big-endian bytes.
pub(crate) fn crc32c_header(pieces: &[Bytes]) -> String {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    pieces.iter().for_each(|piece| digest.update(piece));
    // A 32-bit CRC in the low half.
    BASE64.encode(&digest.finalize().to_be_bytes()[4..])
}

/// The MD5 of `bytes` in base64.
pub(crate) fn md5_header(bytes: &[u8]) -> String {
    BASE64.encode(Md5::checksum(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc64nvme_is_that_of_the_published_check_value() {
        assert_eq!(crc64nvme(b"123456789"), 0xae8b_1486_0a79_9888);
        assert_eq!(to_header(0xae8b_1486_0a79_9888), "rosUhgp5mIg=");
    }

    #[test]
    fn the_crc_of_two_parts_is_that_of_the_whole() {
        assert_eq!(combine(crc64nvme(b"1234"), crc64nvme(b"56789"), 5), crc64nvme(b"123456789"));
    }

    #[test]
    fn a_claim_that_does_not_hold_is_found_for_every_algorithm() {
        let body = b"123456789";
        let sums = [
            ("CRC32", "y/Q5Jg=="),
            ("CRC32C", "4waSgw=="),
            ("SHA1", "98O8HYCOBHMq32eZZczDTKeuNEE="),
            ("SHA256", "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU="),
            ("MD5", "JfnnlDI7RTiF9RgfG2JNCw=="),
            ("CRC64NVME", "rosUhgp5mIg="),
        ];
        for (name, sum) in sums {
            let mut claimed = Claimed::default();
            let field = match name {
                "CRC32" => &mut claimed.crc32,
                "CRC32C" => &mut claimed.crc32c,
                "SHA1" => &mut claimed.sha1,
                "SHA256" => &mut claimed.sha256,
                "MD5" => &mut claimed.md5,
                _ => &mut claimed.crc64nvme,
            };
            *field = Some(sum.to_owned());
            assert!(claimed.check(body, crc64nvme(body)).is_ok(), "{name}");
            assert!(
                matches!(claimed.check(b"12345678", crc64nvme(b"12345678")), Err(Mismatch::Differs(_))),
                "{name}"
            );
        }
    }
}
