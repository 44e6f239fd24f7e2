//! Envelopes for uploads, in pieces of memory that are used again: made while the upload proceeds, where the format allows it.

use std::ops::Range;
use std::sync::Arc;

use bucket::{Payload, Source, SourceError};
use bytes::Bytes;
use cloud_http::pieces::{self, PIECE};
use crypto_envelope::{A2Envelope, EncryptError, Encryptor};

/// Envelopes of up to this size, in bytes, are made at once, on Orthanc's thread: requests with them are prepared on the
/// network's thread.
const SMALL: u64 = 1024 * 1024;
/// More than the bytes before and after the ciphertext.
const MARGIN: usize = 128;

/// An A2 envelope, of which an upload asks for ranges, again for a retry. Holds the plaintext, and no ciphertext.
#[derive(Debug)]
struct Sealed(A2Envelope<Bytes>);

impl Sealed {
    fn pieces(&self, range: Range<u64>) -> Result<Vec<Bytes>, EncryptError> {
        let mut pieces = Vec::new();
        let mut position = range.start;
        while position < range.end {
            let end = self.0.end_of_range(position, PIECE).min(range.end);
            let len = usize::try_from(end - position).unwrap_or(PIECE).min(PIECE);
            pieces.push(pieces::filled(len, |out| self.fill(position, out))?);
            position += len as u64;
        }
        Ok(pieces)
    }

    /// Overwrites all of `out`, which has other content before.
    fn fill(&self, start: u64, out: &mut [u8]) -> Result<(), EncryptError> {
        let wanted = out.len();
        if self.0.write(start, out)? == wanted {
            return Ok(());
        }
        Err(EncryptError::TooLarge { len: start.saturating_add(wanted as u64) })
    }
}

impl Source for Sealed {
    fn size(&self) -> u64 {
        self.0.envelope_len()
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<Bytes>, SourceError> {
        Ok(self.pieces(range.start..range.end.min(self.size()))?)
    }
}

/// The payload of an upload.
pub(super) fn a2(envelope: A2Envelope<Bytes>) -> Result<Payload, EncryptError> {
    let sealed = Sealed(envelope);
    let size = sealed.size();
    if size > SMALL {
        return Ok(Payload::Made(Arc::new(sealed)));
    }
    sealed.pieces(0..size).map(|pieces| Payload::Pieces(pieces.into()))
}

/// The payload of an envelope that is only made as a whole. `begin` begins it, and appends its first bytes.
pub(super) fn whole(
    begin: impl FnOnce(&mut Vec<u8>) -> Result<Encryptor, EncryptError>,
    content: &[u8],
) -> Result<Payload, EncryptError> {
    let mut pieces = Vec::new();
    let mut begin = Some(begin);
    let mut encryptor = None;
    let mut rest = content;
    loop {
        let (chunk, after) = rest.split_at(rest.len().min(PIECE - MARGIN));
        let piece = pieces::appended(chunk.len() + MARGIN, |buffer| {
            let mut current = match (encryptor.take(), begin.take()) {
                (None, Some(begin)) => begin(buffer)?,
                (Some(current), _) => current,
                (None, None) => return Err(EncryptError::AlreadyFailed),
            };
            current.push(chunk, buffer)?;
            if after.is_empty() {
                return current.finish(buffer);
            }
            encryptor = Some(current);
            Ok(())
        })?;
        pieces.push(piece);
        rest = after;
        if rest.is_empty() {
            return Ok(Payload::Pieces(pieces.into()));
        }
    }
}

#[cfg(test)]
mod tests;
