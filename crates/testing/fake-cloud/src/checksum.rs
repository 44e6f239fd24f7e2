//! The checksums of bodies.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crc_fast::CrcAlgorithm;
use s3s::crypto::{Checksum as _, Md5};

/// Returns the CRC-64/NVME of `bytes`.
pub(crate) fn crc64nvme(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

/// Returns a CRC-64/NVME as S3 writes it in headers: base64 of the big-endian bytes.
pub(crate) fn crc64nvme_header(crc: u64) -> String {
    BASE64.encode(crc.to_be_bytes())
}

/// Azure's header with the CRC-64 of a request's body.
pub(crate) const CONTENT_CRC64: &str = "x-ms-content-crc64";

/// Returns the CRC-64 of `bytes` as Azure writes it in [`CONTENT_CRC64`]: base64 of the little-endian bytes.
pub(crate) fn azure_crc64_header(bytes: &[u8]) -> String {
    BASE64.encode(crc64nvme(bytes).to_le_bytes())
}

/// Returns the CRC-32C of `bytes` as Google writes it in headers: base64 of the big-endian bytes.
pub(crate) fn crc32c_header(bytes: &[u8]) -> String {
    // A 32-bit CRC is in the low half.
    BASE64.encode(&crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes).to_be_bytes()[4..])
}

/// Returns the MD5 of `bytes` in hexadecimal digits.
pub(crate) fn md5_etag(bytes: &[u8]) -> String {
    format!("{:032x}", u128::from_be_bytes(Md5::checksum(bytes)))
}

/// Returns the SHA-256 of `bytes` in base64.
pub(crate) fn sha256_header(bytes: &[u8]) -> String {
    BASE64.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
}

/// Returns the MD5 of `bytes` in base64.
pub(crate) fn md5_header(bytes: &[u8]) -> String {
    BASE64.encode(Md5::checksum(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_the_published_check_values() {
        let bytes = b"123456789";
        assert_eq!(crc64nvme_header(crc64nvme(bytes)), "rosUhgp5mIg=");
        assert_eq!(azure_crc64_header(bytes), "iJh5CoYUi64=");
        assert_eq!(crc32c_header(bytes), "4waSgw==");
        assert_eq!(md5_header(bytes), "JfnnlDI7RTiF9RgfG2JNCw==");
    }
}
