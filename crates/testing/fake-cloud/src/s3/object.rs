//! One stored object: its content and what the client said about it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};

use crate::checksum;
use crate::stored::StoredObject;

/// Content in pieces: one for a plain upload, one for each part of a multipart upload. Never copied once here.
#[derive(Clone)]
pub(crate) struct Content {
    pieces: Vec<Bytes>,
    length: u64,
    crc64nvme: u64,
}

impl Content {
    pub(crate) fn new(bytes: Bytes, crc64nvme: u64) -> Self {
        Self { length: bytes.len() as u64, pieces: vec![bytes], crc64nvme }
    }

    /// Content whose CRC is yet unknown.
    pub(crate) fn of(bytes: Bytes) -> Self {
        let crc = checksum::crc64nvme(&bytes);
        Self::new(bytes, crc)
    }

    /// The parts one after the other.
    pub(crate) fn joined<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut parts = parts.into_iter();
        let Some(first) = parts.next() else { return Self::of(Bytes::new()) };
        parts.fold(first.clone(), |mut whole, part| {
            whole.pieces.extend_from_slice(&part.pieces);
            whole.crc64nvme = checksum::combine(whole.crc64nvme, part.crc64nvme, part.length);
            whole.length += part.length;
            whole
        })
    }

    /// Bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn checksum(&self) -> String {
        checksum::to_header(self.crc64nvme)
    }

    /// An ETag that depends on the content alone, at the price of a CRC.
    pub(crate) fn etag(&self) -> String {
        format!("{:016x}{:016x}", self.crc64nvme, self.length)
    }

    /// Everything in one piece; copies only what came in parts.
    pub(crate) fn to_bytes(&self) -> Bytes {
        if let [piece] = self.pieces.as_slice() {
            return piece.clone();
        }
        let mut whole = BytesMut::with_capacity(self.pieces.iter().map(Bytes::len).sum());
        for piece in &self.pieces {
            whole.extend_from_slice(piece);
        }
        whole.freeze()
    }

    /// The bytes of a range in slices of at most `step` bytes, none copied.
    pub(crate) fn slices(&self, range: std::ops::Range<u64>, step: usize) -> Vec<Bytes> {
        let mut slices = Vec::new();
        let mut start = 0;
        for piece in &self.pieces {
            let end = start + piece.len() as u64;
            let from = range.start.max(start);
            let to = range.end.min(end);
            if from < to {
                // Inside the piece, whose length is a usize.
                #[expect(clippy::cast_possible_truncation, reason = "both are within a slice in memory")]
                let mut rest = piece.slice((from - start) as usize..(to - start) as usize);
                while rest.len() > step {
                    slices.push(rest.split_to(step));
                }
                slices.push(rest);
            }
            start = end;
        }
        slices
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").field("length", &self.length).finish_non_exhaustive()
    }
}

/// What the client says about an object when it puts it or begins to upload its parts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes {
    pub(crate) content_type: Option<String>,
    pub(crate) storage_class: Option<String>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) server_side_encryption: Option<String>,
    pub(crate) kms_key_id: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// An object in the store; replaced as a whole, never changed, so that a reader keeps what it began to read.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) content: Content,
    pub(crate) etag: String,
    pub(crate) attributes: Attributes,
    pub(crate) last_modified: SystemTime,
    pub(crate) parts: Option<usize>,
    hashes: OnceLock<Hashes>,
}

/// Hashes that only Google keeps.
#[derive(Debug, Clone)]
pub(crate) struct Hashes {
    pub(crate) crc32c: String,
    /// Of what came in one piece.
    pub(crate) md5: Option<String>,
}

impl Object {
    pub(crate) fn new(content: Content, attributes: Attributes) -> Self {
        let (etag, last_modified) = (content.etag(), SystemTime::now());
        Self { etag, content, attributes, last_modified, parts: None, hashes: OnceLock::new() }
    }

    /// Computed when first asked for.
    pub(crate) fn hashes(&self) -> &Hashes {
        self.hashes.get_or_init(|| Hashes {
            crc32c: checksum::crc32c_header(&self.content.pieces),
            md5: self.parts.is_none().then(|| checksum::md5_header(&self.content.to_bytes())),
        })
    }

    pub(crate) fn inspect(&self) -> StoredObject {
        let attributes = self.attributes.clone();
        StoredObject {
            bytes: self.content.to_bytes(),
            etag: self.etag.clone(),
            last_modified: self.last_modified,
            storage_class: attributes.storage_class,
            tags: attributes.tags,
            server_side_encryption: attributes.server_side_encryption,
            kms_key_id: attributes.kms_key_id,
            checksum_crc64nvme: self.content.checksum(),
            checksum_crc32c: None,
            checksum_md5: None,
            content_type: attributes.content_type,
            metadata: attributes.metadata,
            parts: self.parts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_of_content_in_parts_are_the_range_and_no_longer_than_asked() {
        let parts =
            [&b"abcde"[..], b"", b"fgh", b"ijklmnop"].map(|part| Content::of(Bytes::from_static(part)));
        let whole = Content::joined(&parts);
        assert_eq!(whole.to_bytes(), Bytes::from_static(b"abcdefghijklmnop"));
        assert_eq!(whole.checksum(), Content::of(whole.to_bytes()).checksum());
        for start in 0..=16 {
            for end in start..=16 {
                let slices = whole.slices(start..end, 3);
                assert!(slices.iter().all(|slice| (1..=3).contains(&slice.len())));
                #[expect(clippy::cast_possible_truncation)]
                let expected = &whole.to_bytes()[start as usize..end as usize];
                assert_eq!(slices.concat(), expected);
            }
        }
    }
}
