//! Decryption of a part of an A2 envelope whose header is known.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::a2::layout::RangePlan;
use crate::a2::opener::A2Opener;
use crate::a2::segments::SegmentReader;
use crate::error::DecryptError;
use crate::target::PlaintextTarget;

/// Turns the bytes of [`RangePlan::envelope_range`], pushed as they arrive, into exactly the plaintext of the plan.
///
/// Each segment is verified before any byte of it reaches the target. After an error the target holds verified bytes
/// only, but not all that were asked for.
pub struct A2RangeDecryptor<T: PlaintextTarget> {
    opener: Arc<A2Opener>,
    segments: SegmentReader,
    /// `None` after an error.
    target: Option<T>,
}

impl<T: PlaintextTarget> A2RangeDecryptor<T> {
    /// Prepares for a plan made with this opener's [layout](A2Opener::layout).
    pub fn new(opener: Arc<A2Opener>, plan: RangePlan, target: T) -> Self {
        Self { opener, segments: SegmentReader::new(plan), target: Some(target) }
    }

    /// Takes the next bytes, as many as there are.
    ///
    /// # Errors
    /// [`DecryptError::SegmentNotAuthentic`], [`DecryptError::TooLong`], [`DecryptError::Target`]; all are final.
    pub fn push(&mut self, mut chunk: &[u8]) -> Result<(), DecryptError> {
        let mut target = self.target.take().ok_or(DecryptError::AlreadyFailed)?;
        self.segments.push(&self.opener, &mut chunk, &mut target)?;
        if !chunk.is_empty() {
            let Range { start, end } = self.segments.plan().envelope_range();
            return Err(DecryptError::TooLong { expected: end - start });
        }
        self.target = Some(target);
        Ok(())
    }

    /// The bytes of the envelope that are still to be pushed; a download that broke off resumes there.
    pub fn remaining(&self) -> Range<u64> {
        self.segments.position()..self.segments.plan().envelope_range().end
    }

    /// Hands the target back, with the whole range.
    ///
    /// # Errors
    /// [`DecryptError::Truncated`] when bytes are missing.
    pub fn finish(self) -> Result<T, DecryptError> {
        let target = self.target.ok_or(DecryptError::AlreadyFailed)?;
        if !self.segments.is_complete() {
            let Range { start, end } = self.segments.plan().envelope_range();
            let received = self.segments.position() - start;
            return Err(DecryptError::Truncated { expected: end - start, received });
        }
        Ok(target)
    }
}

impl<T: PlaintextTarget> fmt::Debug for A2RangeDecryptor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("A2RangeDecryptor").field("remaining", &self.remaining()).finish_non_exhaustive()
    }
}
