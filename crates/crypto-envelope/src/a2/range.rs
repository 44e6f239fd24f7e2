//! Decryption of a range of an A2 envelope whose header is known.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::a2::layout::RangePlan;
use crate::a2::opener::A2Opener;
use crate::a2::segments::SegmentReader;
use crate::error::DecryptError;
use crate::target::PlaintextTarget;

/// Decrypts the bytes of [`RangePlan::envelope_range`], which are pushed as they arrive, to exactly the
/// plaintext of the plan.
///
/// Each segment is verified before any byte of it reaches the target. After an error the target contains only
/// verified bytes, but not all of them.
pub struct A2RangeDecryptor<T: PlaintextTarget> {
    opener: Arc<A2Opener>,
    segments: SegmentReader,
    /// `None` after an error.
    target: Option<T>,
}

impl<T: PlaintextTarget> A2RangeDecryptor<T> {
    /// Creates a decryptor for a plan made with this opener's [layout](A2Opener::layout).
    pub fn new(opener: Arc<A2Opener>, plan: RangePlan, target: T) -> Self {
        Self { opener, segments: SegmentReader::new(plan), target: Some(target) }
    }

    /// Decrypts the next bytes of the range, any number of them.
    ///
    /// # Errors
    /// [`DecryptError::SegmentNotAuthentic`], [`DecryptError::TooLong`], [`DecryptError::Target`]. Errors are
    /// final.
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

    /// Returns the range of the envelope that remains to be pushed: where to resume an interrupted download.
    pub fn remaining(&self) -> Range<u64> {
        self.segments.position()..self.segments.plan().envelope_range().end
    }

    /// Returns the target with the whole range.
    ///
    /// # Errors
    /// [`DecryptError::Truncated`] if bytes are missing.
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
