//! Decryption of an A2 envelope from its first byte on.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::a2::header::{A2Header, HeaderReader};
use crate::a2::opener::{A2Opener, BoundUuid};
use crate::a2::segments::SegmentReader;
use crate::error::DecryptError;
use crate::key_ring::KeyRing;
use crate::target::PlaintextTarget;

/// Decrypts an A2 envelope, or a range of one near its start, whose bytes are pushed from the first one on.
///
/// Each segment is verified before any byte of it reaches the target. After an error the target holds verified bytes
/// only, but not all.
pub struct A2Decryptor<T: PlaintextTarget> {
    ring: KeyRing,
    uuid: String,
    envelope_len: u64,
    /// `None`: everything.
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
        /// Bytes between the header and the first wanted segment that have yet to pass.
        skip: u64,
    },
}

impl<T: PlaintextTarget> A2Decryptor<T> {
    /// Prepares for the whole envelope of the attachment `uuid`; `envelope_len` is its length in bytes, as the storage
    /// reports it.
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

    /// Prepares for the bytes `plaintext` of the attachment, when header and segments are fetched in one request
    /// ([`A2Geometry::range_with_header`](crate::A2Geometry::range_with_header)). Bytes beyond the last needed one
    /// are ignored.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`DecryptError::Range`] comes from [`push`](Self::push), once the header is known.
    pub fn for_range(
        ring: &KeyRing,
        uuid: &str,
        envelope_len: u64,
        plaintext: Range<u64>,
        target: T,
    ) -> Result<Self, DecryptError> {
        Ok(Self { wanted: Some(plaintext), ..Self::new(ring, uuid, envelope_len, target)? })
    }

    /// Takes the envelope's next bytes, as many as there are.
    ///
    /// # Errors
    /// Any [`DecryptError`] but [`Truncated`](DecryptError::Truncated); all are final.
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

    /// The opener, once the header has been read: worth keeping for later ranges of the same object.
    pub fn opener(&self) -> Option<&Arc<A2Opener>> {
        match &self.stage {
            Stage::Header(_) => None,
            Stage::Segments { opener, .. } => Some(opener),
        }
    }

    /// The bytes of the envelope that are still to be pushed: where a download that broke off resumes, and what a
    /// request that assumed a shorter header did not bring. Before the header has been read, the end is the
    /// envelope's.
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

    /// Hands the target back, with the whole plaintext (or range).
    ///
    /// # Errors
    /// [`DecryptError::Truncated`] when bytes are missing.
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
