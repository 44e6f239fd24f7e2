//! Decompression of the beginning of a deflated data set.

use flate2::{Decompress, FlushDecompress, Status};

/// Decompresses the beginning of a raw deflate stream to at most `limit` bytes. The second value states whether
/// the stream is damaged after these bytes.
pub(super) fn inflate(deflated: &[u8], limit: usize) -> (Vec<u8>, bool) {
    let mut decompress = Decompress::new(false);
    let mut plain = Vec::new();
    let mut rest = deflated;
    while plain.len() < limit {
        let before = (decompress.total_in(), plain.len());
        plain.reserve_exact(plain.len().max(4096).min(limit - plain.len()));
        let status = decompress.decompress_vec(rest, &mut plain, FlushDecompress::None);
        let consumed = usize::try_from(decompress.total_in() - before.0).unwrap_or(usize::MAX);
        rest = rest.get(consumed..).unwrap_or_default();
        match status {
            Ok(Status::StreamEnd) => break,
            Ok(Status::Ok | Status::BufError) if (decompress.total_in(), plain.len()) == before => break,
            Ok(Status::Ok | Status::BufError) => {}
            Err(_) => return (plain, true),
        }
    }
    plain.truncate(limit);
    (plain, false)
}
