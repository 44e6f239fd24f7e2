//! Decryption of an A2 envelope, starting at its first byte.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::a2::header::{A2Header, HeaderReader};
use crate::a2::opener::{A2Opener, BoundUuid};
use crate::a2::segments::SegmentReader;
use crate::error::DecryptError;
use crate::key_ring::KeyRing;
use crate::target::PlaintextTarget;

/// Decrypts an A2 envelope, or a range near its start, whose bytes are pushed from the first one on.
///
/// Each segment is verified before any byte of it reaches the target. After an error the target contains only
/// verified bytes, but not all of them.
pub struct A2Decryptor<T: PlaintextTarget> {
    ring: KeyRing,
    uuid: String,
    envelope_len: u64,
    /// `None` for the whole plaintext.
    wanted: Option<Range<u64>>,
    stage: Stage,
    /// `None` after an error.
    target: Option<T>,
}

enum Stage {
    Header(HeaderReader),
    Segments {
        opener: Arc<A2Opener>,
        segments: SegmentReader,
        /// Number of bytes that remain between the header and the first wanted segment.
        skip: u64,
    },
}

impl<T: PlaintextTarget> A2Decryptor<T> {
    /// Creates a decryptor for the whole envelope of the attachment `uuid`, which has `envelope_len` bytes as
    /// reported by the storage.
    ///
    /// # Errors
    /// [`DecryptError::InvalidUuid`].
    pub fn new(ring: &KeyRing, uuid: &str, envelope_len: u64, target: T) -> Result<Self, DecryptError> {
        BoundUuid::parse(uuid)?;
        Ok(Self {
            ring: ring.clone(),
            uuid: uuid.to_owned(),
            envelope_len,
            wanted: None,
            stage: Stage::Header(HeaderReader::new()),
            target: Some(target),
        })
    }

    /// Creates a decryptor for the bytes `plaintext` of the attachment, whose header and segments are fetched
    /// in one request ([`A2Geometry::range_with_header`](crate::A2Geometry::range_with_header)). Bytes after
    /// the needed ones are ignored.
    ///
    /// # Errors
    /// The same as [`new`](Self::new). [`push`](Self::push) returns [`DecryptError::Range`] once it knows the
    /// header.
    pub fn for_range(
        ring: &KeyRing,
        uuid: &str,
        envelope_len: u64,
        plaintext: Range<u64>,
        target: T,
    ) -> Result<Self, DecryptError> {
        Ok(Self { wanted: Some(plaintext), ..Self::new(ring, uuid, envelope_len, target)? })
    }

    /// Decrypts the next bytes of the envelope, any number of them.
    ///
    /// # Errors
    /// Any [`DecryptError`] except [`Truncated`](DecryptError::Truncated). Errors are final.
    pub fn push(&mut self, mut chunk: &[u8]) -> Result<(), DecryptError> {
        let mut target = self.target.take().ok_or(DecryptError::AlreadyFailed)?;
        if let Stage::Header(reader) = &mut self.stage {
            match reader.push(&mut chunk)? {
                Some(header) => self.stage = self.open_header(header)?,
                None => {
                    self.target = Some(target);
                    return Ok(());
                }
            }
        }
        if let Stage::Segments { opener, segments, skip } = &mut self.stage {
            let skipped = usize::try_from(*skip).map_or(chunk.len(), |skip| skip.min(chunk.len()));
            *skip -= skipped as u64;
            chunk = &chunk[skipped..];
            segments.push(opener, &mut chunk, &mut target)?;
        }
        if !chunk.is_empty() && self.wanted.is_none() {
            return Err(DecryptError::TooLong { expected: self.envelope_len });
        }
        self.target = Some(target);
        Ok(())
    }

    fn open_header(&self, header: A2Header) -> Result<Stage, DecryptError> {
        let header_len = header.geometry().header_len();
        let opener = A2Opener::unwrap(&self.ring, header, &self.uuid)?;
        let layout = opener.layout(self.envelope_len)?;
        let plan = match &self.wanted {
            None => layout.plan_whole(),
            Some(wanted) => layout.plan(wanted.clone())?,
        };
        let needed = plan.envelope_range();
        let skip = if needed.is_empty() { 0 } else { needed.start - header_len };
        Ok(Stage::Segments { opener: Arc::new(opener), segments: SegmentReader::new(plan), skip })
    }

    /// Returns the opener, once the header has been pushed. Keep the opener to read more ranges of the same
    /// object.
    pub fn opener(&self) -> Option<&Arc<A2Opener>> {
        match &self.stage {
            Stage::Header(_) => None,
            Stage::Segments { opener, .. } => Some(opener),
        }
    }

    /// Returns the range of the envelope that remains to be pushed: where to resume an interrupted download,
    /// and what to request if the header turned out to be longer than assumed. Until the header has been
    /// pushed, the range ends at the envelope's end.
    pub fn remaining(&self) -> Range<u64> {
        match &self.stage {
            Stage::Header(reader) => {
                let position = reader.collected() as u64;
                position..self.envelope_len.max(position)
            }
            Stage::Segments { segments, skip, .. } => {
                segments.position() - skip..segments.plan().envelope_range().end
            }
        }
    }

    /// Returns the target with the whole plaintext or range.
    ///
    /// # Errors
    /// [`DecryptError::Truncated`] if bytes are missing.
    pub fn finish(self) -> Result<T, DecryptError> {
        let Range { start: received, end: expected } = self.remaining();
        let complete = match &self.stage {
            Stage::Header(_) => false,
            Stage::Segments { segments, .. } => segments.is_complete(),
        };
        let target = self.target.ok_or(DecryptError::AlreadyFailed)?;
        if complete { Ok(target) } else { Err(DecryptError::Truncated { expected, received }) }
    }
}

impl<T: PlaintextTarget> fmt::Debug for A2Decryptor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("A2Decryptor").field("remaining", &self.remaining()).finish_non_exhaustive()
    }
}
